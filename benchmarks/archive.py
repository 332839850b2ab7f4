"""A synthetic year of one place: fields, noise, clouds, as Earth-Search-style items and COGs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import rasterio.warp
from scipy.ndimage import gaussian_filter, zoom

import cube
from benchmarks.alone import say

DATES, SIZE = 72, 2048
BANDS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
LEFT, TOP, EPSG = 509_760.0, 4_890_240.0, 32631
THREADS = 2


@contextmanager
def archive(
    dates: int = DATES, block: int = 1024, cloudy_blocks: float | None = None
) -> Iterator[Path]:
    """Give a folder with the archive; kept and used again where CROPCUBE_BENCHMARKS names one."""
    name = f"{dates}-{block}-{cloudy_blocks}"
    kept = os.environ.get("CROPCUBE_BENCHMARKS")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(kept or scratch) / name
        if not (folder / "plan.json").exists():
            say(f"writing an archive of {dates} dates …")
            folder.mkdir(parents=True)
            write_archive(folder, dates, block, cloudy_blocks)
            plan_of(folder, bounds()).save(folder / "plan.json")
        yield folder


def write_archive(
    folder: Path, dates: int = DATES, block: int = 1024, cloudy_blocks: float | None = None
) -> None:
    """Write fields that change over the year, sensor noise, and clouds in patches.

    With `cloudy_blocks`, that share of the blocks is wholly cloudy and the rest wholly clear.
    """
    rng = np.random.default_rng(0)
    fields = zoom(rng.uniform(500, 3500, (SIZE // 16, SIZE // 16)), 16, order=0)
    days = pd.date_range("2023-01-01", "2023-12-31", periods=dates)

    def scene(n: int) -> dict:
        noise = np.random.default_rng(n)
        name = f"S2A_31TEJ_{days[n]:%Y%m%d}_{n}_L2A"
        (folder / name).mkdir()
        season = 1 + 0.5 * np.sin(2 * np.pi * n / dates)
        for b, stem in enumerate(BANDS.values()):
            values = fields * season * (1 + 0.2 * b) + noise.normal(0, 40, fields.shape)
            write_tif(folder / name / f"{stem}.tif", values.clip(1).astype(np.uint16), 10, block)
        scl = np.where(clouds(noise, block, cloudy_blocks), 9, 5).astype(np.uint8)
        write_tif(folder / name / "SCL.tif", scl, 20, block)
        return item(name, days[n])

    with ThreadPoolExecutor(THREADS) as pool:
        items = list(pool.map(scene, range(dates)))
    collection = {"type": "FeatureCollection", "features": items}
    (folder / "items.json").write_text(json.dumps(collection))


def clouds(noise: np.random.Generator, block: int, share: float | None) -> np.ndarray:
    if share is None:
        field = gaussian_filter(noise.normal(size=(SIZE // 2, SIZE // 2)), 40)
        return field > np.quantile(field, noise.uniform(0.2, 1))
    blocks = noise.random((SIZE // block, SIZE // block)) < share
    return np.kron(blocks, np.ones((block // 2, block // 2), np.bool_)).astype(np.bool_)


def write_tif(path: Path, values: np.ndarray, pixel: int, block: int) -> None:
    profile = {
        "driver": "COG",
        "dtype": values.dtype,
        "count": 1,
        "height": values.shape[0],
        "width": values.shape[1],
        "crs": f"EPSG:{EPSG}",
        "transform": rasterio.Affine(pixel, 0, LEFT, 0, -pixel, TOP),
        "nodata": 0,
        "blocksize": block,
        "compress": "DEFLATE",
        "predictor": "YES",
        "overviews": "NONE",
    }
    with rasterio.open(path, "w", **profile) as target:
        target.write(values, 1)


def bounds(row: int = 0, col: int = 0, height: int = SIZE, width: int = SIZE) -> list[float]:
    """Return west, south, east, north of a window of the archive."""
    left, top = LEFT + 10 * col, TOP - 10 * row
    box = (left, top - 10 * height, left + 10 * width, top)
    return list(rasterio.warp.transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", *box))


def plan_of(folder: Path, area: list[float]) -> cube.Plan:
    """Search the archive and plan an area of it."""
    recipe = cube.Recipe(bands=tuple(BANDS), start="2023-01", end="2023-12")
    scenes = cube.search(tuple(area), recipe, provider=str(folder / "items.json"))
    return cube.plan(tuple(area), scenes, recipe)


def item(name: str, day: pd.Timestamp) -> dict:
    west, south, east, north = bounds()
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    stems = {**BANDS, "scl": "SCL"}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": f"{day:%Y-%m-%dT%H:%M:%S}Z",
            "proj:epsg": EPSG,
            "grid:code": "MGRS-31TEJ",
            "s2:processing_baseline": "02.14",
            "earthsearch:boa_offset_applied": False,
        },
        "links": [],
        "assets": {
            key: {
                "href": f"./{name}/{stem}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "proj:shape": [SIZE // factor, SIZE // factor],
                "proj:transform": [10 * factor, 0, LEFT, 0, -10 * factor, TOP],
                "raster:bands": [{"nodata": 0, "offset": 0}],
            }
            for key, stem in stems.items()
            for factor in [2 if key == "scl" else 1]
        },
    }
