"""What the loaders of published data sets share: files, dated series of any length, drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from cube.errors import LabelError

if TYPE_CHECKING:
    import h5py

T = TypeVar("T")

#: The bands of Sentinel-2 in the order of their numbers; cirrus (B10) is in level 1C alone.
SENTINEL2 = (
    "coastal",
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "nir09",
    "cirrus",
    "swir16",
    "swir22",
)
#: Those of 10 and 20 m.
TEN_BANDS = tuple(band for band in SENTINEL2 if band not in ("coastal", "nir09", "cirrus"))


@dataclass(frozen=True)
class Series:
    """The dates of one sample, in order.

    Attributes
    ----------
    x : ndarray of uint16 [C, T, *S]
        DN, 0 where not valid.
    valid : ndarray of bool [T, *S]
    doy : ndarray of int16 [T]
    """

    x: np.ndarray
    valid: np.ndarray
    doy: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, valid: np.ndarray, dates: np.ndarray, year: int) -> Series:
        """Order dates and round values to DN.

        Parameters
        ----------
        values : ndarray [T, C, *S]
            Reflectance × 10 000 of any number type; what is below 1 becomes 1, so that 0 stays no
            data.
        valid : ndarray of bool [T, *S]
        dates : ndarray of datetime64 [T]
        year : int
            The days are counted from its first of January.
        """
        order = np.argsort(dates, kind="stable")
        values, valid = values[order], valid[order]
        doy = (dates[order] - np.datetime64(f"{year}-01-01")).astype("timedelta64[D]")
        shown = np.where(valid[:, None], values, 0)
        dn = np.where(valid[:, None], np.rint(shown).clip(1, 65_535), 0).astype(np.uint16)
        return cls(dn.swapaxes(0, 1), valid, doy.astype(np.int16) + np.int16(1))


def padded(series: Sequence[Series]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x [N, C, T, *S], valid [N, T, *S] and doy [N, T] of series of any length."""
    longest = max(len(one.doy) for one in series)
    c, _, *places = series[0].x.shape
    x = np.zeros((len(series), c, longest, *places), np.uint16)
    valid = np.zeros((len(series), longest, *places), bool)
    doy = np.zeros((len(series), longest), np.int16)
    for number, one in enumerate(series):
        dates = len(one.doy)
        x[number, :, :dates] = one.x
        valid[number, :dates] = one.valid
        doy[number, :dates] = one.doy
    return x, valid, doy


def calendar(days: Iterable[str]) -> np.ndarray:
    """Return days written YYYYMMDD; datetime64[D].

    Raises
    ------
    ValueError
        If one is no such day.
    """
    return np.array([f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in days], "datetime64[D]")


def drawn(items: Iterable[T], count: int | None, random: np.random.Generator) -> list[T]:
    """Return `count` of the items at random, in their order; all if there are fewer or no count."""
    known = list(items)
    if count is None or count >= len(known):
        return known
    chosen = np.sort(random.choice(len(known), count, replace=False))
    return [known[number] for number in chosen]


def need(path: Path, name: str) -> Path:
    """Return `path` if it is there.

    Raises
    ------
    LabelError
        If it is not.
    """
    if not path.exists():
        raise LabelError(
            f"{name}: {path} is missing; give the folder that the release was unpacked to"
        )
    return path


def read_table(path: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV, all of it as text.

    Raises
    ------
    LabelError
        If it is missing, is no CSV, or lacks a column.
    """
    try:
        table = pd.read_csv(need(path, name), dtype=str, keep_default_na=False, encoding="utf-8")
    except ValueError as error:
        raise LabelError(f"{name}: {path} is not a CSV in UTF-8 ({error})") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise LabelError(
            f"{name}: {path} has no column {', '.join(missing)}; is it the file of this release?"
        )
    return table


def open_hdf5(path: Path, name: str) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises
    ------
    LabelError
        If h5py is not installed, or the file is missing or no HDF5 file.
    """
    try:
        import h5py
    except ImportError as error:
        raise LabelError(
            f"{name} comes as HDF5; install what reads it: pip install 'cropcube[datasets]'"
        ) from error
    try:
        return h5py.File(need(path, name), "r")
    except OSError as error:
        raise LabelError(f"{name}: {path} is not an HDF5 file ({error})") from error


def load_array(path: Path, name: str) -> np.ndarray:
    """Read a ``.npy`` file without ever unpickling.

    Raises
    ------
    LabelError
        If it is missing or no plain array.
    """
    try:
        array = np.load(need(path, name), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LabelError(f"{name}: {path} is not a plain array ({error})") from error
    if not isinstance(array, np.ndarray):
        raise LabelError(f"{name}: {path} holds several arrays, not one")
    return array
