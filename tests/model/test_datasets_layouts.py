"""Published layouts: files written here as their releases lay them out, read back by hand."""

import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from pyproj import Transformer

from cube.errors import LabelError
from model.datasets.breizhcrops import breizhcrops
from model.datasets.eurocropsml import eurocropsml
from model.datasets.layout import Series, drawn, load_array, padded
from model.datasets.pastis import CLASSES, pastis
from model.datasets.timesen2crop import timesen2crop
from model.datasets.zuericrop import zuericrop

DAYS = np.array(["2017-03-01", "2017-01-02", "2017-12-31"], "datetime64[D]")


def test_series_are_ordered_rounded_and_never_zero_where_valid():
    values = np.array([[10.5, 3.2], [-4.0, np.nan], [70_000, 8]])
    valid = np.array([True, False, True])
    one = Series.of(values, valid, DAYS, 2017)
    assert one.doy.tolist() == [2, 60, 365]
    assert one.valid.tolist() == [False, True, True]
    assert one.x.tolist() == [[0, 10, 65_535], [0, 3, 8]]
    assert Series.of(np.full((1, 1), -3), np.ones(1, bool), DAYS[:1], 2016).x.tolist() == [[1]]
    # Days are counted on over the new year: 2016 has 366.
    assert Series.of(values, valid, DAYS, 2016).doy.tolist() == [368, 426, 731]


def test_short_series_are_filled_up_with_nothing():
    long = Series.of(np.full((3, 2), 5), np.ones(3, bool), DAYS, 2017)
    short = Series.of(np.full((1, 2), 7), np.ones(1, bool), DAYS[:1], 2017)
    x, valid, doy = padded([short, long])
    assert x[0].tolist() == [[7, 0, 0], [7, 0, 0]]
    assert valid.tolist() == [[True, False, False], [True, True, True]]
    assert doy.tolist() == [[60, 0, 0], [2, 60, 365]]


def test_drawing_keeps_the_order():
    random = np.random.default_rng(0)
    assert drawn("abc", None, random) == ["a", "b", "c"]
    assert drawn("abc", 5, random) == ["a", "b", "c"]
    few = drawn(range(1000), 10, random)
    assert few == sorted(set(few))
    assert len(few) == 10


