"""Samples of cubes: every value must be the store's, at the place its label says."""

import numpy as np
import pytest

from cube import store
from cube.errors import LabelError
from cube.grid import to_utm
from cube.planning import plan
from cube.recipe import Recipe
from cube.scenes import Scenes
from model.datasets.choose import compacted, select_bands, thin_dates, until
from model.datasets.composites import monthly
from model.datasets.cube import pixel_set, window_set
from model.datasets.labelled import lonlat
from model.datasets.parcel import geometry, parcel_images, parcel_means, parcel_pixels
from model.labels import write_labels
from model.labelstore import LabelStore
from model.legend import IGNORE
from tests.model.farm import GRID, RECIPE


@pytest.fixture(scope="module")
def dated(farm, tmp_path_factory):
    """The farm's scenes as a series of dates instead of months."""
    recipe = Recipe(
        bands=RECIPE.bands, start=RECIPE.start, end=RECIPE.end, composite="series", fill="none"
    )
    west, south, east, north = GRID.geobox(GRID.window).geographic_extent.boundingbox
    scenes = Scenes(source="farm", scenes=farm.plan.grids[0].scenes)
    made = plan((west, south, east, north), scenes, recipe)
    return store.write(made, tmp_path_factory.mktemp("dated") / "series.zarr")


@pytest.fixture(scope="module")
def whole(farm):
    return store.read_window(farm.store, GRID.granule, GRID.window)[0]


@pytest.fixture(scope="module")
def truth(farm):
    return LabelStore(farm.labels).read(GRID.granule, GRID.window)


def places_of(samples, whole=np.floor):
    """Row and column of each sample, from its longitude and latitude alone."""
    x, y = to_utm(GRID.epsg).transform(samples.lonlat[:, 0], samples.lonlat[:, 1])
    return (
        whole((GRID.top - np.asarray(y)) / 10).astype(int),
        whole((np.asarray(x) - GRID.left) / 10).astype(int),
    )


def test_pixels_are_those_of_the_store_with_their_labels(farm, whole, truth):
    samples = pixel_set(farm.store, farm.labels, per_class=20)
    row, col = places_of(samples)
    assert len(set(zip(row, col, strict=True))) == len(samples)
    assert np.array_equal(samples.y, truth.label[row, col])
    assert np.array_equal(samples.parcel, truth.parcel[row, col])
    assert np.array_equal(samples.group, truth.zone[row, col])
    values = whole[:, :, row, col].transpose(2, 1, 0)
    seen = (values != 0).all(axis=1)
    assert np.array_equal(samples.valid, seen)
    assert np.array_equal(samples.x, np.where(seen[:, None], values, 0))
    assert samples.doy[0].tolist() == [105, 135, 166]
    assert samples.recipe == RECIPE


def test_each_class_of_each_zone_gives_as_many_pixels_as_it_can(farm, truth):
    samples = pixel_set(farm.store, farm.labels, per_class=700, seed=3)
    inside = (truth.zone > 0) & (truth.label != IGNORE)
    for zone in range(1, 5):
        there = np.bincount(truth.label[inside & (truth.zone == zone)], minlength=256)
        drawn = np.bincount(samples.y[samples.group == zone], minlength=256)
        assert np.array_equal(drawn, np.minimum(there, 700))
    again = pixel_set(farm.store, farm.labels, per_class=700, seed=3)
    assert again.hash == samples.hash
    assert pixel_set(farm.store, farm.labels, per_class=700, seed=4).hash != samples.hash


def test_dated_pixels_keep_their_own_clear_dates(farm, dated):
    samples = pixel_set(dated, farm.labels, per_class=20)
    row, col = places_of(samples)
    passes = store.read_window(dated, GRID.granule, GRID.window)[0]
    days = [93, 113, 128, 153, 163, 173]
    assert passes.shape[0] == len(days)
    for one in range(len(samples)):
        series = passes[:, :, row[one], col[one]]
        clear = (series != 0).all(axis=1)
        count = int(clear.sum())
        assert samples.valid[one].tolist() == [True] * count + [False] * (samples.dates - count)
        assert samples.doy[one, :count].tolist() == [
            d for d, c in zip(days, clear, strict=True) if c
        ]
        assert np.array_equal(samples.x[one, :, :count].T, series[clear])
        assert not samples.x[one, :, count:].any()
    assert samples.recipe is None


def test_composites_of_dated_pixels_are_the_cubes(farm, dated):
    # The same seed draws the same pixels of both stores.
    months = pixel_set(farm.store, farm.labels, per_class=50)
    series = monthly(pixel_set(dated, farm.labels, per_class=50), year=2018)
    assert np.array_equal(series.lonlat, months.lonlat)
    assert np.array_equal(series.x, months.x)
    assert np.array_equal(series.valid, months.valid)
    assert np.array_equal(series.doy, months.doy)


def test_windows_serve_one_zone_each(farm, whole, truth):
    samples = window_set(farm.store, farm.labels, 64)
    row, col = (place - 32 for place in places_of(samples, np.rint))
    assert not (row % 64).any()
    labelled = 0
    for one in range(len(samples)):
        here = np.s_[row[one] : row[one] + 64, col[one] : col[one] + 64]
        label, zone = truth.label[here], truth.zone[here]
        mine = (zone == samples.group[one]) & (label != IGNORE)
        height, width = label.shape  # less than 64 at the edge of the grid
        assert np.array_equal(
            samples.y[one, :height, :width], np.where(mine, label, IGNORE).astype(np.uint8)
        )
        counts = np.bincount(zone[(label != IGNORE) & (zone > 0)], minlength=5)
        assert counts[samples.group[one]] == counts.max()
        values = whole[(slice(None), slice(None), *here)].swapaxes(0, 1)
        assert np.array_equal(samples.x[one, :, :, :height, :width], values)
        labelled += int(mine.sum())
    assert labelled == int((samples.y != IGNORE).sum())
    fewer = window_set(farm.store, farm.labels, 64, limit=5)
    assert len(fewer) == 5
    with pytest.raises(ValueError, match="must divide 1024"):
        window_set(farm.store, farm.labels, 48)


