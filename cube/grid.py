"""Native grids, their windows and tiles, and the MGRS squares and UTM zones they are named after.

Sentinel-2 granules of one UTM zone share one 10 m lattice and overlap by about 10 km; who owns a
pixel there is the affair of `cube.ownership`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict
from pyproj import Transformer

from cube.errors import SceneError

TILE = 1024
PIXEL = 10.0
_WHOLE = 10_980
SQUARE = 100_000.0
_COLUMNS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")  # by zone modulo 3
_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_LATITUDE_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_GRANULE = re.compile(rf"^(\d{{1,2}})([{_LATITUDE_BANDS}])([A-HJ-NP-Z])([A-HJ-NP-V])$")


class Window(BaseModel):
    """A rectangle of 10 m pixels: first row and column, height and width, all in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int
    col: int
    height: int
    width: int

    @property
    def yx(self) -> tuple[slice, slice]:
        """Row and column slices, for indexing an array of the whole grid."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.col, self.col + self.width),
        )

    @property
    def empty(self) -> bool:
        """True when no pixel is inside."""
        return self.height <= 0 or self.width <= 0

    def intersect(self, other: Window) -> Window:
        """Return the common part; `empty` when there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        bottom = min(self.row + self.height, other.row + other.height)
        right = min(self.col + self.width, other.col + other.width)
        return Window(row=row, col=col, height=max(0, bottom - row), width=max(0, right - col))

    def union(self, other: Window) -> Window:
        """Return the smallest window that holds both."""
        row, col = min(self.row, other.row), min(self.col, other.col)
        bottom = max(self.row + self.height, other.row + other.height)
        right = max(self.col + self.width, other.col + other.width)
        return Window(row=row, col=col, height=bottom - row, width=right - col)

    def relative_to(self, other: Window) -> Window:
        """Return the same pixels, counted from the first row and column of `other`."""
        return self.model_copy(update={"row": self.row - other.row, "col": self.col - other.col})

    def grown(self, margin: int) -> Window:
        """Grow by `margin` pixels on every side."""
        return Window(
            row=self.row - margin,
            col=self.col - margin,
            height=self.height + 2 * margin,
            width=self.width + 2 * margin,
        )

    def even(self) -> Window:
        """Grow outwards to whole 20 m pixels, so that SCL pixels are never cut."""
        row, col = self.row - self.row % 2, self.col - self.col % 2
        bottom, right = self.row + self.height, self.col + self.width
        return Window(
            row=row, col=col, height=bottom + bottom % 2 - row, width=right + right % 2 - col
        )


class NativeGrid(BaseModel):
    """The sensor's own 10 m grid of one granule, or of a clip of it.

    Attributes
    ----------
    granule : str
        MGRS tile, ``31TEJ``.
    epsg : int
        EPSG code of the UTM zone.
    left, top : float
        Outer corner of the first pixel, metres.
    height, width : int
        Size in 10 m pixels (10980 for a whole granule).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    granule: str
    epsg: int
    left: float
    top: float
    height: int
    width: int

    @property
    def transform(self) -> Affine:
        """Affine transform of the 10 m pixels."""
        return Affine(PIXEL, 0, self.left, 0, -PIXEL, self.top)

    @property
    def window(self) -> Window:
        """The whole grid as a window."""
        return Window(row=0, col=0, height=self.height, width=self.width)

    def geobox(self, window: Window) -> GeoBox:
        """Return the georeferenced box of `window`."""
        left, top = self.left + window.col * PIXEL, self.top - window.row * PIXEL
        corner = Affine(PIXEL, 0, left, 0, -PIXEL, top)
        return GeoBox((window.height, window.width), corner, f"EPSG:{self.epsg}")

    def window_of(self, left: float, bottom: float, right: float, top: float) -> Window:
        """Return the pixels that a rectangle in the grid's own metres touches, clipped."""
        row = int(np.floor((self.top - top) / PIXEL + 1e-6))
        col = int(np.floor((left - self.left) / PIXEL + 1e-6))
        last_row = int(np.ceil((self.top - bottom) / PIXEL - 1e-6))
        last_col = int(np.ceil((right - self.left) / PIXEL - 1e-6))
        touched = Window(
            row=row, col=col, height=max(1, last_row - row), width=max(1, last_col - col)
        )
        return touched.intersect(self.window)

    @property
    def owned(self) -> Window:
        """The pixels that lie in the granule's own MGRS 100 km square (UTM easting, northing)."""
        west, south = square_origin(self.granule)
        return self.window_of(west, south, west + SQUARE, south + SQUARE)

    @property
    def zone(self) -> int:
        """Number of the UTM zone, 1 to 60."""
        return self.epsg % 100


