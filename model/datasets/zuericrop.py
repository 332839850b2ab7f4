"""ZueriCrop: patches of 24 × 24 pixels in the cantons Zurich and Thurgau, 2019.

Turkoglu et al. (2021), arXiv 2102.08820. The original link is dead; the files are those of the
mirror that torchgeo reads (``isaaccorley/zuericrop``), licence CC BY-NC 4.0::

    ZueriCrop.hdf5    data         [N, 142, 24, 24, 9] reflectance × 10 000
                      gt           [N, 24, 24, 1] number of a row of labels.csv
                      gt_instance  [N, 24, 24, 1] number of the field, 0 = none
    labels.csv        GT, 1st_tier, 2nd_tier, 3rd_tier, 4th_tier_ENG, …

All 28 000 patches with every second date would take 21 GB: load some folds, or a part of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cube.errors import LabelError
from model.datasets.layout import drawn, open_hdf5, read_table
from model.legend import IGNORE, flat_legend
from model.sampleset import SampleSet

BANDS = (
    "nir",
    "green",
    "blue",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "swir16",
    "swir22",
)
FOLDS = (1, 2, 3, 4, 5)
_NAME = "zuericrop"
_YEAR = 2019
_TIERS = {1: "2nd_tier", 2: "3rd_tier", 3: "4th_tier_ENG"}


def zuericrop(
    folder: str | Path,
    *,
    level: Literal[1, 2, 3] = 3,
    folds: Sequence[int] = FOLDS,
    limit: int | None = None,
    step: int = 2,
    labelled: float = 0.9,
    seed: int = 0,
) -> SampleSet:
    """Load ZueriCrop.

    Parameters
    ----------
    folder : path
        That holds ``ZueriCrop.hdf5`` and ``labels.csv``.
    level : {1, 2, 3}
        Of the source's hierarchy: 3 is the finest.
    folds : sequence of int
        Of five contiguous parts of the patches, as in the source.
    limit : int, optional
        Patches of each fold, drawn at random; default all.
    step : int
        Every how many dates; the source takes every second.
    labelled : float
        Patches with a smaller share of labelled pixels are left out, as in the source.
    seed : int
        Draws the patches.

    Returns
    -------
    SampleSet
        Kind ``image``; x uint16 [N, 9, T, 24, 24]; y with what has no crop class as 255, which the
        source leaves out of loss and metrics; group = fold; parcel = field. Clouds are not masked.
        The release does not date its images: their days are spread evenly over the year.

    Raises
    ------
    LabelError
        If a file is missing or not in this layout.
    """
    root = Path(folder)
    names, class_of = _classes(root / "labels.csv", level)
    random = np.random.default_rng(seed)
    with open_hdf5(root / "ZueriCrop.hdf5", _NAME) as file:
        data, truth, fields = (_dataset(file, key) for key in ("data", "gt", "gt_instance"))
        marked = np.asarray(truth[..., 0])
        dense = (marked != 0).mean(axis=(1, 2)) >= labelled
        # Where the source cuts: at whole fifths of the patches, rounded down.
        fold_of = (
            np.searchsorted(
                [int(len(dense) * k / 5) for k in FOLDS], np.arange(len(dense)), side="right"
            )
            + 1
        )
        rows = np.array(
            [
                row
                for fold in folds
                for row in drawn(np.flatnonzero(dense & (fold_of == fold)), limit, random)
            ],
            np.int64,
        )
        if not len(rows):
            raise LabelError(
                f"{_NAME}: no patch of fold {', '.join(map(str, folds))} is labelled to "
                f"{labelled:.0%}"
            )
        patches = [_patch(data[row, ::step]) for row in rows]
        parcel = np.stack([fields[row, ..., 0] for row in rows]).astype(np.int32)
        days = np.linspace(1, 365, data.shape[1]).round().astype(np.int16)[::step]
    if marked.max() >= len(class_of):
        raise LabelError(f"{_NAME}: label {marked.max()} is not in labels.csv")
    return SampleSet(
        name=_NAME,
        kind="image",
        bands=BANDS,
        legend=flat_legend(f"{_NAME} level {level}", names, _YEAR),
        x=np.stack([x for x, _ in patches]),
        valid=np.stack([valid for _, valid in patches]),
        doy=np.broadcast_to(days, (len(rows), len(days))).copy(),
        y=class_of[marked[rows]],
        group=fold_of[rows].astype(np.int32),
        parcel=parcel,
    )


def _classes(path: Path, level: int) -> tuple[list[str], np.ndarray]:
    """Return the classes of a level and the class of each row of the table; uint8 [rows + 1]."""
    if level not in _TIERS:
        raise LabelError(f"{_NAME} has no level {level}; use 1, 2 or 3")
    table = read_table(path, _NAME, ("GT", "1st_tier", *_TIERS.values()))
    crops = table[(table["1st_tier"] == "Vegetation") & (table[_TIERS[3]] != "")]
    crops = crops[crops[_TIERS[level]] != ""]
    names = sorted(set(crops[_TIERS[level]]))
    numbers = pd.to_numeric(table.GT).to_numpy(int)
    class_of = np.full(numbers.max() + 1, IGNORE, np.uint8)
    chosen = pd.to_numeric(crops.GT).to_numpy(int)
    class_of[chosen] = [names.index(name) + 1 for name in crops[_TIERS[level]]]
    return names, class_of


def _dataset(file, key):  # type: ignore[no-untyped-def]
    if key not in file:
        raise LabelError(f"{_NAME}: ZueriCrop.hdf5 has no '{key}'")
    found = file[key]
    last = len(BANDS) if key == "data" else 1
    if found.shape[-1] < last:
        raise LabelError(f"{_NAME}: '{key}' has shape {found.shape}; its last axis needs {last}")
    return found


def _patch(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x uint16 [C, T, y, x] and valid [T, y, x] of [T, y, x, C]."""
    values = np.moveaxis(values, -1, 0)[: len(BANDS)]
    valid = np.asarray((values > 0).all(axis=0))
    return np.where(valid, values.clip(0, 65_535), 0).astype(np.uint16), valid