def inside_of(truth, samples, one):
    """The pixels of a sample's parcel: the largest part that one zone has of it."""
    mine = (truth.parcel == samples.parcel[one]) & (truth.label != IGNORE)
    return mine & (truth.zone == samples.group[one])


def test_parcel_images_are_resized_boxes(farm, whole, truth):
    samples = parcel_images(farm.store, farm.labels, per_class=6)
    assert np.bincount(samples.y)[1:].max() <= 6
    for one in range(len(samples)):
        mine = inside_of(truth, samples, one)
        row, col = np.nonzero(mine)
        assert (truth.label[mine] == samples.y[one]).all()
        box = np.s_[row.min() : row.max() + 1, col.min() : col.max() + 1]
        cut = mine[box]
        pick = np.ix_(
            *(np.floor((np.arange(32) + 0.5) * side / 32).astype(int) for side in cut.shape)
        )
        values = whole[(slice(None), slice(None), *box)][(slice(None), slice(None), *pick)]
        seen = (values != 0).all(axis=1) & cut[pick]
        assert np.array_equal(samples.valid[one], seen)
        assert np.array_equal(samples.x[one], (values * seen[:, None]).swapaxes(0, 1))


def test_parcel_means_are_numpys(farm, whole, truth):
    samples = parcel_means(farm.store, farm.labels, per_class=6)
    assert samples.bands == ("red mean", "nir mean", "red std", "nir std")
    for one in range(len(samples)):
        values = whole[:, :, inside_of(truth, samples, one)].astype(float)
        values[~(values != 0).all(axis=1)[:, None].repeat(2, axis=1)] = np.nan
        expected = np.concatenate([np.nanmean(values, axis=2).T, np.nanstd(values, axis=2).T])
        np.testing.assert_allclose(samples.x[one], expected, rtol=1e-5)


def test_parcel_pixels_are_drawn_without_repetition(farm, whole, truth):
    many = parcel_pixels(farm.store, farm.labels, per_class=3, pixels=1000)
    few = parcel_pixels(farm.store, farm.labels, per_class=3, pixels=16)
    for one in range(len(many)):
        values = whole[:, :, inside_of(truth, many, one)]
        count = values.shape[2]
        got = many.x[one, :, :, :count].reshape(-1, count)
        seen = (values != 0).all(axis=1)
        there = (values * seen[:, None]).swapaxes(0, 1).reshape(-1, count)
        assert sorted(map(tuple, got.T)) == sorted(map(tuple, there.T))
        assert not many.valid[one, :, count:].any()
        shown = set(map(tuple, few.x[one].reshape(-1, 16).T))
        assert shown <= set(map(tuple, there.T))


def test_a_shape_is_told_by_hand_worked_numbers():
    # Three by two pixels without a corner: 10 edges, 5 pixels.
    shape = np.array([[1, 1, 1], [1, 1, 0]], bool)
    expected = [np.log(100 / 100), np.log(0.05), 5 / 6, 10 * 100 / 500]
    np.testing.assert_allclose(geometry(shape), expected, rtol=1e-6)


def test_a_cube_without_labels_is_refused(farm, tmp_path):
    empty = tmp_path / "labels.zarr"
    # Fields of 280 m vanish when their borders move in by 200 m.
    write_labels(
        farm.parcels, farm.plan, farm.legend, farm.zones, empty, erosion=200, background=False
    )
    for make in (pixel_set, window_set):
        with pytest.raises(LabelError, match="no labelled pixel lies in a zone"):
            make(farm.store, empty)
    with pytest.raises(LabelError, match="no labelled parcel lies in a zone"):
        parcel_means(farm.store, empty)


def test_degrees_come_back_as_the_pixel():
    found = lonlat(GRID, np.array([0.5, 100.5]), np.array([0.5, 7.5]))
    x, y = to_utm(GRID.epsg).transform(found[:, 0], found[:, 1])
    np.testing.assert_allclose(x, [GRID.left + 5, GRID.left + 75], atol=1e-3)
    np.testing.assert_allclose(y, [GRID.top - 5, GRID.top - 1005], atol=1e-3)


def test_fewer_bands_and_dates(farm, dated):
    samples = pixel_set(dated, farm.labels, per_class=20)
    nir = select_bands(samples, ["nir"])
    assert np.array_equal(nir.x[:, 0], samples.x[:, 1])
    with pytest.raises(LabelError, match="no band green; it has red, nir"):
        select_bands(samples, ["green"])
    early = until(samples, 128)
    assert early.valid.sum() == (samples.valid & (samples.doy <= 128)).sum()
    assert early.doy.max() == 128
    with pytest.raises(LabelError, match="up to day 3"):
        until(samples, 3)
    thin = thin_dates(samples, 2)
    assert np.array_equal(thin.valid.sum(axis=1), samples.valid.sum(axis=1).clip(max=2))
    for one in range(len(samples)):
        pairs = dict(zip(samples.doy[one], samples.x[one].T.tolist(), strict=True))
        kept = [d for d in thin.doy[one] if d]
        assert kept == sorted(kept)
        assert [pairs[d] for d in kept] == thin.x[one].T.tolist()[: len(kept)]
    assert compacted(samples).hash == samples.hash
