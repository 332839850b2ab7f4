"""The kernels against plain NumPy, hand-worked values and every way a month can look."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cube.kernels import (
    clear_of,
    fill_gaps_inplace,
    masked_median,
    masked_percentile,
    observed,
    self_test,
    sorting_network,
)
from tests.twins import MAX_DN, plain_fill, round_half_up


def median_of(values, clear, subtract):
    median = np.full(values.shape[1:], 9, np.uint16)
    count = np.full(values.shape[2:], 9, np.uint8)
    masked_median(values, clear, subtract, median, count)
    return median, count


@pytest.mark.parametrize("n", range(1, 40))
def test_network_sorts_all_zero_one_inputs_it_is_given(n):
    # A network that sorts every 0-1 input sorts everything (Knuth's zero-one principle); small
    # networks are tested on all of them, larger ones on random ones.
    if n <= 12:
        rows = ((np.arange(2**n)[None] >> np.arange(n)[:, None]) & 1).astype(np.uint16)
    else:
        rows = np.random.default_rng(n).integers(0, 2, (n, 5000)).astype(np.uint16)
    expected = np.sort(rows, axis=0)
    for low, high in sorting_network(n):
        rows[low], rows[high] = np.minimum(rows[low], rows[high]), np.maximum(rows[low], rows[high])
    assert np.array_equal(rows, expected)


@given(
    data=st.data(), scenes=st.integers(0, 17), bands=st.integers(1, 4), pixels=st.integers(1, 40)
)
@settings(max_examples=150)
def test_median_is_the_plain_median(data, scenes, bands, pixels):
    dn = st.one_of(
        st.sampled_from([0, 1, 2, 999, 1000, 1001, 60000, 60001, 64536, 65535]),
        st.integers(0, 12000),
    )
    values = data.draw(arrays(np.uint16, (scenes, bands, pixels), elements=dn))
    clear = data.draw(arrays(np.bool_, (scenes, pixels)))
    subtract = data.draw(arrays(np.uint16, scenes, elements=st.sampled_from([0, 1000])))
    median, count = median_of(values, clear, subtract)
    for p in range(pixels):
        ok = clear[:, p] & ((values[:, :, p] > 0) & (values[:, :, p] <= MAX_DN)).all(1)
        assert count[p] == ok.sum()
        for b in range(bands):
            seen = np.maximum(values[ok, b, p].astype(int) - subtract[ok], 1)
            assert median[b, p] == (round_half_up(np.median(seen)) if ok.any() else 0)


@given(data=st.data())
@settings(max_examples=50)
def test_order_of_scenes_does_not_matter(data):
    values = data.draw(arrays(np.uint16, (7, 2, 11), elements=st.integers(0, 5000)))
    clear = data.draw(arrays(np.bool_, (7, 11)))
    order = data.draw(st.permutations(range(7)))
    nothing = np.zeros(7, np.uint16)
    first = median_of(values, clear, nothing)
    second = median_of(values[order], clear[order], nothing)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("pixels", [1, 4095, 4096, 4097, 9000])
def test_strips_join_without_a_seam(pixels):
    rng = np.random.default_rng(pixels)
    values = rng.integers(0, 9000, (6, 3, pixels)).astype(np.uint16)
    clear = rng.random((6, pixels)) < 0.6
    median, count = median_of(values, clear, np.zeros(6, np.uint16))
    ok = clear & (values > 0).all(1)
    expected = np.where(ok[:, None], values, np.nan).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = round_half_up(np.nan_to_num(np.nanmedian(expected, axis=0)))
    assert np.array_equal(median, expected)
    assert np.array_equal(count, ok.sum(0))


def test_hand_worked_median():
    # Two observations: the mean, half up; one: its value; none: no data; dark pixels become 1.
    values = np.array([[[3, 7, 5, 900]], [[4, 0, 5, 1000]]], np.uint16)
    clear = np.array([[True, True, False, True], [True, True, False, True]])
    median, count = median_of(values, clear, np.array([0, 0], np.uint16))
    assert median.tolist() == [[4, 7, 0, 950]]
    assert count.tolist() == [2, 1, 0, 2]
    shifted, _ = median_of(values, clear, np.array([1000, 1000], np.uint16))
    assert shifted.tolist() == [[1, 1, 0, 1]]


def test_nodata_in_one_band_hides_the_observation_in_all():
    values = np.array([[[500], [0]], [[700], [800]]], np.uint16)
    median, count = median_of(values, np.ones((2, 1), bool), np.zeros(2, np.uint16))
    assert median.tolist() == [[700], [800]]
    assert count.tolist() == [1]


def test_more_than_255_observations_saturate_the_count():
    values = np.full((300, 1, 4), 1234, np.uint16)
    median, count = median_of(values, np.ones((300, 4), bool), np.zeros(300, np.uint16))
    assert (median == 1234).all()
    assert (count == 255).all()


@pytest.mark.parametrize(
    ("percentile", "value"),
    # Of five, ranks 0…4: 25 is rank 1; 10 is 0.4 of the way from 10 to 20; 99 is 0.96 of the way
    # from 70 to 81: 80.56.
    [(25, 20), (10, 14), (50, 40), (99, 81), (1, 10)],
)
def test_hand_worked_percentile(percentile, value):
    values = np.array([70, 10, 40, 81, 20], np.uint16)[:, None, None]
    out, count = np.empty((1, 1), np.uint16), np.empty(1, np.uint8)
    clear = np.ones((5, 1), bool)
    masked_percentile(values, clear, np.zeros(5, np.uint16), out, count, percentile=percentile)
    assert out.tolist() == [[value]]
    assert count.tolist() == [5]


def test_observed_is_clear_and_valid_in_all_bands():
    values = np.array([[[5, 0, 60000, 60001]], [[5, 5, 5, 5]]], np.uint16)
    clear = np.array([[True, True, True, True], [False, True, True, False]])
    count = np.empty(4, np.uint8)
    usable = observed(values, clear, count)
    assert usable.tolist() == [[True, False, True, False], [False, True, True, False]]
    assert count.tolist() == [1, 1, 2, 0]


@given(
    series=arrays(np.uint16, (9, 23), elements=st.one_of(st.just(0), st.integers(1, 60000))),
    steps=arrays(np.int32, 9, elements=st.integers(1, 31)),
    method=st.sampled_from(["neighbour-mean", "linear", "none"]),
)
@settings(max_examples=200)
def test_fill_is_the_plain_fill(series, steps, method):
    days = np.cumsum(steps).astype(np.int32)
    filled = series.copy()
    fill_gaps_inplace(filled, days, method)
    expected = np.stack([plain_fill(s, days, method) for s in series.T], axis=1)
    assert np.array_equal(filled, expected)


@pytest.mark.parametrize(
    ("series", "filled"),
    [
        ([0, 0, 0], [0, 0, 0]),
        ([0, 5, 0], [5, 5, 5]),
        ([10, 0, 0, 21], [10, 16, 16, 21]),
        ([0, 3, 0, 0, 4, 0], [3, 3, 4, 4, 4, 4]),
    ],
)
def test_hand_worked_fill(series, filled):
    values = np.array(series, np.uint16)[:, None]
    fill_gaps_inplace(values, np.arange(len(series), dtype=np.int32), "neighbour-mean")
    assert values[:, 0].tolist() == filled


def test_linear_fill_weighs_by_time():
    values = np.array([100, 0, 0, 200], np.uint16)[:, None]
    fill_gaps_inplace(values, np.array([0, 10, 90, 100], np.int32), "linear")
    assert values[:, 0].tolist() == [100, 110, 190, 200]


def test_unknown_fill_is_refused():
    with pytest.raises(ValueError, match="choose neighbour-mean, linear or none"):
        fill_gaps_inplace(np.zeros((2, 1), np.uint16), np.arange(2, dtype=np.int32), "spline")


def test_self_test_passes_here():
    self_test()


@given(
    scl=arrays(np.uint8, (3, 41), elements=st.integers(0, 255)),
    keep=st.sets(st.integers(1, 11), min_size=1),
)
def test_clear_is_membership(scl, keep):
    assert np.array_equal(clear_of(scl, tuple(keep)), np.isin(scl, list(keep)))
