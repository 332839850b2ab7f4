import hashlib
import json
from collections import defaultdict

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from shapely.geometry import box, shape

from cube.simulate import FRENCH_REGIONS, Settings, simulate

BANDS = ("blue", "red", "nir", "swir16")


def settings(**changes):
    auch = next(region for region in FRENCH_REGIONS if region.name == "auch")
    fields = {
        "seed": 5,
        "regions": (auch,),
        "zones_per_region": 2,
        "zone_metres": 1280,
        "gap_metres": 640,
        "new_area_metres": 640,
        "revisit_days": 12,
        "bands": BANDS,
    }
    return Settings(**{**fields, **changes})


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("archive"), settings())


@pytest.fixture(scope="module")
def items(archive):
    return json.loads(archive.items.read_text())["features"]


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(archive, item, key):
    with rasterio.open(archive.folder / item["assets"][key]["href"]) as file:
        return file.read(1)


def reflectance(archive, item, key):
    offset = 1000 if item["collection"] == "sentinel-2-c1-l2a" else 0
    return read(archive, item, key).astype(int) - offset


def test_the_same_settings_give_the_same_bytes(archive, tmp_path):
    calls = []
    again = simulate(tmp_path, settings(), lambda *call: calls.append(call), workers=3)
    assert digests(again.folder) == digests(archive.folder)
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _, what in calls if what == "acquisitions"] == list(
        range(1, calls[-1][1] + 1)
    )


def test_another_seed_gives_another_archive(archive, tmp_path):
    other = simulate(tmp_path, settings(seed=6, revisit_days=30))
    assert digests(other.folder)["parcels.gpkg"] != digests(archive.folder)["parcels.gpkg"]


def test_files_are_cogs_of_the_kind_catalogues_hold(archive, items):
    for item in items[:6]:
        for key, asset in item["assets"].items():
            path = archive.folder / asset["href"]
            with rasterio.open(path) as file:
                structure = file.tags(ns="IMAGE_STRUCTURE")
                assert structure["LAYOUT"] == "COG"
                assert structure["COMPRESSION"] == "DEFLATE"
                assert structure["PREDICTOR"] == "2"
                assert file.block_shapes == [(512, 512)]
                assert file.overviews(1) == []
                assert file.nodata == 0
                assert file.dtypes == (("uint8" if key == "scl" else "uint16"),)
                assert list(file.shape) == asset["proj:shape"]
                assert list(file.transform)[:6] == asset["proj:transform"]
                assert file.crs.to_epsg() == item["properties"]["proj:epsg"]


def test_items_stand_alone_and_in_the_collection(archive, items):
    assert len({item["id"] for item in items}) == len(items) == archive.n_items
    for item in items:
        own = json.loads((archive.folder / item["id"] / f"{item['id']}.json").read_text())
        assert own["properties"] == item["properties"]
        for key, asset in own["assets"].items():
            assert (archive.folder / item["id"] / asset["href"]).is_file()
            assert item["assets"][key]["href"] == f"./{item['id']}/{asset['href'][2:]}"
        outline = shape(item["geometry"])
        assert outline.is_valid
        assert not outline.is_empty
        assert outline.bounds == pytest.approx(item["bbox"])


def test_the_offset_is_decidable_from_every_item(items):
    collections = defaultdict(int)
    for item in items:
        facts = item["properties"]
        declared = {
            a["raster:bands"][0].get("offset") for k, a in item["assets"].items() if k != "scl"
        }
        assert declared == {-0.1}
        assert facts["s2:processing_baseline"] >= "04.00"
        flag = facts.get("earthsearch:boa_offset_applied")
        assert flag is (None if item["collection"] == "sentinel-2-c1-l2a" else True)
        collections[item["collection"]] += 1
    assert set(collections) == {"sentinel-2-c1-l2a", "sentinel-2-l2a"}


def test_pixels_carry_the_offset_where_the_item_says_so(archive, items):
    clear = [i for i in items if i["properties"]["eo:cloud_cover"] < 60]
    lowest = {"sentinel-2-c1-l2a": [], "sentinel-2-l2a": []}
    for item in clear:
        red = read(archive, item, "red")
        lowest[item["collection"]].append(np.percentile(red[red > 0], 1))
    assert min(lowest["sentinel-2-c1-l2a"]) > 1000
    assert min(lowest["sentinel-2-l2a"]) < 600


