"""The recipe: everything that decides a pixel's value, and nothing else."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from cube.errors import RecipeError

Fill = Literal["neighbour-mean", "linear", "none"]

#: Common band name → ground sampling distance in metres (ESA, Sentinel-2 MSI bands).
BANDS: dict[str, int] = {
    "coastal": 60,
    "blue": 10,
    "green": 10,
    "red": 10,
    "rededge1": 20,
    "rededge2": 20,
    "rededge3": 20,
    "nir": 10,
    "nir08": 20,
    "nir09": 60,
    "swir16": 20,
    "swir22": 20,
}


class Recipe(BaseModel):
    """How a cube is made from scenes.

    Parameters
    ----------
    bands : sequence of str
        Common names in the order of the cube's `band` axis, for example
        ``["blue", "green", "red", "nir"]``.
    start, end : str
        First and last month, ``YYYY-MM``, both included. A period that begins or ends inside a
        month is an error: a four-day "month" is not comparable to the others.
    keep : sequence of int
        SCL classes that count as clear; default vegetation, bare soil, water, unclassified
        (4, 5, 6, 7).
    fill : {"neighbour-mean", "linear", "none"}
        What a month without a clear observation takes: the mean of the nearest observed month
        before and after (the rule of the reference study), the value interpolated in time, or 0.

    Raises
    ------
    RecipeError
        For an unknown band, a partial month, an empty period or an unknown SCL class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bands: tuple[str, ...]
    start: str
    end: str
    keep: tuple[int, ...] = (4, 5, 6, 7)
    fill: Fill = "neighbour-mean"
    #: Bumped whenever the same recipe would give other pixels.
    version: Literal[1] = 1

    def __init__(self, **fields: object) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "recipe"
            what = first["msg"].removeprefix("Value error, ")
            raise RecipeError(f"recipe, {where}: {what}") from error

    @field_validator("bands")
    @classmethod
    def _known_bands(cls, bands: tuple[str, ...]) -> tuple[str, ...]:
        if not bands:
            raise ValueError("at least one band is needed")
        if len(set(bands)) != len(bands):
            raise ValueError(f"a band stands twice in {list(bands)}")
        for band in bands:
            if band not in BANDS:
                near = difflib.get_close_matches(band, BANDS, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise ValueError(f"unknown band '{band}'{hint} Known: {', '.join(BANDS)}")
        return bands

    @field_validator("start", "end")
    @classmethod
    def _whole_month(cls, value: str) -> str:
        try:
            month = pd.Period(value, freq="M")
        except ValueError as error:
            raise ValueError(f"'{value}' is not a month; write YYYY-MM") from error
        if value != str(month):
            raise ValueError(f"'{value}' is not a whole month; write {month}")
        return value

    @field_validator("keep")
    @classmethod
    def _scl_classes(cls, keep: tuple[int, ...]) -> tuple[int, ...]:
        if not keep or any(not 1 <= value <= 11 for value in keep):
            raise ValueError(f"SCL classes go from 1 to 11, got {list(keep)}")
        return tuple(sorted(set(keep)))

    @model_validator(mode="after")
    def _period(self) -> Recipe:
        if self.end < self.start:
            raise ValueError(f"the period ends ({self.end}) before it starts ({self.start})")
        return self

    @property
    def months(self) -> pd.DatetimeIndex:
        """First day of every month of the period, in order."""
        return pd.date_range(self.start, self.end, freq="MS")

    @property
    def datetime(self) -> tuple[str, str]:
        """First and last instant of the period, RFC 3339 in UTC, for a STAC search."""
        last = pd.Period(self.end, freq="M").end_time
        return f"{self.start}-01T00:00:00Z", f"{last:%Y-%m-%d}T23:59:59Z"

    @property
    def hash(self) -> str:
        """Identity of the recipe: first 16 hexadecimal digits of the SHA-256 of its JSON."""
        return _digest(self.model_dump(mode="json"))

    @property
    def method_hash(self) -> str:
        """Identity without the year: equal for the same bands, months of the year and rules.

        A model trained on January to December 2023 may map January to December 2024, and nothing
        else.
        """
        fields = self.model_dump(mode="json")
        months = len(self.months)
        fields["start"], fields["end"] = self.start[5:], f"+{months}"
        return _digest(fields)

    def for_year(self, year: int) -> Recipe:
        """Return the same recipe with its period moved so that it starts in `year`."""
        shift = 12 * (year - int(self.start[:4]))
        start, end = (str(pd.Period(m, freq="M") + shift) for m in (self.start, self.end))
        return self.model_copy(update={"start": start, "end": end})


def _digest(fields: object) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
