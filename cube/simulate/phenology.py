"""Reflectance of every land unit on every date: crops by leaf area, the rest by constant spectra.

Leaf area follows double logistic cycles; the table turns leaf area, leaf angle, soil and brown
leaves into reflectance. Every unit is drawn in five states (as it is, denser, thinner, later,
earlier), so that variation inside a field is an interpolation per pixel instead of a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cube.simulate.crops import Cycle
from cube.simulate.table import BAND_NAMES, reflectance

#: Leaf angle of bare or senescent ground cover, degrees.
RESTING_ANGLE = 58.0
#: How far the states reach that variation inside a field is interpolated between: a share of leaf
#: area, and days.
LEAF_STEP, DAY_STEP = 0.6, 12.0


@dataclass(frozen=True)
class Season:
    """One unit's own season: how it differs from the typical one of its cover.

    `start` and `end` shift the cycles in days, `amplitude` scales leaf area, `base` the leaf area
    between the cycles, `rise` and `fall` the widths; `brightness` and `wetness` are the soil's.
    """

    cycles: tuple[Cycle, ...]
    base: float
    start: float = 0.0
    end: float = 0.0
    amplitude: float = 1.0
    rise: float = 1.0
    fall: float = 1.0
    brightness: float = 1.0
    wetness: float = 0.4
    bloom: float = 0.0
    shade: float = 1.0


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))


def canopy(season: Season, day: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return leaf area index, mean leaf angle (degrees) and brown pigment on each `day` of year.

    Each cycle adds ``lai · σ(2(t − s)/rise) · σ(−2(t − e)/fall)``; leaves turn brown in the days
    before its end and the brown decays within a month or so.
    """
    lai = np.full(day.shape, season.base)
    angle = np.full(day.shape, RESTING_ANGLE)
    brown = np.zeros(day.shape)
    for cycle in season.cycles:
        start, end = cycle.start + season.start, cycle.end + season.end
        rise, fall = cycle.rise * season.rise, cycle.fall * season.fall
        f = _logistic(2 * (day - start) / rise) * _logistic(-2 * (day - end) / fall)
        lai += cycle.lai * season.amplitude * f
        angle += (cycle.angle - RESTING_ANGLE) * f
        ripe = end - 6
        senescent = np.where(day < ripe, np.exp(-(((day - ripe) / 9) ** 2)),
                             np.exp(-(day - ripe) / 35))  # fmt: skip
        if cycle.end < 365:
            brown = np.maximum(brown, 0.75 * senescent * _logistic(2 * (day - start) / rise))
    return lai, angle, brown


def soil_wetness(day: np.ndarray) -> np.ndarray:
    """Return the yearly wave of soil moisture: +0.25 in mid-January, −0.25 in mid-July."""
    return 0.25 * np.cos(2 * np.pi * (day - 15) / 365)


def _bloom(season: Season, day: np.ndarray) -> np.ndarray:
    """Return what flowers add, [day, band]: green and red (yellow), some near infrared."""
    first = season.cycles[0]
    middle = 0.55 * (first.start + season.start) + 0.45 * (first.end + season.end)
    open_flowers = np.exp(-(((day - middle) / 11) ** 2))
    colour = np.zeros(len(BAND_NAMES))
    colour[[BAND_NAMES.index(b) for b in ("green", "red", "nir")]] = 1.0, 0.85, 0.4
    return season.bloom * open_flowers[:, None] * colour


def spectra(season: Season, days: np.ndarray) -> np.ndarray:
    """Return reflectance float32 [5, day, band] in five states of one unit.

    As it is; with `LEAF_STEP` more and less leaf area; `DAY_STEP` later and earlier.
    """
    plain = canopy(season, days)
    moved = [canopy(season, days + step) for step in (-DAY_STEP, DAY_STEP)]
    states = [plain, plain, plain, *moved]
    lai, angle, brown = (np.stack(parts) for parts in zip(*states, strict=True))
    lai[1] *= 1 + LEAF_STEP
    lai[2] *= 1 - LEAF_STEP
    wave = soil_wetness(days)
    out = reflectance(
        lai, angle, season.brightness - 0.4 * wave, season.wetness + 0.3 * wave, brown
    )
    if season.bloom:
        flowering = [days, days, days, days - DAY_STEP, days + DAY_STEP]
        out += np.stack([_bloom(season, day) for day in flowering]).astype(np.float32)
    return out * np.float32(season.shade)


def series(seasons: list[Season], days: np.ndarray) -> np.ndarray:
    """Return reflectance of many units in the five states of `spectra`.

    float32 [5, day, unit, band], bands in the order of `BAND_NAMES`.
    """
    return np.stack([spectra(season, days) for season in seasons], axis=2)