@cache
def to_utm(epsg: int) -> Transformer:
    """Return the transformer from longitude and latitude (degrees) to a UTM zone's metres."""
    return Transformer.from_crs(4326, epsg, always_xy=True)


def meridian(zone: int) -> float:
    """Return the longitude of a UTM zone's central meridian, degrees."""
    return zone * 6.0 - 183.0


def utm_zone(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Return the MGRS grid zone number of each point (int), with its two exceptions.

    Source: NGA.STND.0037, grid zone designations 32V and 31X-37X.
    """
    lon = (np.asarray(lon) + 180.0) % 360.0 - 180.0
    lat = np.asarray(lat)
    zone = (np.floor((lon + 180.0) / 6.0).astype(int) % 60) + 1
    norway = (lat >= 56) & (lat < 64) & (lon >= 3) & (lon < 12)
    zone = np.where(norway, 32, zone)
    svalbard = (lat >= 72) & (lat <= 84) & (lon >= 0) & (lon < 42)
    by_lon = np.select([lon < 9, lon < 21, lon < 33], [31, 33, 35], 37)
    return np.where(svalbard, by_lon, zone)


@cache
def square_origin(granule: str) -> tuple[float, float]:
    """Return easting and northing (m) of the south-west corner of an MGRS 100 km square.

    Rows repeat every 2,000 km; the latitude band tells which repetition is meant. In the southern
    hemisphere northings carry UTM's false northing of 10,000 km.

    Raises
    ------
    SceneError
        If `granule` is not an MGRS tile.
    """
    match = _GRANULE.match(granule)
    if match is None:
        raise SceneError(f"'{granule}' is not an MGRS tile such as 31TEJ")
    zone, band, column, row = int(match[1]), match[2], match[3], match[4]
    columns = _COLUMNS[zone % 3]
    if column not in columns or not 1 <= zone <= 60:
        raise SceneError(f"'{granule}': column {column} does not exist in UTM zone {zone}")
    easting = (columns.index(column) + 1) * SQUARE
    cycle = (_ROWS.index(row) - (5 if zone % 2 == 0 else 0)) % 20 * SQUARE
    # The middle of the latitude band, on the central meridian, is within 450 km of the square.
    middle = 8.0 * _LATITUDE_BANDS.index(band) - 76.0 if band != "X" else 78.0
    epsg = 32600 + zone if middle > 0 else 32700 + zone
    _, near = to_utm(epsg).transform(meridian(zone), middle)
    repetitions = round((near - SQUARE / 2 - cycle) / 2_000_000)
    return easting, cycle + repetitions * 2_000_000


def whole_granule(granule: str) -> NativeGrid:
    """Return the grid of a whole granule, where ESA places it.

    Source: ESA's tiling grid: 109.8 km from the north-west corner of the square, which is rounded
    outwards to multiples of 60 m, counted from the equator.

    Raises
    ------
    SceneError
        If `granule` is not an MGRS tile.
    """
    west, south = square_origin(granule)
    equator = 0.0 if granule[2] >= "N" else 10_000_000.0
    return NativeGrid(
        granule=granule,
        epsg=(32600 if granule[2] >= "N" else 32700) + int(granule[:2]),
        left=west - west % 60,
        top=south + SQUARE + (equator - south - SQUARE) % 60,
        height=_WHOLE,
        width=_WHOLE,
    )


def cell(row: int, col: int) -> Window:
    """Return the pixels of one cell of the tile lattice, which starts at the grid's corner."""
    return Window(row=row * TILE, col=col * TILE, height=TILE, width=TILE)


def cells(window: Window) -> Iterator[tuple[int, int]]:
    """Yield row and column of each cell of the tile lattice that meets `window`."""
    for row in range(window.row // TILE, -(-(window.row + window.height) // TILE)):
        for col in range(window.col // TILE, -(-(window.col + window.width) // TILE)):
            yield row, col
