"""Parcels, zones, land cover and the new area, as the registers and services publish them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window as RasterWindow
from shapely.geometry import MultiPolygon, Polygon, box, mapping

from cube.grid import NativeGrid
from cube.simulate.crops import BY_CODE, CROPS
from cube.simulate.landscape import Landscape
from cube.simulate.layout import Layout
from cube.simulate.rng import stream
from cube.simulate.settings import Settings

LAMBERT93 = 2154
#: Shares of parcels whose outline crosses itself, and whose outline reaches over a neighbour's.
BOW_TIES, OVERLAPS = 0.004, 0.01
#: Pixel of ESA WorldCover in degrees.
_COVER_PIXEL = 1 / 12_000


@contextmanager
def _fixed_date(year: int) -> Iterator[None]:
    """Let GeoPackages carry a fixed date, so that equal content is equal bytes."""
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": f"{year + 1}-01-01T00:00:00.000Z"})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _write(frame: gpd.GeoDataFrame, path: Path, layer: str, year: int) -> None:
    with _fixed_date(year):
        frame.to_file(path, layer=layer, driver="GPKG", engine="pyogrio")


def _bow_tie(polygon: Polygon) -> Polygon:
    """Return the outline with two stretches swapped, so that it crosses itself."""
    ring = list(polygon.exterior.coords)[:-1]
    i, j = len(ring) // 3, 2 * len(ring) // 3
    ring[i], ring[j] = ring[j], ring[i]
    return Polygon(ring)


def _declared(code: str, place: Layout, rng: np.random.Generator) -> str:
    """Return a wrong code, drawn from what else grows in the region."""
    weight = np.array(
        [0.0 if c.code == code else c.share * place.region.tilt.get(c.code, 1.0) for c in CROPS]
    )
    return CROPS[int(rng.choice(len(CROPS), p=weight / weight.sum()))].code


def _flaws(n: int, share: float, rng: np.random.Generator) -> frozenset[int]:
    """Return which of `n` parcels have a flaw; at least one, so that no reader forgets it."""
    count = min(n, max(1, round(share * n)))
    return frozenset(rng.choice(n, count, replace=False).tolist())


def _outlines(polygons: list[Polygon], rng: np.random.Generator) -> list[MultiPolygon]:
    """Return the outlines as declared: mostly right, a few over the neighbour's, a few crossed."""
    crossed = _flaws(len(polygons), BOW_TIES, rng)
    wide = _flaws(len(polygons), OVERLAPS, rng) - crossed
    drawn = []
    for i, polygon in enumerate(polygons):
        if i in crossed:
            polygon = _bow_tie(polygon)
        elif i in wide:
            polygon = polygon.buffer(rng.uniform(8, 18), join_style="mitre")
        drawn.append(MultiPolygon([polygon]))
    return drawn


def parcel_frames(
    place: Layout, land: Landscape, settings: Settings, first: int
) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Return the declared parcels of one region and the truth behind them, EPSG:2154.

    Parcels that leave the region's imagery are not listed. Numbering starts at `first`.
    """
    rng = stream(settings.seed, place.region.name, "declarations")
    g = place.grid
    seen = box(g.left, g.top - 10 * g.height, g.left + 10 * g.width, g.top)
    units = [u for u in land.units if u.crop is not None and u.polygon.within(seen)]
    true = [u.crop.code for u in units if u.crop is not None]
    wrong = rng.random(len(units)) < settings.label_noise
    codes = [_declared(c, place, rng) if w else c for c, w in zip(true, wrong, strict=True)]
    facts = {
        "ID_PARCEL": [str(first + i) for i in range(len(units))],
        "SURF_PARC": [round(u.hectares, 2) for u in units],
    }
    declared = {
        "CODE_CULTU": codes,
        "CODE_GROUP": [BY_CODE[code].group for code in codes],
        "CULTURE_D1": None,
        "CULTURE_D2": None,
    }
    polygons = [u.polygon for u in units]
    crs = f"EPSG:{g.epsg}"
    parcels = gpd.GeoDataFrame({**facts, **declared}, geometry=_outlines(polygons, rng), crs=crs)
    sound = [MultiPolygon([polygon]) for polygon in polygons]
    truth = gpd.GeoDataFrame({**facts, "TRUE_CULTU": true}, geometry=sound, crs=crs)
    return parcels.to_crs(LAMBERT93), truth.to_crs(LAMBERT93)


def write_parcels(
    places: Sequence[Layout], lands: Sequence[Landscape], settings: Settings, out: Path
) -> tuple[Path, Path, int]:
    """Write `parcels.gpkg` and `truth.gpkg`; return their paths and the number of parcels."""
    frames, truths, first = [], [], 10_000_001
    for place, land in zip(places, lands, strict=True):
        frame, truth = parcel_frames(place, land, settings, first)
        first += len(frame)
        frames.append(frame)
        truths.append(truth)
    parcels, truth = out / "parcels.gpkg", out / "truth.gpkg"
    joined = gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), crs=LAMBERT93)
    _write(joined, parcels, "parcels", settings.year)
    _write(
        gpd.GeoDataFrame(pd.concat(truths, ignore_index=True), crs=LAMBERT93),
        truth, "truth", settings.year,
    )  # fmt: skip
    return parcels, truth, len(joined)


def held_out_zone(place: Layout, settings: Settings) -> int:
    """Return which of the region's zones is the test zone."""
    rng = stream(settings.seed, place.region.name, "test")
    return int(rng.integers(len(place.zones)))


