"""Planning: France and 10 000 km² of it, a year of simulated scenes; nothing is read.

The scenes are made in memory before the clock starts: how long a search takes is the catalogue's
affair.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr
from pyproj import Geod

from benchmarks.alone import say, show
from cube.area import read_area
from cube.build import build
from cube.grid import NativeGrid, to_utm, utm_zone, whole_granule
from cube.ownership import lonlat
from cube.planning import load_plan, plan
from cube.recipe import Recipe
from cube.scenes import Scene, Scenes

BANDS = ("blue", "green", "red", "nir")
YEAR = Recipe(bands=BANDS, start="2023-01", end="2023-12")
#: About mainland France, anticlockwise from Brittany; longitude, latitude.
OUTLINE = [
    *((-4.7, 48.4), (-4.4, 47.9), (-2.5, 47.3), (-1.15, 46.2), (-1.7, 43.3), (3.1, 42.45)),
    *((3.1, 43.1), (6.1, 43.05), (7.5, 43.8), (7.0, 44.2), (7.0, 45.9), (6.1, 46.3)),
    *((7.55, 47.55), (8.2, 48.97), (5.9, 49.5), (4.2, 49.97), (2.55, 51.1), (1.6, 50.9)),
    *((0.1, 49.5), (-1.9, 49.7), (-1.6, 48.65)),
]
REGION = (1.0, 47.3, 2.33, 48.2)
#: Columns at the borders of zones for which ESA has no granules at these latitudes.
WITHOUT_GRANULES = {30: "", 31: "B", 32: "K"}


def france() -> shapely.Polygon:
    """Return the outline with as many vertices as a map's."""
    line = shapely.segmentize(shapely.Polygon(OUTLINE), 0.002)
    rough = np.random.default_rng(0).normal(0, 3e-4, shapely.get_coordinates(line).shape)
    rough[-1] = rough[0]
    return shapely.Polygon(shapely.get_coordinates(line) + rough)


def granules(area: shapely.Polygon) -> list[NativeGrid]:
    """Return the granules that hold the area, in three UTM zones."""
    columns = {30: "STUVWXYZ", 31: "ABCDEFGH", 32: "JKLMNPQR"}
    found = []
    for zone, band in product(columns, "TU"):
        for column, row in product(columns[zone], "ABCDEFGHJKLMNPQRSTUV"):
            if column in WITHOUT_GRANULES[zone]:
                continue
            grid = whole_granule(f"{zone}{band}{column}{row}")
            x, y = np.array(lonlat(grid, grid.owned).exterior.coords).T
            middle = to_utm(grid.epsg).transform(grid.left, grid.top - 50_000, direction="INVERSE")
            in_band = (40 if band == "T" else 48) <= middle[1] < (48 if band == "T" else 56)
            if (
                in_band
                and (utm_zone(x, y) == zone).any()
                and area.intersects(lonlat(grid, grid.owned))
            ):
                found.append(grid)
    return found


def scenes_of(grids: list[NativeGrid]) -> Scenes:
    """Return a year of two satellites: 73 or, where two orbits meet, 146 passes a granule."""
    root = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs"
    scenes = []
    for n, grid in enumerate(grids):
        for orbit in range(1 + n % 2):
            days = pd.date_range("2023-01-01T10:50", "2023-12-31", freq="5D") + pd.Timedelta(
                2 * orbit, "D"
            )
            for m, time_ in enumerate(days[days < "2024"]):
                satellite, stamp = "AB"[m % 2], f"{time_:%Y%m%dT%H%M%S}"
                name = f"S2{satellite}_{grid.granule}_{stamp[:8]}_{orbit}_L2A"
                scenes.append(
                    Scene(
                        id=name,
                        datetime=f"{time_.isoformat()}.024000Z",
                        satellite=satellite,
                        acquisition=f"S2{satellite}_{stamp}",
                        grid=grid,
                        hrefs={band: f"{root}/{name}/{band}.tif" for band in (*BANDS, "scl")},
                        subtract=0,
                        baseline="05.09",
                        provider="earth-search",
                    )
                )
    return Scenes(source="simulated", scenes=tuple(scenes))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def graph_of(cube: xr.Dataset | xr.DataTree) -> tuple[int, float]:
    """Return the number of keys and the MB of the pickled graphs, as a scheduler would get them."""
    parts = [cube] if isinstance(cube, xr.Dataset) else [leaf.to_dataset() for leaf in cube.leaves]
    graphs = [dict(part.__dask_graph__()) for part in parts]
    return sum(map(len, graphs)), sum(len(pickle.dumps(graph)) for graph in graphs) / 1e6


def measure(area: Any, scenes: Scenes) -> dict[str, float]:
    shape = read_area(area)
    made, planning = timed(lambda: plan(shape, scenes, YEAR))
    with tempfile.TemporaryDirectory() as folder:
        path, saving = timed(lambda: made.save(Path(folder) / "plan.json"))
        loaded, loading = timed(lambda: load_plan(path))
        size = path.stat().st_size / 1e6
    if loaded != made:
        raise RuntimeError("the plan read back is another plan")
    cube, building = timed(lambda: build(loaded))
    keys, graph = graph_of(cube)
    return {
        "km2": abs(Geod(ellps="WGS84").geometry_area_perimeter(shape)[0]) / 1e6,
        "granules": len(made.grids),
        "scenes": sum(len(grid.scenes) for grid in made.grids),
        "tiles": made.n_tiles,
        "plan_s": planning,
        "build_s": building,
        "graph_keys": keys,
        "graph_mb": graph,
        "save_s": saving,
        "load_s": loading,
        "file_mb": size,
    }


def main() -> None:
    area = france()
    scenes = scenes_of(granules(area))
    say(f"{len(scenes)} scenes")
    rows = {"10 000 km²": measure(REGION, scenes), "France": measure(area, scenes)}
    lines = [
        f"{name:<10} {row['km2']:9,.0f} km² {row['granules']:3.0f} granules "
        f"{row['scenes']:6,.0f} scenes {row['tiles']:6,.0f} tiles: plan {row['plan_s']:5.2f} s, "
        f"build() {row['build_s']:5.2f} s, graph {row['graph_keys']:6,.0f} keys "
        f"{row['graph_mb']:5.1f} MB, file {row['file_mb']:5.1f} MB, written in "
        f"{row['save_s']:4.2f} s, read in {row['load_s']:4.2f} s"
        for name, row in rows.items()
    ]
    show(rows, lines)


if __name__ == "__main__":
    main()
