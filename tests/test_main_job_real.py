"""The whole way on real archives: Béziers from search to scores, its model's maps of Flanders."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

import cube
import model
from benchmarks.real import FOUR, TEN, prepare

pytestmark = pytest.mark.real


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(TEN, id="ten bands"),
        pytest.param(FOUR, id="four bands", marks=pytest.mark.slow),
    ],
)
def beziers(request, real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("beziers")
    store, labels = prepare(real_data / "archive" / "beziers-2018", request.param, folder)
    split = model.split_parcels(labels, seed=0)
    return model.TileData(store, labels, None, split, sample=32, batch_size=4, augment=True), folder


def test_both_models_beat_the_majority_class(beziers):
    data, folder = beziers
    model.boost(data, folder / "xgboost", rounds=60)
    small = {"d": 32, "dropout": 0.0, "epochs": 30, "patience": 30}
    model.train("hybrid", data, folder / "hybrid", class_weights="sqrt", **small)
    for name in ("xgboost", "hybrid"):
        scores = model.evaluate(folder / name, data, out=folder / "scores" / name)
        majority = scores.baseline["all"]["accuracy"]
        assert scores.whole["pixel"]["all"]["accuracy"] > majority + 0.05
        assert scores.whole["pixel"]["all"]["f1"] > 2 * scores.baseline["all"]["f1"]
        assert len(list((folder / "scores" / name).glob("*.png"))) == 5


@pytest.mark.parametrize(("archive", "year"), [("flanders-2018", 2018), ("flanders-2019", 2019)])
def test_a_model_maps_archives_of_another_style(real_data, tmp_path, archive, year):
    """Only that it runs and is whole: a model of Hérault says nothing about Belgian crops."""
    store, labels = prepare(real_data / "archive" / "beziers-2018", FOUR, tmp_path)
    data = model.TileData(store, labels, None, model.split_parcels(labels, seed=0))
    model.boost(data, tmp_path / "xgboost", rounds=10)
    items = real_data / "archive" / archive / "items.json"
    recipe = cube.store.read_recipe(store).for_year(year)
    grid = next(iter(cube.search((-5, 40, 9, 52), recipe, items))).grid
    box = grid.geobox(grid.window).extent.to_crs("EPSG:4326").boundingbox
    middle = (box.left + 0.001, box.bottom + 0.001, box.right - 0.001, box.top - 0.001)
    maps = model.predict(tmp_path / "xgboost", middle, tmp_path / "map", provider=items, year=year)
    assert [found.granule for found in maps.grids] == [grid.granule]
    with rasterio.open(maps.grids[0].classes) as classes:
        assert classes.crs.to_epsg() == 32631
        values = classes.read(1)
    assert (values != 255).mean() > 0.9
    assert set(np.unique(values)) <= {*range(len(data.legend.classes)), 255}
