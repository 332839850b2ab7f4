"""Commands of the data side: from a search to a cube and what it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import (
    Area,
    Bands,
    Cluster,
    CompositeOption,
    End,
    FillOption,
    Json,
    MaskDilate,
    MaskErode,
    Out,
    Percentile,
    Period,
    Provider,
    Start,
    StoreOut,
    area_of,
    cluster_of,
    emit,
    example,
    note,
    offsets_of,
    recipe_of,
)
from deploy.progress import progress

app = typer.Typer()


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
    from cube.errors import StudyError
    from cube.simulate import Settings, demo_settings
    from cube.simulate import simulate as write
    from cube.yamlfile import read_yaml

    chosen = demo_settings() if demo else Settings()
    if settings is not None:
        chosen = read_yaml(settings, Settings, StudyError)
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
    period: Period = "month",
    provider: Provider = "earth-search",
    as_json: Json = False,
) -> None:
    """Find the scenes of an area and freeze them in a file."""
    import cube

    with progress("search") as report:
        recipe = recipe_of(bands, start, end, period=period)
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
    period: Period = "month",
    composite: CompositeOption = "median",
    percentile: Percentile = None,
    fill: FillOption = "neighbour-mean",
    mask_dilate: MaskDilate = 0,
    mask_erode: MaskErode = 0,
    offset: Annotated[
        list[str] | None,
        typer.Option(
            "--offset", metavar="ID=DN", help="DN to subtract from an item, 0 or 1000; repeatable."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Ask for one header of every scene: is it there?")
    ] = False,
    as_json: Json = False,
) -> None:
    """Decide which tiles of which granules make the cube, and freeze it in a file."""
    import cube
    from cube.census import census_text, unreadable

    recipe = recipe_of(
        bands,
        start,
        end,
        period=period,
        composite=composite,
        percentile=percentile,
        fill=fill,
        mask=cube.Mask(dilate=mask_dilate, erode=mask_erode),
    )
    found = cube.Scenes.load(scenes)
    made = cube.plan(area_of(area), found, recipe, offsets=offsets_of(offset or []))
    made.save(out)
    note([f"{gone.id}: {gone.reason}, {gone.detail}" for gone in made.removed], f"in {out}")
    scenes_used = [scene for grid in made.grids for scene in grid.scenes]
    faults = unreadable(scenes_used) if check else None
    note([str(fault) for fault in faults or []], "counted in the table")
    passes = cube.census(made, faults)
    facts = {
        "granules": ", ".join(grid.grid.granule for grid in made.grids),
        "tiles": made.n_tiles,
        "scenes": sum(len(grid.scenes) for grid in made.grids),
        "recipe": made.recipe.hash,
        "file": out,
    }
    if as_json:
        emit(facts | {"census": passes.reset_index().to_dict("records")}, as_json)
    else:
        emit(facts, as_json)
        kinds = "readable / found / expected" if check else "found / expected"
        typer.echo(f"\npasses of the satellites, {kinds}:\n{census_text(passes)}")


@app.command(epilog=example("cropcube build plan.json --out zones.zarr"))
def build(
    plan: Annotated[Path, typer.Argument(help="File written by `cropcube plan`.")],
    out: StoreOut,
    cluster: Cluster = None,
    max_missing: Annotated[
        float,
        typer.Option(
            "--max-missing", help="Share of a tile's scenes that may be unreadable.", min=0, max=1
        ),
    ] = 0.0,
    append: Annotated[
        bool, typer.Option("--append", help="Add the plan's period beside what the store holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build the cube of a plan into a Zarr store; continues where an earlier run stopped."""
    import cube
    from deploy.cli.counts import counted

    made = cube.load_plan(plan)
    with cluster_of(cluster) as client, progress("build") as report:
        write = cube.store.append if append else cube.store.write
        write(made, out, client=client, progress=report, max_missing=max_missing)
    counts = counted(made, out)
    facts = {"tiles": made.n_tiles, "store": out}
    if as_json:
        emit(facts | counts.to_dict(), as_json)
        return
    note(counts.notes, "in --json")
    emit(facts, as_json)
    typer.echo(f"\nshare of the looks that were masked:\n{counts.text()}")


@app.command(epilog=example("cropcube quality zones.zarr --out quality"))
def quality(
    store: Annotated[str, typer.Argument(help="Cube store: a folder or s3://bucket/prefix.")],
    out: Out,
    as_json: Json = False,
) -> None:
    """Show what a cube's values rest on: observed, filled or empty, by period and by tile."""
    import cube

    with progress("quality"):
        found = cube.quality(store)
        files = found.save(out)
    if as_json:
        emit({"files": files, **found.to_dict()}, as_json)
        return
    typer.echo(found.text())
    typer.echo("\n".join(map(str, files)))
