"""Who owns a point where granules overlap, so that areas are cut without seams or doubles.

Granules of one UTM zone overlap by about 10 km and share one pixel lattice; at the border of a
zone, granules of two lattices overlap by more. In MGRS the point decides: its longitude gives the
zone, the zone's metres the 100 km square. ESA, however, publishes no granule for a square whose
part of the zone is covered by a granule of the next zone, and an archive may lack others. So a
granule's claim has three strengths, and of the granules of a plan the strongest claim wins:

0. the point lies in the granule's own zone and own square;
1. it lies in the own square, but beyond the zone's border;
2. it lies in the granule's margin.

Of equal claims the first by name of granule wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from cube.grid import SQUARE, NativeGrid, Window, meridian, square_origin, to_utm, utm_zone

#: No claim: the granule does not hold the point.
_NONE = 3
#: Straight edges in metres are curved in degrees; a vertex every 2 km keeps them within 0.1 m.
_STEP = 2000.0
#: Borders of zones lie on multiples of 3°, and change at these latitudes (MGRS's exceptions).
_ZONE_STEP, _ZONE_LATITUDES = 3.0, (-80.0, 56.0, 64.0, 72.0, 84.0)


def owned(grid: NativeGrid, others: Sequence[NativeGrid], window: Window) -> np.ndarray:
    """Return which pixels of a window a grid owns, by their centres.

    Parameters
    ----------
    grid : NativeGrid
    others : sequence of NativeGrid
        Grids that overlap with it. A pixel that none of them claims is owned.
    window : Window
        In pixels of `grid`.

    Returns
    -------
    ndarray of bool [y, x]
    """
    mine = np.ones((window.height, window.width), np.bool_)
    if not others or _undisputed(grid, window):
        return mine
    box = grid.geobox(window)
    x, y = np.meshgrid(box.coordinates["x"].values, box.coordinates["y"].values)
    lon, lat = to_utm(grid.epsg).transform(x, y, direction="INVERSE")
    zone = utm_zone(lon, lat)
    claim = _claim(grid, x, y, zone)
    for other in others:
        at = (x, y) if other.epsg == grid.epsg else to_utm(other.epsg).transform(lon, lat)
        theirs = _claim(other, at[0], at[1], zone)
        first = other.granule < grid.granule
        mine &= (theirs > claim) | ((theirs == claim) & (not first))
    return mine


def _claim(grid: NativeGrid, x: np.ndarray, y: np.ndarray, zone: np.ndarray) -> np.ndarray:
    """Return the strength of a grid's claim to points in its own metres; int8, less is more."""
    west, south = square_origin(grid.granule)
    square = (x >= west) & (x < west + SQUARE) & (y >= south) & (y < south + SQUARE)
    right, bottom = grid.left + 10.0 * grid.width, grid.top - 10.0 * grid.height
    inside = (x >= grid.left) & (x < right) & (y >= bottom) & (y < grid.top)
    claim = np.where(square, np.where(zone == grid.zone, 0, 1), 2)
    return np.where(inside, claim, _NONE).astype(np.int8)


def _undisputed(grid: NativeGrid, window: Window) -> bool:
    """Return whether a window lies in the grid's own square and zone, by its border."""
    if grid.owned.intersect(window) != window:
        return False
    # Zones have no holes: what is enclosed by a zone is in it.
    lon, lat = shapely.get_coordinates(lonlat(grid, window)).T
    return bool((utm_zone(lon, lat) == grid.zone).all())


# --- the same as polygons, to plan with ---------------------------------------------------------


@dataclass(frozen=True)
class Region:
    """What a grid owns among others.

    Attributes
    ----------
    shape : shapely geometry
        In longitude and latitude, within ±180° of the zone's central meridian.
    others : tuple of NativeGrid
        The grids that overlap with it.
    """

    shape: BaseGeometry
    others: tuple[NativeGrid, ...]


@dataclass(frozen=True)
class _Claims:
    """A grid's claims in longitude and latitude: each holds the one before."""

    core: BaseGeometry
    square: BaseGeometry
    extent: BaseGeometry

    def moved(self, degrees: float) -> _Claims:
        parts = (self.core, self.square, self.extent)
        return _Claims(*(turned(part, degrees) for part in parts))


