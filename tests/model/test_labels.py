"""Labels against published pixel counts, a point-in-polygon twin and files with known contents."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from cube.errors import LabelError
from cube.grid import NativeGrid, Window, whole_granule
from cube.planning import GridPlan, Plan, Tile
from model.labels import LabelStore, parcel_table, read_parcels, write_labels
from model.legend import IGNORE, load_legend
from model.parcels import repair
from tests.archive import GRID as BEZIERS
from tests.model.farm import GRID, RECIPE, bare_plan, fields, register, zones

LEGEND = load_legend(level="level3")
WHEAT, MAIZE = LEGEND.index("WinterWheat"), LEGEND.index("Maize")
SMALL = NativeGrid(
    granule="31TEJ", epsg=32631, left=523_560.0, top=4_832_780.0, height=40, width=50
)

#: Name: pixels at 10 m, and of parcels shrunk by 10 m; published with the parcels.
PUBLISHED = {
    "vineyards_wine_vine_rebland_grapes": (7674, 5056),
    "winter_durum_hard_wheat": (3304, 2359),
    "winter_common_soft_wheat": (1640, 1187),
    "fallow_land_not_crop": (1539, 983),
    "pasture_meadow_grassland_grass": (1416, 970),
    "unmaintained": (290, 89),
    "unspecified_season_unspecified_cereals": (93, 55),
    "not_known_and_other": (61, 4),
}


def parcels_of(shapes: list, codes: list[str], crs: int = 32631) -> gpd.GeoDataFrame:
    ids = [str(number) for number in range(len(codes))]
    return gpd.GeoDataFrame({"id": ids, "code": codes}, geometry=shapes, crs=crs)


def read(path, grid=SMALL):
    return LabelStore(path).read(grid.granule, grid.window)


@pytest.mark.real
@pytest.mark.parametrize("erosion", [0, 10])
def test_beziers_has_the_published_pixels(real_data, tmp_path, erosion):
    area = BEZIERS.geobox(BEZIERS.window).geographic_extent.boundingbox
    parcels = read_parcels(real_data / "archive/beziers-2018/parcels.gpkg", tuple(area))
    assert len(parcels) == 120
    legend = load_legend(level="hcat3_name", year=2018).compact(parcels)
    out = tmp_path / "labels.zarr"
    report = write_labels(parcels, bare_plan(BEZIERS), legend, None, out, erosion=erosion)
    expected = {name: counts[erosion // 10] for name, counts in PUBLISHED.items()}
    assert {k: v for k, v in report.pixels.items() if k != "background"} == expected
    block = read(out, BEZIERS)
    names = LabelStore(out).parcels.set_index("index").name
    inside = names.loc[block.parcel[block.parcel > 0]].value_counts()
    # The parcel raster is not eroded.
    assert inside.to_dict() == {name: counts[0] for name, counts in PUBLISHED.items()}


@pytest.mark.real
def test_lower_case_register_of_2022(real_data):
    path = real_data / "labels" / "rpg2022-clip-parcels.gpkg"
    parcels = read_parcels(path, (-6, 41, 10, 52), load_legend(level="level3", year=2022))
    assert len(parcels) == 100
    counts = parcels.code.value_counts()
    assert (counts["PPH"], counts["BTH"], counts["VRC"]) == (23, 10, 8)
    assert parcels.id[0] == "19"
    assert set(parcels.loc[parcels["class"] == IGNORE, "reason"]) >= {"not farmed"}
    assert not parcels.reason.str.startswith("unknown").any()


@st.composite
def random_parcels(draw):
    count = draw(st.integers(1, 8))
    shapes, codes = [], []
    for _ in range(count):
        x, y = draw(st.floats(0, 450)), draw(st.floats(0, 350))
        w, h = draw(st.floats(5, 260)), draw(st.floats(5, 260))
        skew = draw(st.floats(-60, 60))
        ring = [(x, y), (x + w, y + skew), (x + w + skew, y + h), (x + skew / 2, y + h)]
        shape = shapely.affinity.translate(
            shapely.make_valid(shapely.Polygon(ring)), SMALL.left, SMALL.top - 400
        )
        shapes.append(shape)
        codes.append(draw(st.sampled_from(["BTH", "MIS", "SNE", "XYZ"])))
    return parcels_of(shapes, codes)


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(parcels=random_parcels(), erosion=st.sampled_from([0.0, 7.0, 15.0]))
def test_rules_are_the_plain_rules(tmp_path_factory, parcels, erosion):
    """The twin asks every pixel centre which polygons hold it."""
    good, _, _ = repair(parcels)
    if good.empty:
        return
    out = tmp_path_factory.mktemp("twin") / "labels.zarr"
    write_labels(parcels, bare_plan(SMALL), LEGEND, None, out, erosion=erosion)
    block = read(out)
    shapes = good.geometry.to_numpy()
    inner = shapely.buffer(shapes, -erosion) if erosion else shapes
    x, y = np.meshgrid(
        SMALL.left + 10 * np.arange(SMALL.width) + 5, SMALL.top - 10 * np.arange(SMALL.height) - 5
    )
    holds = np.array([shapely.contains_xy(shape, x, y) for shape in shapes])
    inside = np.array([shapely.contains_xy(shape, x, y) for shape in inner])
    classes = np.array([LEGEND.resolve(code)[0] for code in good.code])
    on_edge = (
        shapely.distance(
            shapely.union_all(shapely.boundary([*shapes, *inner])), shapely.points(x, y)
        )
        < 1e-6
    )
    for row, col in np.argwhere(~on_edge):
        holders = np.flatnonzero(holds[:, row, col])
        if not holders.size:
            assert (block.label[row, col], block.parcel[row, col]) == (0, 0)
            continue
        owner = min(holders, key=lambda i: (shapes[i].area, -i))
        sure = len(set(classes[holders])) == 1 and inside[owner, row, col]
        assert block.parcel[row, col] == owner + 1
        assert block.label[row, col] == (classes[owner] if sure else IGNORE)


def test_smaller_parcel_owns_the_pixel_and_conflicts_are_ignored(tmp_path):
    left, top = SMALL.left, SMALL.top
    large = shapely.box(left, top - 200, left + 200, top)
    inside = shapely.box(left + 50, top - 100, left + 100, top - 50)
    same = shapely.box(left + 120, top - 100, left + 170, top - 50)
    parcels = parcels_of([inside, large, same], ["MIS", "BTH", "BTH"])
    report = write_labels(parcels, bare_plan(SMALL), LEGEND, None, tmp_path / "l.zarr")
    block = read(tmp_path / "l.zarr")
    assert np.unique(block.parcel[5:10, 5:10]).tolist() == [1]
    assert np.unique(block.label[5:10, 5:10]).tolist() == [IGNORE]
    assert np.unique(block.parcel[5:10, 12:17]).tolist() == [3]
    assert np.unique(block.label[5:10, 12:17]).tolist() == [WHEAT]
    assert (report.overlapping, report.conflicting) == (50, 25)
    assert report.pixels["WinterWheat"] == 400 - 25


def test_erosion_keeps_the_parcel_id(tmp_path):
    shape = shapely.box(SMALL.left + 100, SMALL.top - 300, SMALL.left + 300, SMALL.top - 100)
    parcels = parcels_of([shape], ["MIS"])
    write_labels(parcels, bare_plan(SMALL), LEGEND, None, tmp_path / "l.zarr", erosion=20)
    block = read(tmp_path / "l.zarr")
    assert (block.parcel == 1).sum() == 400
    assert (block.label == MAIZE).sum() == 16 * 16
    assert (block.label[block.parcel == 1] == IGNORE).sum() == 400 - 256


def test_background_only_inside_zones(tmp_path):
    shape = shapely.box(SMALL.left, SMALL.top - 100, SMALL.left + 300, SMALL.top)
    zone = shapely.box(SMALL.left, SMALL.top - 200, SMALL.left + 200, SMALL.top)
    places = gpd.GeoDataFrame({"zone": ["z"]}, geometry=[zone], crs=32631).to_crs(2154)
    parcels = parcels_of([shape], ["MIS"])
    write_labels(parcels, bare_plan(SMALL), LEGEND, places, tmp_path / "l.zarr")
    block = read(tmp_path / "l.zarr")
    inside = np.zeros((40, 50), bool)
    inside[:20, :20] = True
    assert np.array_equal(block.zone == 1, inside)
    assert (block.label[~inside] == IGNORE).all()
    assert (block.label[:10, :20] == MAIZE).all()
    assert (block.label[10:20, :20] == 0).all()
    assert (block.parcel[:10, 20:30] == 1).all()  # the parcel goes on outside of the zone
    write_labels(parcels, bare_plan(SMALL), LEGEND, places, tmp_path / "l.zarr", background=False)
    assert (read(tmp_path / "l.zarr").label[10:20, :20] == IGNORE).all()


def test_tiles_join_without_a_seam(tmp_path):
    write_labels(register(), bare_plan(), LEGEND, zones(), tmp_path / "l.zarr", erosion=10)
    block = read(tmp_path / "l.zarr", GRID)
    _, counts = np.unique(block.parcel[block.parcel > 0], return_counts=True)
    assert set(counts) == {28 * 28}  # every field is whole, also across tile borders
    labelled = block.parcel[(block.label != IGNORE) & (block.parcel > 0)]
    _, counts = np.unique(labelled, return_counts=True)
    assert counts.max() == 26 * 26


def test_lambert_parcels_land_where_they_are(tmp_path):
    write_labels(register(), bare_plan(), LEGEND, None, tmp_path / "a.zarr")
    (tmp_path / "b").mkdir()
    turned = register().to_crs(2154)
    write_labels(turned, bare_plan(), LEGEND, None, tmp_path / "b" / "b.zarr")
    one, other = read(tmp_path / "a.zarr", GRID), read(tmp_path / "b" / "b.zarr", GRID)
    assert np.array_equal(one.parcel, other.parcel)
    assert np.array_equal(one.label, other.label)


def test_invalid_polygons_are_repaired_and_counted(tmp_path):
    left, top = SMALL.left, SMALL.top
    bow_tie = shapely.Polygon(
        [(left, top), (left + 200, top - 200), (left + 200, top), (left, top - 200)]
    )
    parcels = parcels_of([bow_tie, shapely.Polygon(), None], ["MIS", "BTH", "BTH"])
    report = write_labels(parcels, bare_plan(SMALL), LEGEND, None, tmp_path / "l.zarr")
    assert (report.parcels, report.repaired, report.dropped) == (1, 1, 2)
    area = (read(tmp_path / "l.zarr").parcel == 1).sum() * 100
    assert area == pytest.approx(20_000, rel=0.1)


def test_unknown_codes_are_listed_never_dropped(tmp_path, caplog):
    parcels = register().iloc[:4].assign(code=["MIS", "XYZ", "XYZ", "SNE"])
    report = write_labels(parcels, bare_plan(), LEGEND, None, tmp_path / "l.zarr")
    assert report.unlabelled == {"unknown code XYZ": 2, "not farmed": 1}
    assert "unknown code XYZ (2)" in caplog.text
    assert "unknown code XYZ: 2 parcels" in str(report)
    block = read(tmp_path / "l.zarr", GRID)
    assert set(np.unique(block.parcel)) == {0, 1, 2, 3, 4}
    assert (block.label[block.parcel == 2] == IGNORE).all()


def test_codes_out_of_year_are_mapped_and_reported(tmp_path, caplog):
    parcels = register().iloc[:2].assign(code=["J5M", "MIS"])
    report = write_labels(parcels, bare_plan(), LEGEND, None, tmp_path / "l.zarr")
    assert report.out_of_year == {"J5M": 1}
    assert report.pixels["Fallow"] == 28 * 28
    assert "not in use in 2023" in caplog.text


def test_only_the_area_is_read(tmp_path):
    path = tmp_path / "register.gpkg"
    fields().to_crs(2154).to_file(path, layer="parcels")
    total = pyogrio.read_info(path)["features"]
    window = Window(row=300, col=300, height=60, width=60)
    box = GRID.geobox(window).geographic_extent.boundingbox
    parcels = read_parcels(path, tuple(box))
    wanted = fields()
    shape = shapely.box(*gpd.GeoSeries([shapely.box(*box)], crs=4326).to_crs(32631).total_bounds)
    assert total > 1500
    assert 4 <= len(parcels) <= 16
    near = set(wanted[wanted.intersects(shape)].ID_PARCEL)
    assert set(parcels.id) <= near
    core = wanted[wanted.intersects(shape.buffer(-5))].ID_PARCEL
    assert set(core) <= set(parcels.id)


def test_between_distant_zones_nothing_is_read(tmp_path):
    path = tmp_path / "register.gpkg"
    fields().to_crs(2154).to_file(path, layer="parcels")
    places = zones().iloc[[0, 3]]
    parcels = read_parcels(path, places)
    expected = fields()[lambda f: f.intersects(shapely.union_all(places.geometry))]
    assert set(parcels.id) == set(expected.ID_PARCEL)
    assert len(parcels) < 0.6 * len(fields())


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"ID_PARCEL": "id", "CODE_CULTU": "code"}, "MIS"),
        ({"id_parcel": "id", "code_cultu": "code"}, "MIS"),
    ],
)
def test_spellings_of_registers(tmp_path, columns, expected):
    source = register().iloc[:3].assign(code="MIS")
    names = {ours: theirs for theirs, ours in columns.items()}
    path = tmp_path / "r.gpkg"
    source[["id", "code", "geometry"]].rename(columns=names).to_file(path)
    parcels = read_parcels(path, source)
    assert parcels.code.unique().tolist() == [expected]
    assert parcels.id.tolist() == ["0", "1", "2"]


def test_ids_above_2_to_the_24_survive(tmp_path):
    big = [16_777_217, 16_777_219, 9_007_199_254_740_993]
    path = tmp_path / "r.gpkg"
    raw = register().iloc[:3].assign(ID_PARCEL=big, CODE_CULTU="MIS")
    raw[["ID_PARCEL", "CODE_CULTU", "geometry"]].to_file(path)
    parcels = read_parcels(path, raw)
    write_labels(parcels, bare_plan(), LEGEND, None, tmp_path / "l.zarr")
    assert LabelStore(tmp_path / "l.zarr").parcels.id.tolist() == [str(value) for value in big]


def test_register_mistakes_are_named(tmp_path):
    path = tmp_path / "r.gpkg"
    register()[["id", "geometry"]].iloc[:2].to_file(path)
    with pytest.raises(LabelError, match="no crop column"):
        read_parcels(path, (3, 43, 4, 44))
    register()[["code", "geometry"]].iloc[:2].set_crs(None, allow_override=True).to_file(path)
    with pytest.raises(LabelError, match="no coordinate system"):
        read_parcels(path, (3, 43, 4, 44))
    with pytest.raises(LabelError, match="not readable as parcels"):
        read_parcels(tmp_path / "missing.gpkg", (3, 43, 4, 44))
    empty = register().iloc[:0]
    with pytest.raises(LabelError, match="no parcel meets the area"):
        write_labels(empty, bare_plan(), LEGEND, None, tmp_path / "l.zarr")
    with pytest.raises(LabelError, match="erosion is -3"):
        write_labels(register(), bare_plan(), LEGEND, None, tmp_path / "l.zarr", erosion=-3)


def test_pixels_of_the_next_utm_zone_are_not_labelled(tmp_path):
    # 6° east is the border between UTM zones 31 and 32; this grid lies across it.
    grid = NativeGrid(
        granule="31TGJ", epsg=32631, left=739_000, top=4_832_780, height=64, width=400
    )
    tile = Tile(row=0, col=0, window=grid.window)
    next_zone = whole_granule("32TKP")
    part = GridPlan(recipe=RECIPE, grid=grid, scenes=(), tiles=(tile,), others=(next_zone,))
    made = Plan(area={}, recipe=RECIPE, source="none", grids=(part,))
    box = grid.geobox(grid.window)
    parcels = parcels_of([shapely.box(*box.boundingbox.bbox)], ["MIS"])
    write_labels(parcels, made, LEGEND, None, tmp_path / "l.zarr")
    block = read(tmp_path / "l.zarr", grid)
    x, y = np.meshgrid(*(box.coordinates[axis].values for axis in "xy"))
    lon, _ = Transformer.from_crs(32631, 4326, always_xy=True).transform(x, y)
    own = lon < 6
    assert 0 < own.sum() < own.size
    assert np.array_equal(block.label == MAIZE, own)
    assert not block.zone[~own].any()


def test_another_stores_table_is_refused(tmp_path):
    write_labels(register(), bare_plan(), LEGEND, None, tmp_path / "l.zarr")
    table = parcel_table(tmp_path / "l.zarr")
    rows = pd.read_csv(table, dtype=str)
    rows.assign(code="MIS").to_csv(table, index=False)
    with pytest.raises(LabelError, match="is not the table of"):
        _ = LabelStore(tmp_path / "l.zarr").parcels


def test_unfinished_and_foreign_stores_are_refused(tmp_path):
    with pytest.raises(LabelError, match="not a label store"):
        LabelStore(tmp_path / "nothing.zarr")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not delete")
    with pytest.raises(LabelError, match="is not a label store"):
        write_labels(register(), bare_plan(), LEGEND, None, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
