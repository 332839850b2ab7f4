"""Temperatures: known ones are found again, and the artefact uses what is stored."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from cube.errors import SplitError
from model import artefact
from model.calibrate import calibrate
from model.evaluate import evaluate
from model.metrics import calibration_error, reliability
from model.setdata import SetData
from model.temperature import fit_temperature, tempered
from model.train import train
from tests.model.fixture_store import write_study
from tests.model.test_sampleset import SPLIT, seasons


def overconfident(n: int = 4000, factor: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Truth drawn from known probabilities, and probabilities that are too sure by a factor."""
    random = np.random.default_rng(0)
    honest = random.dirichlet(np.ones(4), n)
    truth = (random.random((n, 1)) > honest.cumsum(axis=1)).sum(axis=1)
    return truth, tempered(honest, 1 / factor)


def test_a_known_temperature_is_found() -> None:
    truth, found = overconfident()
    temperature = fit_temperature(found, truth)
    assert temperature == pytest.approx(2.5, rel=0.1)
    best = minimize_scalar(
        lambda t: log_loss(truth, tempered(found.astype(float), t), labels=range(4)),
        bounds=(0.5, 6),
        method="bounded",
    )
    assert temperature == pytest.approx(best.x, rel=0.01)
    before, after = (reliability(truth, p) for p in (found, tempered(found, temperature)))
    assert calibration_error(after) < 0.25 * calibration_error(before)


def test_what_is_ignored_or_undecided_changes_nothing() -> None:
    truth, found = overconfident(500)
    more = np.concatenate([found, np.full((2, 4), np.nan, np.float32), found[:1]])
    labels = np.concatenate([truth, [1, 2, 255]])
    assert fit_temperature(more, labels) == fit_temperature(found, truth)
    assert fit_temperature(found[:1], np.array([255])) == 1


def test_the_likeliest_class_stays() -> None:
    _, found = overconfident(300)
    for temperature in (0.3, 1.0, 5.0):
        moved = tempered(found, temperature)
        np.testing.assert_array_equal(moved.argmax(axis=1), found.argmax(axis=1))
        np.testing.assert_allclose(moved.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(tempered(found.T, 3.0, axis=0).T, tempered(found, 3.0), rtol=1e-6)


def test_samples_are_calibrated_on_validation_and_scored_so(tmp_path: Path) -> None:
    data = SetData(seasons(), SPLIT, batch_size=16)
    folder = train("ltae", data, tmp_path, epochs=2, precision="32-true").folder
    with pytest.raises(SplitError, match="never on those that score it"):
        calibrate(folder, data, "test")
    before = evaluate(folder, data, "val")
    found = calibrate(folder, data)
    assert artefact.load(folder).temperature == found.temperature
    after = evaluate(folder, data, "val")
    assert after.confusion == before.confusion
    row = found.table.iloc[-1]
    assert row.loss_before == pytest.approx(before.whole["pixel"]["all"]["loss"], rel=1e-4)
    assert row.loss_after == pytest.approx(after.whole["pixel"]["all"]["loss"], rel=1e-4)
    assert row.loss_after < row.loss_before
    assert calibrate(folder, data).temperature == pytest.approx(found.temperature)


def test_maps_of_a_calibrated_model_are_as_sure_as_it_says(tmp_path: Path) -> None:
    from model.boost import boost

    study = write_study(tmp_path, height=96, width=192, noise=900)
    data = study.data(sample=16)
    folder = boost(data, tmp_path / "trees", rounds=10, cap=400).folder
    plain = artefact.load(folder).predictor()
    found = calibrate(folder, data)
    assert found.table["level"].tolist() == ["level1", "level2", study.legend.level]
    window = np.random.default_rng(0).integers(1, 5000, (3, 4, 8, 8)).astype(np.uint16)
    window[:, :, 0, 0] = 0
    expected = tempered(plain.probabilities(window), found.temperature[-1], axis=0)
    np.testing.assert_array_equal(artefact.load(folder).predictor().probabilities(window), expected)
    assert np.isnan(expected[:, 0, 0]).all()
