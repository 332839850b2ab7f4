"""Which pixels of which native grids make an area, cut into tiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from pyproj import Geod
from shapely.geometry.base import BaseGeometry

from cube.grid import NativeGrid, Window, cell, cells, meridian, to_utm
from cube.ownership import Region, lonlat, regions, surface, turned

#: A chord of so many degrees is within 1 m of the curve that it is in metres.
_BEND = 0.005


@dataclass(frozen=True)
class Share:
    """What one grid gives to an area.

    Attributes
    ----------
    grid : NativeGrid
    others : tuple of NativeGrid
        Grids with a share that overlap with it: `cube.ownership.owned` tells whose a pixel is.
    windows : dict of (row, col) to Window
        Cell of the tile lattice → pixels to build: the bounding box of what the grid owns of the
        area there, in whole 20 m pixels, and the margin around it.
    """

    grid: NativeGrid
    others: tuple[NativeGrid, ...]
    windows: dict[tuple[int, int], Window]


def share_out(area: BaseGeometry, grids: Iterable[NativeGrid], margin: int = 0) -> list[Share]:
    """Cut an area among grids, so that no pixel is missing or twice.

    An area inside one grid is its alone; inside several, of the one that owns most of it.
    Otherwise each grid gives what it owns (`cube.ownership`).

    Parameters
    ----------
    area : Polygon or MultiPolygon
        In EPSG:4326, as `cube.area.read_area` gives it.
    grids : iterable of NativeGrid
        One per granule.
    margin : int
        Pixels to build around the area as well, as far as the grids that give it reach.

    Returns
    -------
    list of Share
        In order of granule; none for a grid that gives nothing.
    """
    near = [grid for grid in grids if _near(area, grid, lonlat(grid, grid.window)).area > 0]
    found = regions(near)
    covering = [grid for grid in near if _covers(grid, area)]
    if covering:
        best = max(covering, key=lambda grid: (_owned_area(area, grid, found), grid.granule))
        whole = Region(lonlat(best, best.window), ())
        return [Share(best, (), _grown(_windows(area, best, whole), best, margin))]
    windows = {grid: _windows(area, grid, region) for grid, region in found.items()}
    giving = {grid for grid, some in windows.items() if some}
    return [
        Share(
            grid,
            tuple(other for other in found[grid].others if other in giving),
            _grown(some, grid, margin),
        )
        for grid, some in windows.items()
        if some
    ]


def share_outside(area: BaseGeometry, grids: Iterable[NativeGrid]) -> float:
    """Return the share of an area, 0…1, that lies in no grid."""
    extents = [lonlat(grid, grid.window) for grid in grids]
    # Grids at the antimeridian reach beyond ±180°; areas do not.
    everywhere = [turned(extent, turn) for extent in extents for turn in (-360.0, 0.0, 360.0)]
    outside = shapely.difference(area, shapely.union_all(everywhere))
    return _square_metres(outside) / _square_metres(area)


def _square_metres(shape: BaseGeometry) -> float:
    return abs(float(Geod(ellps="WGS84").geometry_area_perimeter(shape)[0]))


def _near(area: BaseGeometry, grid: NativeGrid, shape: BaseGeometry) -> BaseGeometry:
    """Return what lies in a shape around the grid's meridian; a seam at ±180° is closed."""
    parts = shapely.get_parts(area)
    west, south, east, north = _bounds(parts, grid).T
    left, bottom, right, top = shape.bounds
    meets = (west < right) & (east > left) & (south < top) & (north > bottom)
    turns = west - shapely.bounds(parts)[:, 0]
    pieces = [
        shapely.clip_by_rect(turned(part, turn), left, bottom, right, top)
        for part, turn in zip(parts[meets], turns[meets], strict=True)
    ]
    return surface(shapely.union_all(shapely.make_valid(pieces)).intersection(shape))


def _bounds(parts: np.ndarray, grid: NativeGrid) -> np.ndarray:
    """Return west, south, east, north of each polygon, turned towards the grid's meridian."""
    bounds = shapely.bounds(parts)
    middle = (bounds[:, 0] + bounds[:, 2]) / 2
    bounds[:, [0, 2]] += 360.0 * np.round((meridian(grid.zone) - middle) / 360.0)[:, None]
    return bounds


def _covers(grid: NativeGrid, area: BaseGeometry) -> bool:
    extent = lonlat(grid, grid.window)
    margin = shapely.box(*extent.bounds).buffer(1.0)
    parts = shapely.box(*_bounds(shapely.get_parts(area), grid).T)
    if not shapely.covers(margin, parts).all():
        return False
    whole = _projected(_near(area, grid, margin), grid)
    return bool(_rectangles(grid, [grid.window])[0].covers(whole))


def _owned_area(area: BaseGeometry, grid: NativeGrid, found: dict[NativeGrid, Region]) -> float:
    return float(_near(area, grid, found[grid].shape).area)


def _projected(shape: BaseGeometry, grid: NativeGrid) -> BaseGeometry:
    bent = shapely.segmentize(shape, _BEND)
    part = shapely.transform(bent, to_utm(grid.epsg).transform, interleaved=False)
    return part if part.is_valid else shapely.make_valid(part)


def _rectangles(grid: NativeGrid, windows: Iterable[Window]) -> np.ndarray:
    corners = np.array([(w.row, w.col, w.row + w.height, w.col + w.width) for w in windows])
    top, left, bottom, right = corners.T * 10.0
    return shapely.box(grid.left + left, grid.top - bottom, grid.left + right, grid.top - top)


def _windows(area: BaseGeometry, grid: NativeGrid, region: Region) -> dict[tuple[int, int], Window]:
    part = _projected(_near(area, grid, region.shape), grid)
    # A region's edge in the own square's edge is bent by a few centimetres: cut it straight.
    allowed = grid.window if _leaves_square(part, grid) or not region.others else grid.owned
    part = surface(part.intersection(_rectangles(grid, [allowed])[0]))
    if part.area == 0:
        return {}
    places = list(cells(grid.window_of(*part.bounds)))
    possible = [cell(*place).intersect(allowed) for place in places]
    rectangles = _rectangles(grid, possible)
    shapely.prepare(part)
    covered = shapely.covers(part, rectangles)
    cut = iter(shapely.intersection(part, rectangles[~covered]))
    windows = {}
    for place, full, whole in zip(places, possible, covered, strict=True):
        if whole:
            windows[place] = full
        elif (some := next(cut)).area > 0:
            windows[place] = grid.window_of(*some.bounds).even().intersect(full)
    return windows


def _grown(
    windows: dict[tuple[int, int], Window], grid: NativeGrid, margin: int
) -> dict[tuple[int, int], Window]:
    """Return windows that hold a margin around the given ones as well, one per cell."""
    if not margin:
        return windows
    grown: dict[tuple[int, int], Window] = {}
    for window in windows.values():
        around = window.grown(margin).even().intersect(grid.window)
        for place in cells(around):
            part = cell(*place).intersect(around)
            grown[place] = part if place not in grown else grown[place].union(part)
    return dict(sorted(grown.items()))


def _leaves_square(part: BaseGeometry, grid: NativeGrid) -> bool:
    if grid.owned.empty:
        return True
    return not _rectangles(grid, [grid.owned])[0].buffer(1.0).covers(part)
