"""Trees on series: features against pandas, the forest's arrays against scikit-learn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from safetensors.numpy import load_file, save_file
from sklearn.ensemble import RandomForestClassifier

from cube.errors import ArtefactError, LabelError
from cube.recipe import Recipe
from model import artefact
from model.features import Months
from model.forest import Forest
from model.legend import flat_legend
from model.samples import days_of_year
from model.setdata import SetData
from model.trees import boost_set, predict_trees, train_forest
from tests.model.test_sampleset import SPLIT, seasons


def with_a_missing_month(n: int = 40):
    """Return dated series of one year, in which April and the first weeks are never seen."""
    samples = seasons(n, dates=30)
    doy = np.broadcast_to(np.arange(20, 20 + 30 * 11, 11, dtype=np.int16), samples.doy.shape)
    valid = samples.valid & ~((doy >= 91) & (doy <= 120))
    return replace(samples, doy=doy.copy(), valid=valid)


def test_monthly_medians_are_those_of_pandas() -> None:
    samples = with_a_missing_month()
    months = Months.of(samples)
    found = months.table(samples.x, samples.valid, samples.doy).reshape(len(samples), -1, 2)
    for row in range(len(samples)):
        days = pd.Timestamp("2023-01-01") + pd.to_timedelta(samples.doy[row] - 1, unit="D")
        series = pd.DataFrame(samples.x[row].T.astype(float), index=days)
        medians = series[samples.valid[row]].resample("MS").median()
        whole = pd.date_range("2023-01-01", periods=months.last + 1, freq="MS")[months.first :]
        wanted = medians.reindex(whole).interpolate(limit_direction="both")
        np.testing.assert_allclose(found[row], wanted, rtol=1e-6)


def test_a_series_without_any_value_has_no_features() -> None:
    samples = with_a_missing_month()
    valid = samples.valid.copy()
    valid[3] = False
    table = Months.of(samples).table(samples.x, valid, samples.doy)
    assert np.isnan(table[3]).all()
    assert not np.isnan(np.delete(table, 3, axis=0)).any()


def test_months_go_on_after_new_year() -> None:
    samples = with_a_missing_month()
    later = replace(samples, doy=(samples.doy + 365).astype(np.int16))
    assert Months.of(later).first == Months.of(samples).first + 12


def test_the_forest_answers_as_scikit_learn_does(tmp_path) -> None:
    random = np.random.default_rng(1)
    table = random.normal(0, 1, (400, 7)).round(2).astype(np.float32)
    y = (table[:, 0] + table[:, 1] ** 2 + random.normal(0, 0.3, 400) > 0.7) * 1 + (table[:, 2] > 1)
    grown = RandomForestClassifier(20, random_state=0).fit(table, y)
    Forest.of(grown).save(tmp_path / "forest.safetensors")
    forest = Forest.load(tmp_path / "forest.safetensors")
    # Rows that lie exactly on thresholds are where rounding would show.
    edges = np.concatenate([e.tree_.threshold[e.tree_.feature == 0] for e in grown.estimators_])
    rows = random.normal(0, 1, (len(edges), 7)).astype(np.float32)
    rows[:, 0] = edges
    for given in (table, rows):
        np.testing.assert_allclose(
            forest.probabilities(given), grown.predict_proba(given), atol=1e-6
        )


def test_a_damaged_forest_is_refused(tmp_path) -> None:
    table = np.arange(20, dtype=np.float32)[:, None]
    grown = RandomForestClassifier(2, random_state=0).fit(table, table[:, 0] > 9)
    path = tmp_path / "forest.safetensors"
    Forest.of(grown).save(path)
    arrays = load_file(path)
    arrays["left"][arrays["feature"] >= 0] = 0
    save_file(arrays, path)
    with pytest.raises(ArtefactError, match="damaged"):
        Forest.load(path)


@pytest.mark.parametrize("train", [train_forest, boost_set])
def test_trees_learn_from_a_set_and_come_back_from_their_folder(tmp_path, train) -> None:
    samples = seasons()
    data = SetData(samples, SPLIT)
    size = {"trees": 20} if train is train_forest else {"rounds": 20}
    run = train(data, tmp_path, stages=("train", "val"), **size)
    trained = artefact.load(run.folder)
    found = predict_trees(trained, data, "test")
    rows = data.stage_rows["test"]
    assert found.shape == (len(rows), 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    # Nobody is background: its column is there, and empty.
    assert not found[:, 0].any()
    assert (found.argmax(axis=1) == samples.y[rows]).mean() > 0.9
    assert run.metrics["series"] == data.samples("train") + data.samples("val")


def test_boosted_trees_are_those_of_plain_xgboost(tmp_path) -> None:
    samples = seasons()
    third = np.random.default_rng(3).random(len(samples)) < 0.3
    legend = flat_legend("seasons", ["early", "late", "never"])
    samples = replace(samples, y=np.where(third, 3, samples.y).astype(np.uint8), legend=legend)
    data = SetData(samples, SPLIT)
    trained = artefact.load(boost_set(data, tmp_path, rounds=10).folder)
    months = Months.of(samples.take(data.stage_rows["train"]))
    tables = [
        months.table(samples.x[rows], samples.valid[rows], samples.doy[rows])
        for rows in (data.stage_rows["train"], data.stage_rows["test"])
    ]
    plain = xgb.XGBClassifier(n_estimators=10, max_depth=6, learning_rate=0.1, tree_method="hist")
    plain.fit(tables[0], samples.y[data.stage_rows["train"]] - 1)
    wanted = plain.predict_proba(tables[1])
    np.testing.assert_allclose(predict_trees(trained, data, "test")[:, 1:], wanted, atol=1e-6)


def test_windows_are_their_pixels(tmp_path) -> None:
    series = seasons(n=96)
    n, c, t = series.x.shape
    windows = replace(
        series,
        kind="image",
        x=series.x.reshape(24, 2, 2, c, t).transpose(0, 3, 4, 1, 2),
        valid=series.valid.reshape(24, 2, 2, t).transpose(0, 3, 1, 2),
        doy=np.broadcast_to(np.linspace(10, 350, t).astype(np.int16), (24, t)).copy(),
        y=series.y.reshape(24, 2, 2),
        group=np.arange(24, dtype=np.int32) % 6 + 1,
    )
    data = SetData(windows, SPLIT)
    run = train_forest(data, tmp_path, trees=30)
    found = predict_trees(artefact.load(run.folder), data, "test")
    rows = data.stage_rows["test"]
    assert found.shape == (len(rows), 3, 2, 2)
    assert (found.argmax(axis=1) == windows.y[rows]).mean() > 0.9


def test_trees_of_a_cube_draw_maps(tmp_path) -> None:
    recipe = Recipe(bands=("red", "nir"), start="2023-01", end="2023-12")
    samples = seasons(dates=12)
    days = days_of_year(recipe.periods)
    doy = np.broadcast_to(np.asarray(days, np.int16), samples.doy.shape).copy()
    samples = replace(samples, doy=doy, recipe=recipe)
    data = SetData(samples, SPLIT)
    trained = artefact.load(train_forest(data, tmp_path, trees=20).folder)
    rows = data.stage_rows["test"]
    window = samples.x[rows].transpose(2, 1, 0).reshape(12, 2, 4, -1)
    window[:, :, 0, 0] = 0
    wanted = np.ones(window.shape[2:], bool)
    wanted[1, 1] = False
    found = trained.predictor().probabilities(window, wanted)
    left_out = np.zeros_like(wanted)
    left_out[0, 0] = left_out[1, 1] = True
    assert (np.isnan(found).all(axis=0) == left_out).all()
    series = predict_trees(trained, data, "test").T.reshape(found.shape)
    np.testing.assert_array_equal(found[:, ~left_out], series[:, ~left_out])


def test_other_bands_and_other_kinds_are_refused(tmp_path) -> None:
    samples = seasons()
    data = SetData(samples, SPLIT)
    trained = artefact.load(train_forest(data, tmp_path, trees=2).folder)
    with pytest.raises(ArtefactError, match="bands"):
        predict_trees(trained, SetData(replace(samples, bands=("a", "b")), SPLIT), "test")
    with pytest.raises(LabelError, match="series"):
        train_forest(SetData(replace(samples, kind="parcel-pixels"), SPLIT), tmp_path / "x")
