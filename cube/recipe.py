"""The recipe: everything that decides a pixel's value, and nothing else."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from cube import periods
from cube.errors import RecipeError

Composite = Literal["median", "mean", "percentile", "medoid", "max-ndvi", "geomedian", "series"]
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


#: Metres of a pixel of the scene classification.
SCL_PIXEL = 20
#: Classes that count as clear unless a recipe says otherwise: vegetation, bare soil, water,
#: unclassified.
KEEP = (4, 5, 6, 7)


class Mask(BaseModel):
    """Which pixels of a scene are clear; `cube.mask.clear_mask` applies it.

    Parameters
    ----------
    keep : sequence of int
        SCL classes that count as clear; default vegetation, bare soil, water, unclassified
        (4, 5, 6, 7).
    erode : int
        Metres by which masked areas shrink first, so that specks go: bright roofs taken for
        clouds.
    dilate : int
        Metres by which what is left then grows, at least `erode`: edges of clouds that the
        classification missed.
    custom : str, optional
        Name of a function given to `cube.mask.register`, which then decides instead of `keep`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: tuple[int, ...] = KEEP
    erode: int = 0
    dilate: int = 0
    custom: str | None = None

    @field_validator("keep")
    @classmethod
    def _scl_classes(cls, keep: tuple[int, ...]) -> tuple[int, ...]:
        if not keep or any(not 1 <= value <= 11 for value in keep):
            raise ValueError(f"SCL classes go from 1 to 11, got {list(keep)}")
        return tuple(sorted(set(keep)))

    @field_validator("erode", "dilate")
    @classmethod
    def _metres(cls, metres: int) -> int:
        # Below a pixel nothing would happen; far above it, a tile would read all its neighbours.
        if metres != 0 and not SCL_PIXEL <= metres <= 2000:
            raise ValueError(f"{metres} m is neither 0 nor from {SCL_PIXEL} to 2000 m")
        return metres

    @model_validator(mode="after")
    def _consistent(self) -> Mask:
        if self.custom is not None and self.keep != KEEP:
            raise ValueError(
                f"the custom mask '{self.custom}' decides instead of `keep`; leave `keep` out"
            )
        if self.erode > self.dilate:
            raise ValueError(
                f"erode={self.erode} m without as much dilate ({self.dilate} m) would uncover the "
                "edges of clouds"
            )
        return self


