"""Plans of constructed scenes: what is frozen in them, and what a person is told."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Geod

from cube.build import FEW, build
from cube.census import census
from cube.errors import PlanError
from cube.grid import whole_granule
from cube.planning import Plan, load_plan, plan
from cube.recipe import Recipe
from cube.scenes import Scenes
from cube.search import search
from tests.cube.stac_items import earth_search
from tests.cube.test_census import scene

MAY = Recipe(bands=("blue",), start="2019-05", end="2019-05")
HREFS = {"blue": "https://host/B02.tif", "scl": "https://host/SCL.tif"}


def _scenes(*granules: str) -> Scenes:
    made = [
        scene("2019-05-05T10:43:29", granule=name).model_copy(
            update={"grid": whole_granule(name), "hrefs": HREFS}
        )
        for name in granules
    ]
    return Scenes(source="here", scenes=tuple(made))


def _plan(area: object, *granules: str) -> Plan:
    return plan(area, _scenes(*granules), MAY)


def test_one_granule_is_one_dataset() -> None:
    made = _plan((3.3, 43.6, 3.6, 43.8), "31TDJ", "31TEJ")
    assert [grid.grid.granule for grid in made.grids] == ["31TEJ"]
    cube = build(made)
    assert isinstance(cube, xr.Dataset)
    assert dict(cube.sizes)["band"] == 1


def test_two_zones_are_a_tree_with_a_node_per_granule() -> None:
    made = _plan((5.4, 45.5, 7.1, 45.8), "31TFL", "31TGL", "32TLR")
    tree = build(made)
    assert isinstance(tree, xr.DataTree)
    assert sorted(tree.children) == ["31TFL", "31TGL", "32TLR"]
    zones = {
        name: node.odc.geobox.crs.to_epsg() for name, node in tree.to_dict().items() if name != "/"
    }
    assert zones == {"/31TFL": 32631, "/31TGL": 32631, "/32TLR": 32632}
    by_name = {grid.grid.granule: grid for grid in made.grids}
    # What 31TGL gives beyond 6° ends where 32TLR begins to hold the ground.
    others = {other.granule for other in by_name["31TGL"].others}
    assert others == {"31TFL", "32TLR"}
    owned = [by_name["31TGL"].owned(tile.window) for tile in by_name["31TGL"].tiles]
    assert any(part.all() for part in owned)
    assert any(0 < part.mean() < 1 for part in owned)


def test_a_plan_of_several_grids_survives_its_file(tmp_path: Path) -> None:
    made = _plan((5.4, 45.5, 7.1, 45.8), "31TFL", "31TGL", "32TLR")
    again = load_plan(made.save(tmp_path / "plan.json"))
    assert again == made
    assert [grid.hash for grid in again.grids] == [grid.hash for grid in made.grids]


def test_the_hash_of_a_grid_tells_who_its_neighbours_are() -> None:
    both = _plan((2.9, 43.6, 3.2, 43.7), "31TDJ", "31TEJ").grids[1]
    assert both.grid.granule == "31TEJ"
    assert both.hash != both.model_copy(update={"others": ()}).hash


def test_an_area_that_scenes_cover_in_part_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _plan((4.2, 43.6, 4.5, 43.8), "31TEJ")
    assert "% of the area lies outside all scenes' granules" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        _plan((3.3, 43.6, 3.6, 43.8), "31TEJ")
    assert caplog.text == ""


def test_an_area_without_scenes_names_the_granules_that_were_searched() -> None:
    with pytest.raises(PlanError, match="granules searched: 31TDJ, 31TEJ"):
        _plan((10.0, 50.0, 10.1, 50.1), "31TEJ", "31TDJ")


@pytest.mark.parametrize(
    "area",
    [
        (179.1, -17.0, -179.6, -16.95),
        (179.1, -17.0, 180.4, -16.95),
        shapely.MultiPolygon(
            [shapely.box(179.1, -17.0, 180, -16.95), shapely.box(-180, -17.0, -179.6, -16.95)]
        ),
    ],
    ids=["box", "beyond 180", "split"],
)
def test_an_area_across_the_antimeridian_is_planned_whole(area: object) -> None:
    made = _plan(area, "60KXG", "60KYG", "01KAB", "01KBB")
    assert {grid.grid.zone for grid in made.grids} == {1, 60}
    pixels = sum(int(grid.owned(tile.window).sum()) for grid in made.grids for tile in grid.tiles)
    # Bounding boxes of a strip that lies aslant in the grid are a little larger than the strip.
    strip = Geod(ellps="WGS84").geometry_area_perimeter(shapely.box(0, -17.0, 1.3, -16.95))[0]
    assert 1 < pixels * 100 / abs(strip) < 1.06


def test_the_pixels_of_a_point() -> None:
    made = _plan(shapely.Point(3.4567, 43.6543), "31TEJ")
    (tile,) = made.grids[0].tiles
    assert (tile.window.height, tile.window.width) == (2, 2)
    assert dict(build(made).sizes) == {"time": 1, "band": 1, "y": 2, "x": 2}


ITEMS = [
    earth_search(day="20180826", sequence=0),
    earth_search(day="20180826", sequence=1, baseline="02.14"),
    earth_search(day="20180826", sequence=2, strip="20180826T104533"),
    earth_search(day="20180831", satellite="B"),
    earth_search(day="20180816"),
    earth_search(day="20180816", baseline="02.14"),  # the same id once more
    {**earth_search(day="20180811"), "properties": {"datetime": None}},
]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(7)))
def test_the_order_of_items_never_changes_scenes_or_plan(tmp_path: Path, order) -> None:
    area = (3.3, 43.6, 3.4, 43.7)
    recipe = Recipe(bands=("blue",), start="2018-08", end="2018-08")
    file = tmp_path / "items.json"
    found = []
    for some in (ITEMS, [ITEMS[n] for n in order]):
        file.write_text(json.dumps({"type": "FeatureCollection", "features": some}))
        found.append(search(area, recipe, file))
    assert found[0] == found[1]
    assert plan(area, found[0], recipe) == plan(area, found[1], recipe)


def test_a_plan_carries_the_notes_on_its_items(tmp_path: Path) -> None:
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": ITEMS}))
    recipe = Recipe(bands=("blue",), start="2018-08", end="2018-08")
    area = (3.3, 43.6, 3.4, 43.7)
    made = plan(area, search(area, recipe, file), recipe)
    notes = sorted((note.id, note.reason) for note in made.removed)
    assert notes == [
        ("S2A_31TEJ_20180811_0_L2A", "refused"),
        ("S2A_31TEJ_20180816_0_L2A", "duplicate"),
        ("S2A_31TEJ_20180826_0_L2A", "duplicate"),
        ("S2A_31TEJ_20180826_2_L2A", "part"),
    ]
    parts = [s.acquisition for s in made.grids[0].scenes if s.datetime.startswith("2018-08-26")]
    assert parts == ["S2A_20180826T104021"] * 2
    row = census(made).iloc[0]
    # A on the 6th, 16th and 26th, B on the 1st, 11th, 21st and 31st; 16, 26 and 31 were found.
    assert (row["expected"], row["found"], row["kept"]) == (7, 3, 3)


def test_a_graph_has_a_key_per_tile_and_variable() -> None:
    made = _plan((2.5, 43.4, 3.5, 43.8), "31TDJ", "31TEJ")
    tree = build(made)
    for grid in made.grids:
        node = tree[grid.grid.granule].to_dataset()
        graph = dict(node.__dask_graph__())
        rows = {tile.row for tile in grid.tiles}
        cols = {tile.col for tile in grid.tiles}
        plan_key = len(grid.tiles) > FEW
        assert len(graph) == plan_key + len(grid.tiles) + 2 * len(rows) * len(cols)
        assert node["reflectance"].dtype == np.uint16
        assert node["observations"].dtype == np.uint8
