"""Commands that compare: many models on one data set, one model on less and less."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.common import Json, Out, emit, example
from deploy.progress import console, progress

if TYPE_CHECKING:
    from model.benchmark import Budget
    from model.sampleset import SampleSet

# Torch takes seconds to import, and `--help` should not wait for it: commands import `model`.

app = typer.Typer()

#: Of `ablate years`, where nothing else is said.
OTHER_YEAR = {"simulated": "simulated-2024", "fr-rpg-2023": "fr-rpg-2022"}

Name = Annotated[
    str,
    typer.Argument(
        help="Data set: simulated, us-cdl-arkansas, us-cdl-california, fr-rpg-2023, fr-rpg-2022, "
        "beziers …"
    ),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data; default $CROPCUBE_DATA.")
]
Seeds = Annotated[int, typer.Option("--seeds", help="Trainings of each model.", min=1)]
Folds = Annotated[int, typer.Option("--folds", help="Of the cross-validation.", min=2)]
Epochs = Annotated[int, typer.Option("--epochs", help="Of networks.", min=1)]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Samples per step.", min=1)]
Loss = Annotated[
    str | None,
    typer.Option("--loss", help="As for train: focal:2, logit-adjusted, early-reward:0.2 …"),
]
Monthly = Annotated[
    bool, typer.Option("--monthly", help="Monthly medians with gaps filled, not all dates.")
]


def _samples(name: str, data: Path | None, out: Path, monthly: bool) -> SampleSet:
    from model.datasets import composites
    from model.datasets.catalogue import DATASETS, load_set

    samples = load_set(name, data, out / "data")
    about = DATASETS[name]
    console.print(f"{name}: folds of {about.groups}; {about.source}", markup=False)
    return composites.monthly(samples) if monthly else samples


def _budget(folds: int, epochs: int, batch_size: int, loss: str | None) -> Budget:
    from model.benchmark import Budget

    return Budget(folds=folds, epochs=epochs, batch_size=batch_size, loss=loss)


@app.command(
    epilog=example(
        "cropcube benchmark us-cdl-california --data shared/data "
        "--models random-forest,xgboost,tempcnn:small,tempcnn:small+xgboost --out bench"
    )
)
def benchmark(
    name: Name,
    out: Out,
    models: Annotated[
        str,
        typer.Option(
            "--models",
            help="Comma-separated: random-forest, xgboost, networks of `cropcube models` "
            "(tempcnn:small is a preset), and ensembles (ltae+xgboost).",
        ),
    ] = "",
    data: Data = None,
    seeds: Seeds = 5,
    folds: Folds = 5,
    epochs: Epochs = 12,
    batch_size: BatchSize = 128,
    loss: Loss = None,
    monthly: Monthly = False,
    random: Annotated[
        bool, typer.Option("--random/--no-random", help="Random folds beside spatial ones.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Compare models on one data set: same folds, budget and seeds; goes on where it was."""
    from model.benchmark import benchmark as run

    samples = _samples(name, data, out, monthly)
    asked = models or ("xgboost,hybrid" if samples.kind == "image" else _SERIES)
    with progress(f"benchmark {name}") as report:
        table = run(
            samples,
            [one.strip() for one in asked.split(",")],
            out,
            seeds=range(seeds),
            budget=_budget(folds, epochs, batch_size, loss),
            random=random,
            progress=report,
        )
    if as_json:
        emit(table.to_dict(), True)
    else:
        typer.echo(table.markdown())


_SERIES = "random-forest,xgboost,tempcnn:small,ltae,tempcnn:small+xgboost"


@app.command(
    epilog=example(
        "cropcube ablate us-cdl-arkansas --what shuffle-time --data shared/data --out ablations"
    )
)
def ablate(
    name: Name,
    what: Annotated[
        str,
        typer.Option(
            "--what",
            help="shuffle-time, time-share, composites, dates, bands, years or label-noise.",
        ),
    ],
    out: Out,
    model: Annotated[str, typer.Option("--model", help="As for benchmark.")] = "",
    other: Annotated[
        str | None, typer.Option("--other", help="Data set of another year, for years.")
    ] = None,
    data: Data = None,
    seeds: Seeds = 1,
    folds: Folds = 5,
    epochs: Epochs = 12,
    batch_size: BatchSize = 128,
    loss: Loss = None,
    monthly: Monthly = False,
    as_json: Json = False,
) -> None:
    """Train a model on variants of a data set; a table beside the published one."""
    from model.ablate import ablate as run

    samples = _samples(name, data, out, monthly)
    other = other or (OTHER_YEAR.get(name) if what == "years" else None)
    with progress(f"ablate {what}") as report:
        found = run(
            samples,
            what,  # type: ignore[arg-type]
            out,
            model=model or ("hybrid" if samples.kind == "image" else "tempcnn:small"),
            other_year=None if other is None else _samples(other, data, out, monthly),
            seeds=range(seeds),
            budget=_budget(folds, epochs, batch_size, loss),
            progress=report,
        )
    if as_json:
        emit(found.to_dict(), True)
    else:
        typer.echo(found.markdown())
