"""Study zones: squares around named places, chosen by their share of cropland.

Cropland is class 40 of ESA WorldCover (or of any raster with its classes).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from pyogrio.errors import DataSourceError
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from cube.errors import AreaError, redact
from model.landcover import rasters_around

logger = logging.getLogger(__name__)

CROPLAND = 40
#: Metres between the points at which the raster is looked at; shares need no more.
_STEP = 50.0


@dataclass(frozen=True)
class Layout:
    """How the zones of a region are laid out; lengths in metres.

    Attributes
    ----------
    count : int
        Zones per region.
    size : float
        Side of a square zone.
    gap : float
        Least distance between zones, so that a test zone is not the continuation of another.
    radius : float
        How far from the named place the centre of a zone may lie.
    """

    count: int = 5
    size: float = 10_000.0
    gap: float = 2_000.0
    radius: float = 40_000.0


def read_zones(path: str | Path) -> gpd.GeoDataFrame:
    """Read study areas from a file: columns ``zone``, ``region`` and ``test`` where there are any.

    Raises
    ------
    AreaError
        If the file is missing, not readable, has no polygons or no coordinate system.
    """
    try:
        zones = gpd.read_file(path)
    except (DataSourceError, OSError, ValueError) as error:
        raise AreaError(f"{path}: not readable as zones ({error})") from error
    if not isinstance(zones, gpd.GeoDataFrame) or not len(zones):
        raise AreaError(f"{path}: no zone in it; a zone is a polygon, one per row")
    if zones.crs is None:
        raise AreaError(f"{path}: no coordinate system; set one and try again")
    return zones


def choose_zones(
    worldcover: str | Path,
    places: Mapping[str, tuple[float, float]],
    layout: Layout | None = None,
    *,
    epsg: int = 2154,
    seed: int = 0,
) -> gpd.GeoDataFrame:
    """Choose zones with the largest share of cropland around each place.

    Parameters
    ----------
    worldcover : path or URL
        Raster with ESA WorldCover classes, any CRS; or a file of STAC items, or a collection of
        a STAC API, whose assets ``map`` are such rasters (`model.landcover.rasters_around`).
    places : mapping of str to (longitude, latitude)
        Region name to its centre, degrees.
    layout : Layout, optional
        Number, size and spacing of the zones.
    epsg : int
        Metric CRS in which zones are squares; default Lambert-93, the register's.
    seed : int
        Chooses the one zone per region that is held out for testing.

    Returns
    -------
    GeoDataFrame
        ``zone`` (region and number from 1, most cropland first), ``region``, ``test``,
        ``cropland`` (share, 0 to 1) and geometry; ``count`` rows per place.

    Raises
    ------
    AreaError
        If the raster is not readable, or has too little land around a place.
    """
    layout = layout or Layout()
    random = np.random.default_rng(seed)
    to_metres = Transformer.from_crs(4326, epsg, always_xy=True)
    rows: list[dict[str, object]] = []
    taken: list[shapely.Polygon] = []
    for region, (lon, lat) in places.items():
        centre = to_metres.transform(lon, lat)
        squares, shares = _candidates(worldcover, centre, layout, epsg, region)
        chosen = _pick(squares, shares, taken, layout, region)
        held_out = int(random.integers(len(chosen)))
        for number, index in enumerate(chosen):
            rows.append(
                {
                    "zone": f"{region}-{number + 1}",
                    "region": region,
                    "test": number == held_out,
                    "cropland": float(shares[index]),
                    "geometry": squares[index],
                }
            )
    return gpd.GeoDataFrame(rows, geometry="geometry", crs=epsg)


def _candidates(
    path: str | Path,
    centre: tuple[float, float],
    layout: Layout,
    epsg: int,
    region: str,
) -> tuple[list[shapely.Polygon], np.ndarray]:
    """Return squares on a lattice around the place and their share of cropland."""
    pitch = layout.size + layout.gap
    reach = int(layout.radius // pitch)
    # Half a zone beyond the outermost centres, in whole steps.
    half = reach * pitch + layout.size / 2
    left, top = centre[0] - half, centre[1] + half
    side = round(2 * half / _STEP)
    cropland, known = _look(path, left, top, side, epsg)
    squares, shares = [], []
    for row in range(-reach, reach + 1):
        for col in range(-reach, reach + 1):
            x, y = centre[0] + col * pitch, centre[1] + row * pitch
            if np.hypot(x - centre[0], y - centre[1]) > layout.radius:
                continue
            first_col = round((x - layout.size / 2 - left) / _STEP)
            first_row = round((top - (y + layout.size / 2)) / _STEP)
            steps = round(layout.size / _STEP)
            part = np.s_[first_row : first_row + steps, first_col : first_col + steps]
            if not known[part].all():
                continue
            r = layout.size / 2
            squares.append(shapely.box(x - r, y - r, x + r, y + r))
            shares.append(cropland[part].mean())
    if not squares:
        raise AreaError(f"{path} does not cover any zone around {region}; give one that does")
    return squares, np.array(shares)


def _look(
    path: str | Path, left: float, top: float, side: int, epsg: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return where land cover says cropland, and where it says anything; bool [side, side]."""
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    box = to_lonlat.transform_bounds(left, top - side * _STEP, left + side * _STEP, top)
    classes = np.zeros((side, side), np.uint8)
    for raster in rasters_around(path, box):
        seen = _classes(raster, left, top, side, epsg)
        classes = np.where(seen != 0, seen, classes)
    return classes == CROPLAND, classes != 0


def _classes(path: str, left: float, top: float, side: int, epsg: int) -> np.ndarray:
    transform = from_origin(left, top, _STEP, _STEP)
    try:
        with (
            rasterio.open(path) as source,
            WarpedVRT(
                source,
                crs=f"EPSG:{epsg}",
                transform=transform,
                width=side,
                height=side,
                resampling=Resampling.nearest,
                nodata=0,
            ) as warped,
        ):
            return warped.read(1)
    except rasterio.errors.RasterioError as error:
        where = redact(path)
        raise AreaError(f"{where}: not readable as a land cover raster ({error})") from error


def _pick(
    squares: list[shapely.Polygon],
    shares: np.ndarray,
    taken: list[shapely.Polygon],
    layout: Layout,
    region: str,
) -> list[int]:
    """Return the best squares that keep their distance; adds them to `taken`."""
    chosen: list[int] = []
    for index in np.argsort(-shares, kind="stable"):
        square = squares[index]
        if all(square.distance(other) >= layout.gap - 1e-6 for other in taken):
            chosen.append(int(index))
            taken.append(square)
        if len(chosen) == layout.count:
            return chosen
    raise AreaError(
        f"only {len(chosen)} of {layout.count} zones fit around {region}: a larger radius, a "
        "smaller gap, or a raster that covers more"
    )
