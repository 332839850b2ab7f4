"""The command that says how early crops are known."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.cli.common import Json, Store, emit, example
from deploy.cli.learning import LabelsPath, Model, SplitPath, data_of
from deploy.progress import progress

app = typer.Typer()


@app.command(
    epilog=example(
        "cropcube early --model runs/elects --store zones.zarr --labels labels.zarr "
        "--split split.json --out early"
    )
)
def early(
    model_folder: Model,
    store: Store,
    labels: LabelsPath,
    split: SplitPath,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for months.csv and months.png.")
    ] = None,
    stage: Annotated[Literal["test", "val"], typer.Option("--stage")] = "test",
    as_json: Json = False,
) -> None:
    """Accuracy after each month of the season, and when an early classifier decides."""
    from model import report
    from model.artefact import load
    from model.early import accuracy_by_month, timing
    from model.networks.early import EarlyClassifier

    model = load(model_folder)
    data = data_of(store, labels, split, normalisation=model.normalisation)
    with progress("accuracy by month") as told:
        curve = accuracy_by_month(model, data, stage, progress=told)
        decides = isinstance(model.network(), EarlyClassifier)
        found = asdict(timing(model, data, stage)) if decides else {}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        curve.to_csv(out / "months.csv", index=False, float_format="%.4f")
        report.season_picture(curve, out / "months.png")
    if as_json:
        emit({"months": curve.to_dict("records"), **found}, as_json)
        return
    typer.echo(curve.to_string(index=False, float_format="{:.3f}".format))
    if found:
        emit({name: f"{value:.3f}" for name, value in found.items()}, as_json)
