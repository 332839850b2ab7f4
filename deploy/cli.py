"""The command `cropcube`: the same steps as from Python, from files."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cube.errors import CropcubeError
from deploy.progress import console, progress

if TYPE_CHECKING:
    from cube import Recipe
    from model import TileData

# Imports of the floors below are made inside the commands: Torch alone takes seconds, and `--help`
# should not wait for it.

app = typer.Typer(
    name="cropcube",
    help="From public Sentinel-2 imagery to crop maps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Area = Annotated[
    str, typer.Option("--area", help="GeoJSON or GeoPackage file, or 'west,south,east,north'.")
]
Provider = Annotated[
    str, typer.Option("--provider", help="Catalogue name, STAC API URL, or a file of items.")
]
Bands = Annotated[str, typer.Option("--bands", help="Comma-separated common names.")]
Start = Annotated[str, typer.Option("--start", help="First month, YYYY-MM.")]
End = Annotated[str, typer.Option("--end", help="Last month, YYYY-MM.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Cluster = Annotated[
    str | None, typer.Option("--cluster", help="'local' or tls://host:port; default this process.")
]
Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
Store = Annotated[Path, typer.Option("--store", help="Cube store (zones.zarr).")]
LabelsPath = Annotated[Path, typer.Option("--labels", help="Label store (labels.zarr).")]
SplitPath = Annotated[Path, typer.Option("--split", help="Split file (split.json).")]
Model = Annotated[Path, typer.Option("--model", help="Folder of a trained model.")]


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


@contextmanager
def cluster_of(where: str | None) -> Iterator[Any]:
    """Give a client of the cluster asked for, or None for this process."""
    if where is None:
        yield None
        return
    from deploy.cluster import open_cluster

    with open_cluster(where) as client:
        console.print(f"cluster: {client.dashboard_link}")
        yield client


def area_of(text: str) -> Any:
    """Return a box of four numbers, or the path as it is."""
    parts = text.split(",")
    if len(parts) != 4:
        return text
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        return text


def recipe_of(bands: str, start: str, end: str, fill: str = "neighbour-mean") -> Recipe:
    """Return the recipe that the options describe."""
    from cube import Recipe

    names = tuple(band.strip() for band in bands.split(","))
    return Recipe(bands=names, start=start, end=end, fill=fill)


def data_of(store: Path, labels: Path, split: Path, **options: Any) -> TileData:
    """Return the training data of three files."""
    import model

    return model.TileData(store, labels, None, model.Split.load(split), **options)


@app.command(epilog=example("cropcube run studies/demo.yaml --out demo"))
def run(
    study: Annotated[Path, typer.Argument(help="Study file.")],
    out: Annotated[Path | None, typer.Option("--out", help="Default: the study's name.")] = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Run a whole study: search, cube, labels, training, scores, map."""
    from deploy.study import run_study

    with cluster_of(cluster) as client:
        results = run_study(study, out or Path(study.stem), client=client, step=progress)
    if as_json:
        emit({"folder": results.folder, "scores": results.comparison.rows}, as_json)
        return
    typer.echo(results.comparison.text())
    facts = {
        "map": results.folder / "map",
        "scores": results.folder / "scores",
        "pictures": ", ".join(sorted({str(path.parent) for path in results.pictures})),
        "seconds": f"{results.seconds:.0f}",
    }
    emit({key: value for key, value in facts.items() if results.map or key != "map"}, False)


@app.command(epilog=example("cropcube simulate --out archive --demo"))
def simulate(
    out: Out,
    demo: Annotated[bool, typer.Option("--demo", help="The demo's small archive.")] = False,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML with simulation settings.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Decides every random draw.")] = None,
    as_json: Json = False,
) -> None:
    """Write a simulated Sentinel-2 archive with parcels and zones."""
    from cube.simulate import Settings, demo_settings
    from cube.simulate import simulate as write
    from deploy.yamlfile import read_yaml

    chosen = demo_settings() if demo else Settings()
    if settings is not None:
        chosen = read_yaml(settings, Settings)
    if seed is not None:
        chosen = chosen.model_copy(update={"seed": seed})
    with progress("simulate") as report:
        archive = write(out, chosen, report)
    emit({"items": archive.items, "parcels": archive.parcels, "zones": archive.zones}, as_json)


