"""Monthly composites of dated samples against plain pandas, on any dates and values."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cube.errors import LabelError
from model.datasets.composites import monthly
from model.legend import flat_legend
from model.sampleset import SampleSet
from tests.twins import plain_fill, round_half_up

YEAR = 2018


def sample_set(x, valid, doy, kind="pixel"):
    n = len(x)
    return SampleSet(
        name="points",
        kind=kind,
        bands=tuple(f"b{i}" for i in range(x.shape[1])),
        legend=flat_legend("points", ["wheat"], YEAR),
        x=np.where(valid[:, None], x, 0).astype(np.uint16),
        valid=valid,
        doy=np.where(valid.reshape(*doy.shape, -1).any(axis=2), doy, 0).astype(np.int16),
        y=np.ones(n, np.uint8),
        group=np.ones(n, np.int32),
    )


@st.composite
def series(draw):
    n, dates = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    shape = (n, 2, dates)
    x = draw(arrays(np.uint16, shape, elements=st.integers(1, 9000)))
    valid = draw(arrays(bool, (n, dates)))
    valid[0, 0] = True
    days = arrays(np.int16, dates, elements=st.integers(200, 560), unique=True)
    doy = np.stack([np.sort(draw(days)) for _ in range(n)])
    return sample_set(x, valid, doy)


def by_pandas(samples, method):
    """Median per sample and month, half up; gaps by the plain loop."""
    frames = []
    for one in range(len(samples)):
        seen = samples.valid[one]
        when = pd.Timestamp(YEAR, 1, 1) + pd.to_timedelta(samples.doy[one, seen] - 1, unit="D")
        frames.append(pd.DataFrame(samples.x[one][:, seen].T, index=when))
    months = pd.concat(frames).index.to_period("M")
    wanted = pd.period_range(months.min(), months.max(), freq="M")
    days = (wanted.to_timestamp() - pd.Timestamp(YEAR, 1, 1)).days.to_numpy()
    out = np.zeros((len(samples), 2, len(wanted)), np.int64)
    for one, frame in enumerate(frames):
        medians = frame.groupby(frame.index.to_period("M")).median().reindex(wanted)
        rounded = round_half_up(medians.fillna(0).to_numpy()).astype(np.int64)
        out[one] = [plain_fill(band, days, method) for band in rounded.T]
    return out, days + 15


@given(samples=series(), method=st.sampled_from(["neighbour-mean", "linear", "none"]))
@settings(max_examples=40)
def test_composites_are_those_of_pandas(samples, method):
    found = monthly(samples, method)
    expected, days = by_pandas(samples, method)
    assert np.array_equal(found.x, expected)
    assert np.array_equal(found.valid, (expected != 0).all(axis=1))
    assert np.array_equal(found.doy, np.broadcast_to(days, found.doy.shape))


def test_places_of_a_sample_stay_apart():
    random = np.random.default_rng(0)
    x = random.integers(1, 5000, (2, 3, 6, 4, 5)).astype(np.uint16)
    valid = random.random((2, 6, 4, 5)) < 0.6
    doy = np.array([[3, 9, 40, 70, 75, 80], [5, 36, 41, 47, 90, 95]], np.int16)
    images = sample_set(x, valid, doy, kind="parcel-image")
    found = monthly(images)
    for row in range(4):
        for col in range(5):
            pixels = sample_set(x[..., row, col], valid[..., row, col], doy)
            alone = monthly(pixels)
            months = [found.doy[0].tolist().index(day) for day in alone.doy[0]]
            assert np.array_equal(found.x[:, :, months, row, col], alone.x)


def test_what_is_no_dn_is_refused():
    samples = sample_set(np.ones((1, 1, 1)), np.ones((1, 1), bool), np.ones((1, 1), np.int16))
    with pytest.raises(LabelError, match="make them before parcel means"):
        monthly(replace(samples, x=samples.x.astype(np.float32)))
    with pytest.raises(LabelError, match="no valid value"):
        monthly(replace(samples, valid=~samples.valid))


def test_the_legend_says_the_year_unless_told():
    days = np.full((1, 1), 60, np.int16)
    samples = sample_set(np.full((1, 1, 1), 7), np.ones((1, 1), bool), days)
    assert monthly(samples).doy.tolist() == [[74]]  # 1 March 2018: middle of March
    assert monthly(samples, year=2020).doy.tolist() == [[46]]  # 29 February 2020
