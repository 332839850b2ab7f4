"""A cube, parcels and zones small enough to know every pixel by heart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely

from cube import store
from cube.grid import NativeGrid, Window
from cube.planning import GridPlan, Plan, plan
from cube.recipe import Recipe
from model.labels import write_labels
from model.legend import Legend, load_legend
from tests.archive import write_archive

#: Four tiles; the zones below cross the borders between them.
GRID = NativeGrid(
    granule="31TEJ", epsg=32631, left=523_560.0, top=4_832_780.0, height=1301, width=1100
)
RECIPE = Recipe(bands=("red", "nir"), start="2018-04", end="2018-06")
DATES = ["2018-04-03", "2018-04-23", "2018-05-08", "2018-06-02", "2018-06-12", "2018-06-22"]
CODES = ("BTH", "MIS", "TRN", "PPH", "VRC", "SNE")
ZONES = {
    "north-1": ("north", False, Window(row=0, col=0, height=384, width=384)),
    "north-2": ("north", False, Window(row=0, col=500, height=384, width=560)),
    "south-1": ("south", False, Window(row=600, col=0, height=600, width=384)),
    "south-2": ("south", True, Window(row=650, col=580, height=640, width=510)),
}


@dataclass
class Farm:
    plan: Plan
    store: Path
    labels: Path
    legend: Legend
    parcels: gpd.GeoDataFrame
    zones: gpd.GeoDataFrame


def box(window: Window, grid: NativeGrid = GRID) -> shapely.Polygon:
    bounds = grid.geobox(window).boundingbox
    return shapely.box(bounds.left, bounds.bottom, bounds.right, bounds.top)


def fields(grid: NativeGrid = GRID, size: int = 28, pitch: int = 30) -> gpd.GeoDataFrame:
    """Squares of `size` pixels, every `pitch` pixels, with the codes in turn."""
    rows, shapes = [], []
    for row in range(1, grid.height - size, pitch):
        for col in range(1, grid.width - size, pitch):
            number = len(rows)
            rows.append({"ID_PARCEL": str(number), "CODE_CULTU": CODES[number % len(CODES)]})
            shapes.append(box(Window(row=row, col=col, height=size, width=size), grid))
    return gpd.GeoDataFrame(rows, geometry=shapes, crs=grid.epsg)


def zones() -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {
            "zone": list(ZONES),
            "region": [region for region, _, _ in ZONES.values()],
            "test": [test for _, test, _ in ZONES.values()],
        },
        geometry=[box(window) for *_, window in ZONES.values()],
        crs=GRID.epsg,
    )


def bare_plan(grid: NativeGrid = GRID) -> Plan:
    """A plan of the whole grid that can only be labelled: it has no scenes."""
    from cube.grid import cell, cells
    from cube.planning import Tile

    tiles = tuple(
        Tile(row=r, col=c, window=cell(r, c).intersect(grid.window)) for r, c in cells(grid.window)
    )
    part = GridPlan(recipe=RECIPE, grid=grid, scenes=(), tiles=tiles)
    return Plan(area={}, recipe=RECIPE, source="none", grids=(part,))


def register() -> gpd.GeoDataFrame:
    """The fields as `read_parcels` gives them."""
    raw = fields()
    named = raw.rename(columns={"ID_PARCEL": "id", "CODE_CULTU": "code"})
    return named.assign(group="", name="", candidates="")


def build_farm(folder: Path) -> Farm:
    archive = write_archive(folder / "archive", DATES, RECIPE.bands, GRID)
    west, south, east, north = GRID.geobox(GRID.window).geographic_extent.boundingbox
    made = plan((west, south, east, north), archive.scenes, RECIPE)
    path = store.write(made, folder / "cube.zarr")
    parcels, places = register(), zones()
    legend = load_legend(level="level3").compact(parcels)
    write_labels(parcels, made, legend, places, folder / "labels.zarr", erosion=10)
    return Farm(made, path, folder / "labels.zarr", legend, parcels, places)


def window_values(farm: Farm, window: Window) -> np.ndarray:
    return store.read_window(farm.store, GRID.granule, window)[0]
