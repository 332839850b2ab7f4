"""Every reducer against a pixel-by-pixel twin in exact arithmetic, and hand-worked places."""

from __future__ import annotations

import pickle
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

import cube.reducers
from cube import Recipe
from cube.averages import geometric_median, masked_mean
from cube.errors import CropcubeError, RecipeError
from cube.kernels import MAX_DN, masked_median, masked_percentile
from cube.reducers import reducer, reducer_of
from cube.selection import max_ndvi, medoid

BANDS = ("blue", "green", "red", "nir")
NAMES = ("median", "mean", "percentile", "medoid", "max-ndvi", "geomedian")


def reduced(reduce, values, clear, subtract=None):
    out = np.full(values.shape[1:], 9, np.uint16)
    count = np.full(values.shape[2:], 9, np.uint8)
    nothing = np.zeros(len(values), np.uint16)
    reduce(values, clear, nothing if subtract is None else subtract, out, count)
    return out, count


def at(points):
    """One pixel, all clear: points [scene, band] → its value by `reduce`."""
    values = np.array(points, np.uint16)[:, :, None]
    return lambda reduce: reduced(reduce, values, np.ones((len(values), 1), bool))[0][:, 0].tolist()


@st.composite
def months(draw):
    """Months with clouds, gaps, underflow, ties (few distinct values) and both kinds of scene."""
    scenes, pixels = draw(st.integers(0, 11)), draw(st.integers(1, 12))
    dn = draw(
        st.sampled_from(
            [
                st.one_of(st.sampled_from([0, 1, 1000, 1001, 60000, 60001, 65535]), st.just(50)),
                st.integers(1, 4),
                st.integers(1, 12000),
                st.integers(0, 65535),
            ]
        )
    )
    values = draw(arrays(np.uint16, (scenes, 4, pixels), elements=dn))
    clear = draw(arrays(np.bool_, (scenes, pixels), fill=st.just(True)))
    subtract = draw(arrays(np.uint16, scenes, elements=st.sampled_from([0, 1000])))
    return values, clear, subtract


def observations(values, clear, subtract, p):
    """Harmonised observations of one pixel that count: Python integers [scene][band]."""
    seen = []
    for n in range(len(values)):
        spectrum = [int(dn) for dn in values[n, :, p]]
        if clear[n, p] and all(1 <= dn <= MAX_DN for dn in spectrum):
            seen.append([max(dn - int(subtract[n]), 1) for dn in spectrum])
    return seen


def half_up(value):
    return int((value + Fraction(1, 2)) // 1)


def plain_mean(seen):
    return [half_up(Fraction(sum(band), len(band))) for band in zip(*seen, strict=True)]


def plain_percentile(seen, percentile):
    out = []
    for band in zip(*seen, strict=True):
        ordered = sorted(band)
        place = Fraction((len(band) - 1) * percentile, 100)
        low = ordered[int(place)]
        high = ordered[min(int(place) + 1, len(band) - 1)]
        exact = low + (place - int(place)) * (high - low)
        assert float(exact) == pytest.approx(np.percentile(band, percentile, method="linear"))
        out.append(half_up(exact))
    return out


def plain_medoid(seen):
    def distance(a, b):
        return float(np.sqrt(float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))))

    sums = [sum(distance(one, other) for other in seen) for one in seen]
    return seen[sums.index(min(sums))]


def plain_max_ndvi(seen):
    ndvi = [Fraction(nir - red, nir + red) for _, _, red, nir in seen]
    return seen[ndvi.index(max(ndvi))]


@pytest.mark.parametrize(
    ("reduce", "plain"),
    [
        (masked_mean, plain_mean),
        (medoid, plain_medoid),
        (partial(max_ndvi, red=2, nir=3), plain_max_ndvi),
        (masked_median, partial(plain_percentile, percentile=50)),
        (partial(masked_percentile, percentile=25), partial(plain_percentile, percentile=25)),
    ],
    ids=["mean", "medoid", "max-ndvi", "median", "quartile"],
)
@given(month=months())
@settings(max_examples=60)
def test_reducer_is_the_plain_twin(reduce, plain, month):
    out, count = reduced(reduce, *month)
    for p in range(out.shape[1]):
        seen = observations(*month, p)
        assert count[p] == len(seen)
        assert out[:, p].tolist() == (plain(seen) if seen else [0, 0, 0, 0])


