"""TimeSen2Crop: pixels of Austria, dated series of an agronomic year.

Weikmann, Paris and Bruzzone (2021), IEEE JSTARS, doi 10.1109/JSTARS.2021.3073965; files of the
release on Zenodo (4715631)::

    33UVP/dates.csv       acquisition days of the tile, YYYYMMDD, one a row
    33UVP/2/17.csv        a pixel of class 2: a row per day, nine bands, then 0 = clear, 1 = cloud,
                          2 = shadow, 3 = snow
    2019_33UVP/…          the same tile a year later

1 212 224 files: load a part with `per_class`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cube.errors import LabelError
from model.datasets.layout import TEN_BANDS, Series, calendar, drawn, need, padded
from model.legend import flat_legend
from model.sampleset import SampleSet

CLASSES = (
    "Legumes",
    "Grassland",
    "Maize",
    "Potato",
    "Sunflower",
    "Soy",
    "Winter Barley",
    "Winter Caraway",
    "Rye",
    "Rapeseed",
    "Beet",
    "Spring Cereals",
    "Winter Wheat",
    "Winter Triticale",
    "Permanent Plantation",
    "Other Crops",
)
#: The files call them B1 to B9; B8 is not among them.
BANDS = tuple(band for band in TEN_BANDS if band != "nir")
_NAME = "timesen2crop"


def timesen2crop(
    folder: str | Path,
    *,
    tiles: Sequence[str] | None = None,
    per_class: int | None = None,
    seed: int = 0,
) -> SampleSet:
    """Load TimeSen2Crop.

    Parameters
    ----------
    folder : path
        That holds the folders of the tiles.
    tiles : sequence of str, optional
        Default all that are there.
    per_class : int, optional
        Pixels of each class and tile, drawn at random; default all.
    seed : int
        Draws the pixels.

    Returns
    -------
    SampleSet
        Kind ``pixel``; x uint16 [N, 9, T], valid where clear; group = number of the tile in
        alphabetical order: the same for one tile in two years. Days are counted from the first of
        January before the tile's first date.

    Raises
    ------
    LabelError
        If a file is missing or not in this layout.
    """
    root = Path(folder)
    if tiles is None:
        tiles = sorted(path.parent.name for path in need(root, _NAME).glob("*/dates.csv"))
    if not tiles:
        raise LabelError(f"{_NAME}: {root} holds no folder with a dates.csv")
    places = sorted({_place(tile) for tile in tiles})
    random = np.random.default_rng(seed)
    series, label, group = [], [], []
    for tile in tiles:
        dates = _dates(root / tile / "dates.csv")
        for number in range(len(CLASSES)):
            files = drawn(sorted((root / tile / str(number)).glob("*.csv")), per_class, random)
            series += [_series(path, dates) for path in files]
            label += [number + 1] * len(files)
            group += [places.index(_place(tile)) + 1] * len(files)
    if not series:
        raise LabelError(f"{_NAME}: {root} holds no pixel of {', '.join(tiles)}")
    x, valid, doy = padded(series)
    return SampleSet(
        name=_NAME,
        kind="pixel",
        bands=BANDS,
        legend=flat_legend(_NAME, CLASSES, 2018),
        x=x,
        valid=valid,
        doy=doy,
        y=np.array(label, np.uint8),
        group=np.array(group, np.int32),
    )


def _place(tile: str) -> str:
    return tile.rsplit("_", 1)[-1]


def _dates(path: Path) -> np.ndarray:
    lines = need(path, _NAME).read_text(encoding="utf-8").split()
    try:
        # The first line may be a heading.
        return calendar(lines[0 if lines[0].isdigit() else 1 :])
    except (ValueError, IndexError) as error:
        raise LabelError(f"{_NAME}: {path} is not a list of days YYYYMMDD ({error})") from error


def _series(path: Path, dates: np.ndarray) -> Series:
    try:
        values = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except ValueError as error:
        raise LabelError(f"{_NAME}: {path} is not a table of numbers ({error})") from error
    if values.shape != (len(dates), len(BANDS) + 1):
        raise LabelError(
            f"{_NAME}: {path} has shape {values.shape}; {len(dates)} days of {len(BANDS)} bands "
            "and a flag were expected"
        )
    year = int(dates.min().astype("datetime64[Y]").astype(int)) + 1970
    return Series.of(values[:, :-1], values[:, -1] == 0, dates, year)
