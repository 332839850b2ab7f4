"""Items of all catalogues and years → scenes, against hand-read values of real items."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube.duplicates import drop_duplicates
from cube.errors import SceneError, SearchError
from cube.items import Acquisition, read_item, scene_from_item
from cube.offset import Facts
from cube.providers import PROVIDERS, detect
from cube.scenes import Scene, Scenes
from tests.cube.stac_items import earth_search, planetary_computer

FOUR = ("blue", "green", "red", "nir")
V1 = PROVIDERS["earth-search"]
AZURE = PROVIDERS["planetary-computer"]


# --- one item ----------------------------------------------------------------------------------


def test_an_earth_search_item() -> None:
    scene = scene_from_item(earth_search(), V1, FOUR)
    assert scene.id == "S2A_31TEJ_20180826_0_L2A"
    assert scene.datetime == "2018-08-26T10:43:29.027000Z"
    assert str(scene.month.date()) == "2018-08-01"
    assert scene.baseline == "02.08"
    assert scene.subtract == 0
    assert scene.provider == "earth-search"
    assert list(scene.hrefs) == [*FOUR, "scl"]
    assert scene.hrefs["red"].endswith("/S2A_31TEJ_20180826_0_L2A/B04.tif")
    grid = scene.grid
    assert (grid.granule, grid.epsg, grid.left, grid.top) == ("31TEJ", 32631, 499_980, 4_900_020)
    assert (grid.height, grid.width) == (10_980, 10_980)


def test_a_planetary_computer_item() -> None:
    scene = scene_from_item(planetary_computer(baseline="05.11"), "planetary-computer", FOUR)
    assert scene.subtract == 1000
    assert scene.grid.granule == "31UES"
    assert scene.hrefs["scl"].endswith("_SCL_20m.tif")


def test_projection_in_every_published_form() -> None:
    plain = scene_from_item(earth_search(), V1, FOUR).grid

    by_code = earth_search()
    by_code["properties"]["proj:code"] = f"EPSG:{by_code['properties'].pop('proj:epsg')}"
    on_assets = earth_search()
    del on_assets["properties"]["proj:epsg"]
    for asset in on_assets["assets"].values():
        asset["proj:code"] = "EPSG:32631"
    with_nine = earth_search()
    for asset in with_nine["assets"].values():
        asset["proj:transform"] += [0, 0, 1]
    by_bbox = earth_search()
    for asset in by_bbox["assets"].values():
        del asset["proj:transform"], asset["proj:shape"]
        asset["proj:bbox"] = [499_980, 4_790_220, 609_780, 4_900_020]
    on_item = earth_search()
    for asset in on_item["assets"].values():
        del asset["proj:transform"], asset["proj:shape"]
    on_item["properties"]["proj:transform"] = [10, 0, 499_980, 0, -10, 4_900_020]
    on_item["properties"]["proj:shape"] = [10_980, 10_980]
    for item in (by_code, on_assets, with_nine, by_bbox, on_item):
        assert scene_from_item(item, V1, FOUR).grid == plain


def test_the_grid_of_an_item_with_20_m_bands_only() -> None:
    item = earth_search()
    for key in FOUR:
        del item["assets"][key]
    grid = scene_from_item(item, V1, ("swir16",)).grid
    assert (grid.height, grid.width) == (10_980, 10_980)


def test_a_10_m_band_gives_the_grid_even_when_it_is_not_asked_for() -> None:
    # Clips at an odd row have one 20 m row more than half of the 10 m rows.
    item = earth_search()
    for key in FOUR:
        item["assets"][key]["proj:shape"] = [353, 232]
    for key in ("swir16", "scl"):
        item["assets"][key]["proj:shape"] = [177, 116]
    grid = scene_from_item(item, V1, ("swir16",)).grid
    assert (grid.height, grid.width) == (353, 232)


@pytest.mark.parametrize(
    ("stated", "tile"), [("MGRS-7HFE", "07HFE"), ("MGRS-07HFE", "07HFE"), (None, "07HFE")]
)
def test_tiles_have_two_digits_of_zone(stated: str | None, tile: str) -> None:
    item = earth_search(tile="07HFE", corner=(600_000, 6_500_020), epsg=32707)
    item["properties"]["grid:code"] = stated
    assert scene_from_item(item, V1, FOUR).grid.granule == tile


def test_stac_1_1_bands_declare_the_offset() -> None:
    item = earth_search(baseline="05.09", flag=None, offset=None)
    item["collection"] = "sentinel-2-c1-l2a"
    hrefs = "https://e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com/a.tif"
    for key, asset in item["assets"].items():
        asset["href"] = hrefs
        if key != "scl":
            asset["bands"] = [{"name": key, "raster:offset": -0.1, "raster:scale": 0.0001}]
    assert scene_from_item(item, detect(item), FOUR).subtract == 1000


def _changed(**changes: object) -> dict:
    item = earth_search()
    item["properties"].update(changes)
    return item


def _with_asset(key: str, **changes: object) -> dict:
    item = earth_search()
    item["assets"][key].update(changes)
    return item


REFUSED = [
    (_changed(datetime=None), "no datetime"),
    (_changed(datetime="yesterday-ish"), "not a time"),
    (_changed(datetime="NaT"), "not a time"),
    (_changed(**{"s2:product_type": "S2MSI1C"}), "Level-1C"),
    (_changed(**{"grid:code": "MGRS-31TEK"}), "31TEJ or 31TEK"),
    (_changed(**{"proj:epsg": 32632}), "lies in EPSG:32631"),
    (_changed(**{"proj:epsg": None}), "CRS is not stated"),
    (_changed(**{"proj:code": "EPSG:32632"}), "CRS is 32631 or 32632"),
    (_changed(**{"s2:processing_baseline": "05.00"}), "both sides of 04.00"),
    (_with_asset("red", href="../../etc/passwd"), "relative"),
    (_with_asset("red", href="/vsicurl/x"), "virtual"),
    (_with_asset("red", href="s3://bucket/B04.jp2"), "JPEG 2000"),
    (_with_asset("red", href=None), "no asset 'red'"),
    (_with_asset("blue", **{"proj:shape": [10**6, 10**6]}), "not a granule's"),
    (_with_asset("blue", **{"proj:transform": [10, 0, 0, 0, -10, 0]}), "outside of tile 31TEJ"),
    (_with_asset("red", **{"raster:bands": [{"offset": -0.7}]}), "different offsets"),
    (_with_asset("red", **{"raster:bands": [{"scale": 1, "offset": 0}]}), "another scale"),
    ({**earth_search(), "id": "../../tmp/evil"}, "its id"),
    ({**earth_search(), "id": None}, "its id"),
    ({**earth_search(), "properties": None}, "no properties"),
    ({**earth_search(), "assets": None}, "no assets"),
    (earth_search(baseline="04.00", flag=False, offset=-0.1), "do not tell"),
    (earth_search(baseline="05.00", flag=None, offset=-0.1), "do not tell"),
]


@pytest.mark.parametrize(("item", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_unusable_items_are_refused_with_the_reason(item: dict, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        scene_from_item(item, V1, FOUR)


def test_the_undecided_message_names_facts_and_remedies() -> None:
    item = earth_search(baseline="04.00", flag=False, offset=-0.1)
    with pytest.raises(SceneError) as caught:
        scene_from_item(item, V1, FOUR)
    for part in (item["id"], "04.00", "-0.1", "False", "exclude", "earth-search-c1", "offsets="):
        assert part in str(caught.value)


paths = st.sampled_from(
    [
        ("id",),
        ("properties",),
        ("assets",),
        ("collection",),
        *[("properties", key) for key in earth_search()["properties"]],
        ("assets", "red"),
        ("assets", "scl"),
        *[("assets", "blue", key) for key in earth_search()["assets"]["blue"]],
    ]
)
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3)), max_size=6),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(paths, odd), min_size=1, max_size=3))
def test_a_damaged_item_is_a_scene_or_refused_and_nothing_else(changes) -> None:
    item = earth_search()
    for path, value in changes:
        holder = item
        for key in path[:-1]:
            holder = holder[key] if isinstance(holder, dict) and key in holder else {}
        if isinstance(holder, dict):
            holder[path[-1]] = value
    try:
        scene = scene_from_item(item, detect(item), FOUR)
    except SceneError:
        return
    assert isinstance(scene, Scene)
    assert scene.month is not None


# --- duplicates --------------------------------------------------------------------------------


def _read(**kind: object) -> Acquisition:
    return read_item(earth_search(**kind), V1, FOUR)


def test_the_higher_baseline_is_kept() -> None:
    old = _read(sequence=0, baseline="02.14")
    new = _read(sequence=1, baseline="05.00", flag=True, offset=-0.1)
    for order in ([old, new], [new, old]):
        kept, removed = drop_duplicates(order)
        assert [found.id for found in kept] == ["S2A_31TEJ_20180826_1_L2A"]
        assert [(item.id, item.reason, item.kept) for item in removed] == [
            ("S2A_31TEJ_20180826_0_L2A", "duplicate", "S2A_31TEJ_20180826_1_L2A")
        ]
        assert "02.14" in removed[0].detail
        assert "05.00" in removed[0].detail


def test_a_later_generation_of_the_same_strip_is_kept() -> None:
    first = _read(sequence=0, generated="20180826T150000")
    second = _read(sequence=1, generated="20180901T150000")
    kept, removed = drop_duplicates([second, first])
    assert [found.id for found in kept] == [second.id]
    assert removed[0].kept == second.id


def test_two_datastrips_of_a_pass_are_two_parts() -> None:
    north = _read(sequence=0, strip="20180826T104501")
    south = _read(sequence=1, strip="20180826T104533", generated="20180901T150000")
    kept, removed = drop_duplicates([north, south])
    assert {found.id for found in kept} == {north.id, south.id}
    assert removed == []


def test_both_parts_of_a_reprocessed_pass_replace_both_old_parts() -> None:
    parts = {"a": "20180826T104501", "b": "20180826T104533"}
    old = [_read(sequence=i, strip=strip) for i, strip in enumerate(parts.values())]
    new = [
        _read(sequence=i + 2, strip=strip, baseline="05.00", flag=True, offset=-0.1)
        for i, strip in enumerate(parts.values())
    ]
    kept, removed = drop_duplicates([*old, *new])
    assert {found.id for found in kept} == {found.id for found in new}
    assert {item.id: item.kept for item in removed} == {
        left.id: right.id for left, right in zip(old, new, strict=True)
    }


def test_other_satellites_granules_and_days_are_never_duplicates() -> None:
    one = _read()
    others = [
        _read(satellite="B"),
        _read(tile="31TDJ", corner=(399_960, 4_900_020)),
        _read(day="20180827"),
    ]
    kept, removed = drop_duplicates([one, *others])
    assert len(kept) == 4
    assert removed == []


def test_without_datatakes_a_minute_decides() -> None:
    facts = Facts("02.08", 0.0, False)
    one = _read()
    bare = {"datatake": "", "strip": "", "product": "", "generated": ""}

    def at(name: str, time: str, baseline: str = "02.08") -> Acquisition:
        values = {**one.__dict__, **bare, "id": name, "datetime": f"2018-08-26T{time}Z"}
        return Acquisition(**{**values, "facts": Facts(baseline, facts.offset, facts.flag)})

    near = [at("a", "10:43:59.999"), at("b", "10:44:00.001", "02.09")]  # across a full minute
    assert [found.id for found in drop_duplicates(near)[0]] == ["b"]
    far = [at("a", "10:43:59"), at("b", "12:24:00", "02.09")]  # the next orbit
    assert [found.id for found in drop_duplicates(far)[0]] == ["a", "b"]


@given(st.permutations(range(6)))
def test_the_order_of_items_does_not_matter(order: list[int]) -> None:
    everything = [
        _read(sequence=0),
        _read(sequence=1, baseline="02.14"),
        _read(sequence=2, strip="20180826T104533"),
        _read(day="20180827"),
        _read(satellite="B"),
        _read(sequence=4, generated="20190101T000000"),
    ]
    kept, removed = drop_duplicates([everything[index] for index in order])
    assert {found.id for found in kept} == {
        "S2A_31TEJ_20180826_1_L2A",
        "S2A_31TEJ_20180826_2_L2A",
        "S2A_31TEJ_20180827_0_L2A",
        "S2B_31TEJ_20180826_0_L2A",
    }
    assert len(removed) == 2
    assert [found.datetime for found in kept] == sorted(found.datetime for found in kept)


# --- the file of scenes ------------------------------------------------------------------------


def test_scenes_survive_a_file(tmp_path: Path) -> None:
    scene = scene_from_item(earth_search(), V1, FOUR)
    scenes = Scenes(source="here", scenes=(scene,))
    assert Scenes.load(scenes.save(tmp_path / "new" / "scenes.json")) == scenes


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "cropcube-scenes-1", "source": 1, "scenes": 2}']
)
def test_what_is_no_file_of_scenes_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scenes.json"
    path.write_text(content)
    with pytest.raises(SearchError, match=r"scenes\.json"):
        Scenes.load(path)


# --- real items --------------------------------------------------------------------------------


def _published(real_data: Path) -> dict[str, dict]:
    folder = real_data / "stac-items" / "items"
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


@pytest.mark.real
def test_every_published_item_is_a_scene_or_refused_with_a_reason(real_data: Path) -> None:
    items = _published(real_data)
    with (real_data / "stac-items" / "index.csv").open() as file:
        index = {row["file"]: row for row in csv.DictReader(file)}
    scenes, refused = {}, {}
    for name, item in items.items():
        try:
            scenes[name] = scene_from_item(copy.deepcopy(item), detect(item), FOUR)
        except SceneError as error:
            refused[name] = str(error)
    assert len(items) == 110
    for name, scene in scenes.items():
        row = index[name]
        if row["baseline"]:
            assert scene.baseline == row["baseline"]
        # Hand-worked from the catalogues' documentation: who publishes ESA's own DN?
        new = scene.baseline >= "04.00"
        keeps_offset = row["provider"] == "MPC" or row["collection"] == "sentinel-2-c1-l2a"
        assert scene.subtract == (1000 if new and keeps_offset else 0), name
        assert scene.grid.granule in scene.id or scene.grid.granule in scene.hrefs["red"]
        assert (scene.grid.height, scene.grid.width) == (10_980, 10_980)
        assert scene.hrefs["red"].endswith(("B04.tif", "B04_10m.tif"))
        assert scene.hrefs["scl"].endswith(("SCL.tif", "SCL_20m.tif"))
    kinds = [(index[name]["provider"], index[name]["collection"]) for name in refused]
    assert {kind for kind in kinds if kind[0] == "ESv1"} == {("ESv1", "sentinel-2-l1c")}
    assert {kind[0] for kind in kinds} == {"ESv1", "CDSE", "other", "sentinel-s2-l2a"}
    assert len(refused) == 5 + 6 + 8 + 5
    assert all("Level-1C" in text for name, text in refused.items() if "l1c" in name)
    assert all("JPEG 2000" in text for name, text in refused.items() if "CDSE" in name)


HAND_READ = {
    # file: (style, baseline, subtract, granule, left, top, end of the red href)
    "ESv1__sentinel-2-c1-l2a__S2A_T13TDE_20240415T180048_L2A.json": (
        *("earth-search-c1", "05.10", 1000, "13TDE", 399_960, 4_500_000),
        "13/T/DE/2024/4/S2A_T13TDE_20240415T180048_L2A/B04.tif",
    ),
    "ESv1__sentinel-2-l2a__S2A_31UDQ_20230617_0_L2A.json": (
        *("earth-search", "05.09", 0, "31UDQ", 399_960, 5_500_020),
        "S2A_31UDQ_20230617_0_L2A/B04.tif",
    ),
    "ESv1__sentinel-2-l2a__S2A_28QCH_20200714_0_L2A.json": (
        *("earth-search", "02.14", 0, "28QCH", 300_000, 2_300_040),
        "28/Q/CH/2020/7/S2A_28QCH_20200714_0_L2A/B04.tif",
    ),
    "ESv0__sentinel-s2-l2a-cogs__S2A_31NBJ_20190524_0_L2A.json": (
        *("earth-search-v0", "02.12", 0, "31NBJ", 199_980, 900_000),
        "31/N/BJ/2019/5/S2A_31NBJ_20190524_0_L2A/B04.tif",
    ),
    "ESv0__None__S2B_33SVB_20210221_0_L2A.json": (
        *("earth-search-v0", "02.14", 0, "33SVB", 399_960, 4_200_000),
        "S2B_33SVB_20210221_0_L2A/B04.tif",
    ),
    "MPC__sentinel-2-l2a__S2B_MSIL2A_20220612T182919_R027_T24XWR_20220613T123251.json": (
        *("planetary-computer", "04.00", 1000, "24XWR", 499_980, 9_100_020),
        "T24XWR_20220612T182919_B04_10m.tif",
    ),
    "MPC__sentinel-2-l2a__S2A_MSIL2A_20200611T080611_R078_T35MNM_20200826T230619.json": (
        *("planetary-computer", "02.12", 0, "35MNM", 499_980, 9_200_020),
        "T35MNM_20200611T080611_B04_10m.tif",
    ),
}


@pytest.mark.real
@pytest.mark.parametrize("name", HAND_READ)
def test_hand_read_items(real_data: Path, name: str) -> None:
    item = _published(real_data)[name]
    style, baseline, subtract, granule, left, top, ending = HAND_READ[name]
    scene = scene_from_item(item, detect(item), FOUR)
    assert (scene.provider, scene.baseline, scene.subtract) == (style, baseline, subtract)
    assert (scene.grid.granule, scene.grid.left, scene.grid.top) == (granule, left, top)
    assert scene.hrefs["red"].endswith(ending)


@pytest.mark.real
def test_the_real_pairs_of_two_processings(real_data: Path) -> None:
    items = [
        item
        for name, item in _published(real_data).items()
        if name.startswith("ESv1__sentinel-2-l2a__")
    ]
    kept, removed = drop_duplicates(read_item(item, V1, FOUR) for item in items)
    assert len(kept) + len(removed) == len(items)
    assert len(removed) == 5
    for item in removed:
        assert item.id.endswith("_0_L2A")
        assert item.kept == item.id.replace("_0_L2A", "_1_L2A")
        assert "baseline 02.14, kept 05.00" in item.detail
