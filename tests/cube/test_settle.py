"""Plans with undecided scenes, from files on disk: what the pixels, or the user, make of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cube.build import build
from cube.errors import PlanError, SceneError
from cube.grid import NativeGrid, Window
from cube.planning import Plan, load_plan, plan
from cube.recipe import Recipe
from cube.scenes import Scene, Scenes
from cube.search import search
from cube.settle import _spread, settle
from tests.archive import GRID, write_tif
from tests.cube.test_build import whole

RECIPE = Recipe(bands=("blue", "red"), start="2022-03", end="2022-03", fill="none")
WHY = "baseline 04.00, declared offset -0.1, boa_offset_applied False: cannot tell"
VEGETATION, SOIL, CLOUD = 4, 5, 9


def undecided(folder: Path, name: str, values: np.ndarray, scl: np.ndarray | int) -> Scene:
    """Write a scene with the same DN in both bands and return it without a decision."""
    (folder / name).mkdir(parents=True)
    rows, cols = -(-GRID.height // 2), -(-GRID.width // 2)
    classes = np.full((rows, cols), scl, np.uint8)
    hrefs = {"scl": write_tif(folder / name / "SCL.tif", classes, GRID, 20)}
    for band in RECIPE.bands:
        hrefs[band] = write_tif(folder / name / f"{band}.tif", values, GRID, 10)
    return Scene(
        id=name,
        datetime=f"2022-03-{10 + len(list(folder.iterdir())):02d}T10:43:29Z",
        satellite="A",
        acquisition=name,
        grid=GRID,
        hrefs=hrefs,
        subtract=None,
        decided=None,
        why=WHY,
        baseline="04.00",
        provider=f"earth-search@{folder.resolve()}",
    )


def dn(low: int, high: int) -> np.ndarray:
    return np.random.default_rng(low).integers(low, high, (GRID.height, GRID.width), np.uint16)


def planned(*scenes: Scene, offsets: dict[str, int] | None = None) -> Plan:
    return plan(whole(GRID), Scenes(source="here", scenes=scenes), RECIPE, offsets=offsets)


def test_pixels_decide_and_the_plan_says_so(tmp_path: Path) -> None:
    old = undecided(tmp_path, "old", dn(200, 900), VEGETATION)
    new = undecided(tmp_path, "new", dn(1200, 1900), VEGETATION)
    made = planned(old, new)
    assert [(s.id, s.subtract, s.decided) for s in made.grids[0].scenes] == [
        ("old", 0, "pixels"),
        ("new", 1000, "pixels"),
    ]
    for scene in made.grids[0].scenes:
        assert scene.why.startswith(f"{WHY}; 81896 vegetation and water pixels; red: 1 % below")
    assert load_plan(made.save(tmp_path / "plan.json")) == made


def test_a_plan_of_both_scales_is_one_cube(tmp_path: Path) -> None:
    values = dn(200, 900)
    one = build(planned(undecided(tmp_path / "a", "one", values, VEGETATION)))
    two = build(planned(undecided(tmp_path / "b", "one", values + 1000, VEGETATION)))
    assert np.array_equal(one.reflectance.values[0, 0], values)
    xr.testing.assert_equal(one, two)


def test_decided_scenes_are_not_looked_at(tmp_path: Path) -> None:
    scene = undecided(tmp_path, "decided", dn(200, 900), VEGETATION)
    told = scene.model_copy(update={"subtract": 1000, "decided": "metadata", "why": ""})
    for href in told.hrefs.values():
        Path(href).unlink()
    assert planned(told).grids[0].scenes == (told,)


def test_a_scene_without_a_clear_pixel_is_removed(tmp_path: Path) -> None:
    good = undecided(tmp_path, "good", dn(200, 900), VEGETATION)
    cloudy = undecided(tmp_path, "cloudy", dn(200, 900), CLOUD)
    made = planned(good, cloudy)
    assert [scene.id for scene in made.grids[0].scenes] == ["good"]
    assert [(item.id, item.reason) for item in made.removed] == [("cloudy", "nothing-clear")]
    assert WHY in made.removed[0].detail
    with pytest.raises(PlanError, match="no scene shows the area clearly: cloudy"):
        planned(cloudy)


def test_clear_pixels_that_do_not_tell_stop_the_plan(tmp_path: Path) -> None:
    hazy = [undecided(tmp_path, f"hazy{n}", dn(800, 1400), VEGETATION) for n in range(6)]
    bare = undecided(tmp_path, "bare", dn(1200, 1900), SOIL)
    good = undecided(tmp_path, "good", dn(200, 900), VEGETATION)
    with pytest.raises(SceneError) as caught:
        planned(*hazy, bare, good)
    text = str(caught.value)
    assert [scene.id in text for scene in (*hazy, bare, good)] == [True] * 5 + [False] * 3
    for part in ("pixels of 7 scene", "2 more", WHY, "1 % below DN 80", "exclude=", "c1"):
        assert part in text
    with pytest.raises(SceneError, match=r"bare .earth-search.: .*; 0 vegetation and water pixels"):
        planned(bare)


def test_a_word_of_the_user_overrides_everything(tmp_path: Path) -> None:
    hazy = undecided(tmp_path, "hazy", dn(800, 1400), VEGETATION)
    old = undecided(tmp_path, "old", dn(200, 900), VEGETATION)
    told = old.model_copy(update={"id": "told", "subtract": 0, "decided": "metadata"})
    made = planned(hazy, old, told, offsets={"hazy": 1000, "told": 1000})
    assert {s.id: (s.subtract, s.decided) for s in made.grids[0].scenes} == {
        "hazy": (1000, "hand"),
        "old": (0, "pixels"),
        "told": (1000, "hand"),
    }


@pytest.mark.parametrize("value", [1, -1000, 999, True, "1000", None])
def test_an_offset_by_hand_is_0_or_1000(tmp_path: Path, value: object) -> None:
    scene = undecided(tmp_path, "a", dn(200, 900), VEGETATION)
    with pytest.raises(PlanError, match="a: .*neither 0 nor 1000"):
        planned(scene, offsets={"a": value})  # type: ignore[dict-item]


def test_an_offset_for_an_unknown_scene_is_told(tmp_path: Path) -> None:
    scene = undecided(tmp_path, "S2A_31TEJ_20220326_0_L2A", dn(200, 900), VEGETATION)
    with pytest.raises(PlanError, match="did you mean 'S2A_31TEJ_20220326_0_L2A'"):
        planned(scene, offsets={"S2A_31TEJ_20220326_1_L2A": 0})


def test_only_the_built_part_of_a_scene_counts(tmp_path: Path) -> None:
    # Old scale in the upper half, +1000 in the lower one: no real scene, but it shows who looked.
    values = dn(200, 900)
    values[180:] += 1000
    scene = undecided(tmp_path, "half", values, VEGETATION)
    for row, subtract in ((0, 0), (200, 1000)):
        window = Window(row=row, col=0, height=100, width=GRID.width)
        settled, removed = settle({GRID: [scene]}, {GRID: [window]}, RECIPE.mask.keep)
        assert [s.subtract for s in settled[GRID]] == [subtract]
        assert removed == []


def test_dark_windows_are_gathered_until_there_are_enough(tmp_path: Path) -> None:
    # 100 dark pixels in each of eight windows: none alone has the 400 that a verdict needs.
    scl = np.full((-(-GRID.height // 2), -(-GRID.width // 2)), SOIL, np.uint8)
    windows = [Window(row=row, col=0, height=20, width=100) for row in range(0, 160, 20)]
    for window in windows:
        scl[window.row // 2 : window.row // 2 + 5, :5] = VEGETATION
    scene = undecided(tmp_path, "sparse", dn(200, 900), scl)
    settled, _ = settle({GRID: [scene]}, {GRID: windows}, RECIPE.mask.keep)
    assert "; 400 vegetation and water pixels" in settled[GRID][0].why
    with pytest.raises(SceneError, match="; 300 vegetation and water pixels"):
        settle({GRID: [scene]}, {GRID: windows[:3]}, RECIPE.mask.keep)


def test_the_first_windows_looked_at_lie_far_apart() -> None:
    windows = [Window(row=row, col=0, height=10, width=10) for row in range(0, 1000, 10)]
    order = _spread(windows)
    assert sorted(window.row for window in order) == [window.row for window in windows]
    first = sorted(window.row for window in order[:4])
    assert min(b - a for a, b in pairwise(first)) >= 100


@pytest.mark.real
def test_a_real_archive_whose_items_say_nothing_gives_the_same_cube(real_data: Path) -> None:
    folder = real_data / "archive" / "flanders-2019-baseline0400"
    recipe = Recipe(bands=("red", "nir"), start="2018-12", end="2019-11", fill="none")
    scenes = search((-5, 40, 9, 52), recipe, folder / "items.json")
    grid: NativeGrid = scenes.scenes[0].grid
    # The cloudiest scene has too few clear pixels to tell.
    kept = [scene for scene in scenes if "20190819" not in scene.id]
    mute = [scene.model_copy(update={"subtract": None, "decided": None}) for scene in kept]
    plans = [plan(whole(grid), Scenes(source="x", scenes=tuple(s)), recipe) for s in (kept, mute)]
    assert {scene.decided for scene in plans[1].grids[0].scenes} == {"pixels"}
    told, looked = (build(made).compute(scheduler="threads") for made in plans)
    xr.testing.assert_equal(told, looked)
