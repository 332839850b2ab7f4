import math

import numpy as np
import pytest

from cube.simulate.crops import BY_CODE, CROPS
from cube.simulate.phenology import DAY_STEP, Season, canopy, series, spectra
from cube.simulate.table import BAND_NAMES

RED, GREEN, NIR = (BAND_NAMES.index(b) for b in ("red", "green", "nir"))
MAY, AUGUST, APRIL, JULY = 135.0, 228.0, 105.0, 196.0


def ndvi(code, *days):
    crop = BY_CODE[code]
    plain = series([Season(crop.cycles, crop.base)], np.array(days))[0, :, 0]
    return (plain[:, NIR] - plain[:, RED]) / (plain[:, NIR] + plain[:, RED])


def test_leaf_area_is_the_double_logistic():
    crop = BY_CODE["MIS"]
    (c,) = crop.cycles
    lai, angle, _ = canopy(Season(crop.cycles, crop.base), np.array([200.0]))
    f = 1 / (1 + math.exp(-2 * (200 - c.start) / c.rise))
    f *= 1 / (1 + math.exp(2 * (200 - c.end) / c.fall))
    assert lai[0] == pytest.approx(crop.base + c.lai * f)
    assert angle[0] == pytest.approx(58 + (c.angle - 58) * f)


def test_wheat_is_green_in_may_and_maize_in_august():
    wheat, maize = ndvi("BTH", MAY, AUGUST), ndvi("MIS", MAY, AUGUST)
    assert wheat[0] > 0.7 > 0.4 > wheat[1]
    assert maize[1] > 0.7 > 0.4 > maize[0]


def test_vines_are_bare_in_april_and_green_in_july():
    april, july = ndvi("VRC", APRIL, JULY)
    assert april < 0.4 < 0.6 < july


def test_alfalfa_is_cut():
    spring, after_cut, summer = ndvi("LUZ", 115.0, 151.0, 175.0)
    assert after_cut < spring - 0.05
    assert after_cut < summer - 0.05


def test_a_late_season_is_the_same_season_later():
    crop = BY_CODE["TRN"]
    days = np.arange(100.0, 300, 10)
    states = spectra(Season(crop.cycles, crop.base), days)
    shifted = Season(crop.cycles, crop.base, start=DAY_STEP, end=DAY_STEP)
    lai, _, _ = canopy(Season(crop.cycles, crop.base), days - DAY_STEP)
    np.testing.assert_allclose(lai, canopy(shifted, days)[0])
    assert np.abs(states[3] - spectra(shifted, days)[0]).max() < 1e-6


def test_rapeseed_turns_yellow():
    crop = BY_CODE["CZH"]
    days = np.arange(90.0, 160)
    flowering = spectra(Season(crop.cycles, crop.base, bloom=crop.bloom), days)[0]
    plain = spectra(Season(crop.cycles, crop.base), days)[0]
    added = flowering - plain
    assert added[:, GREEN].max() == pytest.approx(crop.bloom, rel=0.02)
    assert np.abs(added[:, BAND_NAMES.index("blue")]).max() == 0


def test_shares_are_long_tailed_and_codes_unique():
    shares = np.array([crop.share for crop in CROPS])
    assert len(BY_CODE) == len(CROPS) >= 12
    assert shares.max() >= 10 * shares.min()
    assert shares.sum() == pytest.approx(1, abs=0.1)