@given(month=months(), percentile=st.integers(1, 99))
@settings(max_examples=60)
def test_any_percentile_is_the_plain_one(month, percentile):
    out, _ = reduced(partial(masked_percentile, percentile=percentile), *month)
    for p in range(out.shape[1]):
        seen = observations(*month, p)
        assert out[:, p].tolist() == (plain_percentile(seen, percentile) if seen else [0] * 4)


def sum_of_distances(place, seen):
    return np.sqrt(((np.array(seen, float) - place) ** 2).sum(axis=1)).sum()


@given(month=months())
@settings(max_examples=40)
def test_geometric_median_has_the_least_sum_of_distances(month):
    out, count = reduced(geometric_median, *month)
    for p in range(out.shape[1]):
        seen = observations(*month, p)
        assert count[p] == len(seen)
        if not seen:
            assert not out[:, p].any()
            continue
        # Half a DN of rounding in four bands is one DN of distance to every observation.
        most = sum_of_distances(out[:, p].astype(float), seen) - 1.0 * len(seen)
        places = [*seen, np.mean(seen, axis=0), np.median(seen, axis=0)]
        assert most <= min(sum_of_distances(place, seen) for place in places) * (1 + 1e-6)


def test_geometric_median_is_where_a_general_optimiser_ends():
    rng = np.random.default_rng(0)
    field = rng.uniform(500, 4000, (1, 4, 40))
    values = (field + rng.normal(0, 150, (7, 4, 40))).clip(1).astype(np.uint16)
    clear = rng.random((7, 40)) < 0.8
    out, _ = reduced(geometric_median, values, clear)
    for p in range(40):
        seen = np.array(observations(values, clear, np.zeros(7), p), float)
        if len(seen) > 2:
            tight = {"xatol": 1e-4, "fatol": 1e-9, "maxiter": 5000, "maxfev": 5000}
            best = minimize(
                sum_of_distances, seen.mean(axis=0), (seen,), "Nelder-Mead", options=tight
            )
            assert np.abs(out[:, p] - best.x).max() <= 0.6


@pytest.mark.parametrize(
    ("points", "place"),
    [
        ([[7, 9]], [7, 9]),
        # Two: the middle, half up.
        ([[10, 100], [13, 200]], [12, 150]),
        # On a line the middle one of three.
        ([[100, 200], [200, 400], [900, 1800]], [200, 400]),
        # A convex quadrilateral: where the diagonals cross.
        ([[100, 100], [900, 900], [500, 300], [300, 500]], [400, 400]),
        # More than half at one place hold it.
        ([[50, 60], [50, 60], [50, 60], [900, 10], [3, 800]], [50, 60]),
        # A triangle with an angle above 120°: its vertex.
        ([[1000, 1000], [1900, 1100], [100, 1100]], [1000, 1000]),
        # An equilateral triangle (to the nearest DN): its centre.
        ([[1000, 1000], [2000, 1000], [1500, 1866]], [1500, 1289]),
    ],
)
def test_hand_worked_geometric_median(points, place):
    assert at(points)(geometric_median) == place


def test_hand_worked_medoid_and_mean():
    points = [[100, 100], [110, 100], [90, 100], [102, 900]]
    # Sums of distances from the first: 10 + 10 + 800; from the second and third 10 more.
    assert at(points)(medoid) == [100, 100]
    assert at(points)(masked_mean) == [101, 300]  # 100.5, half up
    # Two are equally central: the first in time.
    assert at(points[3:] + points[:1])(medoid) == [102, 900]


