"""A whole build from local COGs against bare decoding and against the idioms of its peers.

72 dates × (4 bands + SCL) × 2048², DEFLATE with predictor 2, blocks of 1024; every path runs in a
process of its own, on two threads, and keeps its result in memory. Reading items and planning are
outside the clock for all; building a graph is inside.
"""

from __future__ import annotations

import json
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401 - Dask would import it inside the clock
import numpy as np
import odc.stac
import pystac
import rasterio
import stackstac
import xarray as xr

import cube
from benchmarks.alone import alone, in_turn, run_path, show
from benchmarks.archive import BANDS, DATES, EPSG, LEFT, SIZE, THREADS, TOP, archive

KEEP = (4, 5, 6, 7)
#: Chunks of the idioms: the blocks of the files, so that none is decoded twice.
CHUNK = 1024


def decode(folder: str) -> dict[str, Any]:
    """Read every byte of every file with GDAL and keep nothing: the floor of a build by GDAL."""

    def read(path: Path) -> None:
        with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(path) as source:
            source.read(1)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, sorted(Path(folder).rglob("*.tif"))))
    return {}


def cropcube(folder: str) -> dict[str, Any]:
    plan = cube.load_plan(Path(folder) / "plan.json")
    start = time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        result = cube.build(plan).persist().reflectance
    return {"wall": time.perf_counter() - start, "sample": sample(result)}


def odc_stac(folder: str) -> dict[str, Any]:
    """What most notebooks do: odc-stac, where, resample, median, fill."""
    items = read_items(folder)
    start = time.perf_counter()
    load = {"chunks": {"x": CHUNK, "y": CHUNK}, "nodata": 0, "groupby": "id"}
    ds = odc.stac.load(items, bands=[*BANDS], dtype="uint16", **load)
    scl = odc.stac.load(items, bands=["scl"], dtype="uint8", like=ds.odc.geobox, **load).scl
    result = median_and_fill(ds.to_dataarray("band"), scl)
    return {"wall": time.perf_counter() - start, "sample": sample(result)}


def stackstac_(folder: str) -> dict[str, Any]:
    """The same with stackstac."""
    items = read_items(folder)
    start = time.perf_counter()
    load = {
        "epsg": EPSG,
        "resolution": 10,
        "bounds": (LEFT, TOP - 10 * SIZE, LEFT + 10 * SIZE, TOP),
        "chunksize": CHUNK,
        "dtype": "uint16",
        "fill_value": np.uint16(0),
        "rescale": False,
        "xy_coords": "center",
    }
    stack = stackstac.stack(items, assets=[*BANDS, "scl"], **load)
    result = median_and_fill(stack.sel(band=[*BANDS]), stack.sel(band="scl", drop=True))
    return {"wall": time.perf_counter() - start, "sample": sample(result)}


def median_and_fill(dn: xr.DataArray, scl: xr.DataArray) -> xr.DataArray:
    dn = dn.transpose("time", "band", "y", "x").reset_coords(drop=True)
    scl = scl.reset_coords(drop=True)
    median = dn.where(scl.isin(KEEP) & (dn > 0)).resample(time="MS").median()
    before, after = median.ffill("time"), median.bfill("time")
    filled = median.fillna((before + after) / 2).fillna(before).fillna(after)
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        return filled.transpose("time", "band", "y", "x").persist()


def read_items(folder: str) -> list[pystac.Item]:
    warnings.filterwarnings("ignore")
    source = Path(folder) / "items.json"
    items = [pystac.Item.from_dict(found) for found in json.loads(source.read_text())["features"]]
    for found in items:
        found.set_self_href(str(source))
        found.make_asset_hrefs_absolute()
    return items


def sample(result: xr.DataArray) -> list[int]:
    values = result[:, :, ::37, ::41].fillna(0).values
    return [int(value) for value in np.floor(values + 0.5).ravel()]


PATHS = {
    "decode": decode,
    "cropcube": cropcube,
    "odc-stac": odc_stac,
    "stackstac": stackstac_,
}


def main() -> None:
    with archive() as folder:
        size = sum(path.stat().st_size for path in folder.rglob("*.tif")) / 2**30
        alone("build", "decode", folder)  # page cache warm for all
        rows = in_turn(3, {name: partial(alone, "build", name, folder) for name in PATHS})
    ours = rows["cropcube"]
    ratios = {
        "cropcube / decode": ours["wall"] / rows["decode"]["wall"],
        "odc-stac / cropcube": rows["odc-stac"]["wall"] / ours["wall"],
        "stackstac / cropcube": rows["stackstac"]["wall"] / ours["wall"],
    }
    samples = {name: row.pop("sample") for name, row in rows.items() if name != "decode"}
    difference = {
        name: int(np.abs(np.subtract(samples["cropcube"], values)).max())
        for name, values in samples.items()
        if name != "cropcube"
    }
    lines = [
        f"{DATES} dates × (4 bands + SCL) × {SIZE}², {size:.2f} GiB, {THREADS} threads",
        *(
            f"{name:<10} {row['wall']:7.1f} s wall {row['cpu']:7.1f} s CPU  "
            f"peak {row['peak']:5.2f} GiB"
            for name, row in rows.items()
        ),
        *(f"{name:<22} {ratio:6.2f} × the wall time" for name, ratio in ratios.items()),
        *(f"largest difference to {name}: {value} DN" for name, value in difference.items()),
    ]
    show({"paths": rows, "ratios": ratios, "difference": difference}, lines)


if __name__ == "__main__":
    run_path(PATHS)