def regions(grids: Iterable[NativeGrid]) -> dict[NativeGrid, Region]:
    """Return what each of several grids owns, as polygons.

    They agree with `owned` to a decimetre.
    """
    claims = {grid: _claims(grid) for grid in sorted(grids, key=lambda grid: grid.granule)}
    found = {}
    for grid, mine in claims.items():
        before: list[_Claims] = []
        after: list[_Claims] = []
        others = []
        for other, theirs in claims.items():
            if other == grid:
                continue
            near = theirs.moved(full_turns(meridian(other.zone), meridian(grid.zone)))
            if near.extent.intersects(mine.extent) and not near.extent.touches(mine.extent):
                others.append(other)
                (before if other.granule < grid.granule else after).append(near)
        found[grid] = Region(_region(mine, before, after), tuple(others))
    return found


def _region(mine: _Claims, before: Sequence[_Claims], after: Sequence[_Claims]) -> BaseGeometry:
    cores = [other.core for other in (*before, *after)]
    squares = [other.square for other in (*before, *after)]
    beyond, margin = mine.square.difference(mine.core), mine.extent.difference(mine.square)
    return shapely.union_all(
        [
            _without(mine.core, [other.core for other in before]),
            _without(beyond, [*cores, *(other.square for other in before)]),
            _without(margin, [*cores, *squares, *(other.extent for other in before)]),
        ]
    )


def _without(shape: BaseGeometry, others: Sequence[BaseGeometry]) -> BaseGeometry:
    shapely.prepare(shape)
    meeting = [other for other in others if shape.intersects(other)]
    return shape.difference(shapely.union_all(meeting)) if meeting else shape


def _claims(grid: NativeGrid) -> _Claims:
    extent = lonlat(grid, grid.window)
    square = shapely.Polygon() if grid.owned.empty else lonlat(grid, grid.owned)
    return _Claims(surface(square.intersection(_zone_shape(grid.zone))), square, extent)


def lonlat(grid: NativeGrid, window: Window) -> BaseGeometry:
    """Return a window's rectangle in longitude and latitude, around the central meridian."""
    box = grid.geobox(window).boundingbox
    x, y = _steps(box.left, box.right), _steps(box.bottom, box.top)
    ring = [
        *((x, np.full_like(x, box.bottom)), (np.full_like(y, box.right), y)),
        *((x[::-1], np.full_like(x, box.top)), (np.full_like(y, box.left), y[::-1])),
    ]
    east, north = (np.concatenate(side) for side in zip(*ring, strict=True))
    lon, lat = to_utm(grid.epsg).transform(east, north, direction="INVERSE")
    middle = meridian(grid.zone)
    return shapely.Polygon(np.column_stack([(lon - middle + 180) % 360 - 180 + middle, lat]))


def _steps(first: float, last: float) -> np.ndarray:
    # At multiples, so that edges which two rectangles share get the same vertices.
    inner = np.arange(np.floor(first / _STEP) + 1, np.ceil(last / _STEP)) * _STEP
    return np.array([first, *inner, last])


@cache
def _zone_shape(zone: int) -> BaseGeometry:
    """Return a zone in longitude and latitude, with MGRS's exceptions."""
    middle = meridian(zone)
    boxes = []
    for south, north in pairwise(_ZONE_LATITUDES):
        for west in np.arange(middle - 9, middle + 9, _ZONE_STEP):
            east = west + _ZONE_STEP
            if utm_zone(np.array((west + east) / 2), np.array((south + north) / 2)) == zone:
                boxes.append(shapely.box(west, south, east, north))
    return shapely.union_all(boxes)


def surface(shape: BaseGeometry) -> BaseGeometry:
    """Return the polygons of a shape, without the points and lines where others touched it."""
    parts = shapely.get_parts(shape)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def full_turns(lon: float, towards: float) -> float:
    """Return the multiple of 360° that brings one longitude nearest to another."""
    return 360.0 * round((towards - lon) / 360.0)


def turned(shape: BaseGeometry, degrees: float) -> BaseGeometry:
    """Return a shape in longitude and latitude moved east by `degrees`."""
    return shapely.transform(shape, lambda xy: xy + np.array([degrees, 0.0])) if degrees else shape
