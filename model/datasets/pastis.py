"""PASTIS: patches of 128 × 128 pixels in France, dated series from September 2018 on.

Garnot and Landrieu (2021), arXiv 2107.07933; Sentinel-2 files of release 1.0 (Zenodo 5012942)::

    metadata.geojson                    ID_PATCH, Fold, dates-S2 ({"0": 20180924, …})
    DATA_S2/S2_<id>.npy                 int16 [T, 10, 128, 128]
    ANNOTATIONS/TARGET_<id>.npy         uint8 [3, 128, 128], the first: class, 19 = void
    ANNOTATIONS/ParcelIDs_<id>.npy      int32 [128, 128], 0 = none (optional)

A patch of 61 dates takes 20 MB in memory, all 2433 up to 49 GB: load some folds, or a part of each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from cube.errors import LabelError
from model.datasets.layout import TEN_BANDS, Series, calendar, drawn, load_array, need, padded
from model.legend import IGNORE, flat_legend
from model.sampleset import SampleSet

#: Classes 1 to 18; 0 is background.
CLASSES = (
    "Meadow",
    "Soft winter wheat",
    "Corn",
    "Winter barley",
    "Winter rapeseed",
    "Spring barley",
    "Sunflower",
    "Grapevine",
    "Beet",
    "Winter triticale",
    "Winter durum wheat",
    "Fruits, vegetables, flowers",
    "Potatoes",
    "Leguminous fodder",
    "Soybeans",
    "Orchard",
    "Mixed cereal",
    "Sorghum",
)
FOLDS = (1, 2, 3, 4, 5)
_NAME = "pastis"
_VOID = 19
#: What the reflectance product of Theia, which PASTIS is cut from, writes where it has no data.
_NO_DATA = -10_000
#: The season begins in this year's autumn.
_YEAR = 2018


def pastis(
    folder: str | Path,
    *,
    folds: Sequence[int] = FOLDS,
    limit: int | None = None,
    seed: int = 0,
) -> SampleSet:
    """Load PASTIS.

    Parameters
    ----------
    folder : path
        That holds ``metadata.geojson``.
    folds : sequence of int
        Of the five official folds.
    limit : int, optional
        Patches of each fold, drawn at random; default all.
    seed : int
        Draws the patches.

    Returns
    -------
    SampleSet
        Kind ``image``; x uint16 [N, 10, T, 128, 128], DN below 1 as 1; y with void as 255; group =
        fold; parcels if the release's parcel numbers are there for all patches.

    Raises
    ------
    LabelError
        If a file is missing or not in this layout.
    """
    root = Path(folder)
    table = _metadata(root / "metadata.geojson")
    random = np.random.default_rng(seed)
    chosen = [
        row for fold in folds for row in drawn(np.flatnonzero(table.Fold == fold), limit, random)
    ]
    if not chosen:
        raise LabelError(f"{_NAME}: no patch is of fold {', '.join(map(str, folds))}")
    table = table.iloc[np.array(chosen)]
    x, valid, doy = padded(
        [_series(root, *patch) for patch in zip(table.ID_PATCH, table["dates-S2"], strict=True)]
    )
    targets = [_target(root, patch) for patch in table.ID_PATCH]
    numbers = [root / "ANNOTATIONS" / f"ParcelIDs_{patch}.npy" for patch in table.ID_PATCH]
    known = all(path.exists() for path in numbers)
    return SampleSet(
        name=_NAME,
        kind="image",
        bands=TEN_BANDS,
        legend=flat_legend(_NAME, CLASSES, _YEAR),
        x=x,
        valid=valid,
        doy=doy,
        y=np.stack(targets),
        group=table.Fold.to_numpy(np.int32),
        parcel=_stacked(numbers).astype(np.int32) if known else None,
        lonlat=table[["lon", "lat"]].to_numpy(np.float64),
    )


def _metadata(path: Path) -> pd.DataFrame:
    """Return ID_PATCH, Fold, dates-S2, lon and lat, one row per patch in order of ID_PATCH."""
    try:
        collection: dict[str, Any] = json.loads(need(path, _NAME).read_text(encoding="utf-8"))
        crs = collection.get("crs", {}).get("properties", {}).get("name", "EPSG:4326")
        table = gpd.GeoDataFrame.from_features(collection["features"], crs=crs)
        table = table.astype({"ID_PATCH": int, "Fold": int}).sort_values("ID_PATCH")
        middles = table.geometry.centroid.to_crs(4326)
        return pd.DataFrame(table[["ID_PATCH", "Fold", "dates-S2"]]).assign(
            lon=middles.x, lat=middles.y
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelError(f"{_NAME}: {path} is not the metadata of the release ({error})") from error


def _series(root: Path, patch: int, days: dict[str, int]) -> Series:
    values = load_array(root / "DATA_S2" / f"S2_{patch}.npy", _NAME)
    dates = calendar(map(str, days.values()))
    if values.ndim != 4 or values.shape[:2] != (len(dates), len(TEN_BANDS)):
        raise LabelError(
            f"{_NAME}: patch {patch} has shape {values.shape}; its metadata name {len(dates)} "
            f"dates, and bands are {len(TEN_BANDS)}"
        )
    valid = np.asarray((values > _NO_DATA).all(axis=1))
    return Series.of(values, valid, dates, _YEAR)


def _target(root: Path, patch: int) -> np.ndarray:
    target = load_array(root / "ANNOTATIONS" / f"TARGET_{patch}.npy", _NAME)[0]
    if target.max() > _VOID:
        raise LabelError(f"{_NAME}: patch {patch} has class {target.max()}; void is {_VOID}")
    return np.where(target == _VOID, IGNORE, target).astype(np.uint8)


def _stacked(paths: list[Path]) -> np.ndarray:
    return np.stack([load_array(path, _NAME) for path in paths])
