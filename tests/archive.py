"""A small archive of real COG-like files with known pixels, for tests of reading and building."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import xarray as xr

from cube.grid import NativeGrid
from cube.recipe import BANDS
from cube.scenes import Scene, Scenes

GRID = NativeGrid(
    granule="31TEJ", epsg=32631, left=523_560.0, top=4_832_780.0, height=353, width=232
)


@dataclass
class Archive:
    """Scenes on disk beside their pixels: `dn` [time, band, y, x], `scl` [time, y, x] at 10 m."""

    scenes: Scenes
    dn: xr.DataArray
    scl: xr.DataArray
    subtract: xr.DataArray


def write_archive(
    folder: Path,
    dates: list[str],
    bands: tuple[str, ...] = ("blue", "nir"),
    grid: NativeGrid = GRID,
    subtract: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Archive:
    """Write random scenes and return them with the pixels that a cube must be made of."""
    rng = np.random.default_rng(seed)
    subtract = subtract or (0,) * len(dates)
    dn = np.empty((len(dates), len(bands), grid.height, grid.width), np.uint16)
    scl = np.empty((len(dates), grid.height, grid.width), np.uint8)
    scenes = []
    for n, date in enumerate(dates):
        name = f"S2A_{grid.granule}_{n:03d}"
        (folder / name).mkdir(parents=True)
        hrefs = {}
        coarse = rng.choice(
            [0, 3, 4, 5, 6, 7, 8, 9, 10], (-(-grid.height // 2), -(-grid.width // 2))
        ).astype(np.uint8)
        scl[n] = enlarge(coarse, 2, grid)
        hrefs["scl"] = write_tif(folder / name / "SCL.tif", coarse, grid, 20)
        for b, band in enumerate(bands):
            factor = BANDS[band] // 10
            size = (-(-grid.height // factor), -(-grid.width // factor))
            values = rng.integers(0, 6000, size).astype(np.uint16) + np.uint16(subtract[n])
            values[rng.random(size) < 0.02] = 0
            dn[n, b] = enlarge(values, factor, grid)
            hrefs[band] = write_tif(folder / name / f"{band}.tif", values, grid, BANDS[band])
        scenes.append(
            Scene(
                id=name,
                datetime=f"{date}T10:43:29Z",
                satellite="A",
                acquisition=name,
                grid=grid,
                hrefs=hrefs,
                subtract=subtract[n],
                baseline="05.09" if subtract[n] else "02.06",
                provider=f"earth-search@{folder.resolve()}",
            )
        )
    time = pd.to_datetime([f"{date}T10:43:29" for date in dates])
    coords = {"time": time, "band": list(bands)}
    return Archive(
        scenes=Scenes(source=str(folder), scenes=tuple(scenes)),
        dn=xr.DataArray(dn, dims=("time", "band", "y", "x"), coords=coords),
        scl=xr.DataArray(scl, dims=("time", "y", "x"), coords={"time": time}),
        subtract=xr.DataArray(np.array(subtract, float), dims="time", coords={"time": time}),
    )


def enlarge(values: np.ndarray, factor: int, grid: NativeGrid) -> np.ndarray:
    return np.kron(values, np.ones((factor, factor), values.dtype))[: grid.height, : grid.width]


def write_tif(path: Path, values: np.ndarray, grid: NativeGrid, pixel: int) -> str:
    profile = {
        "driver": "GTiff",
        "dtype": values.dtype,
        "count": 1,
        "height": values.shape[0],
        "width": values.shape[1],
        "crs": f"EPSG:{grid.epsg}",
        "transform": rasterio.Affine(pixel, 0, grid.left, 0, -pixel, grid.top),
        "nodata": 0,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as target:
        target.write(values, 1)
    return str(path)
