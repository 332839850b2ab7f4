"""Maps: no seams, no guesses, the area and nothing else."""

import itertools
import json
import logging
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import shapely
from distributed import Client, LocalCluster

import cube.store
from cube.errors import ArtefactError, RecipeError
from cube.grid import Window
from cube.planning import plan
from cube.recipe import Recipe
from cube.scenes import Scenes
from cube.search import search
from model import artefact, maps
from model.boost import boost
from model.evaluate import evaluate
from model.labels import write_labels
from model.legend import load_legend
from model.networks import create, options
from model.networks.base import Network
from model.networks.predictor import NetworkPredictor
from model.parcels import read_parcels
from model.predict import context, decide, predict, predict_store, predict_window
from model.samples import Normalisation
from model.splits import split_parcels
from model.tiles import TileData
from tests.model.fixture_store import RECIPE, Study, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    # Wider than a tile of 1024 pixels: two tiles.
    return write_study(tmp_path_factory.mktemp("predict"), height=150, width=1100)


@pytest.fixture(scope="module")
def boosted(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boost(study.data(), tmp_path_factory.mktemp("boosted"), rounds=8, cap=500).folder


def network(widths: str) -> NetworkPredictor:
    return NetworkPredictor(untrained(widths), RECIPE, Normalisation((900,) * 4, (600,) * 4))


def untrained(widths: str) -> Network:
    import torch

    torch.manual_seed(0)
    net = create("hybrid", c_in=4, n_classes=4, months=3, widths=widths, d=8)
    with torch.no_grad():
        for name, value in net.named_buffers():
            # Norms as after a training, so that every layer matters.
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                value.uniform_(-0.5, 0.5)
    return net


def in_memory(height: int, width: int):
    random = np.random.default_rng(5)
    reflectance = random.integers(1, 5000, (3, 4, height, width)).astype(np.uint16)
    observations = np.ones((3, height, width), np.uint8)
    reflectance[..., 40:55, 60:90] = observations[:, 40:55, 60:90] = 0

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        whole = Window(row=0, col=0, height=height, width=width)
        inside = window.intersect(whole)
        r = np.zeros((3, 4, window.height, window.width), np.uint16)
        o = np.zeros((3, window.height, window.width), np.uint8)
        if not inside.empty:
            to = inside.relative_to(window).yx
            r[:, :, *to], o[:, *to] = reflectance[:, :, *inside.yx], observations[:, *inside.yx]
        return r, o

    return read


@pytest.mark.parametrize("kind", ["lite", "pixel"])
def test_tile_by_tile_equals_the_whole_area(kind: str, boosted: Path) -> None:
    predictor = artefact.load(boosted).predictor() if kind == "pixel" else network(kind)
    read = in_memory(300, 420)
    whole = predict_window(predictor, read, Window(row=0, col=0, height=300, width=420))
    assert whole.shape == (4, 300, 420)
    # Borders at odd places, none of them on the stride or on the lattice of blocks.
    rows, cols = (0, 101, 300), (0, 258, 420)
    pieces = np.full_like(whole, -1)
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(cols):
            window = Window(row=top, col=left, height=bottom - top, width=right - left)
            pieces[:, top:bottom, left:right] = predict_window(predictor, read, window)
    np.testing.assert_array_equal(pieces, whole)
    assert np.isnan(whole[:, 40:55, 60:90]).all()
    assert np.isnan(whole).sum() == 4 * 15 * 30


def test_context_is_aligned_to_the_stride_and_holds_the_halo() -> None:
    assert context(Window(row=256, col=0, height=256, width=256), 22, 4) == Window(
        row=232, col=-24, height=304, width=304
    )
    core = Window(row=3, col=5, height=2, width=2)
    assert context(core, 0, 1) == core


@pytest.mark.parametrize("kind", ["lite", "pixel"])
def test_only_what_is_wanted_is_read_and_decided(kind: str, boosted: Path) -> None:
    predictor = artefact.load(boosted).predictor() if kind == "pixel" else network(kind)
    window = Window(row=0, col=0, height=300, width=420)
    wanted = np.zeros((300, 420), bool)
    wanted[10:13, 300], wanted[45, 70] = True, True  # the last was never clear
    read, asked = in_memory(300, 420), []

    def spy(part: Window) -> tuple[np.ndarray, np.ndarray]:
        asked.append(part)
        return read(part)

    found = predict_window(predictor, spy, window, wanted)
    whole = predict_window(predictor, read, window)
    wanted[45, 70] = False
    np.testing.assert_allclose(found[:, wanted], whole[:, wanted], atol=1e-6)
    assert np.isnan(found[:, ~wanted]).all()
    (part,) = asked
    expected = {"lite": (-24, -24, 304, 560), "pixel": (10, 70, 36, 231)}[kind]
    assert (part.row, part.col, part.height, part.width) == expected
    with pytest.raises(ValueError, match="nothing wanted"):
        predict_window(predictor, read, window, np.zeros((300, 420), bool))


def test_decide_by_hand() -> None:
    probabilities = np.array([[[0.2, np.nan, 0.5]], [[0.796, np.nan, 0.5]]], np.float32)
    classes, confidence = decide(probabilities)
    np.testing.assert_array_equal(classes, [[1, 255, 0]])
    np.testing.assert_array_equal(confidence, [[80, 255, 50]])
    assert classes.dtype == confidence.dtype == np.uint8


def test_maps_of_a_store(study: Study, boosted: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    found = predict_store(
        boosted, study.store, tmp_path, progress=lambda *event: told.append(event)
    )
    assert told == [(1, 2, "classifying"), (2, 2, "classifying")]
    grid = found.grids[0]
    with rasterio.open(grid.classes) as source:
        classes = source.read(1)
        assert source.nodata == 255
        assert source.crs.to_epsg() == 32631
        assert source.transform == study.grid.transform
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        table = source.colormap(1)
        for index, colour in enumerate(study.legend.colours):
            assert "#" + bytes(table[index][:3]).hex() == colour
        assert source.tags(1)["class_1"] == study.legend.classes[1]
    with rasterio.open(grid.confidence) as source:
        confidence = source.read(1)
    assert ((confidence == 255) == (classes == 255)).all()
    assert confidence[confidence != 255].max() <= 100
    # Never clear: no decision. Else the crops are easy to tell.
    assert (classes[:32, :32] == 255).all()
    clear = np.ones(classes.shape, bool)
    clear[:32, :32] = False
    assert (classes[clear] == study.truth[clear]).mean() > 0.95
    assert grid.preview.stat().st_size > 1000
    _check_areas(found, classes, study)
    _check_item(found, study, boosted)


def _check_areas(found: maps.Maps, classes: np.ndarray, study: Study) -> None:
    table = pd.read_csv(found.folder / "area.csv")
    assert table["hectares"].sum() == pytest.approx(150 * 1100 * 0.01)
    assert table.iloc[-1]["class"] == "no decision"
    assert table.iloc[-1]["hectares"] == pytest.approx(32 * 32 * 0.01)
    maize = (classes == study.legend.index("Maize")).sum()
    assert table.set_index("class").loc["Maize", "pixels"] == maize
    facts = json.loads((found.folder / "area.json").read_text())
    assert [row["class"] for row in facts["classes"]] == table["class"].to_list()


def _check_item(found: maps.Maps, study: Study, boosted: Path) -> None:
    item = pystac.Item.from_file(str(found.grids[0].item))
    assert item.properties["proj:code"] == "EPSG:32631"
    assert item.properties["proj:shape"] == [150, 1100]
    assert item.properties["cropcube:recipe_hash"] == RECIPE.hash
    card = json.loads((boosted / "model.json").read_text())
    assert item.properties["cropcube:model_sha256"] == card["sha256"]
    described = item.assets["classes"].extra_fields
    assert [c["value"] for c in described["classification:classes"]] == [0, 1, 2, 3, 255]
    assert described["file:size"] == found.grids[0].classes.stat().st_size
    for asset in item.assets.values():
        assert not Path(asset.href).is_absolute()


def test_clipped_to_the_polygon(study: Study, boosted: Path, tmp_path: Path) -> None:
    box = study.grid.geobox(study.grid.window).boundingbox
    corners = [(1000, 200), (3000, 200), (1000, 1200)]
    triangle = shapely.Polygon([(box.left + x, box.bottom + y) for x, y in corners])
    area = gpd.GeoSeries([triangle], crs=32631).to_crs(4326).iloc[0]
    made = plan(area, Scenes(source="test", scenes=study.plan.grids[0].scenes), RECIPE)
    store = cube.store.write(made, tmp_path / "cube.zarr")
    found = predict_store(boosted, store, tmp_path)
    with rasterio.open(found.grids[0].classes) as source:
        classes, transform = source.read(1), source.transform
    rows, cols = np.indices(classes.shape)
    x, y = rasterio.transform.xy(transform, rows.ravel(), cols.ravel())
    inside = shapely.contains_xy(triangle, x, y).reshape(classes.shape)
    assert (classes[~inside] == 255).all()
    assert (classes[inside] != 255).all()
    assert found.table["hectares"].sum() == pytest.approx(triangle.area / 10_000, rel=0.02)


def random_hybrid(folder: Path, study: Study) -> Path:
    """An untrained hybrid whose classes depend on everything around a pixel."""
    import torch

    net = untrained("lite").train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    part = Window(row=40, col=900, height=64, width=128)
    reflectance, _ = cube.store.read_window(study.store, "31TEJ", part)
    x, valid = Normalisation((900,) * 4, (600,) * 4).apply(reflectance)
    with torch.no_grad():  # norms that make the most of this land
        net(torch.as_tensor(x)[None], torch.as_tensor(valid)[None])
        net.unet.head.weight *= 5
    return artefact.save_network(
        folder,
        net,
        architecture="hybrid",
        options=options("hybrid", widths="lite", d=8),
        recipe=RECIPE,
        legend=study.legend,
        normalisation=Normalisation((900,) * 4, (600,) * 4),
        metrics={},
    )


def part_of(small: Path, large: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a raster and the same pixels of a larger one."""
    with rasterio.open(small) as one, rasterio.open(large) as other:
        window = other.window(*one.bounds).round_offsets().round_lengths()
        return one.read(1), other.read(1, window=window)


def test_an_area_gets_the_pixels_of_a_larger_map(study: Study, tmp_path: Path) -> None:
    folder = random_hybrid(tmp_path / "model", study)
    scenes = Scenes(source="test", scenes=study.plan.grids[0].scenes)
    large = predict(folder, study.plan.area, tmp_path / "large", scenes=scenes).grids[0]
    # Across the border of two tiles, at no round pixel, and not a box.
    left, top = study.grid.left, study.grid.top
    corners = [(9503, 397), (10555, 397), (10555, 1204), (9900, 1204)]
    shape = shapely.Polygon([(left + x, top - y) for x, y in corners])
    area = gpd.GeoSeries([shape], crs=32631).to_crs(4326).iloc[0]
    small = predict(folder, area, tmp_path / "small", scenes=scenes).grids[0]
    store = cube.store.write(plan(area, scenes, RECIPE), tmp_path / "bare.zarr")
    bare = predict_store(folder, store, tmp_path / "bare").grids[0]
    differ = {}
    for name, found in (("small", small), ("bare", bare)):
        confidence, expected = part_of(found.confidence, large.confidence)
        inside = confidence != 255
        assert inside.sum() == pytest.approx(shape.area / 100, rel=0.02)
        classes, others = part_of(found.classes, large.classes)
        assert len(np.unique(others[inside])) > 1
        differ[name] = ((confidence != expected) | (classes != others))[inside].sum()
    assert differ["small"] == 0
    # Without the imagery around the area the border of the map is another.
    assert differ["bare"] > 100


def test_another_recipe_is_refused(study: Study, boosted: Path, tmp_path: Path) -> None:
    other = Recipe(bands=RECIPE.bands, start="2023-04", end="2023-06", fill="none")
    scenes = Scenes(source="test", scenes=study.plan.grids[0].scenes)
    store = cube.store.write(plan(study.plan.area, scenes, other), tmp_path / "cube.zarr")
    with pytest.raises(ArtefactError, match="fill none instead of neighbour-mean"):
        predict_store(boosted, store, tmp_path / "maps")


def test_a_dated_series_is_refused(study: Study, tmp_path: Path) -> None:
    series = RECIPE.model_copy(update={"composite": "series", "fill": "none"})
    model = artefact.save(
        tmp_path / "model",
        kind="xgboost",
        architecture="xgboost",
        options={},
        recipe=series,
        legend=study.legend,
        normalisation=Normalisation((900,) * 4, (600,) * 4),
        metrics={},
        weights_writer=lambda path: Path(path).touch(),
    )
    with pytest.raises(RecipeError, match="another composite than 'series'"):
        predict(model, study.plan.area, tmp_path / "maps", provider="nowhere.json")


def test_drift_is_measured_and_told(
    study: Study, boosted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calm = predict_store(boosted, study.store, tmp_path / "calm")
    assert [row["band"] for row in calm.drift] == list(RECIPE.bands)
    assert not any(row["drifted"] for row in calm.drift)
    # The same land with an offset of 1000 that nobody subtracted; stated, or the build would stop.
    by_hand = {"subtract": 0, "decided": "hand", "provider": f"earth-search@{tmp_path.resolve()}"}
    scenes = tuple(
        scene.model_copy(update={**by_hand, "hrefs": _brighter(scene.hrefs, tmp_path)})
        for scene in study.plan.grids[0].scenes
    )
    made = plan(study.plan.area, Scenes(source="test", scenes=scenes), RECIPE)
    store = cube.store.write(made, tmp_path / "bright.zarr")
    with caplog.at_level(logging.WARNING, logger="model.predict"):
        bright = predict_store(boosted, store, tmp_path / "bright")
    assert all(row["shift"] > 0.5 for row in bright.drift)
    assert "blue is unlike the training imagery" in caplog.text


def _brighter(hrefs: dict[str, str], folder: Path) -> dict[str, str]:
    changed = {}
    for band, href in hrefs.items():
        source = Path(href)
        target = folder / source.parent.name / source.name
        target.parent.mkdir(exist_ok=True)
        with rasterio.open(source) as old:
            profile, values = old.profile, old.read(1)
        with rasterio.open(target, "w", **profile) as new:
            new.write(values if band == "scl" else values + np.uint16(1000), 1)
        changed[band] = str(target.resolve())
    return changed


def test_a_cluster_gives_the_same_map(study: Study, boosted: Path, tmp_path: Path) -> None:
    local = predict_store(boosted, study.store, tmp_path / "local")
    with (
        LocalCluster(
            n_workers=1,
            processes=False,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        remote = predict_store(boosted, study.store, tmp_path / "remote", client=client)
    for name in ("classes", "confidence"):
        one, other = (getattr(m.grids[0], name).read_bytes() for m in (local, remote))
        assert one == other


def test_area_table_sorts_and_keeps_no_decision_last() -> None:
    table = maps.area_table(np.array([10, 0, 30, 60]), ("background", "Oat", "Rye"))
    assert table["class"].to_list() == ["Rye", "background", "no decision"]
    np.testing.assert_allclose(table["hectares"], [0.3, 0.1, 0.6])
    np.testing.assert_allclose(table["share"], [0.3, 0.1, 0.6])


@pytest.mark.real
@pytest.mark.parametrize("bands", [RECIPE.bands, (*RECIPE.bands, "rededge2", "swir16")])
def test_beziers_from_items_to_map(real_data: Path, tmp_path: Path, bands: tuple[str, ...]) -> None:
    """Real scenes, real parcels: far better than the majority class, and a map of the place."""
    archive = real_data / "archive" / "beziers-2018"
    recipe = Recipe(bands=bands, start="2018-01", end="2018-12")
    area = gpd.read_file(archive / "parcels.gpkg").to_crs(4326).union_all().envelope
    scenes = search(area, recipe, provider=archive / "items.json")
    store = cube.store.write(plan(area, scenes, recipe), tmp_path / "cube.zarr")
    legend = load_legend(year=2018)
    parcels = read_parcels(archive / "parcels.gpkg", area, legend)
    labels = tmp_path / "labels.zarr"
    write_labels(parcels, store, legend.compact(parcels), None, labels, background=False)
    data = TileData(store, labels, None, split_parcels(labels, seed=1))
    folder = boost(data, tmp_path / "model").folder
    scores = evaluate(folder, data)
    assert scores.whole["pixel"]["all"]["f1"] > scores.baseline["all"]["f1"] + 0.3
    made = predict(folder, area, tmp_path / "maps", provider=archive / "items.json")
    with rasterio.open(made.grids[0].classes) as source:
        classes, bounds = source.read(1), source.bounds
    grid, (height, width) = data.index.tiles[0].grid, classes.shape
    row, col = round((grid.top - bounds.top) / 10), round((bounds.left - grid.left) / 10)
    # The labelled parcels were part of the training: the map must know most of them again.
    block = data.label_store.read("31TEJ", Window(row=row, col=col, height=height, width=width))
    known = (block.label != 255) & (classes != 255)
    assert (classes[known] == block.label[known]).mean() > 0.85
    box = gpd.GeoSeries([area], crs=4326).to_crs(32631).iloc[0]
    assert made.table["hectares"].sum() == pytest.approx(box.area / 10_000, rel=0.01)
    again = predict(folder, area, tmp_path / "maps", scenes=scenes)
    assert again.grids[0].classes.read_bytes() == made.grids[0].classes.read_bytes()
