"""Commands that say how far a model can be trusted, and train it on labels that cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deploy.cli.common import Json, Out, Store, emit, example
from deploy.cli.learning import LabelsPath, Model, SplitPath, data_of
from deploy.progress import progress

if TYPE_CHECKING:
    from model import TileData
    from model.artefact import Run

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="Architecture, or xgboost.")]
Epochs = Annotated[int, typer.Option("--epochs", help="At most, of each training.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides order and weights.")]


@app.command(
    epilog=example(
        "cropcube calibrate --model runs/hybrid --store zones.zarr --labels labels.zarr "
        "--split split.json"
    )
)
def calibrate(
    model_folder: Model,
    store: Store,
    labels: LabelsPath,
    split: SplitPath,
    as_json: Json = False,
) -> None:
    """Make a model as sure as it is right, on the validation groups; kept in its folder."""
    import model

    with progress("calibrate"):
        found = model.calibrate(model_folder, data_of(store, labels, split))
    if as_json:
        emit({"model": model_folder, "levels": found.table.to_dict("records")}, as_json)
    else:
        typer.echo(found.table.to_string(index=False, float_format="{:.3f}".format))


@app.command(
    epilog=example(
        "cropcube trial hybrid --what regions --store zones.zarr --labels labels.zarr "
        "--split split.json --out trials"
    )
)
def trial(
    name: Name,
    store: Store,
    labels: LabelsPath,
    split: SplitPath,
    out: Out,
    what: Annotated[
        Literal["random-split", "regions"],
        typer.Option("--what", help="A random split beside the spatial one, or each region."),
    ] = "regions",
    epochs: Epochs = 30,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Samples per step.")] = 16,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train again and again: without each region, or on a random split beside the spatial one."""
    import model

    data = data_of(store, labels, split, batch_size=batch_size, seed=seed, augment=True)
    train = _trainer(name, epochs, seed)
    with progress(f"{what} of {name}") as report:
        if what == "regions":
            found = model.transfer(train, data, out, progress=report)
        else:
            found = model.compare_splits(train, data, out)
    if as_json:
        emit(found.rows, True)
    else:
        typer.echo(found.text())


@app.command(
    epilog=example(
        "cropcube weak tempcnn --store zones.zarr --labels labels.zarr --split split.json "
        "--out runs/weak"
    )
)
def weak(
    name: Annotated[str, typer.Argument(help="Architecture that reads single pixels.")],
    store: Store,
    labels: LabelsPath,
    split: SplitPath,
    out: Out,
    per_class: Annotated[
        int, typer.Option("--per-class", help="Pixels of each class and zone to choose from.")
    ] = 500,
    total: Annotated[
        int, typer.Option("--total", help="Pixels to train on, shared out among the classes.")
    ] = 5000,
    epochs: Epochs = 30,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train on the labels that a first model confirms; erode borders with `label --erosion`."""
    import model
    from model.datasets.cube import pixel_set

    samples = pixel_set(store, labels, per_class=per_class, seed=seed)
    data = model.SetData(samples, model.Split.load(split), seed=seed)
    with progress(f"weak labels, {name}"):
        found = model.weak_stage(name, data, out, total=total, epochs=epochs, seed=seed)
    if as_json:
        told = {"model": found.run.folder, "before_and_after": found.table.rows}
        emit({**told, "classes": found.counts.to_dict("records")}, as_json)
        return
    typer.echo(found.counts.to_string(index=False))
    typer.echo(found.table.text())


def _trainer(name: str, epochs: int, seed: int) -> Callable[[TileData, Path], Run]:
    """Return what trains one model of a trial."""
    import model

    def train(data: TileData, out: Path) -> Any:
        if name == "xgboost":
            return model.boost(data, out, seed=seed)
        return model.train(name, data, out, epochs=epochs, seed=seed)

    return train
