"""A small study with known truth: archive of files → cube → labels, through the real rooms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely

import cube.store
from cube.grid import NativeGrid
from cube.planning import Plan, plan
from cube.recipe import Recipe
from cube.scenes import Scene, Scenes
from model.labels import write_labels
from model.legend import Legend, load_legend
from model.splits import split_zones
from model.tiles import TileData
from tests.archive import write_tif

BANDS = ("blue", "green", "red", "nir")
RECIPE = Recipe(bands=BANDS, start="2023-04", end="2023-06")
#: RPG code, and reflectance DN [month, band] of the class in April, May and June.
CROPS = {
    "BTH": [(400, 600, 400, 3800), (350, 600, 300, 4600), (600, 900, 900, 3200)],
    "MIS": [(1000, 1200, 1500, 2000), (900, 1100, 1300, 2300), (400, 700, 500, 4200)],
    "PPH": [(500, 800, 600, 3500), (450, 800, 500, 3900), (500, 850, 600, 3700)],
}
BARE = [(1300, 1500, 1800, 2300)] * 3
FIELD = 20
GAP = 4


@dataclass(frozen=True)
class Study:
    """Paths and truth; `truth` is uint8 [y, x] of the whole grid, 0 = between the fields."""

    store: Path
    labels: Path
    legend: Legend
    plan: Plan
    grid: NativeGrid
    truth: np.ndarray
    zones: gpd.GeoDataFrame

    def data(self, **options: object) -> TileData:
        return TileData(self.store, self.labels, None, split_zones(self.labels), **options)


def write_study(
    folder: Path, height: int = 192, width: int = 256, noise: float = 150, seed: int = 0
) -> Study:
    """Fields of 20 px in rows, four zones side by side in two regions; corner never clear."""
    grid = NativeGrid(
        granule="31TEJ", epsg=32631, left=523_560.0, top=4_832_780.0, height=height, width=width
    )
    random = np.random.default_rng(seed)
    parcels, field_class = _fields(grid, random)
    legend = load_legend(classes=["WinterWheat", "Maize", "Meadow"])
    scenes = [_scene(folder, grid, month, field_class, noise, random) for month in range(3)]
    made = plan(_lonlat(grid), Scenes(source="test", scenes=tuple(scenes)), RECIPE)
    store, labels = folder / "cube.zarr", folder / "labels.zarr"
    cube.store.write(made, store)
    zones = _zones(grid)
    write_labels(parcels, store, legend, zones, labels)
    codes = np.array([0, *(legend.codes[code] for code in CROPS)], dtype=np.uint8)
    return Study(store, labels, legend, made, grid, codes[field_class], zones)


def _fields(grid: NativeGrid, random: np.random.Generator) -> tuple[gpd.GeoDataFrame, np.ndarray]:
    truth = np.zeros((grid.height, grid.width), dtype=np.uint8)
    codes, shapes = [], []
    for row in range(GAP, grid.height - FIELD, FIELD + GAP):
        for col in range(GAP, grid.width - FIELD, FIELD + GAP):
            number = int(random.choice(3, p=(0.5, 0.3, 0.2)))
            truth[row : row + FIELD, col : col + FIELD] = number + 1
            codes.append(list(CROPS)[number])
            left, top = grid.left + 10 * col, grid.top - 10 * row
            shapes.append(shapely.box(left, top - 10 * FIELD, left + 10 * FIELD, top))
    ids = [str(i) for i in range(len(codes))]
    return gpd.GeoDataFrame({"id": ids, "code": codes}, geometry=shapes, crs=grid.epsg), truth


def _scene(
    folder: Path,
    grid: NativeGrid,
    month: int,
    field_class: np.ndarray,
    noise: float,
    random: np.random.Generator,
) -> Scene:
    name = f"S2A_{grid.granule}_{month}"
    (folder / name).mkdir(parents=True)
    scl = np.full((grid.height // 2, grid.width // 2), 4, dtype=np.uint8)
    scl[:16, :16] = 9  # 32 × 32 pixels that no month sees
    if month == 1:
        scl[-20:] = 8  # 40 rows without May
    hrefs = {"scl": write_tif(folder / name / "SCL.tif", scl, grid, 20)}
    series = np.array([BARE, *CROPS.values()])
    for b, band in enumerate(BANDS):
        values = series[field_class, month, b] + random.normal(0, noise, field_class.shape)
        pixels = np.clip(values, 1, 9000).astype(np.uint16)
        hrefs[band] = write_tif(folder / name / f"{band}.tif", pixels, grid, 10)
    return Scene(
        id=name,
        datetime=f"2023-{month + 4:02d}-10T10:43:29Z",
        satellite="A",
        acquisition=name,
        grid=grid,
        hrefs=hrefs,
        subtract=0,
        baseline="05.09",
        provider=f"earth-search@{folder.resolve()}",
    )


def _zones(grid: NativeGrid) -> gpd.GeoDataFrame:
    width = 10 * grid.width / 4
    bottom = grid.top - 10 * grid.height
    boxes = [
        shapely.box(grid.left + i * width, bottom, grid.left + (i + 1) * width, grid.top)
        for i in range(4)
    ]
    columns = {
        "zone": ["west-1", "west-2", "east-1", "east-2"],
        "region": ["west", "west", "east", "east"],
        "test": [False, True, False, False],
    }
    return gpd.GeoDataFrame(columns, geometry=boxes, crs=grid.epsg)


def _lonlat(grid: NativeGrid) -> shapely.Geometry:
    # A hair inside, so that rounding does not ask for pixels outside of the grid.
    box = grid.geobox(grid.window).boundingbox
    inner = shapely.box(box.left + 1, box.bottom + 1, box.right - 1, box.top - 1)
    return gpd.GeoSeries([inner], crs=grid.epsg).to_crs(4326).iloc[0]
