"""Commands of the learning side: labels, training, scores, maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deploy.cli.common import (
    Area,
    Cluster,
    Json,
    Out,
    Provider,
    Store,
    area_of,
    cluster_of,
    emit,
    example,
)
from deploy.progress import console, progress

if TYPE_CHECKING:
    from model import TileData

# Torch takes seconds to import, and `--help` should not wait for it: commands import `model`.

app = typer.Typer()

LabelsPath = Annotated[Path, typer.Option("--labels", help="Label store (labels.zarr).")]
SplitPath = Annotated[Path, typer.Option("--split", help="Split file (split.json).")]
Model = Annotated[Path, typer.Option("--model", help="Folder of a trained model.")]


def data_of(store: str, labels: Path, split: Path, **options: Any) -> TileData:
    """Return the training data of three files."""
    import model

    return model.TileData(store, labels, None, model.Split.load(split), **options)


@app.command(
    epilog=example(
        "cropcube label --store zones.zarr --parcels parcels.gpkg --zones zones.gpkg "
        "--out labels.zarr"
    )
)
def label(
    store: Store,
    parcels: Annotated[Path, typer.Option("--parcels", help="Parcel register.")],
    out: Out,
    zones: Annotated[
        Path | None, typer.Option("--zones", help="Study areas: zone, region, test.")
    ] = None,
    level: Annotated[str, typer.Option("--level", help="Level of the legend.")] = "level3_fr_ext",
    year: Annotated[int, typer.Option("--year", help="Year of the register.")] = 2023,
    erosion: Annotated[float, typer.Option("--erosion", help="Metres to shrink parcels by.")] = 0,
    as_json: Json = False,
) -> None:
    """Turn parcels into labels on the cube's grid, and write a split beside them."""
    import cube
    import model

    area = cube.store.read_plan(store).area
    known = model.load_legend("turkoglu", level, year)  # type: ignore[arg-type]
    areas = None if zones is None else model.read_zones(zones)
    with progress("label") as report:
        found = model.read_parcels(parcels, area, known)
        told = model.write_labels(
            found, store, known.compact(found), areas, out, erosion=erosion, progress=report
        )
    split = model.split_parcels(out) if zones is None else model.split_zones(out)
    split_file = split.save(out.parent / "split.json")
    console.print(str(told), markup=False)
    emit(
        {"labels": out, "split": split_file, **told.to_dict()}
        if as_json
        else {"labels": out, "split": split_file},
        as_json,
    )


@app.command(epilog=example("cropcube models --bands 10 --classes 19 --dates 24"))
def models(
    bands: Annotated[int, typer.Option("--bands", help="Bands of the input.", min=1)] = 10,
    classes: Annotated[int, typer.Option("--classes", help="Outputs.", min=1)] = 19,
    dates: Annotated[int, typer.Option("--dates", help="Dates of the input.", min=1)] = 24,
    as_json: Json = False,
) -> None:
    """List the networks: input, parameters, share of them spent on time, cost, source."""
    from dataclasses import asdict

    from model import networks

    told = [
        networks.describe(name, preset, c_in=bands, n_classes=classes, months=dates)
        for name in networks.names()
        for preset in networks.presets(name)
    ]
    if as_json:
        emit({"models": [asdict(one) for one in told]}, as_json)
        return
    line = "{:<34} {:<13} {:>10} {:>7} {:>9}  {}"
    header = ("model (preset)", "input", "parameters", "on time", "MFLOP/px", "source")
    typer.echo(line.format(*header))
    for one in told:
        cost = one.cost
        share, flop = f"{cost.time_share:.0%}", f"{cost.mflop_per_pixel:.3f}"
        name = f"{one.name} ({one.preset})"
        typer.echo(line.format(name, one.input, f"{cost.parameters:,}", share, flop, one.source))


