import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.simulate import table
from cube.simulate.make_table import RESPONSES, band_weights

RED, NIR = table.BAND_NAMES.index("red"), table.BAND_NAMES.index("nir")


def test_table_is_small_and_holds_no_objects():
    assert table.TABLE.stat().st_size <= 1_000_000
    with np.load(table.TABLE, allow_pickle=False) as file:
        assert tuple(file["bands"]) == table.BAND_NAMES
        assert file["canopy"].shape == (6000, 5)
        assert file["reflectance"].max() < 10_000


def test_nearest_is_the_inverse_distance_mean_of_six_runs():
    with np.load(table.TABLE, allow_pickle=False) as file:
        canopy, reflectance = file["canopy"], file["reflectance"] / 1e4
    query = np.array([2.0, 55.0, 1.0, 0.4, 0.1])
    distance = np.sqrt((((canopy - query) / table.SCALES) ** 2).sum(axis=1))
    near = np.argsort(distance)[:6]
    weight = (distance[near] + 0.05) ** -2.0
    expected = (weight[:, None] * reflectance[near]).sum(axis=0) / weight.sum()
    np.testing.assert_allclose(table.nearest(query[None])[0], expected, rtol=1e-5)


def test_interpolation_meets_the_query_at_the_nodes():
    nodes = np.array([[n[i % len(n)] for n in table.NODES] for i in range(30)])
    np.testing.assert_allclose(table.reflectance(*nodes.T), table.nearest(nodes), atol=2e-6)


@given(st.floats(0.05, 0.95), st.integers(0, 13))
def test_interpolation_is_linear_between_two_nodes(share, cell):
    low, high = table.NODES[0][cell], table.NODES[0][cell + 1]
    rest = [np.float64(n[1]) for n in table.NODES[1:]]
    ends = [table.reflectance(np.float64(lai), *rest) for lai in (low, high)]
    between = table.reflectance(np.float64(low + share * (high - low)), *rest)
    np.testing.assert_allclose(between, (1 - share) * ends[0] + share * ends[1], atol=1e-5)


def test_leaves_darken_red_and_brighten_near_infrared():
    lai = np.array([0.0, 1.0, 2.3, 5.3])
    seen = table.reflectance(lai, *map(np.float64, (57.0, 1.0, 0.4, 0.0)))
    assert (np.diff(seen[:, RED]) < 0).all()
    assert (np.diff(seen[:, NIR]) > 0).all()


def test_wet_soil_is_darker():
    dry, wet = (
        table.reflectance(*map(np.float64, (0.0, 57.0, 1.0, w, 0.0)))[RED] for w in (0.0, 1.0)
    )
    assert wet < dry


def test_band_weights_have_the_published_centres():
    weights = band_weights()
    centres = weights @ np.arange(400, 2501)
    np.testing.assert_allclose(centres, [centre for centre, _ in RESPONSES], atol=0.5)
    assert weights.sum(axis=1) == pytest.approx(1)
