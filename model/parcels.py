"""Parcels of a register, read by area only and brought to one form.

A national register holds ten million parcels; only those that meet the area are ever decoded.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from pyproj import CRS, Transformer
from shapely.geometry.base import BaseGeometry

from cube.area import read_area
from cube.errors import LabelError
from model.legend import IGNORE, Legend

logger = logging.getLogger(__name__)

#: Our column → how registers spell it, lower case. RPG 2023 writes upper case, 2022 lower case.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "id": ("id_parcel", "parcel_id", "id"),
    "code": ("code_cultu", "code"),
    "group": ("code_group", "rpg_group"),
    "name": ("hcat3_name", "ec_hcat_n", "hcat_name"),
    "candidates": ("rpg_candidates",),
}
#: Shapely's type numbers of Polygon and MultiPolygon.
_POLYGONAL = (3, 6)


def read_parcels(
    path: str | Path, area: Any, legend: Legend | None = None, *, layer: str | None = None
) -> gpd.GeoDataFrame:
    """Read the parcels that meet an area.

    Parameters
    ----------
    path : str or Path
        GeoPackage or anything else GDAL reads; a spatial index makes the filter fast.
    area
        Anything `cube.area.read_area` takes. Each of its polygons is a filter of its own, so zones
        spread over a country do not read what lies between them.
    legend : Legend, optional
        Adds the columns ``class`` (255 = ignore) and ``reason``.
    layer : str, optional
        Default the first.

    Returns
    -------
    GeoDataFrame
        In the file's CRS and order: text columns ``id``, ``code``, ``group``, ``name``,
        ``candidates`` ("" where the register says nothing) and ``geometry``.

    Raises
    ------
    LabelError
        If the file is not readable, has no CRS, or has neither crop codes nor EuroCrops names.
    """
    try:
        info = pyogrio.read_info(path, layer=layer)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise LabelError(f"{path}: not readable as parcels ({error})") from error
    if not info["crs"]:
        raise LabelError(f"{path}: no coordinate system; set one (RPG: EPSG:2154) and try again")
    sources = _columns_of(path, info["fields"])
    parts = [
        pyogrio.read_dataframe(
            path, layer=layer, columns=list(sources.values()), mask=part, fid_as_index=True
        )
        for part in _parts(read_area(area), CRS.from_user_input(info["crs"]))
    ]
    raw = pd.concat(parts)
    # A parcel between two zones is found twice, under the same feature id.
    raw = gpd.GeoDataFrame(raw[~raw.index.duplicated()].sort_index(), crs=info["crs"])
    parcels = _normalise(raw, sources)
    logger.info("%s: %d parcels in the area", path, len(parcels))
    return parcels if legend is None else parcels.join(legend.classify(parcels))


def repair(parcels: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, int, int]:
    """Return parcels with valid polygons only, how many were repaired, and how many dropped.

    Self-intersections and the like are resolved by `shapely.make_valid`; lines and points are
    removed (rasterised, they would claim every pixel they touch), and so are parcels without any
    polygon.
    """
    shapes = parcels.geometry.to_numpy()
    areal = np.isin(shapely.get_type_id(shapes), _POLYGONAL)
    invalid = ~(shapely.is_valid(shapes) & areal) & ~shapely.is_missing(shapes)
    shapes = shapes.copy()
    shapes[invalid] = [_polygons(shapely.make_valid(shape)) for shape in shapes[invalid]]
    empty = shapely.is_missing(shapes) | shapely.is_empty(shapes) | (shapely.area(shapes) == 0)
    good = parcels.set_geometry(gpd.GeoSeries(shapes, index=parcels.index, crs=parcels.crs))
    return good[~empty], int((invalid & ~empty).sum()), int(empty.sum())


def log_unlabelled(
    parcels: gpd.GeoDataFrame, legend: Legend
) -> tuple[dict[str, int], dict[str, int]]:
    """Count parcels without a class by reason, and codes out of year; warn of what is unexpected.

    Returns
    -------
    unlabelled : dict of str to int
        Reason to parcels. Their pixels are 255 while the parcel raster keeps them.
    out_of_year : dict of str to int
        Code to parcels: codes that were not in use in the legend's year, mapped all the same.
    """
    reasons = parcels.loc[parcels["class"] == IGNORE, "reason"].value_counts()
    unlabelled = {str(reason): int(count) for reason, count in reasons.items()}
    odd = parcels.loc[parcels.code.isin(legend.out_of_year), "code"].value_counts()
    out_of_year = {str(code): int(count) for code, count in odd.items()}
    surprising = {r: n for r, n in unlabelled.items() if r.startswith(("unknown", "ambiguous"))}
    if surprising:
        listed = "; ".join(f"{reason} ({count})" for reason, count in surprising.items())
        logger.warning("legend %s: parcels ignored: %s", legend.title, listed)
    if out_of_year:
        listed = ", ".join(f"{code} ({count})" for code, count in out_of_year.items())
        logger.warning("codes not in use in %d, mapped all the same: %s", legend.year, listed)
    return unlabelled, out_of_year


def _columns_of(path: str | Path, fields: Any) -> dict[str, str]:
    lower = {str(field).lower(): str(field) for field in fields}
    found = {
        column: next(lower[spelling] for spelling in spellings if spelling in lower)
        for column, spellings in _SPELLINGS.items()
        if any(spelling in lower for spelling in spellings)
    }
    if not {"code", "name"} & found.keys():
        raise LabelError(
            f"{path}: no crop column; expected CODE_CULTU (RPG) or hcat3_name (EuroCrops), the "
            f"file has {', '.join(lower.values())}"
        )
    return found


def _parts(area: BaseGeometry, crs: CRS) -> list[BaseGeometry]:
    # A straight edge in longitude and latitude is curved in the file's metres.
    to_file = Transformer.from_crs(4326, crs, always_xy=True).transform
    fine = shapely.segmentize(area, 0.01)
    return list(shapely.get_parts(shapely.transform(fine, to_file, interleaved=False)))


def _normalise(raw: gpd.GeoDataFrame, sources: dict[str, str]) -> gpd.GeoDataFrame:
    parcels = gpd.GeoDataFrame(index=pd.RangeIndex(len(raw)))
    for column in _SPELLINGS:
        values = raw[sources[column]] if column in sources else pd.Series("", index=raw.index)
        parcels[column] = _text(values).to_numpy()
    if "id" not in sources:
        parcels["id"] = raw.index.astype(str)
    return parcels.set_geometry(gpd.GeoSeries(raw.geometry.to_numpy(), crs=raw.crs))


def _text(values: pd.Series) -> pd.Series:
    # Ids and groups come as text or as numbers; 18.0 and 18 are the same group.
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    return values.astype("string").fillna("").str.strip().astype(object)


def _polygons(shape: BaseGeometry) -> BaseGeometry:
    parts = np.array(shapely.get_parts(shape))
    nested = shapely.get_parts(parts) if len(parts) else parts
    areal = [part for part in nested if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(areal)