def test_pickles_are_never_opened(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(LabelError, match="not a plain array"):
        load_array(tmp_path / "evil.npy", "pastis")


# --- BreizhCrops -----------------------------------------------------------------------------

TEN = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A"]
L1C = ["B1", *TEN, "B9", "B10", "B11", "B12", "QA10", "QA20", "QA60", "doa"]
L2A = ["doa", *TEN, "B11", "B12", "CLD", "EDG", "SAT"]


def write_breizhcrops(root, level, columns, region="frh02"):
    (root / "2017" / level).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(
        {"id": [0, 0, 1], "classname": ["barley", "barley", "wheat"], "code": ["ORH", "ORP", "BTH"]}
    ).to_csv(root / "classmapping.csv")
    rows, tables = [], {}
    with h5py.File(root / "2017" / level / f"{region}.h5", "w") as file:
        for number, code in enumerate(["BTH", "ORP", "XXX", "ORH"]):
            dates = DAYS[: 3 - number % 2].astype("datetime64[ns]").astype(np.int64)
            table = pd.DataFrame(
                {c: 100.0 * i + number + np.arange(len(dates)) for i, c in enumerate(columns)}
            ).assign(doa=dates)
            path = f"csv/{region}/{number + 7}.csv"
            file.create_dataset(path, data=table.to_numpy(np.float64))
            tables[number + 7] = table.sort_values("doa")
            rows.append(
                {"meanQA60": 0.1, "id": number + 7, "CODE_CULTU": code, "path": path,
                 "idx": number, "sequencelength": len(dates)}
            )  # fmt: skip
    pd.DataFrame(rows).to_csv(root / "2017" / level / f"{region}.csv")
    return tables


@pytest.mark.parametrize(("level", "columns"), [("L1C", L1C), ("L2A", L2A)])
def test_breizhcrops(tmp_path, level, columns):
    tables = write_breizhcrops(tmp_path, level, columns)
    samples = breizhcrops(tmp_path, level=level, regions=["frh02"])
    assert samples.legend.classes == ("background", "barley", "wheat")
    assert samples.y.tolist() == [2, 1, 1]
    assert samples.parcel.tolist() == [7, 8, 10]
    assert samples.group.tolist() == [2, 2, 2]
    names = [c for c in columns if c.startswith("B")]
    for one, parcel in enumerate(samples.parcel):
        table = tables[parcel]
        count = len(table)
        assert samples.valid[one].sum() == count
        assert np.array_equal(samples.x[one, :, :count].T, table[names].to_numpy().clip(min=1))
        days = pd.to_datetime(table.doa).dt.dayofyear
        assert samples.doy[one, :count].tolist() == days.tolist()
    assert samples.bands[names.index("B8A")] == "nir08"
    assert samples.bands[names.index("B12")] == "swir22"


def test_breizhcrops_says_what_is_wrong(tmp_path):
    with pytest.raises(LabelError, match="classmapping.csv is missing"):
        breizhcrops(tmp_path)
    write_breizhcrops(tmp_path, "L1C", L1C)
    with pytest.raises(LabelError, match="frh01.csv is missing"):
        breizhcrops(tmp_path)
    with pytest.raises(LabelError, match="no region 'bzh'"):
        breizhcrops(tmp_path, regions=["bzh"])
    write_breizhcrops(tmp_path, "L2A", L1C)
    with pytest.raises(LabelError, match="L2A has 14 columns"):
        breizhcrops(tmp_path, level="L2A", regions=["frh02"])
    (tmp_path / "2017" / "L1C" / "frh02.h5").write_text("no")
    with pytest.raises(LabelError, match="not an HDF5 file"):
        breizhcrops(tmp_path, regions=["frh02"])


# --- PASTIS ----------------------------------------------------------------------------------


def write_pastis(root, patches=((10003, 2, 3), (10001, 1, 4), (10002, 2, 2))):
    """Patches of number, fold and dates; returns their pixels."""
    for folder in ("DATA_S2", "ANNOTATIONS"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    features, pixels = [], {}
    days = [20181105, 20180917, 20190301, 20190730]
    for number, fold, dates in patches:
        x = random.integers(-50, 9000, (dates, 10, 128, 128)).astype(np.int16)
        x[0, 3, 5, 6] = -10_000
        target = random.integers(0, 20, (3, 128, 128)).astype(np.uint8)
        np.save(root / "DATA_S2" / f"S2_{number}.npy", x)
        np.save(root / "ANNOTATIONS" / f"TARGET_{number}.npy", target)
        np.save(
            root / "ANNOTATIONS" / f"ParcelIDs_{number}.npy",
            np.full((128, 128), number, np.int32),
        )
        pixels[number] = x, target
        ring = [[600_000, 6_700_000], [601_280, 6_700_000], [601_280, 6_701_280]]
        ring += [[600_000, 6_701_280], ring[0]]
        properties = {
            "ID_PATCH": number,
            "Fold": fold,
            "TILE": "t30uxv",
            "dates-S2": {str(i): days[i] for i in range(dates)},
        }
        features.append(
            {
                "type": "Feature",
                "id": str(number),
                "properties": properties,
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}
    text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    (root / "metadata.geojson").write_text(text)
    return pixels


def test_pastis(tmp_path):
    pixels = write_pastis(tmp_path)
    samples = pastis(tmp_path)
    assert samples.group.tolist() == [1, 2, 2]
    assert samples.n_classes == 19
    assert samples.x.shape == (3, 10, 4, 128, 128)
    for one, number in enumerate((10001, 10002, 10003)):
        x, target = pixels[number]
        order = [1, 0, *range(2, len(x))]
        days = [260, 309, 365 + 60, 365 + 211][: len(x)]
        assert samples.doy[one].tolist() == days + [0] * (4 - len(x))
        seen = (x > -10_000).all(axis=1)[order]
        assert not seen.all()
        assert np.array_equal(samples.valid[one, : len(x)], seen)
        expected = np.where(seen[:, None], x[order].clip(min=1), 0).swapaxes(0, 1)
        assert np.array_equal(samples.x[one, :, : len(x)], expected)
        assert not samples.valid[one, len(x) :].any()
        assert np.array_equal(samples.y[one] == 255, target[0] == 19)
        assert np.array_equal(samples.y[one][target[0] < 19], target[0][target[0] < 19])
        assert (samples.parcel[one] == number).all()
    lon, lat = Transformer.from_crs(2154, 4326, always_xy=True).transform(600_640, 6_700_640)
    assert samples.lonlat[:, 1] == pytest.approx([lat] * 3, abs=1e-6)
    assert samples.lonlat[:, 0] == pytest.approx([lon] * 3, abs=1e-6)


def test_pastis_in_part(tmp_path):
    write_pastis(tmp_path)
    assert pastis(tmp_path, folds=[2]).group.tolist() == [2, 2]
    assert pastis(tmp_path, limit=1).group.tolist() == [1, 2]
    (tmp_path / "ANNOTATIONS" / "ParcelIDs_10001.npy").unlink()
    assert pastis(tmp_path, limit=1).parcel is None
    with pytest.raises(LabelError, match="no patch is of fold 4"):
        pastis(tmp_path, folds=[4])
    (tmp_path / "DATA_S2" / "S2_10001.npy").unlink()
    with pytest.raises(LabelError, match="S2_10001.npy is missing"):
        pastis(tmp_path, folds=[1])
    (tmp_path / "metadata.geojson").write_text('{"features": [{}]}')
    with pytest.raises(LabelError, match="not the metadata of the release"):
        pastis(tmp_path)


def test_pastis_names_its_classes_as_the_release(real_data):
    table = json.loads((real_data / "labels" / "PASTIS_label_names.json").read_text())
    written = [" ".join(table[str(number)].split()) for number in range(1, 19)]
    assert list(CLASSES) == written


# --- ZueriCrop -------------------------------------------------------------------------------

TIERS = """GT,LNF_code,raw_DE,raw_ENG,1st_tier,2nd_tier,3rd_tier,4th_tier_ENG,empty
1,501,Sommergerste,summer barley,Vegetation,Field crops,SmallGrainCereal,SummerBarley,
2,508,Körnermais,grain maize,Vegetation,Field crops,LargeGrainCereal,Maize,
3,904,Hecken,hedges,Vegetation,,,,
4,998,Wasser,water,Non-Vegetation,Water,Lake,Lake,
5,513,Winterweizen,winter wheat,Vegetation,Field crops,SmallGrainCereal,WinterWheat,
6,616,Weiden,pasture,Vegetation,Grassland,Pasture,Pasture,
"""


def write_zuericrop(root, n=10, dates=142):
    random = np.random.default_rng(0)
    data = random.integers(0, 9000, (n, dates, 24, 24, 9)).astype(np.int32)
    truth = random.integers(1, 7, (n, 24, 24, 1)).astype(np.int64)
    truth[3:4, :4] = 0  # a sixth without a label
    fields = random.integers(0, 90_000, (n, 24, 24, 1)).astype(np.int64)
    (root / "labels.csv").write_text(TIERS, encoding="utf-8")
    with h5py.File(root / "ZueriCrop.hdf5", "w") as file:
        for name, array in (("data", data), ("gt", truth), ("gt_instance", fields)):
            file.create_dataset(name, data=array)
    return data, truth[..., 0], fields[..., 0]


def test_zuericrop(tmp_path):
    data, truth, fields = write_zuericrop(tmp_path)
    samples = zuericrop(tmp_path)
    kept = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert samples.x.shape == (9, 9, 71, 24, 24)
    assert samples.group.tolist() == [1, 1, 2, 3, 3, 4, 4, 5, 5]
    values = np.moveaxis(data[kept, ::2], -1, 1)
    seen = (values > 0).all(axis=1)
    assert np.array_equal(samples.valid, seen)
    assert np.array_equal(samples.x, np.where(seen[:, None], values, 0))
    names = {1: "SummerBarley", 2: "Maize", 5: "WinterWheat", 6: "Pasture"}
    classes = np.array([*samples.legend.classes, *["?"] * (255 - 5), "ignore"])
    expected = np.vectorize(lambda gt: names.get(gt, "ignore"))(truth[kept])
    assert np.array_equal(classes[samples.y], expected)
    assert np.array_equal(samples.parcel, fields[kept])
    assert samples.doy[0, 0] == 1
    assert (np.diff(samples.doy[0]) > 0).all()
    assert samples.doy[0, -1] < 365


def test_zuericrop_levels_and_parts(tmp_path):
    write_zuericrop(tmp_path, dates=4)
    coarse = zuericrop(tmp_path, level=1, folds=[1, 2], labelled=0)
    assert coarse.legend.classes == ("background", "Field crops", "Grassland")
    assert coarse.group.tolist() == [1, 1, 2, 2]
    assert zuericrop(tmp_path, limit=1, step=1).x.shape[:3] == (5, 9, 4)
    middle = zuericrop(tmp_path, level=2, folds=[5])
    assert middle.legend.classes[1:] == ("LargeGrainCereal", "Pasture", "SmallGrainCereal")
    with pytest.raises(LabelError, match="no level 4"):
        zuericrop(tmp_path, level=4)
    with h5py.File(tmp_path / "ZueriCrop.hdf5", "a") as file:
        del file["gt_instance"]
    with pytest.raises(LabelError, match="has no 'gt_instance'"):
        zuericrop(tmp_path)


def test_zuericrop_has_the_classes_of_the_paper(real_data, tmp_path):
    write_zuericrop(tmp_path, n=1, dates=2)
    shutil.copy(real_data / "labels" / "ZueriCrop_labels.csv", tmp_path / "labels.csv")
    counts = [zuericrop(tmp_path, level=level).n_classes - 1 for level in (1, 2, 3)]
    assert counts == [5, 16, 48]


# --- TimeSen2Crop ----------------------------------------------------------------------------


def write_timesen2crop(root):
    random = np.random.default_rng(0)
    tables = {}
    for tile, start, dates in (("33UVP", "2017-09-03", 5), ("2019_33UVP", "2018-09-05", 4),
                               ("32TNT", "2017-09-10", 6)):  # fmt: skip
        days = pd.date_range(start, periods=dates, freq="55D")
        (root / tile).mkdir(parents=True)
        text = "\n".join(["acquisition_date", *days.strftime("%Y%m%d")]) + "\n"
        (root / tile / "dates.csv").write_text(text)
        for label in (0, 2, 15):
            (root / tile / str(label)).mkdir()
            for number in range(3):
                table = pd.DataFrame(
                    random.integers(1, 6000, (dates, 10)),
                    columns=[*(f"B{i}" for i in range(1, 10)), "Flag"],
                ).assign(Flag=random.integers(0, 4, dates))
                table.to_csv(root / tile / str(label) / f"{number}.csv", index=False)
                tables[tile, label, number] = table
    return tables


def test_timesen2crop(tmp_path):
    tables = write_timesen2crop(tmp_path)
    samples = timesen2crop(tmp_path)
    assert samples.n_classes == 17
    order = [
        (t, k, n) for t in ("2019_33UVP", "32TNT", "33UVP") for k in (0, 2, 15) for n in range(3)
    ]
    assert samples.y.tolist() == [k + 1 for _, k, _ in order]
    # One place in two years is one group.
    assert samples.group.tolist() == [2] * 9 + [1] * 9 + [2] * 9
    for one, key in enumerate(order):
        table = tables[key]
        count, clear = len(table), (table.Flag == 0).to_numpy()
        assert samples.valid[one, :count].tolist() == clear.tolist()
        expected = table.iloc[:, :9].to_numpy() * clear[:, None]
        assert np.array_equal(samples.x[one, :, :count].T, expected)
    # From the first of January before the season: both years' seasons lie on the same days.
    assert samples.doy[0, :4].tolist() == [248, 303, 358, 413]
    assert samples.doy[18, :5].tolist() == [246, 301, 356, 411, 466]
    assert samples.bands[6:] == ("nir08", "swir16", "swir22")


def test_timesen2crop_in_part(tmp_path):
    write_timesen2crop(tmp_path)
    few = timesen2crop(tmp_path, tiles=["32TNT"], per_class=2)
    assert few.y.tolist() == [1, 1, 3, 3, 16, 16]
    (tmp_path / "32TNT" / "0" / "1.csv").write_text("B1,Flag\n1,2\n")
    with pytest.raises(LabelError, match=r"1\.csv has shape \(1, 2\)"):
        timesen2crop(tmp_path, tiles=["32TNT"])
    (tmp_path / "32TNT" / "dates.csv").write_text("day\ntoday\n")
    with pytest.raises(LabelError, match="not a list of days"):
        timesen2crop(tmp_path, tiles=["32TNT"])
    with pytest.raises(LabelError, match="no folder with a dates.csv"):
        timesen2crop(tmp_path / "32TNT")


# --- EuroCropsML -----------------------------------------------------------------------------


def write_eurocropsml(root):
    random = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    saved = {}
    for number in range(8):
        region = ["LV003", "EE001"][number % 2]
        code = ["3301010101", "3306060000"][number // 4]
        dates = np.datetime64("2021-03-04") + 30 * np.arange(3 + number % 3)
        data = random.integers(1, 9000, (len(dates), 13))
        if number == 0:
            data[1] = -999
        center = np.array([24.0 + number, 57.5])
        name = f"{region}_{number + 100}_{code}.npz"
        np.savez(root / name, data=data, dates=dates, center=center)
        saved[name] = data, dates, center
    return saved


def test_eurocropsml(tmp_path):
    saved = write_eurocropsml(tmp_path / "S2")
    samples = eurocropsml(tmp_path)
    assert samples.legend.classes == ("background", "3301010101", "3306060000")
    order = sorted(saved, key=lambda name: (name.rsplit("_")[-1], name))
    for one, name in enumerate(order):
        data, dates, center = saved[name]
        seen = (data > 0).all(axis=1)
        assert samples.valid[one, : len(dates)].tolist() == seen.tolist()
        assert np.array_equal(samples.x[one, :, : len(dates)].T, data * seen[:, None])
        assert samples.doy[one, : len(dates)].tolist() == [63 + 30 * i for i in range(len(dates))]
        assert samples.lonlat[one].tolist() == center.tolist()
        assert samples.y[one] == (1 if name.endswith("3301010101.npz") else 2)
        assert samples.group[one] == (1 if name.startswith("EE001") else 2)


def test_eurocropsml_in_part_and_named(tmp_path):
    write_eurocropsml(tmp_path)
    table = tmp_path / "hcat.csv"
    table.write_text("HCAT3_name,HCAT3_code\nbarley,3301010101\n")
    few = eurocropsml(tmp_path, per_class=2, hcat=table)
    assert few.y.tolist() == [1, 1, 2, 2]
    assert few.legend.classes == ("background", "barley", "3306060000")
    (tmp_path / "LV003_9_3301010101.npz").write_bytes(b"PK no")
    with pytest.raises(LabelError, match="not a parcel of the release"):
        eurocropsml(tmp_path)
    (tmp_path / "readme.npz").write_bytes(b"")
    with pytest.raises(LabelError, match="is not named"):
        eurocropsml(tmp_path)
    with pytest.raises(LabelError, match="is missing"):
        eurocropsml(tmp_path / "nowhere")
