"""The mask against looking at every neighbour, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cube import mask as masks
from cube.errors import RecipeError, SceneError
from cube.mask import clear_mask
from cube.recipe import Mask, Recipe

CLOUD, CLEAR = 9, 4
# Long runs of clouds and clear sky, so that erosion leaves something.
maps = arrays(
    np.uint8,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0, CLEAR, CLEAR, CLOUD, CLOUD, CLOUD, 3, 11]),
)
reaches = st.tuples(st.sampled_from([0, 20, 30, 45, 60]), st.sampled_from([0, 20, 45, 100])).map(
    lambda pair: {"erode": pair[0], "dilate": pair[0] + pair[1]}
)


def plain_near(places: set[tuple[int, int]], y: int, x: int, metres: int) -> bool:
    return any(20 * np.hypot(v - y, u - x) <= metres for v, u in places)


def plain_mask(scl: np.ndarray, keep: tuple[int, ...], erode: int, dilate: int) -> np.ndarray:
    """Shrink, then grow, by measuring the distance from every pixel to every other one."""
    pixels = [(y, x) for y in range(scl.shape[0]) for x in range(scl.shape[1])]
    clear = {place for place in pixels if scl[place] in keep}
    masked = {place for place in pixels if scl[place] not in (*keep, 0)}
    left = {place for place in masked if not plain_near(clear, *place, erode)}
    out = np.zeros(scl.shape, bool)
    for place in pixels:
        out[place] = scl[place] != 0 and not plain_near(left, *place, dilate)
    return out


@given(maps, reaches)
def test_mask_is_the_plain_rule(scl, reach):
    expected = plain_mask(scl, (4, 5, 6, 7), **reach)
    assert np.array_equal(clear_mask(scl, Mask(**reach)), expected)


@given(
    arrays(np.uint8, (30, 26), elements=st.sampled_from([0, CLEAR, CLEAR, CLOUD])),
    reaches,
    st.integers(0, 29),
    st.integers(0, 25),
)
def test_a_part_read_with_its_margin_is_the_part_of_the_whole(scl, reach, row, col):
    mask = Mask(**reach)
    margin = Recipe(bands=("red",), start="2023-01", end="2023-01", mask=mask).margin
    # Cut at the border as a tile at the edge of its granule is: neither border may show.
    top, left = max(0, row - margin), max(0, col - margin)
    around = scl[top : row + 6 + margin, left : col + 5 + margin]
    part = clear_mask(around, mask)[row - top :, col - left :][:6, :5]
    assert np.array_equal(part, clear_mask(scl, mask)[row : row + 6, col : col + 5])


def test_a_disc_by_hand():
    scl = np.full((9, 9), CLEAR, np.uint8)
    scl[4, 4] = CLOUD
    masked = ~clear_mask(scl, Mask(dilate=60))
    expected = [".........", "....#....", "..#####..", "..#####..", ".#######."]
    expected += expected[3::-1]
    assert ["".join(".#"[int(p)] for p in row) for row in masked] == expected


def test_specks_go_and_clouds_stay():
    scl = np.full((12, 12), CLEAR, np.uint8)
    scl[2, 2] = CLOUD  # one pixel: a bright roof
    scl[5:11, 5:11] = CLOUD
    clear = clear_mask(scl, Mask(erode=20, dilate=20))
    assert clear[:5, :5].all()
    assert not clear[6:10, 6:10].any()
    assert not clear_mask(scl, Mask())[2, 2]


def test_the_edge_of_the_data_neither_masks_nor_uncovers():
    scl = np.full((8, 8), CLEAR, np.uint8)
    scl[:, :3] = 0
    # No data does not eat the clear pixels beside it ...
    assert np.array_equal(clear_mask(scl, Mask(dilate=100)), scl == CLEAR)
    # ... and a cloud that goes on beyond the edge is no speck.
    scl[:, 3:] = CLOUD
    assert not clear_mask(scl, Mask(erode=40, dilate=40)).any()


def test_classes_that_do_not_exist_are_refused():
    scl = np.full((4, 4), CLEAR, np.uint8)
    scl[1, 2] = 12
    with pytest.raises(SceneError, match="holds class 12, but ends at 11"):
        clear_mask(scl, Mask())
    scl[1, 2] = 11
    assert not clear_mask(scl, Mask())[1, 2]


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(masks, "_registered", {})


@pytest.mark.usefixtures("registry")
def test_a_mask_of_ones_own_decides_instead_of_the_keep_set():
    masks.register("cirrus-too", lambda scl: scl >= 4)
    scl = np.array([[0, 1, 3, 4, 10, 11]], np.uint8)
    assert clear_mask(scl, Mask(custom="cirrus-too")).tolist() == [[False] * 3 + [True] * 3]
    # No data stays no data whatever the function says, and its areas grow like any other.
    masks.register("all", lambda scl: np.ones(scl.shape, bool))
    assert clear_mask(scl, Mask(custom="all")).tolist() == [[False] + [True] * 5]
    grown = clear_mask(scl, Mask(custom="cirrus-too", dilate=20))
    assert grown.tolist() == [[False] * 4 + [True] * 2]


@pytest.mark.usefixtures("registry")
def test_a_custom_mask_must_be_registered_and_keep_its_contract():
    scl = np.full((3, 4), CLEAR, np.uint8)
    with pytest.raises(RecipeError, match=r"'mine' is not registered; call cube.mask.register"):
        clear_mask(scl, Mask(custom="mine"))
    for wrong, found in (
        (lambda scl: scl, r"uint8 \[3, 4\]"),
        (lambda scl: scl[1:] > 3, r"bool \[2, 4\]"),
        (lambda scl: None, r"NoneType \[\]"),
    ):
        masks.register("mine", wrong)
        with pytest.raises(RecipeError, match=rf"'mine' returned {found}; it must return bool"):
            clear_mask(scl, Mask(custom="mine"))