def test_both_granules_show_the_same_ground(archive, items):
    by_pass = defaultdict(list)
    for item in items:
        facts = item["properties"]
        by_pass[facts["s2:datatake_id"]].append(item)
    compared = 0
    for pair in by_pass.values():
        if len(pair) < 2:
            continue
        main, second = sorted(pair, key=lambda i: i["assets"]["red"]["proj:transform"][2])
        first, other = (reflectance(archive, i, "red") for i in (main, second))
        first = first[:, -other.shape[1] :]
        seen = (first > 0) & (other > 0)
        difference = (first - other)[seen]
        assert abs(difference.mean()) < 10
        assert 0 < difference.std() < 0.06 * first[seen].mean() + 60
        compared += 1
    assert compared >= 5


def test_one_acquisition_is_there_in_two_processings(items):
    again = [i for i in items if i["id"].endswith("_1_L2A")]
    assert again
    for item in again:
        older = next(i for i in items if i["id"] == item["id"].replace("_1_L2A", "_0_L2A"))
        assert older["properties"]["datetime"] == item["properties"]["datetime"]
        assert older["properties"]["s2:processing_baseline"] == "05.09"
        assert item["properties"]["s2:processing_baseline"] == "05.10"
        times = [i["properties"]["s2:generation_time"] for i in (older, item)]
        assert times == sorted(times)


def test_one_orbit_sees_half_of_the_area(archive, items):
    shares = defaultdict(list)
    main = [i for i in items if "TBJ" in i["properties"]["grid:code"]]
    for item in main:
        orbit = item["properties"]["s2:product_uri"].split("_")[4]
        shares[orbit].append((read(archive, item, "blue") > 0).mean())
    complete, partial = sorted(shares.values(), key=np.mean, reverse=True)
    assert min(complete) == 1
    assert all(0.3 < share < 0.7 for share in partial)
    half_seen = next(i for i in main if i["properties"]["s2:nodata_pixel_percentage"] > 10)
    scl = read(archive, half_seen, "scl").repeat(2, 0).repeat(2, 1)
    assert (scl[read(archive, half_seen, "blue") == 0] == 0).all()
    outline, whole = shape(half_seen["geometry"]), shape(main[0]["geometry"])
    assert 0.3 < outline.area / whole.area < 0.7


def test_classification_fits_the_pixels(archive, items):
    ground, cloud, months = [], [], defaultdict(set)
    for item in items:
        scl = read(archive, item, "scl").repeat(2, 0).repeat(2, 1)
        blue = reflectance(archive, item, "blue")
        ground.append(blue[np.isin(scl, (4, 5))])
        cloud.append(blue[scl == 9])
        months[item["properties"]["datetime"][5:7]] |= set(np.unique(scl).tolist())
    assert np.median(np.concatenate(cloud)) > 3 * np.median(np.concatenate(ground))
    assert {3, 4, 5, 6, 8, 9, 10} <= set.union(*months.values())
    assert len(months) == 12


def test_twenty_metre_bands_have_half_the_pixels(archive, items):
    item = items[0]
    assert item["assets"]["swir16"]["gsd"] == 20
    fine, coarse = (read(archive, item, key).shape for key in ("red", "swir16"))
    assert fine == (2 * coarse[0], 2 * coarse[1])


