from collections import Counter

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon

from cube.simulate import demo_settings
from cube.simulate.landscape import build_landscape
from cube.simulate.layout import layout
from cube.simulate.parcels import Warp, area, cut, long_axis, split
from cube.simulate.rng import smooth, stream
from cube.simulate.vectors import held_out_zone

SQUARE = np.array([(0.0, 0), (400, 0), (400, 300), (0, 300)])


@pytest.fixture(scope="module")
def demo():
    settings = demo_settings()
    places = [layout(region, settings) for region in settings.regions]
    return settings, places, [build_landscape(place, settings) for place in places]


@given(st.floats(0, 400), st.floats(0, 300), st.floats(0, 6.3))
def test_a_cut_keeps_the_area(x, y, angle):
    parts = cut(SQUARE, np.array([x, y]), np.array([np.cos(angle), np.sin(angle)]))
    assert sum(area(part) for part in parts) == pytest.approx(area(SQUARE))
    # A sliver's area is a difference of large products.
    assert all(area(part) == pytest.approx(Polygon(part).area, abs=1e-6) for part in parts)


def test_long_axis_of_a_rectangle():
    axis, ratio = long_axis(SQUARE)
    assert np.abs(axis) == pytest.approx([1, 0])
    assert ratio == pytest.approx(4 / 3)


def test_split_gives_pieces_of_the_wanted_size_that_fill_the_block():
    big = SQUARE * 5
    pieces = split(big, 15_000, 0.5, 0.1, np.random.default_rng(1))
    sizes = np.array([area(piece) for piece in pieces])
    assert sizes.sum() == pytest.approx(area(big))
    assert 7_500 < sizes.mean() < 22_500


def test_the_warp_is_gentle():
    warp = Warp(np.random.default_rng(3))
    points = np.random.default_rng(4).uniform(0, 5000, (500, 2))
    assert np.hypot(*(warp(points) - points).T).max() < 80
    np.testing.assert_array_equal(warp(points), warp(points))


def test_smooth_fields_are_standardised_and_smooth():
    rough, wide = (smooth(np.random.default_rng(0), (200, 300), s) for s in (2, 30))
    for field in (rough, wide):
        assert field.shape == (200, 300)
        assert field.mean() == pytest.approx(0, abs=1e-3)
        assert field.std() == pytest.approx(1, abs=0.02)
    assert np.abs(np.diff(wide)).mean() < 0.3 * np.abs(np.diff(rough)).mean()


def test_streams_depend_on_names_only():
    first = stream(7, "a", 1).random(4)
    stream(7, "b").random()
    np.testing.assert_array_equal(first, stream(7, "a", 1).random(4))
    assert not np.array_equal(first, stream(7, "a", 2).random(4))
    assert not np.array_equal(first, stream(8, "a", 1).random(4))


def test_shares_of_a_pixel_add_up_and_fields_have_mixed_edges(demo):
    for land in demo[2]:
        np.testing.assert_allclose(land.shares.sum(axis=2), 1, atol=1e-6)
        mixed = (land.shares[..., 0] < 0.95).mean()
        assert 0.15 < mixed < 0.7
        assert (np.diff(land.shares, axis=2) <= 1e-6).all()


def test_parcels_cover_most_of_the_land_and_have_real_sizes(demo):
    hectares = np.array([u.hectares for land in demo[2] for u in land.units if u.crop])
    assert 1.1 < hectares.mean() < 1.9
    assert np.median(hectares) < hectares.mean()  # a long tail to the right
    for land in demo[2]:
        cropped = np.array([False, *(u.crop is not None for u in land.units)])[land.number]
        assert 0.6 < cropped.mean() < 0.85


def test_parcels_of_the_land_do_not_overlap(demo):
    polygons = [u.polygon for u in demo[2][0].units if u.crop]
    together = shapely.union_all(polygons).area
    assert together == pytest.approx(sum(p.area for p in polygons), rel=0.003)


def test_every_class_is_in_train_and_test_zones_of_the_demo(demo):
    settings, places, lands = demo
    counts = {True: Counter(), False: Counter()}
    for place, land in zip(places, lands, strict=True):
        held_out = held_out_zone(place, settings)
        for unit in land.units:
            for i, zone in enumerate(place.zones):
                if unit.crop and zone.covers(unit.polygon):
                    counts[i == held_out][unit.crop.code] += 1
    common = [code for code in counts[False] if min(c[code] for c in counts.values()) >= 3]
    assert len(common) >= 12
    assert counts[False].most_common(1)[0][1] >= 8 * min(counts[False].values())


def test_worldcover_follows_the_land(demo):
    land = demo[2][0]
    wheat = [i + 1 for i, u in enumerate(land.units) if u.crop and u.crop.code == "BTH"]
    meadow = [i + 1 for i, u in enumerate(land.units) if u.crop and u.crop.code == "PPH"]
    assert (land.worldcover[np.isin(land.number, wheat)] == 40).all()
    assert (land.worldcover[np.isin(land.number, meadow)] == 30).all()
    assert set(np.unique(land.worldcover)) == {10, 30, 40, 50, 80}
