import datetime as dt

import numpy as np
import pytest

from cube.simulate import FRENCH_REGIONS
from cube.simulate.atmosphere import Sky, classify, draw_sky, sun
from cube.simulate.items import Acquisition
from cube.simulate.sensor import ABSOLUTE_NOISE, RELATIVE_NOISE, ground, half, sense

SHAPE = (200, 300)
NONE = np.zeros(SHAPE, np.float32)
ALL = np.ones(SHAPE, bool)


def sensed(value=0.2, *, cloud=NONE, shade=NONE, haze=NONE, valid=ALL, gain=1.0, offset=0, key=9):
    surface = np.full(SHAPE, value, np.float32)
    air = (cloud, shade, haze)
    return sense(surface, *air, valid, 0.6, 0.3, gain, offset, np.uint64(key))


def full(value):
    return np.full(SHAPE, value, np.float32)


def test_noise_has_the_stated_spread():
    values = sensed(0.2) / 1e4
    spread = np.hypot(RELATIVE_NOISE * 0.2, ABSOLUTE_NOISE)
    assert values.mean() == pytest.approx(0.2, abs=4 * spread / np.sqrt(values.size))
    assert values.std() == pytest.approx(spread, rel=0.02)
    rows = values - values.mean()
    assert abs((rows[:, 1:] * rows[:, :-1]).mean()) < 0.03 * spread**2


def test_noise_depends_on_the_key_only():
    np.testing.assert_array_equal(sensed(key=1), sensed(key=1))
    assert (sensed(key=1) != sensed(key=2)).mean() > 0.9


def test_offset_is_added_to_data_and_never_to_nodata():
    valid = ALL.copy()
    valid[:, :150] = False
    plain, shifted = sensed(valid=valid), sensed(valid=valid, offset=1000)
    assert (plain[~valid] == 0).all()
    assert (shifted[~valid] == 0).all()
    np.testing.assert_array_equal(shifted[valid], plain[valid] + 1000)


def test_dark_pixels_stay_above_nodata():
    assert sensed(0.0).min() == 1


@pytest.mark.parametrize(
    ("air", "expected"),
    [
        ({"cloud": full(1.0)}, 0.6),
        ({"cloud": full(0.25)}, 0.75 * 0.2 + 0.25 * 0.6),
        ({"haze": full(0.1)}, 0.9 * 0.2 + 0.1 * 0.3),
        ({"shade": full(0.5)}, 0.1),
        ({"gain": 1.1}, 0.22),
    ],
)
def test_air_mixes_light(air, expected):
    assert sensed(0.2, **air).mean() / 1e4 == pytest.approx(expected, abs=5e-4)


def test_ground_is_the_mix_of_interpolated_states():
    rng = np.random.default_rng(0)
    shape, units, bands = (6, 8), 5, 3
    parts = rng.integers(0, units, (*shape, 3)).astype(np.int32)
    shares = rng.dirichlet([2, 1, 1], shape).astype(np.float32)
    states = rng.uniform(0.05, 0.4, (5, units, bands)).astype(np.float32)
    leaf, delay, tone = (rng.uniform(-0.3, 0.3, shape).astype(np.float32) for _ in range(3))
    expected = np.zeros((bands, *shape))
    for y, x in np.ndindex(shape):
        s = states[:, parts[y, x]]
        leafy = s[1] if leaf[y, x] > 0 else s[2]
        moved = s[3] if delay[y, x] > 0 else s[4]
        value = s[0] + abs(leaf[y, x]) * (leafy - s[0]) + abs(delay[y, x]) * (moved - s[0])
        expected[:, y, x] = shares[y, x] @ value * (1 + tone[y, x])
    found = ground(parts, shares, states, leaf, delay, tone)
    np.testing.assert_allclose(found, np.maximum(expected, 0.002), rtol=1e-4)


def test_half_is_the_mean_of_four():
    array = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
    assert half(array).shape == (2, 2, 3)
    assert half(array)[1, 1, 2] == array[1, 2:4, 4:6].mean()


def test_the_sun_stands_where_almanacs_say():
    elevation, azimuth = sun(172, 43.6)  # summer solstice, 10:40 solar time
    assert elevation == pytest.approx(62.5, abs=1.5)
    assert 115 < azimuth < 150
    assert sun(355, 49.9)[0] == pytest.approx(14.5, abs=1.5)


def test_clear_sky_is_classified_by_vegetation_water_and_bright_roofs():
    red, nir = full(0.03), full(0.40)
    red[:100], nir[:100] = 0.20, 0.25
    water, bright = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    water[180:], bright[:4, :4] = True, True
    sky = Sky(NONE, NONE, NONE, NONE, 1.0, 1.0)
    scl = classify(sky, red, nir, water, bright, np.random.default_rng(0))
    assert (scl[:2, :2] == 8).all()  # roofs taken for cloud
    assert (scl[2:50] == 5).all()
    assert (scl[50:90] == 4).all()
    assert (scl[90:] == 6).all()


def test_thick_cloud_is_seen_and_thin_edges_are_missed():
    cloud = np.tile(np.linspace(0, 1, SHAPE[1], dtype=np.float32), (SHAPE[0], 1))
    sky = Sky(cloud, NONE, NONE, NONE, 1.0, 1.0)
    no = np.zeros(SHAPE, bool)
    scl = classify(sky, full(0.03), full(0.4), no, no, np.random.default_rng(0))
    cloudy = np.isin(scl, (8, 9, 10))
    opacity = half(cloud)
    assert cloudy[opacity > 0.7].mean() > 0.99
    assert cloudy[opacity < 0.1].mean() < 0.01
    assert 0.1 < (~cloudy)[(opacity > 0.12) & (opacity < 0.3)].mean() < 0.95


def test_shadows_fall_away_from_the_sun_and_never_under_thick_cloud():
    when = dt.datetime(2023, 7, 10, 10, 40, tzinfo=dt.UTC)
    for luck in np.linspace(0.3, 0.7, 9):
        passed = Acquisition(FRENCH_REGIONS[0], when, "S2A", 8, False, False, luck=float(luck))
        sky = draw_sky(1, passed, SHAPE, 49.9, snowy=False)
        if 0.05 < sky.cloud.mean() < 0.8:
            break
    else:
        pytest.fail("no date is partly cloudy")
    assert sky.shade.max() > 0.3
    assert sky.shade[sky.cloud > 0.99].max(initial=0) < 0.02
    assert not sky.snow.any()


def test_luck_decides_between_overcast_and_clear():
    when = dt.datetime(2023, 1, 10, 10, 40, tzinfo=dt.UTC)
    skies = [
        draw_sky(
            1,
            Acquisition(FRENCH_REGIONS[0], when, "S2A", 8, False, False, luck=luck),
            SHAPE,
            49.9,
            snowy=False,
        )
        for luck in (0.0, 1.0)
    ]
    assert skies[0].cloud.min() > 0.9
    assert skies[1].cloud.max() <= 0.4
