"""BreizhCrops: parcels of Brittany, means of all their pixels on each date.

Rußwurm, Lefèvre and Körner (2019), arXiv 1905.11893. Files as the Python package ``breizhcrops``
lays them out::

    classmapping.csv              id, classname, code (RPG)
    2017/L1C/frh01.csv            CODE_CULTU, path, id, sequencelength, … of each parcel
    2017/L1C/frh01.h5             at `path`: float [T, columns]

Columns of level 1C: B1 to B9 with B8A, B10 to B12, three quality bands, and the date in nanoseconds
since 1970; of level 2A: the date, ten bands, three quality bands. That is the order of the package
since it lists its columns by number; its first releases had B10 to B12 after B1.

The regions hold 608 263 parcels in about 9 GB of level 1C: load a part with `limit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cube.errors import LabelError
from model.datasets.layout import (
    SENTINEL2,
    TEN_BANDS,
    Series,
    drawn,
    open_hdf5,
    padded,
    read_table,
)
from model.legend import flat_legend
from model.sampleset import SampleSet

REGIONS = ("frh01", "frh02", "frh03", "frh04")
Level = Literal["L1C", "L2A"]
_NAME = "breizhcrops"
#: Bands, columns in all, first band and date of each level's tables.
_COLUMNS: dict[str, tuple[tuple[str, ...], int, int, int]] = {
    "L1C": (SENTINEL2, 17, 0, 16),
    "L2A": (TEN_BANDS, 14, 1, 0),
}


def breizhcrops(
    folder: str | Path,
    *,
    level: Level = "L1C",
    year: int = 2017,
    regions: Sequence[str] = REGIONS,
    limit: int | None = None,
    seed: int = 0,
) -> SampleSet:
    """Load BreizhCrops.

    Parameters
    ----------
    folder : path
        That holds ``classmapping.csv`` and the years.
    level : {"L1C", "L2A"}
        Top of atmosphere (13 bands) or surface reflectance (10 bands).
    year : int
        2017 or 2018.
    regions : sequence of str
        Of the four NUTS-3 regions.
    limit : int, optional
        Parcels of each region, drawn at random; default all.
    seed : int
        Draws the parcels.

    Returns
    -------
    SampleSet
        Kind ``pixel``; x uint16 [N, C, T], every date of a parcel as the benchmark uses it, under
        clouds too; group = number of the region (1 for frh01); parcel = RPG number.

    Raises
    ------
    LabelError
        If a file is missing or not in this layout.
    """
    root = Path(folder)
    mapping = read_table(root / "classmapping.csv", _NAME, ("id", "classname", "code"))
    names = mapping.astype({"id": int}).sort_values("id").drop_duplicates("id").classname
    class_of = dict(zip(mapping.code, mapping.id.astype(int) + 1, strict=True))
    random = np.random.default_rng(seed)
    series, rows = [], []
    for region in regions:
        table = _index(root / str(year) / level / f"{region}.csv", region, class_of)
        table = table.iloc[drawn(range(len(table)), limit, random)]
        with open_hdf5(root / str(year) / level / f"{region}.h5", _NAME) as database:
            for path in table.path:
                if path not in database:
                    raise LabelError(f"{_NAME}: {region}.h5 has no '{path}', which its index names")
                series.append(_series(np.asarray(database[path]), path, level, year))
        rows.append(table)
    parcels = pd.concat(rows)
    if parcels.empty:
        raise LabelError(f"{_NAME}: no parcel of {', '.join(regions)} has a class and a date")
    x, valid, doy = padded(series)
    return SampleSet(
        name=_NAME,
        kind="pixel",
        bands=_COLUMNS[level][0],
        legend=flat_legend(_NAME, names.tolist(), year),
        x=x,
        valid=valid,
        doy=doy,
        y=parcels.label.to_numpy(np.uint8),
        group=parcels.group.to_numpy(np.int32),
        parcel=parcels.id.astype(np.int64).to_numpy(np.int32),
    )


def _index(path: Path, region: str, class_of: dict[str, int]) -> pd.DataFrame:
    if region not in REGIONS:
        raise LabelError(f"{_NAME} has no region '{region}'; it has {', '.join(REGIONS)}")
    table = read_table(path, _NAME, ("CODE_CULTU", "path", "id", "sequencelength"))
    table = table[table.CODE_CULTU.isin(class_of) & (table.sequencelength.astype(int) > 0)]
    return table.assign(label=table.CODE_CULTU.map(class_of), group=REGIONS.index(region) + 1)


def _series(values: np.ndarray, path: str, level: Level, year: int) -> Series:
    bands, columns, first, date = _COLUMNS[level]
    if values.ndim != 2 or values.shape[1] != columns:
        raise LabelError(
            f"{_NAME}: '{path}' has shape {values.shape}; {level} has {columns} columns"
        )
    dates = values[:, date].astype(np.int64).astype("datetime64[ns]")
    shown = values[:, first : first + len(bands)]
    return Series.of(shown, np.isfinite(shown).all(axis=1), dates, year)