@app.command(
    epilog=example(
        "cropcube search --area 3.29,43.61,3.32,43.64 --start 2023-01 --end 2023-12 "
        "--out scenes.json"
    )
)
def search(
    area: Area,
    start: Start,
    end: End,
    out: Out,
    bands: Bands = "blue,green,red,nir",
    provider: Provider = "earth-search",
    as_json: Json = False,
) -> None:
    """Find the scenes of an area and freeze them in a file."""
    import cube

    with progress("search") as report:
        recipe = recipe_of(bands, start, end)
        scenes = cube.search(area_of(area), recipe, provider, progress=report)
    scenes.save(out)
    granules = sorted({scene.grid.granule for scene in scenes})
    facts = {
        "scenes": len(scenes),
        "removed": len(scenes.removed),
        "granules": ", ".join(granules),
        "file": out,
    }
    emit(facts, as_json)


@app.command(
    epilog=example(
        "cropcube plan --area area.geojson --scenes scenes.json --start 2023-01 --end 2023-12 "
        "--out plan.json"
    )
)
def plan(
    area: Area,
    scenes: Annotated[Path, typer.Option("--scenes", help="File written by `cropcube search`.")],
    start: Start,
    end: End,
    out: Out,
    bands: Bands = "blue,green,red,nir",
    fill: Annotated[
        Literal["neighbour-mean", "linear", "none"], typer.Option("--fill", help="Gap fill.")
    ] = "neighbour-mean",
    as_json: Json = False,
) -> None:
    """Decide which tiles of which granules make the cube, and freeze it in a file."""
    import cube

    found = cube.Scenes.load(scenes)
    made = cube.plan(area_of(area), found, recipe_of(bands, start, end, fill))
    made.save(out)
    removed = [f"{gone.id}: {gone.reason}, {gone.detail}" for gone in made.removed]
    for line in removed:
        console.print(line, markup=False)
    facts = {
        "granules": ", ".join(grid.grid.granule for grid in made.grids),
        "tiles": made.n_tiles,
        "scenes": sum(len(grid.scenes) for grid in made.grids),
        "recipe": made.recipe.hash,
        "file": out,
    }
    emit(facts, as_json)


@app.command(epilog=example("cropcube build plan.json --out zones.zarr"))
def build(
    plan: Annotated[Path, typer.Argument(help="File written by `cropcube plan`.")],
    out: Out,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Build the cube of a plan into a Zarr store; continues where an earlier run stopped."""
    import cube

    made = cube.load_plan(plan)
    with cluster_of(cluster) as client, progress("build") as report:
        cube.store.write(made, out, client=client, progress=report)
    emit({"tiles": made.n_tiles, "store": out}, as_json)


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
    preset: Annotated[str, typer.Option("--preset", help="reference or lite.")] = "lite",
    epochs: Annotated[int, typer.Option("--epochs", help="At most.")] = 30,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Samples per step.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Decides order and weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a network; continues an interrupted training in the same folder."""
    import model

    data = data_of(store, labels, split, batch_size=batch_size, seed=seed, augment=True)
    with progress(f"train {name}") as report:
        done = model.train(
            name, data, out, preset=preset, epochs=epochs, seed=seed, progress=report
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
    as_json: Json = False,
) -> None:
    """Score models on zones they never saw, side by side."""
    import model

    found = {}
    for folder in trained:
        with progress(f"score {folder.name}") as report:
            data = data_of(store, labels, split)
            name = folder.name
            found[name] = model.evaluate(folder, data, stage, out / name, progress=report)
    comparison = model.compare(found)
    comparison.save(out)
    if as_json:
        emit(comparison.rows, True)
    else:
        typer.echo(comparison.text())


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
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Map a new area with a trained model."""
    import model

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
    if as_json:
        emit({"folder": maps.folder, "maps": files, "hectares": hectares}, as_json)
    else:
        emit({name: f"{value:.1f} ha" for name, value in hectares.items()}, as_json)
        typer.echo("\n".join(files))


def main() -> None:
    """Run the command; mistakes of the user end with one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    try:
        app()
    except CropcubeError as error:
        console.print(f"cropcube: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("cropcube: interrupted; run the same command again to continue")
        sys.exit(130)


if __name__ == "__main__":
    main()
