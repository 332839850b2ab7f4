"""Search over real HTTP (a small STAC API on loopback) and over files of items."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pandas as pd
import pytest
import shapely

from cube.duplicates import drop_duplicates
from cube.errors import AreaError, SearchError
from cube.items import read_item
from cube.providers import detect, get_provider
from cube.recipe import Recipe
from cube.scenes import Scenes
from cube.search import search
from tests.cube.stac_items import BBOX_UES, earth_search, planetary_computer
from tests.stac_api import Paging, stac_api

AREA = (3.2, 43.5, 3.3, 43.6)
FOUR = ("blue", "green", "red", "nir")


def _recipe(start: str = "2018-01", end: str = "2018-12", bands: tuple[str, ...] = FOUR) -> Recipe:
    return Recipe(bands=bands, start=start, end=end)


def _days(count: int) -> list[str]:
    return [f"{day:%Y%m%d}" for day in pd.date_range("2018-03-01", periods=count, freq="D")]


def _items_file(folder: Path, items: list[dict]) -> Path:
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


# --- over HTTP ---------------------------------------------------------------------------------


@pytest.mark.parametrize("paging", ["earth-search", "planetary-computer", "get"])
def test_every_page_is_read(paging: Paging) -> None:
    items = [earth_search(day=day) for day in _days(23)]
    with stac_api(items, paging=paging, page_size=5) as server:
        scenes = search(AREA, _recipe(), server.url)
    assert [scene.id for scene in scenes] == [item["id"] for item in items]
    assert len(server.requests) == 5
    assert server.requests[0]["limit"] == 100
    assert server.requests[0]["collections"] == ["sentinel-2-l2a"]
    assert scenes.source == f"{server.url}/collections/sentinel-2-l2a"


def test_area_and_period_are_asked_of_the_server() -> None:
    here, there = earth_search(), earth_search(day="20180827", bbox=(10.0, 43.0, 11.0, 44.0))
    before, after = earth_search(day="20171231"), earth_search(day="20190101")
    first, last = earth_search(day="20180101"), earth_search(day="20181231")
    with stac_api([here, there, before, after, first, last]) as server:
        scenes = search(AREA, _recipe(), server.url)
        asked = server.requests[0]
    assert {scene.id for scene in scenes} == {here["id"], first["id"], last["id"]}
    assert asked["datetime"] == "2018-01-01T00:00:00Z/2018-12-31T23:59:59Z"
    assert shapely.geometry.shape(asked["intersects"]).equals(shapely.box(*AREA))


def test_an_area_of_many_corners_across_the_antimeridian_is_asked_for_by_two_hulls() -> None:
    island = shapely.Point(180.0, -17.0).buffer(0.5, quad_segs=300)
    with stac_api([earth_search()]) as server:
        with pytest.raises(SearchError):
            search(island, _recipe(), server.url)
        asked = shapely.geometry.shape(server.requests[0]["intersects"])
    assert len(asked.geoms) == 2
    assert shapely.get_num_coordinates(asked) < 600
    assert not asked.intersects(shapely.box(-179, -90, 179, 90))
    assert asked.covers(shapely.Point(179.6, -17.0))
    assert asked.covers(shapely.Point(-179.6, -17.0))


def test_an_area_of_many_corners_is_asked_for_by_its_hull() -> None:
    circle = shapely.Point(3.25, 43.55).buffer(0.05, quad_segs=400)
    flower = circle.difference(shapely.box(3.25, 43.0, 3.2501, 43.55))
    with stac_api([earth_search()]) as server:
        assert len(search(flower, _recipe(), server.url)) == 1
        asked = shapely.geometry.shape(server.requests[0]["intersects"])
    assert shapely.get_num_coordinates(asked) <= 500
    assert asked.buffer(1e-9).covers(flower)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(code: int) -> None:
    items = [earth_search(day=day) for day in _days(3)]
    with stac_api(items, page_size=2, failures=[code]) as server:
        scenes = search(AREA, _recipe(), server.url)
    assert len(scenes) == 3
    assert len(server.requests) == 3  # one failed, two pages


def test_a_request_the_server_refuses_is_not_repeated() -> None:
    with stac_api([earth_search()], failures=[400]) as server:
        with pytest.raises(SearchError, match="the search failed"):
            search(AREA, _recipe(), server.url)
        assert len(server.requests) == 1


def test_a_service_that_is_not_there_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with pytest.raises(SearchError, match=f"127.0.0.1:{port}.*search failed"):
            search(AREA, _recipe(), f"http://127.0.0.1:{port}")


def test_a_page_that_is_no_api_is_named() -> None:
    with stac_api([]) as server, pytest.raises(SearchError, match="failed|not a STAC API"):
        search(AREA, _recipe(), f"{server.url}/search")


def test_a_service_that_repeats_its_pages_is_left() -> None:
    with stac_api([earth_search()], paging="endless") as server:
        with pytest.raises(SearchError, match="repeats its pages"):
            search(AREA, _recipe(), server.url)
        assert len(server.requests) == 2


def test_nothing_found_says_what_was_asked() -> None:
    with stac_api([]) as server, pytest.raises(SearchError) as caught:
        search(AREA, _recipe(), server.url)
    for part in (server.url, "2018-01", "2018-12", "3.2000", "43.6000", "check area and period"):
        assert part in str(caught.value)


def test_another_collection_is_part_of_the_url() -> None:
    items = [{**earth_search(), "collection": "mine"}]
    with stac_api(items) as server:
        with pytest.raises(SearchError, match="no usable scene"):
            search(AREA, _recipe(), server.url)
        assert len(search(AREA, _recipe(), f"{server.url}/collections/mine")) == 1
        assert server.requests[-1]["collections"] == ["mine"]


def test_files_of_the_api_itself_may_be_opened_but_no_other_machine() -> None:
    own, other = earth_search(), earth_search(day="20180827")
    with stac_api([own, other]) as server:
        for item, root in ((own, server.url), (other, "http://127.0.0.1:9")):
            for key, asset in item["assets"].items():
                asset["href"] = f"{root}/{key}.tif"
        scenes = search(AREA, _recipe(), server.url)
    assert [scene.id for scene in scenes] == [own["id"]]
    get_provider(scenes.scenes[0].provider).check_href(scenes.scenes[0].hrefs["red"])
    assert [(item.id, item.reason) for item in scenes.removed] == [(other["id"], "refused")]
    assert "not allowed" in scenes.removed[0].detail


def test_progress_counts_what_was_found() -> None:
    seen = []
    items = [earth_search(day=day) for day in _days(4)]
    with stac_api(items, page_size=2) as server:
        search(AREA, _recipe(), server.url, progress=lambda *step: seen.append(step))
    assert seen == [(n, 0, "items found") for n in (1, 2, 3, 4)]


# --- which items become scenes -----------------------------------------------------------------


def test_items_without_a_wanted_band_are_refused_and_recorded(tmp_path: Path) -> None:
    whole, without = earth_search(), earth_search(day="20180827")
    del without["assets"]["swir16"]
    path = _items_file(tmp_path, [whole, without])
    scenes = search(AREA, _recipe(bands=("red", "swir16")), path)
    assert [scene.id for scene in scenes] == [whole["id"]]
    assert scenes.removed[0].reason == "refused"
    assert "swir16" in scenes.removed[0].detail
    assert len(search(AREA, _recipe(), path)) == 2


def test_when_no_item_can_be_used_the_reasons_are_told(tmp_path: Path) -> None:
    item = earth_search()
    del item["assets"]["scl"]
    with pytest.raises(SearchError, match="1 items were found but none could be used.*scl"):
        search(AREA, _recipe(), _items_file(tmp_path, [item]))


def test_undecided_items_are_scenes_that_say_why(tmp_path: Path) -> None:
    items = [earth_search(day=day, baseline="04.00", offset=-0.1) for day in _days(2)]
    decided = earth_search()
    scenes = search(
        AREA, _recipe(), _items_file(tmp_path, [*items, decided]), exclude=[items[0]["id"]]
    )
    assert [(s.id, s.subtract, s.decided) for s in scenes] == [
        (items[1]["id"], None, None),
        (decided["id"], 0, "metadata"),
    ]
    why = "baseline 04.00, declared offset -0.1, boa_offset_applied False: the flag is known to be"
    assert scenes.scenes[0].why.startswith(why)
    assert [(item.id, item.reason) for item in scenes.removed] == [(items[0]["id"], "excluded")]
    assert Scenes.load(scenes.save(tmp_path / "scenes.json")) == scenes


def test_an_undecided_item_that_was_replaced_stops_nothing(tmp_path: Path) -> None:
    old = earth_search(sequence=0, baseline="04.00", offset=-0.1)
    new = earth_search(sequence=1, baseline="05.10", flag=True, offset=-0.1)
    scenes = search(AREA, _recipe(), _items_file(tmp_path, [old, new]))
    assert [(scene.id, scene.subtract) for scene in scenes] == [(new["id"], 0)]
    assert (scenes.removed[0].reason, scenes.removed[0].kept) == ("duplicate", new["id"])


def test_an_id_listed_twice_is_taken_once(tmp_path: Path) -> None:
    scenes = search(AREA, _recipe(), _items_file(tmp_path, [earth_search(), earth_search()]))
    assert len(scenes) == 1
    assert scenes.removed[0].reason == "duplicate"


def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    evil = {**earth_search(), "id": "../../../../tmp/evil"}
    scenes = search(AREA, _recipe(), _items_file(tmp_path, [evil, earth_search()]))
    assert [item.reason for item in scenes.removed] == ["refused"]


def test_scenes_are_in_order_of_time(tmp_path: Path) -> None:
    items = [earth_search(day=day) for day in reversed(_days(9))]
    scenes = search(AREA, _recipe(), _items_file(tmp_path, items))
    assert [scene.datetime for scene in scenes] == sorted(scene.datetime for scene in scenes)


# --- files of items ----------------------------------------------------------------------------


def test_a_file_is_filtered_by_area_and_month(tmp_path: Path) -> None:
    late = earth_search(day="20181231")
    late["properties"]["datetime"] = "2018-12-31T23:59:59.999Z"
    there = earth_search(day="20180827", bbox=(10.0, 43.0, 11.0, 44.0))
    by_box = earth_search(day="20180901")
    del by_box["geometry"]
    next_year = earth_search(day="20190101")
    path = _items_file(tmp_path, [late, there, by_box, next_year])
    scenes = search(AREA, _recipe(), path)
    assert [scene.id for scene in scenes] == [by_box["id"], late["id"]]
    assert scenes.removed == ()


def test_a_file_of_signed_items_is_stored_unsigned(tmp_path: Path) -> None:
    item = planetary_computer(baseline="05.11")
    for asset in item["assets"].values():
        asset["href"] += "?st=2024&se=2025&sp=rl&sig=secret"
    recipe = _recipe("2019-01", "2019-12")
    scenes = search(BBOX_UES, recipe, _items_file(tmp_path, [item]))
    assert scenes.scenes[0].subtract == 1000
    assert "secret" not in scenes.model_dump_json()


def test_stac_geoparquet_gives_the_same_scenes(tmp_path: Path) -> None:
    arrow = pytest.importorskip("stac_geoparquet.arrow")
    items = [earth_search(day=day) for day in _days(3)]
    path = tmp_path / "items.parquet"
    arrow.to_parquet(arrow.parse_stac_items_to_arrow(items), path)
    from_parquet = search(AREA, _recipe(), path)
    from_json = search(AREA, _recipe(), _items_file(tmp_path, items))
    assert from_parquet.scenes == from_json.scenes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "{"),
        ("b.json", "[]"),
        ("c.json", '{"type": "FeatureCollection"}'),
        ("d.json", '{"type": "FeatureCollection", "features": [1]}'),
        ("e.json", '{"type": "Catalog"}'),
        ("f.parquet", "no parquet"),
        ("g.json", "[" * 100_000),
    ],
)
def test_what_is_no_file_of_items_is_named(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SearchError, match=name):
        search(AREA, _recipe(), path)


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("no/such/items.json", "no such file"),
        ("earth-serch", "did you mean 'earth-search'"),
        ("stactools", "no catalogue to search"),
        ("https://user:secret@host/stac", "credentials"),
        ("tests", "a folder"),
    ],
)
def test_an_unknown_provider_is_named(provider: str, message: str) -> None:
    with pytest.raises(SearchError, match=message) as caught:
        search(AREA, _recipe(), provider)
    assert "secret" not in str(caught.value)


def test_a_bad_area_stops_before_anything_is_asked() -> None:
    with stac_api([earth_search()]) as server:
        with pytest.raises(AreaError):
            search((3.4, 43.6, 3.3, 43.7), _recipe(), server.url)
        assert server.requests == []


# --- the real archives -------------------------------------------------------------------------

ARCHIVES = {
    # folder: (number of scenes, first month, last month, DN to subtract, catalogue)
    "beziers-2018": (10, "2018-01", "2018-12", 0, "earth-search"),
    "flanders-2018": (118, "2017-08", "2018-11", 0, "earth-search"),
    "flanders-2019": (72, "2018-08", "2019-11", 0, "planetary-computer"),
    "flanders-2019-baseline0400": (13, "2018-12", "2019-11", 1000, "planetary-computer"),
}


@pytest.mark.real
@pytest.mark.parametrize("name", ARCHIVES)
def test_the_real_archives(real_data: Path, name: str, tmp_path: Path) -> None:
    count, start, end, subtract, catalogue = ARCHIVES[name]
    folder = real_data / "archive" / name
    items = json.loads((folder / "items.json").read_text())["features"]
    bands = (*FOUR, "rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22")
    scenes = search(items[0]["bbox"], _recipe(start, end, bands), folder / "items.json")
    assert len(scenes) == count == len(items)
    assert scenes.removed == ()
    assert {scene.subtract for scene in scenes} == {subtract}
    assert {scene.provider for scene in scenes} == {f"{catalogue}@{folder}"}
    assert len({scene.grid for scene in scenes}) == 1
    for scene in scenes:
        provider = get_provider(scene.provider)
        for href in scene.hrefs.values():
            provider.check_href(href)
            assert Path(href).is_file()
    assert Scenes.load(scenes.save(tmp_path / "scenes.json")) == scenes
    months = pd.Series([scene.datetime[:7] for scene in scenes]).value_counts()
    reference = pd.read_csv(real_data / "archive" / name.removesuffix("-baseline0400") / MONTHLY)
    expected = dict(zip(reference["month"], reference["items"], strict=True))
    if subtract == 0:
        assert {month: n for month, n in expected.items() if n} == months.to_dict()


MONTHLY = "reference-monthly.csv"


@pytest.mark.real
def test_the_reprocessed_copy_replaces_its_originals(real_data: Path) -> None:
    found = []
    for name in ("flanders-2019", "flanders-2019-baseline0400"):
        folder = real_data / "archive" / name
        for item in json.loads((folder / "items.json").read_text())["features"]:
            found.append(read_item(item, detect(item).within(folder), FOUR))
    kept, removed = drop_duplicates(found)
    assert len(kept) == 72
    assert sum(item.facts.baseline == "04.00" for item in kept) == 13
    assert len(removed) == 13


@pytest.mark.real
def test_the_real_archive_through_the_api(real_data: Path) -> None:
    folder = real_data / "archive" / "flanders-2018"
    items = json.loads((folder / "items.json").read_text())["features"]
    with stac_api(items, page_size=40) as server:
        for item in items:
            for asset in item["assets"].values():
                asset["href"] = f"{server.url}/files/{asset['href'].removeprefix('./')}"
        scenes = search(items[0]["bbox"], _recipe("2017-08", "2018-11"), server.url)
        assert len(server.requests) == 3
    local = search(items[0]["bbox"], _recipe("2017-08", "2018-11"), folder / "items.json")
    assert [(s.id, s.grid, s.subtract) for s in scenes] == [
        (s.id, s.grid, s.subtract) for s in local
    ]


@pytest.mark.real
def test_recorded_pages_of_real_services(real_data: Path) -> None:
    pages = real_data / "stac-items" / "search-pages"
    name = "xcube-stac__StacDataStoreTest.test_search_data_searchable_catalog__1.json"
    features = json.loads((pages / name).read_text())["response"]["features"]
    with stac_api(features, page_size=4) as server:
        area = (9.0, 47.0, 10.0, 48.0)
        scenes = search(area, _recipe("2020-03", "2020-03"), server.url)
    assert len(scenes) + len(scenes.removed) == len(features)
    assert {scene.provider.split("@")[0] for scene in scenes} == {"earth-search"}
    assert {scene.subtract for scene in scenes} == {0}
    assert all(item.reason == "duplicate" for item in scenes.removed)
