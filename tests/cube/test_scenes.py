"""Items of all catalogues and years → scenes, against hand-read values of real items."""

from __future__ import annotations

import copy
import csv
import json
import re
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cube.duplicates import drop_duplicates
from cube.errors import SceneError, SearchError
from cube.grid import NativeGrid
from cube.items import read_item, scene_from_item
from cube.providers import PROVIDERS, detect
from cube.scenes import Scene, Scenes
from tests.cube.stac_items import cdse, earth_search, planetary_computer

FOUR = ("blue", "green", "red", "nir")
V1 = PROVIDERS["earth-search"]
AZURE = PROVIDERS["planetary-computer"]


# --- one item ----------------------------------------------------------------------------------


def test_an_earth_search_item() -> None:
    scene = scene_from_item(earth_search(), V1, FOUR)
    assert scene.id == "S2A_31TEJ_20180826_0_L2A"
    assert scene.datetime == "2018-08-26T10:43:29.027000Z"
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
    (_with_asset("red", href="../../etc/passwd"), "relative"),
    (_with_asset("red", href="/vsicurl/x"), "virtual"),
    (_with_asset("red", href="s3://bucket/B04.jp2"), "JPEG 2000, which earth-search does not"),
    (_with_asset("red", href="s3://bucket/B04.tif"), "not allowed"),
    (_with_asset("red", href=None), "no asset 'red'"),
    (_with_asset("blue", **{"proj:shape": [10**6, 10**6]}), "not a granule's"),
    (_with_asset("blue", **{"proj:transform": [10, 0, 0, 0, -10, 0]}), "outside of tile 31TEJ"),
    (_with_asset("red", **{"raster:bands": [{"offset": -0.7}]}), "different offsets"),
    (_with_asset("red", **{"raster:bands": [{"scale": 1, "offset": 0}]}), "another scale"),
    ({**earth_search(), "id": "../../tmp/evil"}, "its id"),
    ({**earth_search(), "id": None}, "its id"),
    ({**earth_search(), "properties": None}, "no properties"),
    ({**earth_search(), "assets": None}, "no assets"),
    (earth_search(offset=-0.7), "offset of -0.7"),
    (earth_search(offset=0.1), "offset of 0.1"),
]


