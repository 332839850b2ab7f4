"""Labelled points with ten-day or monthly series: the US points and the French ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from cube.errors import LabelError
from model.legend import BACKGROUND, IGNORE, flat_legend
from model.sampleset import SampleSet

#: Sensor names in the files → common names, in the order of axis C.
BANDS = {
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B11": "swir16",
    "B12": "swir22",
}
#: Crops that are classes of their own; every other point is one of `OTHERS`.
US_CROPS = {
    "arkansas": ("Soybeans", "Rice", "Corn", "Cotton"),
    "california": ("Grapes", "Rice", "Alfalfa", "Almonds", "Pistachios"),
}
OTHERS = "others"
#: Side of the blocks that a spatial split keeps together, in degrees.
BLOCK = 0.1
#: A French class with fewer points is one of `OTHERS`.
LEAST = 10
_MISSING = 65535

Group = Literal["block", "zone"]


def us_cdl(path: str | Path, *, group: Group = "block") -> SampleSet:
    """Read US points with the classes of the Cropland Data Layer 2021 and 36 ten-day values.

    Parameters
    ----------
    path : path
        ``us-cdl-2021-arkansas.parquet`` or ``us-cdl-2021-california.parquet``: a row per point and
        ten-day window; what a window has no clear look at is missing in all bands.
    group : {"block", "zone"}
        What a spatial split keeps together: blocks of 0.1 degree, or the north (1) and the south
        (2) of the state.

    Returns
    -------
    SampleSet
        Kind ``pixel``; x uint16 [N, 10, 36] DN, a day per window (its middle).

    Raises
    ------
    LabelError
        If the file cannot be read, or is of another state.
    """
    path = Path(path)
    table = _read(path, ["point_id", "zone", "lon", "lat", "cdl_name", "start_date", *BANDS])
    state = next((name for name in US_CROPS if name in path.name), None)
    if state is None:
        raise LabelError(
            f"{path}: of which state? The name holds none of {', '.join(US_CROPS)}; keep the "
            "file's own name"
        )
    first = pd.to_datetime(table["start_date"])
    x, valid, doy, points = _series(table, "point_id", first, list(BANDS), _ten_days(first))
    classes = [name.lower() for name in US_CROPS[state]]
    legend = flat_legend(f"us-cdl-{state}", [*classes, OTHERS], 2021)
    named = points["cdl_name"].str.lower()
    lonlat = points[["lon", "lat"]].to_numpy(np.float64)
    return SampleSet(
        name=f"us-cdl-{state}",
        kind="pixel",
        bands=tuple(BANDS.values()),
        legend=legend,
        x=x,
        valid=valid,
        doy=doy,
        y=_labels(named.where(named.isin(classes), OTHERS), legend.classes),
        group=blocks(lonlat) if group == "block" else _numbers(points["zone"]),
        lonlat=lonlat,
    )


def fr_rpg(path: str | Path) -> SampleSet:
    """Read French points with crops of the land register (RPG), and their ten-day or monthly DN.

    Parameters
    ----------
    path : path
        ``*.dekad.geoparquet`` or ``*.month.geoparquet`` of WorldCereal, with
        ``worldcereal_class_mappings.json`` beside it: a row per point and date. A class with fewer
        than 10 points is one of ``others``, land without a crop is background.

    Returns
    -------
    SampleSet
        Kind ``pixel``; x uint16 [N, 9, T] DN (nir08 is missing in all rows), days counted from the
        first of January of the year in which the series begins, groups by 0.1 degree.

    Raises
    ------
    LabelError
        If a file cannot be read.
    """
    path = Path(path)
    bands = {f"S2-L2A-{name}": common for name, common in BANDS.items() if name != "B8A"}
    table = _read(path, ["sample_id", "timestamp", "lon", "lat", "ewoc_code", "year", *bands])
    first = table["timestamp"]
    middle = _ten_days(first) if ".dekad." in path.name else _months(first)
    values = table[list(bands)].astype(np.float64)
    table[list(bands)] = values.where(values != _MISSING)
    x, valid, doy, points = _series(table, "sample_id", first, list(bands), middle)
    named = points["ewoc_code"].astype(str).map(_mapping(path.parent)).fillna("ignore")
    counts = named.value_counts()
    rare = set(counts.index[counts < LEAST]) - {"no_crop", "ignore"}
    named = named.where(~named.isin(rare), OTHERS).replace("no_crop", BACKGROUND)
    year = int(points["year"].iloc[0])
    classes = [*sorted(set(named) - {OTHERS, BACKGROUND, "ignore"}), OTHERS]
    legend = flat_legend(f"fr-rpg-{year}", classes, year)
    lonlat = points[["lon", "lat"]].to_numpy(np.float64)
    return SampleSet(
        name=f"fr-rpg-{year}",
        kind="pixel",
        bands=tuple(bands.values()),
        legend=legend,
        x=x,
        valid=valid,
        doy=doy,
        y=_labels(named, legend.classes),
        group=blocks(lonlat),
        lonlat=lonlat,
    )


def blocks(lonlat: np.ndarray, side: float = BLOCK) -> np.ndarray:
    """Return the number, from 1, of the block of `side` degrees that holds each point.

    Parameters
    ----------
    lonlat : float64 [N, 2]
        Degrees.
    side : float
        Degrees.

    Returns
    -------
    int32 [N]
        Numbered west to east, then south to north; only blocks that hold points count.
    """
    cells = np.floor(lonlat / side).astype(np.int64)
    return (np.unique(cells, axis=0, return_inverse=True)[1].ravel() + 1).astype(np.int32)


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=columns)
    except ImportError as error:
        raise LabelError(
            f"{path}: Parquet files need pyarrow: pip install 'cropcube[datasets]'"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise LabelError(
            f"{path}: no table of points with {', '.join(columns)} ({error}); give the folder "
            "that holds the published file"
        ) from error


def _series(
    table: pd.DataFrame, key: str, first: pd.Series[Any], bands: list[str], middle: pd.Series[Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, pd.DataFrame]:
    """Return x [N, C, T], valid [N, T], doy [N, T], and the first row of each point, in file order.

    Axis T holds every date of the table; a point that lacks one is invalid there.
    """
    number, _ = pd.factorize(table[key])
    date, dates = pd.factorize(first, sort=True)
    values = table[bands].to_numpy(np.float64)
    seen = ~np.isnan(values).any(axis=1)
    n, t = int(number.max()) + 1, len(dates)
    x = np.zeros((n, len(bands), t), np.uint16)
    valid = np.zeros((n, t), bool)
    doy = np.zeros((n, t), np.int16)
    x[number[seen], :, date[seen]] = values[seen].astype(np.uint16)
    valid[number[seen], date[seen]] = True
    new_year = pd.Timestamp(dates.min().year, 1, 1)
    doy[number, date] = (middle - new_year).dt.days.to_numpy() + 1
    return x, valid, doy, table.groupby(number, sort=True).first()


def _ten_days(first: pd.Series[Any]) -> pd.Series[Any]:
    """Return the middle of windows that begin on days 1, 11 and 21; the last ends the month."""
    length = np.where(first.dt.day == 21, first.dt.days_in_month - 20, 10)
    return first + pd.to_timedelta((length - 1) // 2, unit="D")


def _months(first: pd.Series[Any]) -> pd.Series[Any]:
    return first + pd.to_timedelta((first.dt.days_in_month - 1) // 2, unit="D")


def _labels(named: pd.Series[Any], classes: Sequence[str]) -> np.ndarray:
    """Return the class of each point, uint8 [N]; names that are no class become 255."""
    number = {name: index for index, name in enumerate(classes)}
    return named.map(number).fillna(IGNORE).to_numpy(np.uint8)


def _numbers(names: pd.Series[Any]) -> np.ndarray:
    return (pd.factorize(names, sort=True)[0] + 1).astype(np.int32)


def _mapping(folder: Path) -> dict[str, str]:
    path = folder / "worldcereal_class_mappings.json"
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["CROPTYPE24"]
    except (OSError, ValueError, KeyError) as error:
        raise LabelError(
            f"{path}: no table of WorldCereal classes ({error}); it belongs beside the points"
        ) from error
    return found
