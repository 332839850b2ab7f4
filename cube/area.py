"""Area: whatever a person has at hand → one valid geometry in longitude and latitude."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import Geod
from shapely.geometry import MultiPoint, MultiPolygon, Point, Polygon, box, shape
from shapely.geometry.base import BaseGeometry
from shapely.validation import explain_validity

from cube.errors import AreaError

MAX_VERTICES = 200_000
MAX_FEATURES = 10_000
MAX_FILE_BYTES = 256 * 2**20
MAX_AREA_KM2 = 5_000_000

#: Sentinel-2 granules (MGRS) exist between these latitudes.
_SOUTH, _NORTH = -80.0, 84.0
#: Half the side of the square that stands for a point, in degrees: about 5 cm.
_TINY = 5e-7
#: Metres in a degree of latitude.
_METRES = 111_000
_CRS84 = ("CRS84", "EPSG::4326", "EPSG:4326")
_FILES = (".geojson", ".json", ".gpkg")


def read_area(area: Any) -> BaseGeometry:
    """Return an area as a valid polygon or multipolygon in EPSG:4326.

    Parameters
    ----------
    area : sequence of 4 float, geometry, mapping, GeoDataFrame, str or Path
        ``(west, south, east, north)`` in degrees; a shapely geometry in EPSG:4326; GeoJSON
        (geometry, Feature or FeatureCollection); a GeoDataFrame or GeoSeries in any CRS; the path
        of a GeoJSON or GeoPackage file in any CRS. Several features are united. A point stands for
        the pixel it lies in. Across the antimeridian, a box has west > east (RFC 7946), a polygon
        is split there or continues beyond ±180°.

    Returns
    -------
    shapely.Polygon or shapely.MultiPolygon
        Between -180° and 180°, split at the antimeridian.

    Raises
    ------
    AreaError
        If it is none of these, is empty, invalid, too large, wider than half the Earth or lies
        outside of the latitudes that Sentinel-2 maps.
    """
    if isinstance(area, BaseGeometry):
        return _checked([area], "the geometry")
    if isinstance(area, (gpd.GeoDataFrame, gpd.GeoSeries)):
        return _from_frame(area, "the table")
    if isinstance(area, Mapping):
        return _checked(_from_geojson(area), "the GeoJSON")
    if isinstance(area, (str, Path)):
        return _from_file(Path(area))
    if isinstance(area, (Sequence, np.ndarray)):
        return _checked([_from_bounds(area)], "the box")
    raise AreaError(
        f"an area cannot be a {type(area).__name__}; give (west, south, east, north), a geometry, "
        "GeoJSON, a GeoDataFrame or the path of a GeoJSON or GeoPackage file"
    )


def surroundings(area: Any, metres: float) -> BaseGeometry:
    """Return an area with at least a margin around it, in EPSG:4326.

    Parameters
    ----------
    area
        Anything `read_area` takes.
    metres : float
        Of the margin, in rows and columns of any UTM grid. It may become twice as wide in high
        latitudes.

    Raises
    ------
    AreaError
        See `read_area`.
    """
    shape = read_area(area)
    # The corner of a square is 1.42 times as far as its side; degrees of latitude vary by 1 %.
    degrees = 1.5 * metres / _METRES
    _, south, _, north = shape.bounds
    south, north = max(south - degrees, _SOUTH), min(north + degrees, _NORTH)
    narrow = math.cos(math.radians(max(abs(south), abs(north))))
    squeezed = shapely.transform(shape, lambda xy: xy * (narrow, 1)).buffer(degrees)
    grown = shapely.transform(squeezed, lambda xy: xy / (narrow, 1))
    return read_area(shapely.clip_by_rect(grown, -540, south, 540, north))


def _from_bounds(bounds: Sequence[Any] | np.ndarray) -> BaseGeometry:
    try:
        west, south, east, north = (float(value) for value in bounds)
    except (TypeError, ValueError) as error:
        raise AreaError(
            f"a box has four numbers (west, south, east, north), got {bounds!r}"
        ) from error
    if not all(math.isfinite(value) for value in (west, south, east, north)):
        raise AreaError(f"the box {bounds!r} has a number that is not finite")
    if west > east and max(abs(west), abs(east)) <= 180:
        if east + 360 - west > 180:
            raise AreaError(
                f"the box goes from {west:g}° east to {east:g}°, more than half around the Earth; "
                "write (west, south, east, north)"
            )
        east += 360
    if west >= east or south >= north:
        raise AreaError(f"the box {bounds!r} is empty; write (west, south, east, north)")
    return box(west, south, east, north)


def _from_geojson(document: Mapping[str, Any]) -> list[BaseGeometry]:
    crs = document.get("crs")
    if crs is not None and not any(name in json.dumps(crs, default=str) for name in _CRS84):
        raise AreaError("the GeoJSON names another CRS than EPSG:4326; write it as a file")
    kind = document.get("type")
    if kind == "FeatureCollection":
        features = document.get("features")
        if not isinstance(features, list):
            raise AreaError("the GeoJSON FeatureCollection has no list of features")
        if len(features) > MAX_FEATURES:
            raise AreaError(f"the GeoJSON has more than {MAX_FEATURES} features; unite them")
    else:
        features = [document]
    return [_geometry(feature) for feature in features]


def _geometry(feature: object) -> BaseGeometry:
    wanted = feature
    if isinstance(feature, Mapping) and feature.get("type") == "Feature":
        wanted = feature.get("geometry")
    if not isinstance(wanted, Mapping):
        raise AreaError("the GeoJSON has a feature without a geometry")
    try:
        return shape(dict(wanted))
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        kind = wanted.get("type")
        raise AreaError(f"the GeoJSON has a malformed geometry of type {kind!r}") from error


def _from_file(path: Path) -> BaseGeometry:
    if path.suffix.lower() not in _FILES:
        raise AreaError(f"{path}: an area is read from {', '.join(_FILES)}")
    if not path.is_file():
        raise AreaError(f"{path}: no such file")
    size = path.stat().st_size
    if path.suffix.lower() != ".gpkg" and size > MAX_FILE_BYTES:
        raise AreaError(f"{path}: {size / 2**20:.0f} MiB is too large for an area; simplify it")
    try:
        layers = pyogrio.list_layers(path)
        names = [str(name) for name, kind in layers if kind is not None]
        if len(names) != 1:
            raise AreaError(f"{path}: one layer is needed, it has {', '.join(names) or 'none'}")
        count = pyogrio.read_info(path, layer=names[0], force_feature_count=True)["features"]
        if count > MAX_FEATURES:
            raise AreaError(f"{path}: {count} features are too many for an area; unite them")
        frame = gpd.read_file(path, layer=names[0], columns=[])
    except (DataSourceError, DataLayerError, UnicodeDecodeError) as error:
        raise AreaError(f"{path}: not readable as GeoJSON or GeoPackage ({error})") from error
    return _from_frame(frame, str(path))


def _from_frame(frame: gpd.GeoDataFrame | gpd.GeoSeries, where: str) -> BaseGeometry:
    geometry = frame.geometry
    if geometry.crs is None:
        raise AreaError(f"{where}: its coordinate reference system is not stated; set it")
    geometry = geometry[~(geometry.isna() | geometry.is_empty)]
    parts = [_surface(part, where) for part in geometry]
    _limit_vertices(parts, where)
    if geometry.crs.to_epsg() != 4326:
        # Straight edges of another projection are curved in degrees: bend them every kilometre.
        step = 1000.0 / geometry.crs.axis_info[0].unit_conversion_factor
        if geometry.crs.is_projected and parts:
            step = max(step, sum(part.length for part in parts) / 20_000)
            parts = list(shapely.segmentize(parts, step))
        parts = list(gpd.GeoSeries(parts, crs=geometry.crs).to_crs(4326))
        if geometry.crs.is_projected:
            parts = [_unbroken(part) for part in shapely.get_parts(parts)]
    return _checked(parts, where)


def _checked(parts: Sequence[BaseGeometry], where: str) -> BaseGeometry:
    _limit_vertices(parts, where)
    surfaces = [_surface(part, where) for part in parts if not part.is_empty]
    if not surfaces:
        raise AreaError(f"{where}: the area is empty")
    _check_place(surfaces, where)
    surfaces = [_split(_pixel(part)) for part in surfaces]
    area = surfaces[0] if len(surfaces) == 1 else shapely.union_all(surfaces)
    square_km = abs(Geod(ellps="WGS84").geometry_area_perimeter(area)[0]) / 1e6
    if square_km > MAX_AREA_KM2:
        raise AreaError(
            f"{where}: {square_km:,.0f} km² is more than the limit of {MAX_AREA_KM2:,} km²; "
            "work in parts"
        )
    return area


def _limit_vertices(parts: Sequence[BaseGeometry], where: str) -> None:
    vertices = int(shapely.get_num_coordinates(np.asarray(parts, dtype=object)).sum())
    if vertices > MAX_VERTICES:
        raise AreaError(f"{where}: {vertices} vertices are too many for an area; simplify it")


def _surface(part: BaseGeometry, where: str) -> BaseGeometry:
    if not isinstance(part, (Polygon, MultiPolygon, Point, MultiPoint)):
        raise AreaError(f"{where}: a {part.geom_type} has no surface; give polygons or points")
    flat = shapely.force_2d(part)
    if not np.isfinite(shapely.get_coordinates(flat)).all():
        raise AreaError(f"{where}: a coordinate is not finite")
    if not flat.is_valid:
        raise AreaError(f"{where}: invalid polygon ({explain_validity(flat)}); repair it")
    if flat.area == 0 and isinstance(part, (Polygon, MultiPolygon)):
        raise AreaError(f"{where}: a polygon without surface")
    return flat


def _pixel(part: BaseGeometry) -> BaseGeometry:
    """Return a tiny square for each point, and a surface as it is."""
    if not isinstance(part, (Point, MultiPoint)):
        return part
    x, y = shapely.get_coordinates(part).T
    return shapely.union_all(shapely.box(x - _TINY, y - _TINY, x + _TINY, y + _TINY))


def _unbroken(part: BaseGeometry) -> BaseGeometry:
    """Return a polygon whose reprojection jumped from 180° to -180° without the jump."""
    west, _, east, _ = part.bounds
    if east - west <= 180:
        return part
    return shapely.transform(part, lambda xy: xy + np.where(xy[:, :1] < 0, [360.0, 0.0], 0.0))


def _split(part: BaseGeometry) -> BaseGeometry:
    """Return the same surface between -180° and 180°."""
    west, _, east, _ = part.bounds
    if west >= -180 and east <= 180:
        return part
    sides = []
    for turn in (-360.0, 0.0, 360.0):
        side = shapely.intersection(part, box(turn - 180, -90, turn + 180, 90))
        sides.append(shapely.transform(side, lambda xy, turn=turn: xy - [[turn, 0.0]]))
    return shapely.union_all([side for side in sides if side.area > 0])


def _check_place(parts: Sequence[BaseGeometry], where: str) -> None:
    west, south, east, north = shapely.total_bounds(parts)
    if max(abs(west), abs(east)) > 360 or max(abs(south), abs(north)) > 90:
        raise AreaError(
            f"{where}: {west:g}, {south:g}, {east:g}, {north:g} are not degrees; reproject to "
            "EPSG:4326, or give a GeoDataFrame or file that states its CRS"
        )
    bounds = shapely.bounds(shapely.get_parts(parts))
    if (bounds[:, 2] - bounds[:, 0] > 180).any():
        raise AreaError(
            f"{where}: a polygon is wider than half the Earth; if it crosses the antimeridian, "
            "split it there, or continue its longitudes beyond 180°"
        )
    if south < _SOUTH or north > _NORTH:
        raise AreaError(
            f"{where}: reaches beyond {_SOUTH:g}° to {_NORTH:g}° latitude, where Sentinel-2 "
            "granules end"
        )