def test_parcels_are_a_register_with_its_flaws(archive):
    parcels, truth = gpd.read_file(archive.parcels), gpd.read_file(archive.truth)
    assert parcels.crs.to_epsg() == truth.crs.to_epsg() == 2154
    assert set(parcels.columns) == {
        "ID_PARCEL", "SURF_PARC", "CODE_CULTU", "CODE_GROUP", "CULTURE_D1", "CULTURE_D2",
        "geometry",
    }  # fmt: skip
    assert (parcels.geom_type == "MultiPolygon").all()
    assert parcels.ID_PARCEL.is_unique
    assert parcels.ID_PARCEL.str.fullmatch(r"\d{8}").all()
    assert (parcels.ID_PARCEL == truth.ID_PARCEL).all()
    assert truth.is_valid.all()
    assert 1 <= (~parcels.is_valid).sum() <= 5
    assert parcels.SURF_PARC.to_numpy() == pytest.approx(truth.area.to_numpy() / 1e4, abs=0.02)
    overlap = parcels[parcels.is_valid].area.sum() - parcels[parcels.is_valid].union_all().area
    assert overlap > 100
    wrong = (parcels.CODE_CULTU != truth.TRUE_CULTU).mean()
    assert 0 < wrong < 0.08


def test_parcels_grow_what_they_say(archive, items):
    truth = gpd.read_file(archive.truth)
    best = {}
    for month in ("05", "08"):
        best[month] = min(
            (i for i in items if i["properties"]["datetime"][5:7] == month),
            key=lambda i: (
                i["properties"]["eo:cloud_cover"] + i["properties"]["s2:nodata_pixel_percentage"]
            ),
        )
    greenness = {}
    for month, item in best.items():
        with rasterio.open(archive.folder / item["assets"]["red"]["href"]) as file:
            fields = truth.to_crs(file.crs).buffer(-15)
            at = [(p.x, p.y) for p in fields.representative_point() if not p.is_empty]
            rows, cols = rasterio.transform.rowcol(file.transform, *zip(*at, strict=True))
        codes = truth.TRUE_CULTU[~fields.is_empty].to_numpy()
        rows, cols = np.array(rows), np.array(cols)
        red, nir = (reflectance(archive, item, key) for key in ("red", "nir"))
        inside = (rows < red.shape[0]) & (cols < red.shape[1])
        rows, cols, codes = rows[inside], cols[inside], codes[inside]
        clear = np.isin(read(archive, item, "scl")[rows // 2, cols // 2], (4, 5))
        r, n = red[rows, cols], nir[rows, cols]
        ndvi = (n - r) / (n + r)
        greenness[month] = {
            code: np.median(ndvi[clear & (codes == code)]) for code in ("BTH", "MIS")
        }
    assert greenness["05"]["BTH"] > greenness["05"]["MIS"] + 0.3
    assert greenness["08"]["MIS"] > greenness["08"]["BTH"] + 0.3


def test_zones_have_one_test_zone_per_region_and_the_new_area_is_outside(archive):
    zones = gpd.read_file(archive.zones)
    assert zones.crs.to_epsg() == 2154
    assert zones.test.dtype == bool
    assert (zones.groupby("region").test.sum() == 1).all()
    assert zones.area.to_numpy() == pytest.approx(1280**2, rel=0.01)
    new = gpd.read_file(archive.new_area).to_crs(2154)
    assert len(new) == 1
    assert new.geometry[0].distance(zones.union_all()) > 300


def test_worldcover_lies_under_the_parcels(archive):
    truth = gpd.read_file(archive.truth)
    with rasterio.open(archive.worldcover) as file:
        assert file.crs.to_epsg() == 4326
        assert file.res[0] == pytest.approx(1 / 12_000)
        fields = truth[truth.SURF_PARC > 1].to_crs(4326)
        points = fields.representative_point()
        classes = np.array([v[0] for v in file.sample(zip(points.x, points.y, strict=True))])
        covered = box(*file.bounds)
    meadow = (fields.TRUE_CULTU == "PPH").to_numpy()
    assert (classes[~meadow] == 40).mean() > 0.97
    assert (classes[meadow] == 30).mean() > 0.9
    assert covered.covers(box(*truth.to_crs(4326).total_bounds))


def test_a_failed_write_is_loud_and_leaves_no_thread(tmp_path):
    item = "S2A_31TBJ"
    simulate(tmp_path, settings(revisit_days=30))
    victim = next(p for p in sorted(tmp_path.iterdir()) if p.is_dir() and item in p.name)
    for path in victim.iterdir():
        path.unlink()
    victim.rmdir()
    victim.write_text("in the way")
    with pytest.raises(OSError, match=victim.name):
        simulate(tmp_path, settings(revisit_days=30))
