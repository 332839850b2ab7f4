"""Where things lie: the rectangle of a region, its zones and new area, and the granules' clips."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shapely.geometry import Polygon, box

from cube.grid import PIXEL, NativeGrid, Window, square_origin
from cube.simulate.settings import Region, Settings

#: Side of a whole granule in metres; neighbours overlap by what exceeds 100 km.
GRANULE = 109_800.0
_SQUARE = 100_000.0
#: Regions start on a lattice of 64 pixels counted from the border between two squares, so that
#: windows of 64 pixels fit zones on both sides of it.
_LATTICE = 64 * PIXEL


@dataclass(frozen=True)
class Layout:
    """One region on the ground, in metres of its UTM zone.

    `grid` is the clip of the main granule and covers the whole region; `clips` are all granules'
    clips, the main one first; `zones` and `new_area` are rectangles.
    """

    region: Region
    grid: NativeGrid
    clips: tuple[NativeGrid, ...]
    zones: tuple[Polygon, ...]
    new_area: Polygon

    def offset(self, clip: NativeGrid) -> tuple[int, int]:
        """Return row and column of the region's grid where `clip` starts."""
        return (
            round((self.grid.top - clip.top) / PIXEL),
            round((clip.left - self.grid.left) / PIXEL),
        )


def granule_extent(granule: str) -> tuple[float, float, float, float]:
    """Return left, bottom, right, top (m) of a whole Sentinel-2 granule.

    Granules start at the north-west corner of their MGRS square, moved outwards to a multiple of
    60 m (counted from the equator), and are 109.8 km wide and high (ESA, Sentinel-2 tiling grid).
    """
    east, north = square_origin(granule)
    equator = 0.0 if granule[-3] >= "N" else 10_000_000.0
    left = math.floor(east / 60) * 60.0
    top = equator + math.ceil((north + _SQUARE - equator) / 60) * 60.0
    return left, top - GRANULE, left + GRANULE, top


def _epsg(granule: str) -> int:
    zone = int(granule[:-3])
    return (32600 if granule[-3] >= "N" else 32700) + zone


def _clip(granule: str, bounds: tuple[float, float, float, float]) -> NativeGrid | None:
    """Return the part of `granule` inside `bounds`, or None when it is empty."""
    extent = granule_extent(granule)
    left, bottom = max(extent[0], bounds[0]), max(extent[1], bounds[1])
    right, top = min(extent[2], bounds[2]), min(extent[3], bounds[3])
    if right <= left or top <= bottom:
        return None
    return NativeGrid(
        granule=granule,
        epsg=_epsg(granule),
        left=left,
        top=top,
        height=round((top - bottom) / PIXEL),
        width=round((right - left) / PIXEL),
    )


def _columns(settings: Settings) -> int:
    return math.ceil(math.sqrt(settings.zones_per_region))


def _bounds(region: Region, settings: Settings) -> tuple[float, float, float, float]:
    """Return left, bottom, right, top of the region's rectangle, snapped to the lattice."""
    columns = _columns(settings)
    rows = math.ceil(settings.zones_per_region / columns)
    side, gap = settings.zone_metres, settings.gap_metres
    width = columns * side + (columns - 1) * gap
    height = rows * (side + gap) + settings.new_area_metres
    east, north = square_origin(region.granule)
    border = east + _SQUARE
    left = border - round((border - region.east + width / 2) / _LATTICE) * _LATTICE
    top = north + round((region.north + height / 2 - north) / _LATTICE) * _LATTICE
    return left, top - height, left + width, top


def layout(region: Region, settings: Settings) -> Layout:
    """Return where the region's zones, new area and granule clips lie.

    Zones stand in rows from the north-west, with a gap between them; the new area is the strip
    south of them.
    """
    bounds = _bounds(region, settings)
    left, bottom, right, top = bounds
    step, columns = settings.zone_metres + settings.gap_metres, _columns(settings)
    zones = []
    for i in range(settings.zones_per_region):
        west, north = left + (i % columns) * step, top - (i // columns) * step
        zones.append(box(west, north - settings.zone_metres, west + settings.zone_metres, north))
    granules = [region.granule] + ([region.neighbour] if region.neighbour else [])
    clips = [clip for granule in granules if (clip := _clip(granule, bounds))]
    new_area = box(left, bottom, right, bottom + settings.new_area_metres)
    return Layout(region, clips[0], tuple(clips), tuple(zones), new_area)


def clip_window(place: Layout, clip: NativeGrid) -> Window:
    """Return the pixels of the region's grid that `clip` shows."""
    row, col = place.offset(clip)
    return Window(row=row, col=col, height=clip.height, width=clip.width)
