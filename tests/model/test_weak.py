"""The weak-label stage: quotas and agreement by hand, and a set whose wrong labels are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cube.errors import SplitError
from model import artefact
from model.setdata import SetData
from model.weak import Quota, agreeing, draw, quotas, weak_stage
from tests.model.test_sampleset import SPLIT, seasons


def test_quotas_by_hand() -> None:
    # Priors .5 .3 .15 .05 of the four present; their 65th percentile is .15 + .95 · .15 = .2925.
    counts = np.array([0, 500, 300, 150, 50])
    quota = Quota(major=(0.5, 0.01), minor=(2.0, 0.02), least=10)
    found = quotas(counts, 200, quota)
    # 200 (.5 · .5 + .01) = 52, 200 (.5 · .3 + .01) = 32, 200 (2 · .15 + .02) = 64, 200 (.1 + .02).
    assert found.tolist() == [0, 52, 32, 64, 24]
    assert quotas(counts, 20, quota).tolist() == [0, 10, 10, 10, 10]
    assert quotas(counts, 2000, quota).tolist() == [0, 500, 300, 150, 50]
    assert quotas(np.zeros(3, int), 10).tolist() == [0, 0, 0]


@given(arrays(np.int64, st.integers(1, 12), elements=st.integers(0, 500)), st.integers(1, 5000))
def test_quotas_never_ask_for_what_is_not_there(counts: np.ndarray, total: int) -> None:
    found = quotas(counts, total)
    assert (found <= counts).all()
    assert (found >= np.minimum(counts, Quota().least)).all()
    y = np.repeat(np.arange(len(counts)), counts)
    places = draw(y, found)
    np.testing.assert_array_equal(np.bincount(y[places], minlength=len(counts)), found)
    assert len(np.unique(places)) == len(places)


def test_agreement_by_hand() -> None:
    sure = np.array([0.6, 0.7, 0.8, 0.9, 0.95])
    found = np.stack([1 - sure, sure], axis=1)
    found = np.concatenate([found, [[0.8, 0.2], [np.nan, np.nan]]])
    y = np.array([1, 1, 0, 1, 255, 0, 0])
    # The five that are called 1 have their 25th percentile at 0.7; the one called 0 is its own.
    assert agreeing(y, found).tolist() == [False, True, False, True, False, True, False]
    assert agreeing(y, found, 0).tolist() == [True, True, False, True, False, True, False]


def test_the_stage_keeps_better_labels_than_it_was_given(tmp_path: Path) -> None:
    clean = seasons(480, seed=4)
    random = np.random.default_rng(0)
    wrong = (random.random(len(clean)) < 0.25) & (clean.group != 6)
    noisy = replace(clean, y=np.where(wrong, 3 - clean.y, clean.y).astype(np.uint8))
    data = SetData(noisy, SPLIT, batch_size=32)
    found = weak_stage("ltae", data, tmp_path, total=200, epochs=4, lr=4e-3, precision="32-true")
    before = wrong[data.stage_rows["train"]].mean()
    after = wrong[found.kept].mean()
    assert before > 0.2
    assert after < before / 2
    assert set(noisy.group[found.kept]) <= SPLIT.train
    figures = list(found.table.rows.values())
    assert len(figures) == 3
    assert figures[-1]["OA"] > 0.85
    counts = found.counts.set_index("class")
    assert (counts["final"] <= counts["agreeing"]).all()
    assert (counts["agreeing"] < counts["labels"]).all()
    assert counts["final"].sum() == len(found.kept)
    assert (tmp_path / "comparison.md").exists()
    assert artefact.load(tmp_path / "weighted").training["class_weights"] == "inverse"
    assert artefact.load(found.run.folder).training["class_weights"] == "none"


def test_windows_are_refused() -> None:
    data = SetData(seasons(), SPLIT)
    object.__setattr__(data.set, "y", np.zeros((len(data.set), 2, 2), np.uint8))
    with pytest.raises(SplitError, match="take a set of pixels"):
        weak_stage("ltae", data, Path("unused"), total=10)
