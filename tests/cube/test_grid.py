"""Native grids against published granules, and the algebra of windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from cube.errors import SceneError
from cube.grid import TILE, NativeGrid, Window, cell, cells, square_origin, utm_zone, whole_granule

SQUARE = 100_000

windows = st.builds(
    Window,
    row=st.integers(0, 60),
    col=st.integers(0, 60),
    height=st.integers(0, 40),
    width=st.integers(0, 40),
)


def _pixels(window: Window) -> np.ndarray:
    canvas = np.zeros((120, 120), bool)
    canvas[window.yx] = True
    return canvas


@given(windows, windows)
def test_intersect_is_the_common_pixels(left: Window, right: Window) -> None:
    common = left.intersect(right)
    np.testing.assert_array_equal(_pixels(common), _pixels(left) & _pixels(right))
    assert common.empty == (not _pixels(common).any())


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(windows, windows)
def test_relative_windows_index_the_part(inner: Window, outer: Window) -> None:
    inner = inner.intersect(outer)
    assume(not inner.empty)
    canvas = np.arange(120 * 120).reshape(120, 120)
    part = canvas[outer.yx]
    np.testing.assert_array_equal(part[inner.relative_to(outer).yx], canvas[inner.yx])


@given(windows)
def test_even_windows_are_the_smallest_of_whole_20_m_pixels(window: Window) -> None:
    assume(not window.empty)
    even = window.even()
    assert (even.row % 2, even.col % 2, even.height % 2, even.width % 2) == (0, 0, 0, 0)
    assert window.intersect(even) == window
    assert even.height - window.height <= 2
    assert even.width - window.width <= 2
    coarse = _pixels(window).reshape(60, 2, 60, 2).any(axis=(1, 3))
    np.testing.assert_array_equal(_pixels(even), np.kron(coarse, np.ones((2, 2), bool)))


@given(
    row=st.integers(0, 3000),
    col=st.integers(0, 3000),
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
)
def test_cells_cover_a_window_and_none_is_idle(row, col, height, width) -> None:
    window = Window(row=row, col=col, height=height, width=width)
    parts = [cell(*index).intersect(window) for index in cells(window)]
    assert all(not part.empty for part in parts)
    assert sum(part.height * part.width for part in parts) == height * width
    assert len(parts) <= (height // TILE + 2) * (width // TILE + 2)


# --- MGRS squares ------------------------------------------------------------------------------

# Origins of 10 m grids as ESA publishes them: tile → (left, top).
PUBLISHED = {
    "31TEJ": (499_980, 4_900_020),
    "31UDQ": (399_960, 5_500_020),
    "32TMT": (399_960, 5_300_040),
    "13TDE": (399_960, 4_500_000),
    "35MNM": (499_980, 9_200_020),
    "59VME": (399_960, 6_500_040),
    "01KAB": (99_960, 8_200_000),
    "07HFE": (600_000, 6_500_020),
    "47XML": (399_960, 9_100_020),
    "20EPT": (600_000, 3_300_040),
}


@pytest.mark.parametrize(("granule", "corner"), PUBLISHED.items())
def test_squares_hold_the_published_granules(granule: str, corner: tuple[int, int]) -> None:
    west, south = square_origin(granule)
    assert west % SQUARE == 0
    assert south % SQUARE == 0
    assert abs(corner[0] - west) < 10_000
    assert abs(corner[1] - (south + SQUARE)) < 10_000


def _mgrs_by_search(lon: float, lat: float) -> tuple[str, float, float]:
    """Name the 100 km square of a point by the letter tables of MGRS, without `cube.grid`."""
    zone = int((lon + 180) // 6) + 1
    epsg = (32600 if lat >= 0 else 32700) + zone
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    band = "CDEFGHJKLMNPQRSTUVWX"[min(int((lat + 80) // 8), 19)]
    column = {1: "ABCDEFGH", 2: "JKLMNPQR", 0: "STUVWXYZ"}[zone % 3][int(x // SQUARE) - 1]
    rows = "ABCDEFGHJKLMNPQRSTUV"
    row = rows[(int(y // SQUARE) + (0 if zone % 2 else 5)) % 20]
    return f"{zone:02d}{band}{column}{row}", x // SQUARE * SQUARE, y // SQUARE * SQUARE


@settings(max_examples=300)
@given(lon=st.floats(-179.9, 179.9), lat=st.floats(-79.9, 83.9))
def test_every_point_lies_in_the_square_of_its_name(lon: float, lat: float) -> None:
    assume(abs(lat) > 1e-6)  # on the equator the name is either of two
    assume(not (56 <= lat < 64 and 0 <= lon < 12) and not (lat >= 72 and 0 <= lon < 42))
    granule, west, south = _mgrs_by_search(lon, lat)
    assert square_origin(granule) == (west, south)


@pytest.mark.parametrize("name", ["", "31", "31TE", "31TEJX", "0TEJ", "61TEJ", "31IEJ", "31TJJ"])
def test_what_is_no_tile_is_refused(name: str) -> None:
    with pytest.raises(SceneError):
        square_origin(name)


@pytest.mark.real
def test_every_published_transform_fits_its_square(real_data: Path) -> None:
    from cube.providers import detect

    seen = {}
    for path in sorted((real_data / "stac-items" / "items").glob("*.json")):
        item = json.loads(path.read_text())
        try:
            provider = detect(item)
        except SceneError:
            continue
        asset = item["assets"].get(provider.assets["red"], {})
        properties = item["properties"]
        granule = str(
            properties.get("grid:code") or properties.get("s2:mgrs_tile") or ""
        ).removeprefix("MGRS-")
        if granule and "proj:transform" in asset:
            seen[granule] = (asset["proj:transform"][2], asset["proj:transform"][5])
    assert len(seen) > 40
    for granule, (left, top) in seen.items():
        west, south = square_origin(granule)
        assert abs(left - west) < 10_000, granule
        assert abs(top - (south + SQUARE)) < 10_000, granule


@pytest.mark.parametrize(("granule", "corner"), PUBLISHED.items())
def test_whole_granules_stand_where_esa_puts_them(granule: str, corner: tuple[int, int]) -> None:
    grid = whole_granule(granule)
    assert (grid.left, grid.top) == corner
    assert (grid.height, grid.width) == (10_980, 10_980)
    assert grid.epsg == (32600 if granule[2] >= "N" else 32700) + int(granule[:2])


def _granule(granule: str, shift: tuple[int, int] = (0, 0)) -> NativeGrid:
    """A whole granule where ESA puts it, within 100 m, 109.8 km wide."""
    west, south = square_origin(granule)
    return NativeGrid(
        granule=granule,
        epsg=32631,
        left=west - 20 - 10 * shift[0],
        top=south + SQUARE + 20 + 10 * shift[1],
        height=10_980,
        width=10_980,
    )


@given(
    shifts=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=4),
    x=st.integers(0, 19_999),
    y=st.integers(0, 19_999),
)
def test_each_pixel_of_four_neighbours_has_one_owner(shifts, x: int, y: int) -> None:
    names = ["31TDJ", "31TEJ", "31TDH", "31TEH"]
    grids = [_granule(name, shift) for name, shift in zip(names, shifts, strict=True)]
    west, south = square_origin("31TDH")
    easting, northing = west + 10 * x + 5, south + 10 * y + 5
    owners = 0
    for grid in grids:
        owned = grid.owned
        row, col = int((grid.top - northing) // 10), int((easting - grid.left) // 10)
        inside = Window(row=row, col=col, height=1, width=1).intersect(owned)
        owners += not inside.empty
    assert owners == 1


def test_a_whole_granule_owns_its_square() -> None:
    owned = _granule("31TEJ").owned
    assert (owned.height, owned.width) == (10_000, 10_000)
    assert (owned.row, owned.col) == (2, 2)


def test_a_clip_owns_what_is_inside_its_square() -> None:
    clip = NativeGrid(granule="31TEJ", epsg=32631, left=499_900, top=4_850_000, height=30, width=30)
    assert clip.owned == Window(row=0, col=10, height=30, width=20)
    outside = clip.model_copy(update={"left": 400_000.0})
    assert outside.owned.empty


@given(
    left=st.integers(0, 400),
    bottom=st.integers(0, 400),
    width=st.integers(1, 200),
    height=st.integers(1, 200),
)
def test_window_of_touches_every_pixel_that_the_rectangle_touches(left, bottom, width, height):
    grid = NativeGrid(granule="31TEJ", epsg=32631, left=500_000, top=4_900_000, height=40, width=40)
    west, south = 500_000 + left, 4_899_600 + bottom
    window = grid.window_of(west, south, west + width, south + height)
    cols = 500_000 + 10 * np.arange(40)
    rows = 4_900_000 - 10 * np.arange(40)
    touched_cols = (cols < west + width) & (cols + 10 > west)
    touched_rows = (rows > south) & (rows - 10 < south + height)
    expected = np.outer(touched_rows, touched_cols)
    found = np.zeros((40, 40), bool)
    found[window.yx] = True
    np.testing.assert_array_equal(found, expected)


def test_the_geobox_has_pixel_centres() -> None:
    grid = NativeGrid(granule="31TEJ", epsg=32631, left=500_000, top=4_900_000, height=40, width=40)
    box = grid.geobox(Window(row=2, col=3, height=4, width=5))
    assert box.shape == (4, 5)
    np.testing.assert_allclose(box.coordinates["x"].values, 500_035 + 10 * np.arange(5))
    np.testing.assert_allclose(box.coordinates["y"].values, 4_899_975 - 10 * np.arange(4))
    assert box.crs.to_epsg() == 32631


# --- zones -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "lon", "lat", "zone"),
    [
        ("Paris", 2.35, 48.86, 31),
        ("Béziers", 3.2, 43.3, 31),
        ("Berlin", 13.4, 52.5, 33),
        ("Greenwich, just west", -0.001, 51.5, 30),
        ("Bergen, in the widened zone 32", 5.32, 60.39, 32),
        ("west of it", 2.9, 60.0, 31),
        ("south of it", 5.0, 55.9, 31),
        ("north of it", 5.0, 64.0, 31),
        ("Longyearbyen", 15.6, 78.2, 33),
        ("Svalbard, 31X", 8.9, 78.0, 31),
        ("Svalbard, 33X", 9.0, 78.0, 33),
        ("Svalbard, 35X", 21.0, 78.0, 35),
        ("Svalbard, 37X", 33.0, 78.0, 37),
        ("east of it", 42.0, 78.0, 38),
        ("Fiji, east", 179.9, -17.0, 60),
        ("Fiji, west", -179.9, -17.0, 1),
        ("the antimeridian itself", 180.0, 0.0, 1),
    ],
)
def test_zones_and_their_exceptions(place: str, lon: float, lat: float, zone: int) -> None:
    assert utm_zone(np.array(lon), np.array(lat)) == zone
