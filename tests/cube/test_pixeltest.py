"""The pixel test against hand-worked samples and against every real scene, on both scales."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.grid import NativeGrid
from cube.pixeltest import Evidence, Levels, contradicts, gather, verdict
from cube.read import read_window
from cube.recipe import Recipe
from cube.search import search

VEGETATION, SOIL, WATER, CLOUD = 4, 5, 6, 9


def sample(value: int, count: int = 2000, scl: int = VEGETATION, spread: int = 100) -> tuple:
    """SCL and DN of `count` pixels, evenly between `value` and `value + spread`."""
    dn = np.linspace(value, value + spread, count).astype(np.uint16)
    return np.full(count, scl, np.uint8), dn


def evidence(red: int, blue: int | None = None, **kind: int) -> Evidence:
    scl, dn = sample(red, **kind)
    bands = {"red": dn}
    if blue is not None:
        bands["blue"] = sample(blue, **kind)[1]
    return gather(scl, bands)


def test_the_evidence_of_a_hand_worked_sample() -> None:
    scl = np.array([[4, 4, 6, 6, 5, 9, 4, 4]], np.uint8)
    red = np.array([[300, 500, 900, 1200, 50, 9000, 0, 64536]], np.uint16)
    found = gather(scl, {"red": red})
    # Soil and cloud are not dark; no data and underflow are no surfaces.
    assert found == Evidence(4, {"red": Levels(300, 300, 0.75)}, underflow=1)
    assert str(found) == (
        "4 vegetation and water pixels; red: 1 % below DN 300, a quarter below 300, "
        "75% below 1000; 1 values from an unsigned underflow"
    )
    assert gather(np.zeros(3, np.uint8), {"red": np.ones(3, np.uint16)}) == Evidence(0, {}, 0)


@pytest.mark.parametrize(
    ("found", "decided"),
    [
        (evidence(300), 0),
        (evidence(300, scl=WATER), 0),
        (evidence(1300), 1000),
        (evidence(1300, 1200), 1000),
        (evidence(1000, 990), 1000),
        (evidence(300, 1300), 0),  # one band that low is enough: no reflectance is −0.07
        (evidence(800), None),  # haze on the old scale, or too dark for the new one
        (evidence(1300, 850), None),
        (evidence(1700, 1800), None),  # nothing dark in the sample
        (evidence(1300, count=399), None),
        (evidence(300, count=399), None),
        (evidence(300, scl=SOIL), None),
        (evidence(300, scl=CLOUD), None),
        (Evidence(0, {}, 100), 0),
        (Evidence(0, {}, 99), None),
        (Evidence(1000, {"red": Levels(1100, 1200, 0.0)}, 500), None),  # both at once
        (Evidence(1000, {"green": Levels(1100, 1200, 0.0)}, 0), None),  # green under haze
    ],
)
def test_verdicts(found: Evidence, decided: int | None) -> None:
    assert verdict(found) == decided


dark = st.integers(1, 600)
bands = st.lists(st.sampled_from(["red", "blue", "green", "swir22"]), min_size=1, unique=True)


@given(lows=st.tuples(dark, dark), spread=st.integers(0, 3000), names=bands, seed=st.integers(0, 9))
def test_dark_surfaces_are_never_put_on_the_wrong_scale(lows, spread, names, seed) -> None:
    rng = np.random.default_rng(seed)
    scl = rng.choice([VEGETATION, WATER, SOIL, CLOUD], 1500).astype(np.uint8)
    old = {band: rng.integers(min(lows), max(lows) + spread + 1, 1500) for band in names}
    # The lowest percent is dark by construction: a mixture, as in any area with shade or water.
    for dn in old.values():
        dn[:300] = min(lows)
    as_old = gather(scl, {band: dn.astype(np.uint16) for band, dn in old.items()})
    as_new = gather(scl, {band: (dn + 1000).astype(np.uint16) for band, dn in old.items()})
    assert verdict(as_old) != 1000
    assert verdict(as_new) != 0
    assert contradicts(0, as_old) is None
    assert contradicts(1000, as_new) is None


def test_a_contradiction_needs_more_than_a_verdict() -> None:
    assert "old scale" in str(contradicts(1000, evidence(300)))
    assert "still carry +1000" in str(contradicts(0, evidence(1300, 1200)))
    assert contradicts(1000, evidence(1300)) is None
    assert contradicts(0, evidence(300)) is None
    # Each has a verdict, but not enough to stop a build.
    assert contradicts(1000, evidence(300, count=900)) is None
    assert contradicts(1000, evidence(600)) is None
    assert contradicts(0, evidence(1300)) is None
    assert contradicts(0, evidence(1300, 1200, count=900)) is None
    assert "underflow" in str(contradicts(1000, Evidence(0, {}, 100)))
    assert contradicts(0, Evidence(5000, {}, 100)) is None


def _whole(scene, band: str, dtype: type) -> np.ndarray:
    grid: NativeGrid = scene.grid
    out = np.empty((grid.height, grid.width), dtype)
    read_window(scene, band, grid.window, out)
    return out


# Archive → period, DN in its pixels, verdicts expected: right ones, and undecided for want of
# anything clear, of 400 dark pixels, or of darkness (thin haze).
REAL = {
    "beziers-2018": ("2018-01", "2018-12", 0, {"right": 9, "nothing clear": 1}),
    "flanders-2018": (
        *("2017-08", "2018-11", 0),
        {"right": 56, "nothing clear": 41, "few dark": 19, "haze": 2},
    ),
    "flanders-2019": (
        *("2018-08", "2019-11", 0),
        {"right": 40, "nothing clear": 22, "few dark": 10},
    ),
    "flanders-2019-baseline0400": ("2018-12", "2019-11", 1000, {"right": 12, "few dark": 1}),
}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_no_verdict_on_a_real_scene_is_wrong(real_data: Path, name: str) -> None:
    start, end, truth, expected = REAL[name]
    recipe = Recipe(bands=("red", "blue"), start=start, end=end)
    scenes = search((-5, 40, 9, 52), recipe, real_data / "archive" / name / "items.json")
    outcome: Counter[str] = Counter()
    caught = 0
    for scene in scenes:
        scl = _whole(scene, "scl", np.uint8)
        dn = {band: _whole(scene, band, np.uint16) for band in recipe.bands}
        other = {band: _moved(values, 1000 - 2 * truth) for band, values in dn.items()}
        for values, subtract in ((dn, truth), (other, 1000 - truth)):
            found = gather(scl, values)
            assert verdict(found) in (subtract, None), (scene.id, found)
            assert contradicts(subtract, found) is None, (scene.id, found)
            caught += contradicts(1000 - subtract, found) is not None
        found = gather(scl, dn)
        if verdict(found) is not None:
            outcome["right"] += 1
        elif not np.isin(scl, recipe.mask.keep).any():
            outcome["nothing clear"] += 1
        else:
            outcome["few dark" if found.dark < 400 else "haze"] += 1
    assert outcome == expected
    assert caught > outcome["right"]  # of twice as many, most scenes betray a false statement


def _moved(values: np.ndarray, by: int) -> np.ndarray:
    """Return DN on the other scale; 0 stays no data, and nothing falls below 1."""
    moved = np.maximum(values.astype(int) + by, 1)
    return np.where(values > 0, moved, 0).astype(np.uint16)
