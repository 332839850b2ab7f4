"""Parcels → label, parcel-id and zone rasters on a cube's grid.

The rules, all decided by pixel centres:

* inside a zone, no parcel: background (0); outside of all zones: 255;
* parcels are shrunk by `erosion` metres, the ring becomes 255 but keeps its parcel id;
* where parcels overlap, the smaller one owns the pixel; if their classes differ it is 255;
* parcels without a class in the legend are 255 and keep their id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from rasterio.enums import MergeAlg
from rasterio.features import rasterize

from cube.errors import LabelError
from cube.grid import NativeGrid, Window
from cube.planning import GridPlan, Plan, Tile
from cube.store import read_plan
from model.labelstore import LabelBlock, LabelStore, LabelWriter, parcel_table
from model.legend import IGNORE, Legend
from model.parcels import log_unlabelled, read_parcels, repair

__all__ = ["LabelReport", "LabelStore", "parcel_table", "read_parcels", "write_labels"]

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]


@dataclass
class LabelReport:
    """What became of the parcels; ``str()`` gives a text for people.

    Attributes
    ----------
    parcels, repaired, dropped : int
        Parcels that meet the tiles; those with invalid polygons that were repaired; those that
        had no polygon left.
    unlabelled : dict of str to int
        Reason to parcels that have no class (255).
    out_of_year : dict of str to int
        Code to parcels: not in use in the legend's year, mapped all the same.
    overlapping, conflicting : int
        Pixels that several parcels claim; those of them where the classes differ (255).
    pixels : dict of str to int
        Class to labelled pixels.
    ignored : int
        Pixels inside zones that are 255.
    """

    parcels: int = 0
    repaired: int = 0
    dropped: int = 0
    unlabelled: dict[str, int] = field(default_factory=dict)
    out_of_year: dict[str, int] = field(default_factory=dict)
    overlapping: int = 0
    conflicting: int = 0
    pixels: dict[str, int] = field(default_factory=dict)
    ignored: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.parcels} parcels; {self.repaired} repaired, {self.dropped} without a polygon",
            f"{self.overlapping} pixels in several parcels, {self.conflicting} of them ignored",
        ]
        lines += [f"  ignored, {why}: {n} parcels" for why, n in self.unlabelled.items()]
        lines += [f"  {code}, not in use that year: {n}" for code, n in self.out_of_year.items()]
        lines += [f"  {name}: {n} pixels" for name, n in self.pixels.items()]
        return "\n".join([*lines, f"  ignored: {self.ignored} pixels"])


def write_labels(
    parcels: gpd.GeoDataFrame,
    cube: str | Path | Plan,
    legend: Legend,
    zones: gpd.GeoDataFrame | None,
    out: str | Path,
    *,
    erosion: float = 0.0,
    background: bool = True,
    progress: Progress | None = None,
) -> LabelReport:
    """Write the labels of all tiles of a cube.

    Parameters
    ----------
    parcels : GeoDataFrame
        From `read_parcels`, any CRS.
    cube : path or Plan
        A cube store, finished or not, or the plan of one.
    legend : Legend
        Decides the class of each parcel.
    zones : GeoDataFrame or None
        Study areas, any CRS; columns ``zone``, ``region`` and ``test`` where there are any. None:
        the tiles are one zone.
    out : path
        ``labels.zarr``; ``parcels.csv`` is written beside it. Labels that are there are replaced.
    erosion : float
        Metres by which parcels are shrunk, against mixed pixels.
    background : bool
        False makes pixels without a parcel 255, for registers known to be incomplete.
    progress : callable, optional
        Called with tiles done, tiles in all and the granule.

    Raises
    ------
    LabelError
        If no parcel meets the tiles, a CRS is missing, or a zone has no area.
    """
    if erosion < 0:
        raise LabelError(f"erosion is {erosion} m; give 0 or the metres to shrink parcels by")
    plan = cube if isinstance(cube, Plan) else read_plan(cube)
    report = LabelReport()
    known = _prepare(parcels, legend, report)
    named = None if zones is None else _named(zones)
    writer = LabelWriter(Path(out), [grid.grid for grid in plan.grids])
    counts = np.zeros(256, np.int64)
    done = 0
    for grid in plan.grids:
        painter = _Painter(known, named, grid, erosion, background)
        for tile in grid.tiles:
            block = painter.paint(tile, report)
            counts += np.bincount(block.label[block.zone > 0], minlength=256)
            writer.write(grid.grid.granule, tile.window, block)
            done += 1
            if progress:
                progress(done, plan.n_tiles, grid.grid.granule)
    report.pixels = {name: int(counts[k]) for k, name in enumerate(legend.classes) if counts[k]}
    report.ignored = int(counts[IGNORE])
    table = known[["index", "id", "code", "name", "class"]]
    where = _whole(plan) if named is None else named
    writer.finish(legend, where, table, erosion=erosion, report=report.to_dict())
    logger.info("labels written to %s\n%s", out, report)
    return report


def _prepare(parcels: gpd.GeoDataFrame, legend: Legend, report: LabelReport) -> gpd.GeoDataFrame:
    if parcels.crs is None:
        raise LabelError("the parcels have no coordinate system; set one (RPG: EPSG:2154)")
    if not len(parcels):
        raise LabelError("no parcel meets the area; check the area and the register")
    known, report.repaired, report.dropped = repair(parcels.reset_index(drop=True))
    known = known.drop(columns=["class", "reason", "index"], errors="ignore")
    known = known.reindex(columns=["id", "code", "group", "name", "candidates", "geometry"])
    known = known.join(legend.classify(known))
    known["index"] = np.arange(1, len(known) + 1, dtype=np.int32)
    report.parcels = len(known)
    report.unlabelled, report.out_of_year = log_unlabelled(known, legend)
    return known


def _whole(plan: Plan) -> gpd.GeoDataFrame:
    """Return the one zone of a study without zones: everything the tiles hold."""
    boxes = [
        shapely.from_wkt(grid.grid.geobox(tile.window).geographic_extent.wkt)
        for grid in plan.grids
        for tile in grid.tiles
    ]
    columns = {"zone": ["area"], "region": [""], "test": [False]}
    return gpd.GeoDataFrame(columns, geometry=[shapely.union_all(boxes)], crs=4326)


def _named(zones: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    if zones.crs is None:
        raise LabelError("the zones have no coordinate system; set one")
    if not len(zones) or zones.to_crs(6933).geometry.area.eq(0).any():
        raise LabelError("a zone without area: every zone must be a polygon")
    named = zones.reset_index(drop=True)
    for column, default in (("zone", [str(i) for i in named.index]), ("region", ""), ("test", 0)):
        if column not in named:
            named[column] = default
    return named[["zone", "region", "test", "geometry"]]


class _Painter:
    """Paints the tiles of one grid; parcels and zones in its metres, painted in a fixed order."""

    def __init__(
        self,
        parcels: gpd.GeoDataFrame,
        zones: gpd.GeoDataFrame | None,
        plan: GridPlan,
        erosion: float,
        background: bool,
    ) -> None:
        self.plan, self.background = plan, background
        self.zones = None if zones is None else np.asarray(zones.to_crs(plan.grid.epsg).geometry)
        shapes = np.asarray(parcels.to_crs(plan.grid.epsg).geometry)
        # Largest first, so that the smaller of two overlapping parcels owns the pixel.
        order = np.lexsort((parcels["index"], -shapely.area(shapes)))
        self.shapes = shapes[order]
        self.index = parcels["index"].to_numpy(np.int32)[order]
        self.classes = parcels["class"].to_numpy(np.uint8)[order]
        self.class_of = np.full(len(parcels) + 1, IGNORE, np.uint8)
        self.class_of[self.index] = self.classes
        self.inner = shapely.buffer(self.shapes, -erosion) if erosion else self.shapes
        self.tree = shapely.STRtree(self.shapes)

    def paint(self, tile: Tile, report: LabelReport) -> LabelBlock:
        """Return the labels of a tile's window and add to the report's pixel counts."""
        window = tile.window
        near = np.sort(self.tree.query(_rectangle(self.plan.grid, window)))
        parcel = self._burn(window, self.shapes[near], self.index[near], np.int32)
        inner = self._burn(window, self.inner[near], self.index[near], np.int32)
        label = np.where(inner == parcel, self.class_of[parcel], IGNORE).astype(np.uint8)
        zone = self._zone(window)
        label[parcel == 0] = 0 if self.background else IGNORE
        overlap, conflict = self._overlaps(window, near)
        label[conflict | (zone == 0)] = IGNORE
        foreign = ~self.plan.owned(window)
        label[foreign], parcel[foreign], zone[foreign] = IGNORE, 0, 0
        report.overlapping += int((overlap & (zone > 0)).sum())
        report.conflicting += int((conflict & (zone > 0)).sum())
        return LabelBlock(label, parcel, zone)

    def _overlaps(self, window: Window, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where several parcels lie, and where their classes differ; bool [y, x]."""
        shapes, classes = self.shapes[near], self.classes[near].astype(np.int32)
        ones = np.ones(len(near), np.int32)
        claims = self._burn(window, shapes, ones, np.int32, merge_alg=MergeAlg.add)
        overlap = claims > 1
        if not overlap.any():
            return overlap, overlap
        # The last one painted wins: by ascending class the highest, by descending the lowest.
        up = np.argsort(classes, kind="stable")
        highest = self._burn(window, shapes[up], classes[up], np.int32)
        lowest = self._burn(window, shapes[up[::-1]], classes[up[::-1]], np.int32)
        return overlap, overlap & (highest != lowest)

    def _zone(self, window: Window) -> np.ndarray:
        if self.zones is None:
            return np.ones((window.height, window.width), np.int16)
        return self._burn(window, self.zones, np.arange(1, len(self.zones) + 1), np.int16)

    def _burn(
        self, window: Window, shapes: np.ndarray, values: np.ndarray, dtype: Any, **options: Any
    ) -> np.ndarray:
        shape = (window.height, window.width)
        drawn = [(s, int(v)) for s, v in zip(shapes, values, strict=True) if not s.is_empty]
        if not drawn:
            return np.zeros(shape, dtype)
        transform = self.plan.grid.geobox(window).transform
        return rasterize(drawn, shape, transform=transform, fill=0, dtype=dtype, **options)


def _rectangle(grid: NativeGrid, window: Window) -> Any:
    box = grid.geobox(window).boundingbox
    return shapely.box(box.left, box.bottom, box.right, box.top)
