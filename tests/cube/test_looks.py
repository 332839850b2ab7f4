"""What a tile sees: parts of a pass, masks across tile borders, missing files, wrong offsets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cube.build import build_tile
from cube.errors import ReadError, SceneError
from cube.grid import Window
from cube.planning import GridPlan, Tile
from cube.recipe import Mask, Recipe
from cube.tally import Tally
from tests.archive import GRID, enlarge, write_archive, write_tif

DATES = ["2023-01-05", "2023-01-15", "2023-01-25", "2023-02-10", "2023-02-20", "2023-02-25"]
RECIPE = Recipe(bands=("red", "blue"), start="2023-01", end="2023-02", fill="none")
WINDOW = Window(row=100, col=60, height=120, width=90)


def plan_of(scenes, recipe=RECIPE):
    return GridPlan(recipe=recipe, grid=GRID, scenes=tuple(scenes), tiles=())


def tile_of(window=WINDOW):
    return Tile(row=0, col=0, window=window)


def tally_of(ds):
    return Tally.model_validate_json(ds.attrs["tally"])


@pytest.fixture
def archive(tmp_path):
    return write_archive(tmp_path, DATES, ("red", "blue"))


def rewrite(scene, band, values, pixel=10):
    write_tif(Path(scene.hrefs[band]), values, GRID, pixel)


def test_parts_of_a_pass_are_one_observation(archive):
    first, second, *rest = archive.scenes
    one_pass = [first, second.model_copy(update={"acquisition": first.acquisition})]
    whole = build_tile(plan_of(one_pass), tile_of())
    rows, cols = WINDOW.yx
    scl = archive.scl.values[:2, rows, cols]
    clear = np.isin(scl, (4, 5, 6, 7))
    dn = archive.dn.values[:2, :, rows, cols].astype(int)
    dn[1, :, clear[0]] = 0  # the first clear one in order of ids wins
    dn[~np.broadcast_to(clear[:, None], dn.shape)] = 0
    valid = (dn > 0).all(1)
    expected = (dn * valid[:, None]).sum(0)
    assert np.array_equal(whole.observations.values[0], valid.sum(0))
    assert whole.observations.values.max() == 1
    assert np.array_equal(whole.reflectance.values[0], expected)
    assert build_tile(plan_of(one_pass[::-1]), tile_of()).identical(whole)
    assert len(rest) == 4


def test_the_order_of_scenes_changes_nothing(archive):
    scenes = list(archive.scenes)
    made = build_tile(plan_of(scenes), tile_of())
    assert build_tile(plan_of(scenes[::-1]), tile_of()).equals(made)


def test_a_mask_that_grows_leaves_no_seam_between_tiles(archive):
    recipe = RECIPE.model_copy(update={"mask": Mask(keep=(4, 5, 6, 7, 8, 9, 10), dilate=60)})
    whole = build_tile(plan_of(archive.scenes, recipe), tile_of())
    assert (whole.observations.values > 0).any()
    assert (whole.observations.values == 0).any()
    for row, height in ((100, 50), (150, 70)):
        window = Window(row=row, col=60, height=height, width=90)
        part = build_tile(plan_of(archive.scenes, recipe), tile_of(window))
        inside = slice(row - 100, row - 100 + height)
        assert np.array_equal(part.reflectance.values, whole.reflectance.values[:, :, inside])
        assert np.array_equal(part.observations.values, whole.observations.values[:, inside])


def test_the_tally_counts_what_was_seen_and_masked(archive):
    tally = tally_of(build_tile(plan_of(archive.scenes), tile_of()))
    # The window begins and ends on whole pixels of 20 m.
    scl = archive.scl.values[:, 100:220:2, 60:150:2].reshape(2, -1)
    assert tally.seen == (scl != 0).sum(1).tolist()
    clear = np.isin(scl, (4, 5, 6, 7)).sum(1)
    assert tally.clear == clear.tolist()
    assert tally.masked == pytest.approx(1 - clear / (scl != 0).sum(1))
    assert tally.underflow == {}
    assert tally.missing == []
    twice = Tally.total([tally, tally])
    assert twice.seen == [2 * count for count in tally.seen]
    assert twice.masked == tally.masked


def test_values_from_an_underflow_are_no_data_and_counted(archive):
    scene = archive.scenes.scenes[3]
    values = archive.dn.values[3, 0].copy()
    values[120:130, 70:90] = 64_536
    rewrite(scene, "red", values)
    made = build_tile(plan_of(archive.scenes), tile_of())
    assert made.reflectance.values.max() <= 6000
    found = tally_of(made).underflow
    # Blocks are read whole or not at all, and this one has clear pixels.
    assert found == {scene.id: 200}


def test_what_cannot_be_read_stops_the_build_unless_a_share_may_be_missing(archive):
    scene = archive.scenes.scenes[1]
    path = Path(scene.hrefs["blue"])
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ReadError, match=scene.id):
        build_tile(plan_of(archive.scenes), tile_of())
    with pytest.raises(ReadError, match=scene.id):
        build_tile(plan_of(archive.scenes), tile_of(), max_missing=0.1)
    made = build_tile(plan_of(archive.scenes), tile_of(), max_missing=0.2)
    without = [other for other in archive.scenes if other.id != scene.id]
    expected = build_tile(plan_of(without), tile_of())
    assert made.drop_attrs().identical(expected.drop_attrs())
    assert tally_of(made).missing == [f"{scene.id}, blue: corrupt"]
    path.unlink()
    (path.parent / "SCL.tif").unlink()
    made = build_tile(plan_of(archive.scenes), tile_of(), max_missing=0.2)
    assert made.drop_attrs().identical(expected.drop_attrs())
    assert tally_of(made).missing == [f"{scene.id}, scl: missing"]


def test_rights_are_never_excused(archive, tmp_path):
    scene = archive.scenes.scenes[1]
    stranger = scene.model_copy(update={"hrefs": {**scene.hrefs, "blue": "/etc/passwd.tif"}})
    scenes = [stranger if other is scene else other for other in archive.scenes]
    with pytest.raises(SceneError, match="leaves the folder"):
        build_tile(plan_of(scenes), tile_of(), max_missing=1.0)


def test_a_classification_that_was_interpolated_is_refused(archive):
    scene = archive.scenes.scenes[2]
    coarse = np.full((-(-GRID.height // 2), -(-GRID.width // 2)), 12, np.uint8)
    rewrite(scene, "scl", coarse, 20)
    with pytest.raises(ReadError, match=f"{scene.id}, scl, tile .*class 12") as error:
        build_tile(plan_of(archive.scenes), tile_of())
    assert (error.value.item, error.value.kind) == (scene.id, "corrupt")


def vegetation(archive, scene, level):
    """Make a scene a meadow: all vegetation, dark in red and blue, from `level` up."""
    rng = np.random.default_rng(3)
    coarse = np.full((-(-GRID.height // 2), -(-GRID.width // 2)), 4, np.uint8)
    rewrite(scene, "scl", coarse, 20)
    for band in ("red", "blue"):
        values = rng.integers(level + 100, level + 500, (GRID.height, GRID.width))
        rewrite(scene, band, values.astype(np.uint16))
    assert enlarge(coarse, 2, GRID).shape == (GRID.height, GRID.width)


@pytest.mark.parametrize(
    ("level", "subtract", "says"), [(1000, 0, "still carry"), (0, 1000, "old scale")]
)
def test_pixels_that_contradict_the_catalogue_stop_the_build(archive, level, subtract, says):
    scene = archive.scenes.scenes[4]
    vegetation(archive, scene, level)
    wrong = scene.model_copy(update={"subtract": subtract})
    right = scene.model_copy(update={"subtract": 1000 - subtract})
    window = tile_of(Window(row=20, col=20, height=300, width=200))
    with pytest.raises(SceneError, match=rf"{scene.id}.*{says}.*offsets="):
        build_tile(plan_of([wrong]), window)
    assert build_tile(plan_of([right]), window).reflectance.values.max() < 600
    by_hand = wrong.model_copy(update={"decided": "hand"})
    assert build_tile(plan_of([by_hand]), window).observations.values.any()
