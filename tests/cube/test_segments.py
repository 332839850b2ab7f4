"""Periods added to a store: nothing old is touched, nothing half-written is seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import cube
from cube import store
from cube.grid import NativeGrid, Window
from cube.planning import Plan, plan
from cube.segments import ADDED
from tests.archive import write_archive
from tests.cube.test_build import DATES, whole
from tests.cube.test_store import bytes_of

TALL = NativeGrid(
    granule="31TEJ", epsg=32631, left=523_560.0, top=4_832_780.0, height=1100, width=70
)
LATER = ["2023-06-09", "2023-07-01", "2023-07-11", "2024-02-02"]
SPRING, SUMMER, NEXT_YEAR = ("2023-01", "2023-05"), ("2023-06", "2023-07"), ("2024-01", "2024-02")


class InterruptedBuildError(Exception):
    """Raised by a test in the middle of a build."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("tall"), [*DATES, *LATER], grid=TALL).scenes


@pytest.fixture(scope="module")
def plans(scenes):
    return {period: plan_of(scenes, period) for period in (SPRING, SUMMER, NEXT_YEAR)}


@pytest.fixture(scope="module")
def spring(plans, tmp_path_factory):
    return store.write(plans[SPRING], tmp_path_factory.mktemp("spring") / "a.zarr")


@pytest.fixture(scope="module")
def both(plans, spring, tmp_path_factory):
    path = tmp_path_factory.mktemp("both") / "a.zarr"
    shutil.copytree(spring, path)
    return store.append(plans[SUMMER], path)


def plan_of(scenes: cube.Scenes, period: tuple[str, str], area=None, **fields) -> Plan:
    recipe = cube.Recipe(bands=("blue", "nir"), start=period[0], end=period[1], **fields)
    return plan(area or whole(TALL), scenes, recipe)


def states(path: Path) -> dict[Path, tuple[int, int]]:
    return {
        file: (file.stat().st_mtime_ns, file.stat().st_ino)
        for file in path.rglob("*")
        if file.is_file()
    }


def built(*plans: Plan) -> tuple[np.ndarray, np.ndarray]:
    cubes = [cube.build(one).compute(scheduler="threads") for one in plans]
    return (
        np.concatenate([one.reflectance.values for one in cubes]),
        np.concatenate([one.observations.values for one in cubes]),
    )


def test_added_months_follow_and_nothing_old_is_touched(plans, spring, tmp_path):
    path = Path(shutil.copytree(spring, tmp_path / "a.zarr"))
    before, content = states(path), bytes_of(path)
    store.append(plans[SUMMER], path)
    assert {file: state for file, state in states(path).items() if file in before} == before
    assert content.items() <= bytes_of(path).items()
    assert store.verify(path) == []
    opened = store.open(path)
    reflectance, observations = built(plans[SPRING], plans[SUMMER])
    assert np.array_equal(opened.reflectance, reflectance)
    assert np.array_equal(opened.observations, observations)
    assert [str(month)[:7] for month in opened.time.values] == [
        f"2023-{n:02d}" for n in range(1, 8)
    ]


def test_windows_tiles_and_tallies_span_all_periods(plans, both):
    window = Window(row=1000, col=60, height=50, width=30)
    reflectance, observations = store.read_window(both, "31TEJ", window)
    expected = built(plans[SPRING], plans[SUMMER])
    assert np.array_equal(reflectance[..., :10], expected[0][..., 1000:1050, 60:70])
    assert np.array_equal(observations[..., :10], expected[1][..., 1000:1050, 60:70])
    assert reflectance.shape == (7, 2, 50, 30)
    assert not reflectance[..., 10:].any()
    assert [tile.window for tile in store.tiles(both)] == [
        tile.window for tile in plans[SPRING].grids[0].tiles
    ]
    assert [(one.period, one.tile) for one in store.tallies(both)] == [
        ("2023-01_2023-05", "31TEJ-0-0"),
        ("2023-01_2023-05", "31TEJ-1-0"),
        ("2023-06_2023-07", "31TEJ-0-0"),
        ("2023-06_2023-07", "31TEJ-1-0"),
    ]


def test_the_plan_is_that_of_the_whole_time(scenes, both):
    at_once = plan_of(scenes, ("2023-01", "2023-07"))
    assert store.read_plan(both) == at_once
    assert store.read_plan(both).grids[0].hash == at_once.grids[0].hash
    assert store.read_recipe(both) == at_once.recipe
    assert store.open(both).attrs["recipe_hash"] == at_once.recipe.hash


def test_plain_xarray_reads_each_period(plans, both):
    for folder, period in ((both, SPRING), (both / "2023-06_2023-07", SUMMER)):
        plain = xr.open_zarr(folder / "31TEJ", consolidated=False)
        assert np.array_equal(plain.reflectance, built(plans[period])[0])
        assert list(plain.time.values) == list(plans[period].recipe.periods.values)