@pytest.mark.parametrize(("item", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_unusable_items_are_refused_with_the_reason(item: dict, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        scene_from_item(item, V1, FOUR)


@pytest.mark.parametrize(
    ("item", "style", "why"),
    [
        (earth_search(baseline="04.00", flag=False, offset=-0.1), "earth-search", "wrong in both"),
        (earth_search(baseline="05.00", flag=None, offset=-0.1), "earth-search", "wrong in both"),
        (earth_search(baseline="02.14", flag=True, offset=-0.1), "earth-search", "but one is"),
        (_changed(**{"s2:processing_baseline": "05.00"}), "earth-search", "both sides of 04.00"),
        (cdse(baseline="05.00", offset=0.0), "cdse", "one thing and the declared offset another"),
        (cdse(baseline="02.14", offset=-0.1), "cdse", "one thing and the declared offset another"),
        (cdse(offset=None), "cdse", "both needed"),
    ],
)
def test_facts_that_contradict_each_other_leave_it_to_the_pixels(item, style, why) -> None:
    scene = scene_from_item(item, style, FOUR)
    assert (scene.subtract, scene.decided) == (None, None)
    assert why in scene.why


def test_a_scene_is_decided_by_something_or_not_at_all() -> None:
    fields = scene_from_item(earth_search(), V1, FOUR).model_dump()
    with pytest.raises(ValidationError, match="neither is"):
        Scene.model_validate({**fields, "subtract": None})
    with pytest.raises(ValidationError, match="neither is"):
        Scene.model_validate({**fields, "decided": None})


def test_a_cdse_item_has_everything_on_its_assets() -> None:
    item = cdse()
    scene = scene_from_item(item, detect(item), (*FOUR, "swir16"))
    assert (scene.provider, scene.baseline, scene.subtract) == ("cdse", "05.00", 1000)
    assert scene.grid == NativeGrid(
        granule="31UES", epsg=32631, left=499_980, top=5_700_000, height=10_980, width=10_980
    )
    # Every band is listed at several resolutions: its own is taken.
    assert [href[-11:] for href in scene.hrefs.values()] == [
        *("B02_10m.jp2", "B03_10m.jp2", "B04_10m.jp2", "B08_10m.jp2"),
        *("B11_20m.jp2", "SCL_20m.jp2"),
    ]
    assert scene_from_item(cdse(baseline="02.14", offset=0.0), "cdse", FOUR).subtract == 0
    found = read_item(item, PROVIDERS["cdse"], FOUR)
    assert (found.datatake, found.strip) == ("20200516T105659", "20200516T105701")
    assert found.generated == "20230613T212700".replace("T", "")


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


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
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
    assert pd.Timestamp(scene.datetime).tz is not None


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


# What each of the 110 items must become, worked out by hand from its catalogue's documentation.
# Pattern of the file: how many, whose conventions, baseline, DN to subtract.
BECOMES = {
    "CDSE__*_N0500_*": (6, "cdse", "05.00", 1000),
    # No baseline anywhere but in `sentinel:product_id`.
    "ESv0__*_31NBJ_*": (1, "earth-search-v0", "02.12", 0),
    "ESv0__*_26PPC_*": (2, "earth-search-v0", "02.14", 0),
    "ESv0__*_33SVB_*": (1, "earth-search-v0", "02.14", 0),
    "ESv0__*_42TUM_*": (1, "earth-search-v0", "03.01", 0),
    "ESv1__sentinel-2-c1-l2a__*_2024*": (4, "earth-search-c1", "05.10", 1000),
    "ESv1__sentinel-2-c1-l2a__*_2025*": (6, "earth-search-c1", "05.11", 1000),
    "ESv1__sentinel-2-l2a__*_2020????_0_*": (6, "earth-search", "02.14", 0),
    # Flag True and -0.1 declared: it must not be subtracted a second time.
    "ESv1__sentinel-2-l2a__*_2020????_1_*": (5, "earth-search", "05.00", 0),
    "ESv1__sentinel-2-l2a__*_2023*": (3, "earth-search", "05.09", 0),
    "ESv1__sentinel-2-l2a__*_2025*": (6, "earth-search", "05.11", 0),
    # Nothing but the baseline tells.
    "MPC__*_MSIL2A_2019*": (33, "planetary-computer", "02.12", 0),
    "MPC__*_MSIL2A_2020*": (12, "planetary-computer", "02.12", 0),
    "MPC__*_MSIL2A_202[23]*": (3, "planetary-computer", "04.00", 1000),
    "MPC__*_MSIL2A_202404*": (2, "planetary-computer", "05.10", 1000),
    "MPC__*_MSIL2A_202408*": (1, "planetary-computer", "05.11", 1000),
    # Made from ESA's files by users: they lie beside the item.
    "other__None__S2A_T01*_2023*": (2, "stactools", "05.09", 1000),
    "other__None__S2B_T22HBD_2021*": (1, "stactools", "02.14", 0),
    "other__None__S2B_T33XWJ_2022*": (1, "stactools", "04.00", 1000),
}
REFUSED_BECAUSE = {
    "ESv1__sentinel-2-l1c__*": (5, "Level-1C"),
    "sentinel-s2-l2a__*": (5, "s3://sentinel-s2-l2a/.* is not allowed"),
    "other__None__*.SAFE.json": (2, "assets .analytic. follow no known catalogue"),
    "other__*_34SGA_*": (1, "assets .B01, B09. follow no known catalogue"),
    "other__*_T07HFE_*": (1, "leaves the folder"),
}
RED_AND_SCL = {
    "cdse": ("B04_10m", "SCL_20m"),
    "earth-search-v0": ("B04", "SCL"),
    "planetary-computer": ("B04", "SCL"),
    "earth-search": ("red", "scl"),
    "earth-search-c1": ("red", "scl"),
    "stactools": ("red", "scl"),
}


def _pattern(name: str) -> str:
    (only,) = (p for p in (*BECOMES, *REFUSED_BECAUSE) if fnmatchcase(name, p))
    return only


@pytest.mark.real
def test_every_published_item_is_a_scene_or_refused_with_a_reason(real_data: Path) -> None:
    folder = real_data / "stac-items" / "items"
    with (real_data / "stac-items" / "index.csv").open() as file:
        index = {row["file"]: row for row in csv.DictReader(file)}
    items = _published(real_data)
    assert items.keys() == index.keys()
    seen = Counter(_pattern(name) for name in items)
    assert seen == {p: count for p, (count, *_) in (BECOMES | REFUSED_BECAUSE).items()}
    for name, item in items.items():
        expected = BECOMES.get(_pattern(name))
        if expected is None:
            _, reason = REFUSED_BECAUSE[_pattern(name)]
            with pytest.raises(SceneError, match=reason):
                scene_from_item(item, detect(item).within(folder), FOUR)
            continue
        scene = scene_from_item(copy.deepcopy(item), detect(item).within(folder), FOUR)
        found = (scene.provider.partition("@")[0], scene.baseline, scene.subtract)
        assert found == expected[1:], name
        _, style, _, subtract = expected
        assert scene.decided == "metadata"
        # The granule is in every id, and nobody rotates or clips.
        granule = re.search(r"_T?(\d\d[A-Z]{3})(?=[_.])", name)[1]
        epsg = (32600 if granule[2] >= "N" else 32700) + int(granule[:2])
        assert (scene.grid.granule, scene.grid.epsg) == (granule, epsg)
        assert index[name]["epsg"].removeprefix("EPSG:") in ("", str(epsg))
        assert (scene.grid.height, scene.grid.width) == (10_980, 10_980)
        for band, key in zip(("red", "scl"), RED_AND_SCL[style], strict=True):
            href = item["assets"][key]["href"]
            if style == "stactools":
                href = str(folder / href)
            assert scene.hrefs[band] == href
            roles = [r for r in item["assets"][key].get("roles", ()) if r.startswith("sampling:")]
            assert roles in ([], ["sampling:original"])


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
    "CDSE__sentinel-2-l2a__S2B_MSIL2A_20200705T101559_N0500_R065_T32TNT_20230530T175912.json": (
        *("cdse", "05.00", 1000, "32TNT", 499_980, 5_300_040),
        "IMG_DATA/R10m/T32TNT_20200705T101559_B04_10m.jp2",
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