class Recipe(BaseModel):
    """How a cube is made from scenes.

    Parameters
    ----------
    bands : sequence of str
        Common names in the order of the cube's `band` axis, for example
        ``["blue", "green", "red", "nir"]``.
    start, end : str
        First and last day, both included: ``YYYY-MM`` (the first, the last day of the month) or
        ``YYYY-MM-DD``. Whole periods only: a four-day "month" is not comparable to the others.
    period : str
        ``month``, ``dekad`` (days 1 to 10, 11 to 20, 21 to the end of the month), or a pandas
        offset that names first days: ``2MS``, ``QS``, ``W-MON``, ``16D``.
    composite : str
        How the clear observations of a period become one: ``median``, ``mean``, ``percentile``,
        ``medoid``, ``max-ndvi`` or ``geomedian`` (`cube.reducers`). Or ``series``: no periods but
        every pass of the satellite with its own date, 0 where it is not clear.
    percentile : int, optional
        From 1 to 99, for ``composite="percentile"`` alone.
    mask : Mask
        Which pixels are clear.
    fill : {"neighbour-mean", "linear", "none"}
        What a period without a clear observation takes: the mean of the nearest observed period
        before and after (the rule of the reference study), the value interpolated in time, or 0.

    Raises
    ------
    RecipeError
        For an unknown band, a partial or unknown period, an unknown SCL class, or parts that do
        not go together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bands: tuple[str, ...]
    start: str
    end: str
    period: str = "month"
    composite: Composite = "median"
    percentile: int | None = None
    mask: Mask = Mask()
    fill: Fill = "neighbour-mean"
    #: Bumped whenever the same recipe would give other pixels.
    version: Literal[1] = 1

    def __init__(self, **fields: object) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ", " + ".".join(map(str, first["loc"])) if first["loc"] else ""
            what = first["msg"].removeprefix("Value error, ")
            raise RecipeError(f"recipe{where}: {what}") from error

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
                hint = f"; did you mean '{near[0]}'?" if near else "."
                raise ValueError(f"unknown band '{band}'{hint} Known: {', '.join(BANDS)}")
        return bands

    @field_validator("period")
    @classmethod
    def _known_period(cls, period: str) -> str:
        return periods.one_spelling(period)

    # YAML reads 2023-01-02 as a date, and 2023 as a number.
    @field_validator("start", mode="before")
    @classmethod
    def _first_day(cls, start: object) -> str:
        return periods.spell_start(periods.first_day(str(start)))

    @field_validator("end", mode="before")
    @classmethod
    def _last_day(cls, end: object) -> str:
        return periods.spell_end(periods.last_day(str(end)))

    @model_validator(mode="after")
    def _whole_periods(self) -> Recipe:
        periods.edges(self.start, self.end, self.period)
        return self

    @model_validator(mode="after")
    def _parts_go_together(self) -> Recipe:
        wants_percentile = self.composite == "percentile"
        if wants_percentile and not (self.percentile and 1 <= self.percentile <= 99):
            raise ValueError(f"composite 'percentile' needs percentile=1…99, got {self.percentile}")
        if not wants_percentile and self.percentile is not None:
            raise ValueError(f"`percentile` goes with composite='percentile', not {self.composite}")
        if self.composite == "max-ndvi" and not {"red", "nir"} <= set(self.bands):
            raise ValueError(f"composite 'max-ndvi' needs red and nir among {list(self.bands)}")
        if self.composite == "series" and self.fill != "none":
            raise ValueError("a dated series is never filled; add fill='none'")
        if self.composite == "series" and self.period != "month":
            raise ValueError("a dated series has dates instead of periods; leave out `period`")
        return self

    @property
    def _edges(self) -> pd.DatetimeIndex:
        return periods.edges(self.start, self.end, self.period)

    @property
    def periods(self) -> pd.DatetimeIndex:
        """First day of every period, in order."""
        return self._edges[:-1]

    @property
    def stop(self) -> pd.Timestamp:
        """The day after the last period."""
        return self._edges[-1]

    def period_of(self, stamps: pd.DatetimeIndex) -> np.ndarray:
        """Return the place in `periods` of each instant (UTC); −1 outside; int64, same length."""
        naive = stamps if stamps.tz is None else stamps.tz_convert("UTC").tz_localize(None)
        places = self._edges.searchsorted(naive, side="right") - 1
        return np.where(places < len(self.periods), places, -1)

    @property
    def datetime(self) -> tuple[str, str]:
        """First and last instant of the recipe, RFC 3339 in UTC, for a STAC search."""
        last = self.stop - periods.DAY
        return f"{self.periods[0]:%Y-%m-%d}T00:00:00Z", f"{last:%Y-%m-%d}T23:59:59Z"

    @property
    def margin(self) -> int:
        """Pixels of 20 m around a tile that its mask depends on."""
        return self.mask.erode // SCL_PIXEL + self.mask.dilate // SCL_PIXEL

    @property
    def hash(self) -> str:
        """Identity of the recipe: first 16 hexadecimal digits of the SHA-256 of its JSON."""
        return _digest(self.model_dump(mode="json"))

    @property
    def method_hash(self) -> str:
        """Identity without the year: equal for the same bands, periods of the year and rules.

        A model trained on January to December 2023 may map January to December 2024, and nothing
        else.
        """
        fields = self.model_dump(mode="json")
        fields["start"] = periods.place_in_year(self.periods[0], self.period)
        fields["end"] = f"+{len(self.periods)}"
        return _digest(fields)

    def for_year(self, year: int) -> Recipe:
        """Return the same recipe, as many periods, starting at the same place of another year.

        Weeks keep their place in the month: one from the second Monday of April 2023 on starts on
        the second Monday of April 2024.

        Raises
        ------
        RecipeError
            If that year has no such day: 29 February, or a fifth Monday.
        """
        try:
            place = periods.place_in_year(self.periods[0], self.period)
            start = periods.start_in(year, place, self.period)
        except ValueError as error:
            raise RecipeError(f"recipe for {year}: {error}") from error
        stop = periods.after(start, len(self.periods), self.period)
        moved = {
            "start": periods.spell_start(start),
            "end": periods.spell_end(stop - periods.DAY),
        }
        return self.model_copy(update=moved)


def _digest(fields: object) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
