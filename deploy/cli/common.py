"""What the commands share: options, the ways to print a result, and where work runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cube.errors import PlanError
from cube.recipe import Composite, Fill, Recipe
from deploy.progress import console

#: Notes that a command prints; all of them are in its file or in its JSON.
NOTES_SHOWN = 20

Area = Annotated[
    str, typer.Option("--area", help="GeoJSON or GeoPackage file, or 'west,south,east,north'.")
]
Provider = Annotated[
    str,
    typer.Option(
        "--provider",
        help="Catalogue name, STAC API URL, provider file (.yaml, as "
        "studies/provider-example.yaml), or a file of items.",
    ),
]
Bands = Annotated[str, typer.Option("--bands", help="Comma-separated common names.")]
Start = Annotated[str, typer.Option("--start", help="First month or day: YYYY-MM, YYYY-MM-DD.")]
End = Annotated[str, typer.Option("--end", help="Last month or day, included.")]
Period = Annotated[
    str, typer.Option("--period", help="month, dekad, or as in pandas: 2MS, QS, W-MON, 16D.")
]
CompositeOption = Annotated[
    Composite,
    typer.Option("--composite", help="How the clear looks of a period become one; series: all."),
]
Percentile = Annotated[
    int | None, typer.Option("--percentile", help="1 to 99, with --composite percentile.")
]
FillOption = Annotated[Fill, typer.Option("--fill", help="Gap fill.")]
MaskDilate = Annotated[
    int, typer.Option("--mask-dilate", help="Metres by which masked areas grow.")
]
MaskErode = Annotated[
    int, typer.Option("--mask-erode", help="Metres by which they shrink first: specks go.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", help="local, gateway, slurm or tls://host:port; default this process."
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
Store = Annotated[
    str, typer.Option("--store", help="Cube store: zones.zarr or s3://bucket/prefix.")
]
StoreOut = Annotated[
    str, typer.Option("--out", help="Where to write: a folder or s3://bucket/prefix.")
]


def example(command: str) -> str:
    """Return the epilogue that shows a command's example."""
    return f"[bold]Example:[/bold] {command}"


def emit(result: dict[str, Any], as_json: bool) -> None:
    """Print a result to stdout: JSON for programs, lines for people."""
    if as_json:
        typer.echo(json.dumps(result, default=str))
        return
    width = max(len(key) for key in result)
    for key, value in result.items():
        typer.echo(f"{key:<{width}}  {value}")


def note(lines: Sequence[str], all_of_them: str) -> None:
    """Print the first lines to stderr, and where all of them are."""
    for line in lines[:NOTES_SHOWN]:
        console.print(line, markup=False)
    if len(lines) > NOTES_SHOWN:
        more = len(lines) - NOTES_SHOWN
        console.print(f"… and {more} more, {all_of_them}", markup=False)


@contextmanager
def cluster_of(where: str | None) -> Iterator[Any]:
    """Give a client of the cluster asked for, or None for this process."""
    if where is None:
        yield None
        return
    from deploy.cluster import open_cluster

    with open_cluster(where) as cluster:
        console.print(f"cluster: {cluster.name} {cluster.dashboard_link}", markup=False)
        yield cluster.client


def area_of(text: str) -> Any:
    """Return a box of four numbers, or the path as it is."""
    parts = text.split(",")
    if len(parts) != 4:
        return text
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        return text


def recipe_of(bands: str, start: str, end: str, **rules: Any) -> Recipe:
    """Return the recipe that the options describe."""
    names = tuple(band.strip() for band in bands.split(","))
    return Recipe(bands=names, start=start, end=end, **rules)


def offsets_of(texts: Sequence[str]) -> dict[str, int]:
    """Return what ``ID=0`` and ``ID=1000`` say.

    Raises
    ------
    PlanError
        If a text is not of that form.
    """
    offsets = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not (name and equals and value.isdecimal()):
            raise PlanError(f"--offset {text}: write the item's id and the DN to subtract, ID=1000")
        offsets[name] = int(value)
    return offsets