def test_an_earlier_period_comes_first(plans, both, tmp_path):
    path = store.write(plans[SUMMER], tmp_path / "a.zarr")
    store.append(plans[SPRING], path)
    xr.testing.assert_identical(store.open(path).compute(), store.open(both).compute())


def test_another_year_leaves_a_gap_that_no_recipe_has(plans, spring, tmp_path):
    path = Path(shutil.copytree(spring, tmp_path / "a.zarr"))
    store.append(plans[NEXT_YEAR], path)
    opened = store.open(path)
    months = plans[SPRING].recipe.periods.append(plans[NEXT_YEAR].recipe.periods)
    assert list(opened.time.values) == list(months.values)
    assert np.array_equal(opened.reflectance, built(plans[SPRING], plans[NEXT_YEAR])[0])
    assert "recipe" not in opened.attrs
    with pytest.raises(
        cube.StoreError, match="holds 2023-01_2023-05 and 2024-01_2024-02: no one recipe"
    ):
        store.read_plan(path)


@pytest.mark.parametrize(
    ("period", "fields", "reason"),
    [
        (SUMMER, {"fill": "linear"}, r"another recipe \(fill neighbour-mean instead of linear\)"),
        (SUMMER, {"area": (3.292, 43.555, 3.293, 43.6)}, "another area"),
        (("2023-05", "2023-06"), {}, "holds 2023-01_2023-05.* as 2023-05_2023-06"),
        (("2023-01", "2023-04"), {}, "holds 2023-01_2023-05.* as 2023-01_2023-04"),
    ],
)
def test_what_does_not_extend_the_store_is_refused(
    scenes, spring, tmp_path, period, fields, reason
):
    path = Path(shutil.copytree(spring, tmp_path / "a.zarr"))
    with pytest.raises(cube.StoreError, match=reason):
        store.append(plan_of(scenes, period, **fields), path)
    assert bytes_of(path) == bytes_of(spring)


def test_the_same_time_from_other_scenes_is_refused(scenes, spring):
    fewer = cube.Scenes(source=scenes.source, scenes=scenes.scenes[1:])
    with pytest.raises(cube.StoreError, match="holds 2023-01_2023-05, from other scenes"):
        store.append(plan_of(fewer, SPRING), spring)


def test_nothing_is_added_by_accident(plans, spring, tmp_path):
    before = bytes_of(spring)
    with pytest.raises(cube.StoreError, match=r"add it with cube\.store\.append"):
        store.write(plans[SUMMER], spring)
    assert bytes_of(spring) == before
    with pytest.raises(cube.StoreError, match="not a cropcube store"):
        store.append(plans[SUMMER], tmp_path / "nothing.zarr")


def test_an_interrupted_addition_is_not_seen_and_goes_on(plans, spring, both, tmp_path):
    path = Path(shutil.copytree(spring, tmp_path / "a.zarr"))

    def stop_after_the_first(done: int, total: int, name: str) -> None:
        if done:
            raise InterruptedBuildError

    with pytest.raises(InterruptedBuildError):
        store.append(plans[SUMMER], path, progress=stop_after_the_first)
    xr.testing.assert_identical(store.open(path).compute(), store.open(spring).compute())
    assert store.read_plan(path) == plans[SPRING]
    assert store.verify(path) == []
    store.append(plans[SUMMER], path)
    assert bytes_of(path) == bytes_of(both)


@pytest.mark.parametrize("lost", ["plan alone", "half a group", "one tile", "the last step"])
def test_wherever_an_addition_stopped_it_goes_on(plans, spring, both, tmp_path, lost):
    path = Path(shutil.copytree(both, tmp_path / "a.zarr"))
    segment = path / "2023-06_2023-07"
    (path / ADDED / segment.name).unlink()
    if lost == "plan alone":
        for child in [*segment.glob("31TEJ"), *segment.glob(".cropcube/31TEJ*")]:
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        (segment / "zarr.json").unlink()
    elif lost == "half a group":
        (segment / "31TEJ" / "spatial_ref" / "zarr.json").unlink()
    elif lost == "one tile":
        (segment / ".cropcube" / "31TEJ-1-0.json").unlink()
    xr.testing.assert_identical(store.open(path).compute(), store.open(spring).compute())
    store.append(plans[SUMMER], path)
    assert bytes_of(path) == bytes_of(both)


def test_a_tile_lost_from_an_added_period_raises(plans, both, tmp_path):
    path = Path(shutil.copytree(both, tmp_path / "a.zarr"))
    (path / "2023-06_2023-07/31TEJ/reflectance/c/0/0/1/0").unlink()
    assert store.verify(path) == ["31TEJ-1-0: the shard of reflectance is missing"]
    assert len(store.tiles(path)) == 1
    with pytest.raises(cube.StoreError, match="2023-06_2023-07: 1 of 2 tiles of 31TEJ are not"):
        store.open(path)
    with pytest.raises(cube.StoreError, match="31TEJ-1-0 is not done"):
        store.read_window(path, "31TEJ", Window(row=1030, col=5, height=3, width=3))
    store.append(plans[SUMMER], path)
    assert bytes_of(path) == bytes_of(both)
