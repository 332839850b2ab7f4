"""What files and stores of real scenes take per pixel: the facts behind `cropcube job estimate`.

Set CROPCUBE_DATA to the folder of the real archives.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

import cube
from benchmarks.alone import show
from cube.ranges import Source
from cube.tiff import read_layout

#: Archive → first and last month.
ARCHIVES = {
    "beziers-2018": ("2018-01", "2018-12"),
    "flanders-2018": ("2017-08", "2018-11"),
    "flanders-2019": ("2018-08", "2019-11"),
}
TEN = ("B02", "B03", "B04", "B08")
#: Share of a pyramid of halved images in the whole file: 1/4 + 1/16 + … over 1 + 1/4 + ….
OVERVIEWS = 0.25


def files(folder: Path) -> dict[str, float]:
    """Return bytes per pixel of blocks, per kind of asset."""
    size: dict[str, int] = defaultdict(int)
    pixels: dict[str, int] = defaultdict(int)
    for path in folder.glob("*/*.tif"):
        layout = read_layout(Source(str(path)))
        ten = any(name in path.stem for name in TEN)
        kind = "scl" if "SCL" in path.stem else "10 m" if ten else "20 m"
        size[kind] += int(layout.sizes.sum())
        pixels[kind] += layout.height * layout.width
    return {f"bytes per pixel, {kind}": size[kind] / pixels[kind] for kind in sorted(size)}


def store(folder: Path, start: str, end: str) -> dict[str, float]:
    """Return stored bytes over those of the integers."""
    recipe = cube.Recipe(bands=("green", "red", "nir", "swir16"), start=start, end=end)
    scenes = cube.search((-5.0, 40.0, 9.0, 52.0), recipe, provider=folder / "items.json")
    grid = next(iter(scenes)).grid
    plan = cube.plan(grid.geobox(grid.window).extent.to_crs("EPSG:4326").geom, scenes, recipe)
    with tempfile.TemporaryDirectory() as out:
        root = cube.store.write(plan, Path(out) / "cube.zarr")
        shards = [path for path in root.rglob("c/**/*") if path.is_file()]
        stored = sum(path.stat().st_size for path in shards)
    pixels = sum(tile.window.height * tile.window.width for tile in plan.grids[0].tiles)
    integers = pixels * len(recipe.periods) * (2 * len(recipe.bands) + 1)
    return {"stored over integers": stored / integers}


def clear(folder: Path) -> dict[str, float]:
    """Return the share of scenes with a clear pixel anywhere: vegetation, soil, water, unclear."""
    seen = []
    for path in folder.glob("*/*SCL*.tif"):
        with rasterio.open(path) as source:
            seen.append(bool(np.isin(source.read(1), (4, 5, 6, 7)).any()))
    return {"scenes with a clear look": float(np.mean(seen))}


def published(folder: Path) -> dict[str, float]:
    """Return bytes per pixel of whole files, overviews taken off, as items of Collection 1 say."""
    found: dict[str, list[float]] = defaultdict(list)
    for path in folder.glob("*sentinel-2-c1-l2a*"):
        for key, asset in json.loads(path.read_text())["assets"].items():
            if key in ("red", "swir16", "scl") and "file:size" in asset:
                pixels = float(np.prod(asset["proj:shape"]))
                found[key].append(asset["file:size"] * (1 - OVERVIEWS) / pixels)
    return {
        f"bytes per pixel, {key}, {name}": float(np.quantile(sizes, quantile))
        for key, sizes in sorted(found.items())
        for name, quantile in (("least", 0.0), ("median", 0.5), ("most", 1.0))
    }


def main() -> None:
    if not (data := os.environ.get("CROPCUBE_DATA")):
        raise SystemExit("CROPCUBE_DATA is not set: no real archives on this machine")
    rows: dict[str, Any] = {}
    for name, period in ARCHIVES.items():
        folder = Path(data) / "archive" / name
        rows[name] = files(folder) | store(folder, *period) | clear(folder)
    rows["whole granules, Collection 1"] = published(Path(data) / "stac-items" / "items")
    lines = []
    for name, facts in rows.items():
        lines += [name, *(f"  {fact:<32} {value:6.3f}" for fact, value in facts.items())]
    show(rows, lines)


if __name__ == "__main__":
    main()
