"""Spectral indices of a cube, by the names and formulas of a published catalogue.

The formulas are those of Awesome Spectral Indices (Montero et al. 2023, A standardized catalogue
of spectral indices to advance the use of remote sensing in Earth system research,
https://doi.org/10.1038/s41597-023-02096-0), which spyndex ships and evaluates. Here is only what
they need from a cube: which band is which letter, reflectance from 0 to 1, and NaN where there is
no data.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import spyndex
import xarray as xr

from cube.errors import SpectralIndexError

#: Reflectance × this = the cube's integers.
SCALE = 10_000
#: Common band name → letter of the catalogue.
LETTERS: dict[str, str] = {
    "coastal": "A",
    "blue": "B",
    "green": "G",
    "red": "R",
    "rededge1": "RE1",
    "rededge2": "RE2",
    "rededge3": "RE3",
    "nir": "N",
    "nir08": "N2",
    "nir09": "WV",
    "swir16": "S1",
    "swir22": "S2",
}
#: Constants as the papers give them. The catalogue has one default per letter, which is not every
#: index's own (L is 1 in EVI and 0.5 in SAVI); an index not listed here is told its constants.
CONSTANTS: dict[str, dict[str, float]] = {
    "EVI": {"g": 2.5, "C1": 6.0, "C2": 7.5, "L": 1.0},  # 10.1016/S0034-4257(02)00096-2
    "EVI2": {"g": 2.5, "L": 1.0},  # 10.1016/j.rse.2008.06.006
    "SAVI": {"L": 0.5},  # 10.1016/0034-4257(88)90106-X
    "ARVI": {"gamma": 1.0},  # 10.1109/36.134076
}


def indices(
    cube: xr.Dataset, names: Sequence[str], constants: Mapping[str, float] | None = None
) -> xr.Dataset:
    """Compute spectral indices, lazily where the cube is lazy.

    Parameters
    ----------
    cube : Dataset
        With ``reflectance`` (× 10 000, 0 = no data) and a ``band`` coordinate of common names.
    names : sequence of str
        Names of the catalogue, for example ``["NDVI", "EVI", "NDWI"]``.
    constants : mapping of str to float, optional
        Constants of the formulas by letter, for example ``{"L": 0.25}``; they go before the
        published ones of `CONSTANTS`.

    Returns
    -------
    Dataset
        One float32 variable per index on the dimensions of ``reflectance`` without ``band``; NaN
        where a band that the formula uses has no data or the formula divides by zero. Attributes
        hold its long name, formula, constants and reference.

    Raises
    ------
    SpectralIndexError
        For an unknown index, a band that the cube lacks, or a constant without a value.
    """
    reflectance = cube["reflectance"]
    bands = [str(band) for band in reflectance["band"].values]
    found = {name: _one(reflectance, bands, name, constants or {}) for name in dict.fromkeys(names)}
    return xr.Dataset(found)


def _one(
    reflectance: xr.DataArray, bands: list[str], name: str, given: Mapping[str, float]
) -> xr.DataArray:
    entry = _entry(name)
    known = {**CONSTANTS.get(name, {}), **given}
    by_letter = {letter: band for band, letter in LETTERS.items()}
    values: dict[str, xr.DataArray | float] = {}
    for letter in entry.bands:
        if letter in by_letter:
            values[letter] = _unit(reflectance, bands, by_letter[letter], name)
        elif letter in known:
            values[letter] = float(known[letter])
        else:
            raise SpectralIndexError(_lacking(name, letter))
    index = spyndex.computeIndex(name, values)
    index = index.where(np.isfinite(index)).astype(np.float32)
    used = {letter: value for letter, value in values.items() if isinstance(value, float)}
    index.attrs = {
        "long_name": entry.long_name,
        "formula": entry.formula,
        "references": entry.reference,
        "units": "1",
        **{f"constant_{letter}": value for letter, value in used.items()},
    }
    if "grid_mapping" in reflectance.attrs:
        index.attrs["grid_mapping"] = reflectance.attrs["grid_mapping"]
    return index


def _entry(name: str) -> spyndex.axioms.SpectralIndex:
    if name not in spyndex.indices:
        by_capitals = {known.upper(): known for known in spyndex.indices}
        near = difflib.get_close_matches(name.upper(), by_capitals, n=3)
        hint = f"did you mean {' or '.join(by_capitals[n] for n in near)}?" if near else ""
        raise SpectralIndexError(
            f"unknown index '{name}'; {hint or 'see'} "
            "https://awesome-ee-spectral-indices.readthedocs.io/en/latest/list.html"
        )
    return spyndex.indices[name]


def _unit(reflectance: xr.DataArray, bands: list[str], band: str, name: str) -> xr.DataArray:
    if band not in bands:
        raise SpectralIndexError(
            f"index {name} needs the band {band}, and the cube has {', '.join(bands)}; "
            "add it to the recipe's bands and build again"
        )
    stored = reflectance.sel(band=band, drop=True)
    return stored.where(stored != 0).astype(np.float32) / np.float32(SCALE)


def _lacking(name: str, letter: str) -> str:
    if letter in spyndex.constants:
        return (
            f"index {name} has a constant {letter} without a generally agreed value; give it: "
            f"indices(cube, ['{name}'], constants={{'{letter}': …}})"
        )
    return f"index {name} needs '{letter}', which is no band of Sentinel-2; choose another"
