"""Each point of the ground has one owner, whatever granules there are."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from cube.grid import NativeGrid, Window, utm_zone, whole_granule
from cube.ownership import owned, regions, turned

#: Granules that exist around 6° east (ESA's tiling grid). None is named 32TK…, though squares of
#: that name begin at 6°: those of zone 31 reach beyond it.
AT_6_EAST = (
    *("31TFJ", "31TFK", "31TFL", "31TGH", "31TGJ", "31TGK", "31TGL", "31TGM", "31TGN"),
    *("32TLP", "32TLQ", "32TLR", "32TLS", "32TLT", "32TMQ", "32TMR"),
)
#: Around Bergen, where MGRS widens zone 32 to 3° east.
NORWAY = ("31VDG", "31VDH", "31VEG", "31VEH", "32VKM", "32VKN", "32VLM", "32VLN")
#: On both sides of the equator, in zone 31.
EQUATOR = ("31NEA", "31NFA", "31MEV", "31MFV")
#: On both sides of 180°, in Fiji.
FIJI = ("60KXF", "60KYF", "60KXG", "60KYG", "01KAA", "01KAB", "01KBA", "01KBB")


@cache
def to_metres(epsg: int) -> Transformer:
    return Transformer.from_crs(4326, epsg, always_xy=True)


def claimants(granules: tuple[str, ...], lon: float, lat: float) -> list[str]:
    """Granules that hold a point, and of these the ones that own it: by one pixel around it."""
    grids = [whole_granule(name) for name in granules]
    holders, owners = [], []
    for grid in grids:
        x, y = to_metres(grid.epsg).transform(lon, lat)
        # A grid of one pixel with the point in its centre tells about the point itself.
        row, col = (grid.top - y) / 10, (x - grid.left) / 10
        if not (0 <= row < grid.height and 0 <= col < grid.width):
            continue
        holders.append(grid.granule)
        moved = grid.model_copy(
            update={
                "left": grid.left + (col % 1 - 0.5) * 10,
                "top": grid.top - (row % 1 - 0.5) * 10,
            }
        )
        others = [other for other in grids if other != grid]
        window = Window(row=int(row), col=int(col), height=1, width=1)
        if owned(moved, others, window).item():
            owners.append(grid.granule)
    assert len(owners) == (1 if holders else 0), (lon, lat, holders, owners)
    return owners


@pytest.mark.parametrize(
    ("granules", "west", "south", "width", "height"),
    [
        # Odd corners: on a border itself, where round numbers lie, rounding decides.
        (AT_6_EAST, 5.0123, 43.0123, 2.5, 5.5),
        (NORWAY, 2.5123, 59.0123, 4.0, 2.5),
        (EQUATOR, 3.0123, -0.9123, 1.5, 1.8),
        (FIJI, 178.5123, -18.5123, 3.0, 2.0),
    ],
    ids=["6° east", "Norway", "equator", "antimeridian"],
)
@settings(max_examples=150)
@given(at=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_point_has_one_owner_if_any_granule_holds_it(granules, west, south, width, height, at):
    lon = (west + at[0] * width + 180) % 360 - 180
    claimants(granules, lon, south + at[1] * height)


@settings(max_examples=60)
@given(
    granules=st.sets(st.sampled_from(AT_6_EAST), min_size=1),
    at=st.tuples(st.floats(5.0123, 7.5), st.floats(43.0123, 48.5)),
)
def test_a_point_has_one_owner_in_an_archive_with_holes(granules, at) -> None:
    claimants(tuple(granules), *at)


def _owner_at(granules: tuple[str, ...], lon: float, lat: float) -> str:
    return claimants(granules, lon, lat)[0]


def test_the_square_of_the_zone_owns_a_point_where_it_exists() -> None:
    assert _owner_at(AT_6_EAST, 5.9, 45.5) == "31TGL"
    assert _owner_at(AT_6_EAST, 6.6, 45.5) == "32TLR"


def test_beyond_the_border_the_last_square_of_a_zone_owns_what_no_granule_of_the_next_holds() -> (
    None
):
    # Easting 266 to 300 km of zone 32 belongs to 32TKR, for which there is no granule.
    assert _owner_at(AT_6_EAST, 6.2, 45.5) == "31TGL"


def test_norway_west_of_6_east_is_of_zone_32() -> None:
    assert _owner_at(NORWAY, 5.32, 60.39).startswith("32V")
    assert _owner_at(NORWAY, 2.95, 60.39).startswith("31V")


@pytest.mark.parametrize("granules", [AT_6_EAST, NORWAY, EQUATOR, FIJI])
def test_regions_are_disjoint_and_hold_what_the_pixels_say(granules: tuple[str, ...]) -> None:
    grids = [whole_granule(name) for name in granules]
    found = regions(grids)
    rng = np.random.default_rng(0)
    for grid, region in found.items():
        # Pixels here and there; those within a metre of a border may go either way.
        for row, col in rng.integers(0, 10_980, (40, 2)):
            pixel = Window(row=int(row), col=int(col), height=1, width=1)
            centre = shapely.points(*_lonlat(grid, row, col))
            metre = 1e-5
            points = [turned(centre, turn) for turn in (-360.0, 0.0, 360.0)]
            if any(shapely.dwithin(region.shape.boundary, point, metre) for point in points):
                continue
            inside = any(region.shape.covers(point) for point in points)
            assert owned(grid, region.others, pixel).item() == inside
    areas = [_world(region.shape) for region in found.values()]
    total, union = sum(area.area for area in areas), shapely.union_all(areas).area
    assert total == pytest.approx(union, rel=1e-6)


def _lonlat(grid: NativeGrid, row: int, col: int) -> tuple[float, float]:
    x, y = grid.left + 10 * col + 5, grid.top - 10 * row - 5
    return to_metres(grid.epsg).transform(x, y, direction="INVERSE")


def _world(shape: shapely.Geometry) -> shapely.Geometry:
    """The shape east of 0°, so that shapes of both sides of ±180° can be compared."""
    return turned(shape, 360.0 if shape.bounds[0] < 0 else 0.0)


def test_a_window_across_the_border_is_cut_by_longitude() -> None:
    x, y = Transformer.from_crs(4326, 32631, always_xy=True).transform(6.0, 48.0)
    grid = NativeGrid(
        granule="31UGP", epsg=32631, left=x // 10 * 10 - 500, top=y // 10 * 10, height=4, width=100
    )
    mask = owned(grid, [whole_granule("32UKU")], grid.window)
    columns = grid.left + 10 * np.arange(100) + 5
    rows = grid.top - 10 * np.arange(4) - 5
    to_lonlat = Transformer.from_crs(32631, 4326, always_xy=True)
    lon, lat = to_lonlat.transform(*np.meshgrid(columns, rows))
    np.testing.assert_array_equal(mask, utm_zone(lon, lat) == 31)
    assert 0 < mask.sum() < mask.size
    assert owned(grid, [], grid.window).all()


def test_a_square_in_its_zone_is_owned_whole_at_no_cost() -> None:
    grids = [whole_granule(name) for name in ("31TDJ", "31TEJ", "31TDH", "31TEH")]
    for grid in grids:
        others = [other for other in grids if other != grid]
        assert owned(grid, others, grid.owned).all()
    both = Window(row=0, col=0, height=10_000, width=4)  # two columns left of the square
    assert owned(grids[1], [grids[0]], both)[:, :2].sum() == 0
