"""Scores of samples in memory, against scikit-learn and plain loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from cube.errors import ArtefactError, SplitError
from model import artefact
from model.evaluate import evaluate
from model.evaluate_set import predict_set, score_set
from model.legend import flat_legend
from model.sampleset import SampleSet
from model.setdata import SetData
from model.train import train
from tests.model.test_sampleset import SPLIT, seasons


class Means(nn.Module):
    """Logits are 0 and the mean of each band over the valid dates."""

    def forward(self, x: torch.Tensor, valid: torch.Tensor, doy: torch.Tensor) -> torch.Tensor:
        mean = (x * valid[:, None]).sum(2) / valid.sum(1)[:, None].clamp(min=1)
        return torch.cat([torch.zeros_like(mean[:, :1]), mean], dim=1)


def with_parcels(**changes: object) -> SampleSet:
    samples = seasons()
    parcel = (np.arange(len(samples)) // 6 // 2 + 1).astype(np.int32)
    return replace(samples, parcel=parcel, **changes)


def test_probabilities_are_those_of_the_network_in_order() -> None:
    samples = with_parcels()
    samples.valid[5] = False  # group 6: a test sample without any date
    data = SetData(samples, SPLIT, batch_size=7)
    found = predict_set(Means(), data, "test")
    rows = data.stage_rows["test"]
    assert found.shape == (len(rows), 3)
    assert found.dtype == np.float32
    assert np.isnan(found[rows == 5]).all()
    assert not np.isnan(found[rows != 5]).any()
    norm = data.normalisation
    for row, told in zip(rows, found, strict=True):
        if row == 5:
            continue
        seen = samples.valid[row]
        values = [
            (samples.x[row, band, seen].astype(float) - norm.mean[band]).mean() / norm.std[band]
            for band in range(2)
        ]
        expected = np.exp([0, *values]) / np.exp([0, *values]).sum()
        np.testing.assert_allclose(told, expected, rtol=1e-4)


def test_scores_equal_scikit_learn_by_sample_group_and_parcel() -> None:
    samples = with_parcels()
    data = SetData(samples, SPLIT)
    rows = data.stage_rows["train"]
    random = np.random.default_rng(3)
    given = random.dirichlet(np.ones(3), len(rows)).astype(np.float32)
    scores = score_set(given, data, "train")
    truth, answer = samples.y[rows], given.argmax(axis=1)
    pixel = scores.whole["pixel"]["all"]
    assert pixel["accuracy"] == pytest.approx(sk.accuracy_score(truth, answer))
    present = np.unique(truth)
    f1 = sk.f1_score(truth, answer, labels=present, average=None)
    assert pixel["f1"] == pytest.approx(f1.mean())
    assert pixel["minimum_f1"] == pytest.approx(f1.min())
    recall = sk.recall_score(truth, answer, labels=range(3), average=None, zero_division=0)
    precision = sk.precision_score(truth, answer, labels=range(3), average=None, zero_division=0)
    np.testing.assert_allclose([row["producers_accuracy"] for row in scores.classes], recall)
    np.testing.assert_allclose([row["users_accuracy"] for row in scores.classes], precision)
    assert set(scores.zones) == {"1", "2", "3", "4"}
    for name, figures in scores.zones.items():
        here = samples.group[rows] == int(name)
        assert figures["pixel"]["all"]["accuracy"] == pytest.approx(
            (truth[here] == answer[here]).mean()
        )
    right, area = [], []
    for number in np.unique(samples.parcel[rows]):
        mine = samples.parcel[rows] == number
        most = np.bincount(truth[mine]).argmax()
        right.append(given[mine].mean(axis=0).argmax() == most)
        area.append(mine.sum())
    assert scores.whole["parcel_mean"]["all"]["accuracy"] == pytest.approx(np.mean(right))
    weighted = np.average(right, weights=area)
    assert scores.whole["parcel_area"]["all"]["accuracy"] == pytest.approx(weighted)
    assert scores.intervals["zones"]["groups"] == 4
    low, high = scores.intervals["zones"]["OA"]
    assert low < pixel["accuracy"] < high
    assert "OA" not in scores.intervals["parcels"]


def test_windows_are_scored_by_pixel() -> None:
    random = np.random.default_rng(0)
    n, size = 6, 4
    y = random.integers(0, 3, (n, size, size)).astype(np.uint8)
    y[:, 0] = 255
    samples = SampleSet(
        name="windows",
        kind="image",
        bands=("red",),
        legend=flat_legend("windows", ["a", "b"]),
        x=random.integers(1, 99, (n, 1, 2, size, size)).astype(np.uint16),
        valid=np.ones((n, 2, size, size), bool),
        doy=np.tile([10, 20], (n, 1)).astype(np.int16),
        y=y,
        group=np.arange(n, dtype=np.int32) + 1,
    )
    data = SetData(samples, SPLIT)
    given = random.dirichlet(np.ones(3), (4, size, size)).transpose(0, 3, 1, 2)
    scores = score_set(given.astype(np.float32), data, "train")
    truth, answer = y[:4], given.argmax(axis=1)
    known = truth != 255
    expected = sk.confusion_matrix(truth[known], answer[known], labels=range(3))
    np.testing.assert_array_equal(scores.confusion, expected)
    with pytest.raises(ValueError, match="give"):
        score_set(given[:2].astype(np.float32), data, "train")


def test_a_model_is_scored_with_the_normalisation_it_was_trained_with(tmp_path: Path) -> None:
    samples = seasons()
    data = SetData(samples, SPLIT, batch_size=16)
    run = train("ltae", data, tmp_path / "run", epochs=2, precision="32-true")
    other = SetData(samples, replace(SPLIT, train=frozenset({1})))
    assert other.normalisation != data.normalisation
    scores = evaluate(run.folder, other, out=tmp_path / "scores", target_confidence=0.6)
    expected = predict_set(artefact.load(run.folder).network(), data, "test").argmax(axis=1)
    truth = samples.y[data.stage_rows["test"]]
    assert scores.whole["pixel"]["all"]["accuracy"] == (expected == truth).mean()
    names = {path.name for path in (tmp_path / "scores").iterdir()}
    assert {"metrics.json", "scores.md", "confusion.png", "reliability.png"} <= names
    page = (tmp_path / "scores" / "scores.md").read_text()
    for told in ("producer's accuracy", "user's accuracy", "1 zones", "no decision"):
        assert told in page
    renamed = replace(samples, legend=flat_legend("seasons", ["late", "early"]))
    with pytest.raises(ArtefactError, match="classes"):
        evaluate(run.folder, SetData(renamed, SPLIT))


def test_a_stage_without_labels_is_named() -> None:
    samples = seasons()
    samples.y[samples.group == 6] = 255
    data = SetData(samples, SPLIT)
    given = np.full((20, 3), 1 / 3, np.float32)
    with pytest.raises(SplitError, match="no labelled sample in 'test'"):
        score_set(given, data, "test")