@app.command(
    epilog=example(
        "cropcube train hybrid --store zones.zarr --labels labels.zarr --split split.json "
        "--out runs/hybrid"
    )
)
def train(
    name: Annotated[str, typer.Argument(help="Architecture.")],
    store: Store,
    labels: LabelsPath,
    split: SplitPath,
    out: Out,
    preset: Annotated[
        str | None, typer.Option("--preset", help="One that `cropcube models` lists.")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="At most.")] = 30,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Samples per step.")] = 16,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            help="cross-entropy, focal[:gamma], logit-adjusted[:tau], early-reward[:alpha].",
        ),
    ] = None,
    class_weights: Annotated[
        Literal["none", "sqrt", "effective", "inverse"],
        typer.Option("--class-weights", help="Weights against rare classes."),
    ] = "none",
    levels: Annotated[
        Literal["none", "plain", "refined"],
        typer.Option("--levels", help="Heads for the coarser levels of the legend."),
    ] = "none",
    start_from: Annotated[
        Path | None, typer.Option("--start-from", help="Model whose weights are trained further.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides order and weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a network; continues an interrupted training in the same folder."""
    import model

    kept = None if start_from is None else model.load(start_from).normalisation
    data = data_of(
        store, labels, split, batch_size=batch_size, seed=seed, augment=True, normalisation=kept
    )
    with progress(f"train {name}") as report:
        done = model.train(
            name,
            data,
            out,
            preset=preset,
            epochs=epochs,
            loss=loss,
            class_weights=class_weights,
            levels=levels,
            start_from=start_from,
            seed=seed,
            progress=report,
        )
    emit({"model": done.folder, **done.metrics}, as_json)


@app.command(
    epilog=example(
        "cropcube boost --store zones.zarr --labels labels.zarr --split split.json "
        "--out runs/xgboost"
    )
)
def boost(
    store: Store,
    labels: LabelsPath,
    split: SplitPath,
    out: Out,
    rounds: Annotated[int, typer.Option("--rounds", help="At most.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Decides the sample of pixels.")] = 0,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Train the XGBoost baseline on the same pixels."""
    import model

    data = data_of(store, labels, split, seed=seed)
    with cluster_of(cluster) as client, progress("train xgboost") as report:
        done = model.boost(data, out, client=client, rounds=rounds, seed=seed, progress=report)
    emit({"model": done.folder, **done.metrics}, as_json)


@app.command(
    epilog=example(
        "cropcube evaluate --model runs/hybrid --store zones.zarr --labels labels.zarr "
        "--split split.json --out scores"
    )
)
def evaluate(
    trained: Annotated[list[Path], typer.Option("--model", help="Model folder; repeat for more.")],
    store: Store,
    labels: LabelsPath,
    split: SplitPath,
    out: Out,
    stage: Annotated[Literal["test", "val", "train"], typer.Option("--stage")] = "test",
    buffer: Annotated[
        float, typer.Option("--buffer", help="Metres that must lie between the sets.", min=0)
    ] = 0,
    map_folder: Annotated[
        Path | None,
        typer.Option("--map", help="A finished map whose areas to estimate; default the zones."),
    ] = None,
    target_confidence: Annotated[
        float | None,
        typer.Option(
            "--target-confidence",
            help="Probability below which a pixel gets the parent of its class.",
            min=0.01,
            max=1,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score models on zones they never saw, side by side; a page of tables for each.

    Figures with and without background, by pixel, parcel and area, by zone and region, with
    intervals, areas and pictures are in OUT/MODEL/scores.md and metrics.json.
    """
    import model

    found = {}
    for folder in trained:
        with progress(f"score {folder.name}") as report:
            data = data_of(store, labels, split)
            name = folder.name
            found[name] = model.evaluate(
                folder,
                data,
                stage,
                out / name,
                buffer=buffer,
                map_folder=map_folder,
                target_confidence=target_confidence,
                progress=report,
            )
    comparison = model.compare(found)
    comparison.save(out)
    if as_json:
        emit(comparison.rows, True)
    else:
        typer.echo(comparison.text())


@app.command(epilog=example("cropcube export --model runs/hybrid --out hybrid.onnx"))
def export(
    model_folder: Model,
    out: Annotated[Path, typer.Option("--out", help="ONNX file to write.")],
    as_json: Json = False,
) -> None:
    """Write a trained network as an ONNX file, with its normalisation inside."""
    from model.artefact import load
    from model.export import export_onnx

    emit({"onnx": export_onnx(load(model_folder), out)}, as_json)


@app.command(
    epilog=example(
        "cropcube predict --model runs/hybrid --area new_area.geojson --year 2023 --out maps"
    )
)
def predict(
    model_folder: Model,
    area: Area,
    out: Out,
    provider: Provider = "earth-search",
    year: Annotated[int | None, typer.Option("--year", help="Default: the training's.")] = None,
    decision_dates: Annotated[
        bool,
        typer.Option(
            "--decision-dates", help="Also map the day of decision, for early classifiers."
        ),
    ] = False,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Map a new area with a trained model."""
    import model

    if decision_dates:
        from model.decisionmap import decision_maps
        from model.early import early_classifier

        # Known before anything is built, not after.
        early_classifier(model.load(model_folder).network())

    with cluster_of(cluster) as client, progress("map") as report:
        maps = model.predict(
            model_folder,
            area_of(area),
            out,
            provider=provider,
            year=year,
            client=client,
            progress=report,
        )
    hectares = dict(zip(maps.table["class"], maps.table["hectares"].round(2), strict=True))
    files = [str(path) for grid in maps.grids for path in (grid.classes, grid.confidence)]
    if decision_dates:
        with progress("days of decisions") as report:
            store = out / "cube.zarr"
            files += map(str, decision_maps(model_folder, store, maps, progress=report))
    if as_json:
        emit({"folder": maps.folder, "maps": files, "hectares": hectares}, as_json)
    else:
        emit({name: f"{value:.1f} ha" for name, value in hectares.items()}, as_json)
        typer.echo("\n".join(files))