def test_greatest_ndvi_keeps_the_whole_observation_and_the_first_of_equals():
    points = [[5, 100, 300], [6, 50, 150], [7, 60, 100]]  # 0.5, 0.5, 0.25
    assert at(points)(partial(max_ndvi, red=1, nir=2)) == [5, 100, 300]
    # Float32 takes these two for equals; integers do not.
    close = [[1, 1, 59999], [2, 1, 60000]]
    assert np.float32(59998 / 60000) == np.float32(59999 / 60001)
    assert at(close)(partial(max_ndvi, red=1, nir=2)) == close[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pixels", [513, 5000])
def test_a_pixel_does_not_depend_on_those_beside_it(name, pixels):
    reduce = reducer(name, BANDS, 30 if name == "percentile" else None)
    rng = np.random.default_rng(pixels)
    values = rng.integers(0, 4000, (5, 4, pixels)).astype(np.uint16)
    clear = rng.random((5, pixels)) < 0.6
    out, count = reduced(reduce, values, clear)
    some = rng.permutation(pixels)[:70]
    some[:2] = 0, pixels - 1
    alone, alone_count = reduced(reduce, np.ascontiguousarray(values[:, :, some]), clear[:, some])
    assert np.array_equal(out[:, some], alone)
    assert np.array_equal(count[some], alone_count)


@pytest.mark.parametrize("name", NAMES)
def test_more_than_255_observations_saturate_the_count(name):
    reduce = reducer(name, BANDS, 30 if name == "percentile" else None)
    values = np.full((300, 4, 3), 1234, np.uint16)
    out, count = reduced(reduce, values, np.ones((300, 3), bool))
    assert (out == 1234).all()
    assert (count == 255).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_its_reducer(name):
    percentile = 40 if name == "percentile" else None
    recipe = Recipe(
        bands=BANDS, start="2023-01", end="2023-02", composite=name, percentile=percentile
    )
    rng = np.random.default_rng(0)
    values = rng.integers(1, 4000, (5, 4, 50)).astype(np.uint16)
    clear = rng.random((5, 50)) < 0.6
    expected = reduced(reducer(name, BANDS, percentile), values, clear)
    # It travels to workers.
    arrived = pickle.loads(pickle.dumps(reducer_of(recipe)))  # noqa: S301
    found = reduced(arrived, values, clear)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_dated_series_takes_the_one_observation():
    recipe = Recipe(bands=BANDS, start="2023-01", end="2023-02", composite="series", fill="none")
    values = np.array([[[500], [600], [700], [800]]], np.uint16)
    out, count = reduced(reducer_of(recipe), values, np.ones((1, 1), bool))
    assert out[:, 0].tolist() == [500, 600, 700, 800]
    assert count.tolist() == [1]


def test_a_machine_that_reduces_wrongly_is_refused(monkeypatch):
    # What flox 0.11.1 did: a number for a pixel that nobody has seen.
    def lying(values, clear, subtract, out, count):
        masked_mean(values, clear, subtract, out, count)
        out[out == 0] = 201

    monkeypatch.setitem(cube.reducers._PLAIN, "mean", lying)
    cube.reducers._tried.cache_clear()
    recipe = Recipe(bands=("blue", "nir"), start="2023-01", end="2023-02", composite="mean")
    with pytest.raises(CropcubeError, match="'mean' gives wrong values on this machine"):
        reducer_of(recipe)


@pytest.mark.parametrize(
    ("name", "bands", "percentile", "message"),
    [
        ("mode", BANDS, None, "unknown composite 'mode'; choose one of geomedian, max-ndvi"),
        ("percentile", BANDS, None, "needs percentile=1…99, got None"),
        ("percentile", BANDS, 101, "needs percentile=1…99, got 101"),
        ("max-ndvi", ("red", "blue"), None, "nir is not among red, blue"),
        ("max-ndvi", (), None, "red and nir is not among no named bands"),
    ],
)
def test_errors_say_what_to_change(name, bands, percentile, message):
    with pytest.raises(RecipeError, match=message):
        reducer(name, bands, percentile)