def write_zones(places: Sequence[Layout], settings: Settings, out: Path) -> Path:
    """Write `zones.gpkg`: every zone with its region; one zone per region is the test zone."""
    frames = []
    for place in places:
        n = len(place.zones)
        test = held_out_zone(place, settings)
        rows = {
            "zone": [f"{place.region.name}-{i + 1}" for i in range(n)],
            "region": place.region.name,
            "test": [i == test for i in range(n)],
        }
        frame = gpd.GeoDataFrame(rows, geometry=list(place.zones), crs=f"EPSG:{place.grid.epsg}")
        frames.append(frame.to_crs(LAMBERT93))
    path = out / "zones.gpkg"
    joined = gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), crs=LAMBERT93)
    _write(joined, path, "zones", settings.year)
    return path


def write_new_area(place: Layout, out: Path) -> Path:
    """Write `new_area.geojson`: the middle of the strip that belongs to no zone, EPSG:4326."""
    to_lonlat = Transformer.from_crs(place.grid.epsg, 4326, always_xy=True)
    inner = place.new_area.buffer(-40, join_style="mitre")
    area = shapely.transform(inner, lambda xy: np.column_stack(to_lonlat.transform(*xy.T)))
    feature = {
        "type": "Feature",
        "properties": {"name": f"{place.region.name}, new area"},
        "geometry": mapping(area),
    }
    path = out / "new_area.geojson"
    collection = {"type": "FeatureCollection", "features": [feature]}
    path.write_text(json.dumps(collection, indent=1) + "\n", encoding="utf-8")
    return path


def _lonlat_bounds(grid: NativeGrid) -> tuple[float, float, float, float]:
    left, top = grid.left, grid.top
    bounds = (left, top - 10 * grid.height, left + 10 * grid.width, top)
    return transform_bounds(f"EPSG:{grid.epsg}", "EPSG:4326", *bounds)


def write_worldcover(places: Sequence[Layout], lands: Sequence[Landscape], out: Path) -> Path:
    """Write `worldcover.tif`: ESA WorldCover classes, EPSG:4326, 1/12000°, sparse."""
    bounds = np.array([_lonlat_bounds(place.grid) for place in places])
    left, bottom = np.floor(bounds[:, :2].min(axis=0) / _COVER_PIXEL)
    right, top = np.ceil(bounds[:, 2:].max(axis=0) / _COVER_PIXEL)
    transform = Affine(_COVER_PIXEL, 0, left * _COVER_PIXEL, 0, -_COVER_PIXEL, top * _COVER_PIXEL)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": 0, "crs": "EPSG:4326",
        "width": int(right - left), "height": int(top - bottom), "transform": transform,
        "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
        "sparse_ok": True,
    }  # fmt: skip
    path = out / "worldcover.tif"
    with rasterio.open(path, "w+", **profile) as file:
        for place, land, edges in zip(places, lands, bounds, strict=True):
            col, row = np.floor([edges[0] / _COVER_PIXEL - left, top - edges[3] / _COVER_PIXEL])
            width, height = np.ceil((edges[2:] - edges[:2]) / _COVER_PIXEL) + 1
            width, height = min(width, file.width - col), min(height, file.height - row)
            window = RasterWindow(int(col), int(row), int(width), int(height))
            target = file.read(1, window=window)
            reproject(
                land.worldcover, target, src_transform=place.grid.transform,
                src_crs=f"EPSG:{place.grid.epsg}", dst_transform=file.window_transform(window),
                dst_crs="EPSG:4326", resampling=Resampling.nearest, init_dest_nodata=False,
            )  # fmt: skip
            file.write(target, 1, window=window)
    return path
