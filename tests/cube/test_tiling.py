"""Areas of every kind on constructed granules: each point of an area is built once."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from cube.area import read_area
from cube.grid import NativeGrid, Window, cell, whole_granule
from cube.ownership import owned
from cube.tiling import Share, share_out, share_outside
from tests.cube.test_ownership import AT_6_EAST, FIJI, NORWAY, to_metres

FOUR = ("31TDJ", "31TEJ", "31TDH", "31TEH")
#: Three zones meet at 56° north: 31V is narrow, 32V wide, 31U and 32U as everywhere.
THREE = ("31UFB", "31UGB", "31VFC", "32ULG", "32VKH", "32VLH", "30UYG", "30VXH", "31UCB", "31UDB")


def _share_out(area: object, granules: tuple[str, ...]) -> list[Share]:
    return share_out(read_area(area), [whole_granule(name) for name in granules])


def _builders(shares: list[Share], lon: float, lat: float) -> list[tuple[str, int, int]]:
    """Granule, row and column of each tile that builds the pixel of a point, and owns it."""
    found = []
    for share in shares:
        grid = share.grid
        x, y = to_metres(grid.epsg).transform(lon, lat)
        pixel = Window(
            row=int((grid.top - y) // 10), col=int((x - grid.left) // 10), height=1, width=1
        )
        for (row, col), window in share.windows.items():
            if window.intersect(pixel) == pixel and owned(grid, share.others, pixel).item():
                found.append((grid.granule, row, col))
    return found


def _points_of(area: object, count: int, shares: list[Share]) -> np.ndarray:
    """Random points of an area, in no pixel that a border between two lattices cuts."""
    shape = read_area(area)
    rng = np.random.default_rng(0)
    points: list[tuple[float, float]] = []
    for part in shapely.get_parts(shape):
        west, south, east, north = part.bounds
        some = np.column_stack([rng.uniform(west, east, count), rng.uniform(south, north, count)])
        points.extend(some[shapely.contains_xy(part, some)])
    return np.array([point for point in points if not _near_a_border(shares, *point)])


def _near_a_border(shares: list[Share], lon: float, lat: float) -> bool:
    # Pixels of two lattices cannot tile the ground: within a pixel of a border they overlap.
    around = [(lon + a, lat + b) for a in (-2e-4, 2e-4) for b in (-2e-4, 2e-4)]
    return len({tuple({name for name, _, _ in _builders(shares, *at)}) for at in around}) > 1


AREAS = {
    "one granule": ((3.3, 43.6, 3.6, 43.8), FOUR, 1),
    "four granules": ((2.9, 43.2, 3.15, 43.45), FOUR, 4),
    "two zones": ((5.4, 45.2, 7.1, 45.8), AT_6_EAST, 3),
    "Norway": ((2.8, 60.2, 3.6, 60.7), NORWAY, 2),
    "antimeridian": ((179.3, -17.6, -179.4, -17.0), FIJI, 2),
    "with a hole": (
        shapely.box(2.9, 43.2, 3.15, 43.45) - shapely.box(2.95, 43.25, 3.1, 43.4),
        FOUR,
        4,
    ),
    "two islands": (
        shapely.MultiPolygon(
            [shapely.box(2.6, 43.3, 2.7, 43.4), shapely.box(3.4, 43.3, 3.5, 43.4)]
        ),
        FOUR,
        2,
    ),
}


@pytest.mark.parametrize(("area", "granules", "count"), AREAS.values(), ids=AREAS.keys())
def test_each_point_of_an_area_is_built_once(area, granules, count) -> None:
    shares = _share_out(area, granules)
    assert len(shares) >= count
    assert share_outside(read_area(area), [share.grid for share in shares]) < 1e-9
    points = _points_of(area, 60, shares)
    assert len(points) > 20
    for lon, lat in points:
        assert len(_builders(shares, lon, lat)) == 1, (lon, lat)


@settings(max_examples=25)
@given(
    west=st.floats(5.1, 6.9),
    south=st.floats(43.5, 47.5),
    width=st.floats(0.001, 1.5),
    height=st.floats(0.001, 1.0),
)
def test_boxes_across_a_zone_border_are_built_once(west, south, width, height) -> None:
    area = (west, south, west + width, south + height)
    shares = _share_out(area, AT_6_EAST)
    held = [whole_granule(name) for name in AT_6_EAST]
    for lon, lat in _points_of(area, 6, shares):
        outside = share_outside(shapely.Point(lon, lat).buffer(1e-5), held) > 0
        assert len(_builders(shares, lon, lat)) == (0 if outside else 1)


def test_three_zones_meet_where_32_becomes_wide() -> None:
    area = (2.7, 55.6, 6.4, 56.4)
    granules = [whole_granule(name) for name in THREE]
    shares = share_out(read_area(area), granules)
    assert {share.grid.zone for share in shares} == {31, 32}
    for lon, lat in _points_of(area, 80, shares):
        outside = share_outside(shapely.Point(lon, lat).buffer(1e-5), granules) > 0
        assert len(_builders(shares, lon, lat)) == (0 if outside else 1), (lon, lat)


def test_a_point_is_a_tile_of_2_by_2_pixels() -> None:
    (share,) = _share_out(shapely.Point(3.4567, 43.6543), FOUR)
    (window,) = share.windows.values()
    assert (window.height, window.width) == (2, 2)
    assert len(_builders([share], 3.4567, 43.6543)) == 1


@pytest.mark.parametrize(
    ("area", "owner"),
    [((3.001, 43.6, 3.06, 43.63), "31TEJ"), ((3.3, 43.28, 3.5, 43.33), "31TEH")],
    ids=["east", "south"],
)
def test_an_area_inside_several_granules_is_of_the_one_that_owns_it(area, owner: str) -> None:
    names = ("31TDJ", "31TEJ", "31TEH")
    assert sum(len(_share_out(area, (name,))) for name in names) == 2
    (share,) = _share_out(area, names)
    assert share.grid.granule == owner
    assert share.others == ()


def test_a_missing_granule_is_made_up_for_by_the_margin_of_its_neighbour() -> None:
    area = (2.9, 43.6, 4.3, 43.7)
    # 31TEJ's own square ends at 4.24° east, its margin reaches 9.8 km further.
    complete = _share_out(area, ("31TDJ", "31TEJ", "31TFJ"))
    assert [name for name, _, _ in _builders(complete, 4.28, 43.65)] == ["31TFJ"]
    lacking = _share_out(area, ("31TDJ", "31TEJ"))
    assert [name for name, _, _ in _builders(lacking, 4.28, 43.65)] == ["31TEJ"]


def test_what_no_granule_holds_is_told() -> None:
    grids = [whole_granule("31TEJ")]
    area = read_area((4.2, 43.6, 4.5, 43.8))
    edge = Transformer.from_crs(32631, 4326, always_xy=True).transform(609_780, 4_835_000)[0]
    assert share_outside(area, grids) == pytest.approx((4.5 - edge) / 0.3, abs=0.01)
    assert share_out(read_area((10.0, 50.0, 10.1, 50.1)), grids) == []


def test_windows_are_whole_20_m_pixels_of_their_cells() -> None:
    clip = NativeGrid(
        granule="31TEJ", epsg=32631, left=523_560, top=4_832_780, height=1500, width=1501
    )
    for share in share_out(read_area((3.3, 43.55, 3.4, 43.63)), [clip]):
        for (row, col), window in share.windows.items():
            assert window.row % 2 == 0
            assert window.col % 2 == 0
            assert window.row // 1024 == row
            assert window.col // 1024 == col
            assert window.intersect(clip.window) == window


def test_a_margin_is_built_around_the_area_and_ends_with_the_grid() -> None:
    grid = whole_granule("31TEJ")
    # 300 × 400 pixels whose corner lies 10 rows and 5 columns before the corner of a cell.
    window = Window(row=1014, col=2043, height=300, width=400)
    box = grid.geobox(window).boundingbox
    inner = shapely.box(box.left + 1, box.bottom + 1, box.right - 1, box.top - 1)
    area = gpd.GeoSeries([inner], crs=grid.epsg).to_crs(4326).iloc[0]
    for margin in (0, 23):
        (share,) = share_out(read_area(area), [grid], margin)
        around = window.even().grown(margin).even()
        covered = np.zeros((around.height, around.width), int)
        for place, part in share.windows.items():
            assert part.intersect(cell(*place)) == part
            covered[part.relative_to(around).yx] += 1
        assert (covered == 1).all()
    corner = shapely.Point(grid.left + 15, grid.top - 15)
    area = gpd.GeoSeries([corner], crs=grid.epsg).to_crs(4326).iloc[0]
    (share,) = share_out(read_area(area), [grid], 50)
    assert share.windows == {(0, 0): Window(row=0, col=0, height=52, width=52)}
