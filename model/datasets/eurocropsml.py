"""EuroCropsML: parcels of Estonia, Latvia and Portugal, medians on each date of 2021.

Reuss et al. (2024), arXiv 2407.17458; the preprocessed files of the release on Zenodo, one a
parcel, in one folder or in its folder ``S2``::

    <NUTS-3 region>_<parcel>_<EuroCrops class>.npz
        data      [T, 13] reflectance × 10 000, level 1C, clouds taken out
        dates     datetime64[D] [T]
        center    [2] longitude, latitude

706 683 parcels of 176 classes: load a part with `per_class`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from cube.errors import LabelError
from model.datasets.layout import SENTINEL2, Series, drawn, need, padded, read_table
from model.legend import flat_legend
from model.sampleset import SampleSet

_NAME = "eurocropsml"
_YEAR = 2021


def eurocropsml(
    folder: str | Path,
    *,
    per_class: int | None = None,
    hcat: str | Path | None = None,
    seed: int = 0,
) -> SampleSet:
    """Load EuroCropsML.

    Parameters
    ----------
    folder : path
        That holds the parcels.
    per_class : int, optional
        Parcels of each class, drawn at random; default all.
    hcat : path, optional
        CSV with ``HCAT3_name`` and ``HCAT3_code`` (EuroCrops' table), which names the classes;
        default their codes.
    seed : int
        Draws the parcels.

    Returns
    -------
    SampleSet
        Kind ``pixel``; x uint16 [N, 13, T]; group = number of the NUTS-3 region in alphabetical
        order.

    Raises
    ------
    LabelError
        If a file is missing or not in this layout.
    """
    root = need(Path(folder), _NAME)
    of_class: dict[str, list[Path]] = {}
    for path in sorted([*root.glob("*.npz"), *(root / "S2").glob("*.npz")]):
        of_class.setdefault(_parts(path)[2], []).append(path)
    if not of_class:
        raise LabelError(f"{_NAME}: {root} holds no parcel (.npz)")
    random = np.random.default_rng(seed)
    codes = sorted(of_class)
    chosen = {code: drawn(of_class[code], per_class, random) for code in codes}
    paths = [path for code in codes for path in chosen[code]]
    regions = [_parts(path)[0] for path in paths]
    known = sorted(set(regions))
    parcels = [_parcel(path) for path in paths]
    x, valid, doy = padded([series for series, _ in parcels])
    return SampleSet(
        name=_NAME,
        kind="pixel",
        bands=SENTINEL2,
        legend=flat_legend(_NAME, _names(codes, hcat), _YEAR),
        x=x,
        valid=valid,
        doy=doy,
        y=np.repeat(np.arange(1, len(codes) + 1), [len(chosen[c]) for c in codes]).astype(np.uint8),
        group=np.array([known.index(region) + 1 for region in regions], np.int32),
        parcel=np.arange(1, len(paths) + 1, dtype=np.int32),
        lonlat=np.stack([center for _, center in parcels]),
    )


def _parts(path: Path) -> tuple[str, str, str]:
    """Return region, parcel and class of a file."""
    parts = path.stem.split("_", 1)
    rest = parts[-1].rsplit("_", 1)
    if len(parts) != 2 or len(rest) != 2:
        raise LabelError(f"{_NAME}: {path.name} is not named <region>_<parcel>_<class>.npz")
    return parts[0], rest[0], rest[1]


def _names(codes: list[str], hcat: str | Path | None) -> list[str]:
    if hcat is None:
        return codes
    table = read_table(Path(hcat), _NAME, ("HCAT3_name", "HCAT3_code"))
    names = dict(zip(table.HCAT3_code, table.HCAT3_name, strict=True))
    return [names.get(code, code) for code in codes]


def _parcel(path: Path) -> tuple[Series, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            data, dates, center = (file[key] for key in ("data", "dates", "center"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise LabelError(f"{_NAME}: {path} is not a parcel of the release ({error})") from error
    if data.shape != (len(dates), len(SENTINEL2)) or center.shape != (2,):
        raise LabelError(
            f"{_NAME}: {path} has data {data.shape} and {len(dates)} dates; "
            f"{len(SENTINEL2)} bands were expected"
        )
    # Padding of the source: -999 in all bands.
    valid = (data > 0).all(axis=1)
    return Series.of(data, valid, dates.astype("datetime64[D]"), _YEAR), center.astype(np.float64)
