"""Ablations: what a variant takes away, and only that."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from cube.errors import LabelError
from model.ablate import ShuffledDates, ablate, joined, noisy, shuffled
from model.benchmark import Budget
from model.legend import IGNORE, flat_legend
from model.setdata import SetData
from tests.model.test_sampleset import SPLIT, seasons

BUDGET = Budget(folds=2, epochs=6, batch_size=16, trees=20)


def test_shuffling_exchanges_valid_dates_and_leaves_days_in_place() -> None:
    samples = seasons()
    batch = SetData(samples, SPLIT).batch(np.arange(len(samples)))
    mixed = shuffled(batch, np.random.default_rng(0))
    assert torch.equal(mixed["doy"], batch["doy"])
    assert torch.equal(mixed["valid"], batch["valid"])
    for before, after, valid in zip(batch["x"], mixed["x"], batch["valid"], strict=True):
        # Whole dates move: the pairs of red and nir are the same set.
        pairs = {tuple(pair) for pair in before[:, valid].T.tolist()}
        assert {tuple(pair) for pair in after[:, valid].T.tolist()} == pairs
        assert not after[:, ~valid].any()
    assert not torch.equal(mixed["x"], batch["x"])


def test_every_access_shuffles_anew_and_windows_move_whole() -> None:
    samples = seasons()
    n, c, t = samples.x.shape
    windows = replace(
        samples,
        kind="image",
        x=np.repeat(samples.x, 4, axis=2).reshape(n, c, t, 2, 2),
        valid=np.repeat(samples.valid, 4, axis=1).reshape(n, t, 2, 2),
        y=np.broadcast_to(samples.y[:, None, None], (n, 2, 2)).copy(),
    )
    data = ShuffledDates(windows, SPLIT)
    rows = np.arange(20)
    one, other = data.batch(rows), data.batch(rows)
    assert not torch.equal(one["x"], other["x"])
    assert torch.equal(one["x"][..., 0, 0], one["x"][..., 1, 1])
    torch.testing.assert_close(one["x"].sum(dim=2), other["x"].sum(dim=2))


def test_wrong_labels_are_as_many_as_said_and_never_in_the_test() -> None:
    samples = seasons(n=3000)
    samples = replace(samples, y=np.where(np.arange(3000) % 50 == 0, IGNORE, samples.y))
    data = noisy(0.2, samples, SPLIT, seed=1)
    for stage in ("train", "val"):
        rows = data.stage_rows[stage]
        labelled = samples.y[rows] != IGNORE
        changed = data.set.y[rows] != samples.y[rows]
        assert not changed[~labelled].any()
        assert changed[labelled].mean() == pytest.approx(0.2, abs=0.04)
    rows = data.stage_rows["test"]
    assert (data.set.y[rows] == samples.y[rows]).all()
    assert set(np.unique(data.set.y)) == {1, 2, IGNORE}
    assert (noisy(0.0, samples, SPLIT, seed=1).set.y == samples.y).all()


def test_two_years_keep_the_classes_they_share() -> None:
    one = seasons()
    other = replace(
        seasons(seed=1),
        name="next",
        legend=flat_legend("next", ["late", "new"]),
        y=np.tile(np.uint8([1, 2]), 60),
    )
    both, which = joined(one, other)
    assert both.legend == one.legend
    assert np.bincount(which).tolist() == [120, 120]
    # 'early' is not grown in the second year, and 'new' not in the first.
    assert set(both.y[which == 0][one.y == 1]) == {IGNORE}
    assert set(both.y[which == 1][::2]) == {2}
    assert set(both.y[which == 1][1::2]) == {IGNORE}
    assert not set(both.group[which == 0]) & set(both.group[which == 1])


def test_years_test_what_was_trained_on_the_other(tmp_path) -> None:
    one, other = seasons(), replace(seasons(seed=1), name="next")
    told = partial(ablate, one, "years", tmp_path, model="random-forest", budget=BUDGET)
    found = told(other_year=other)
    assert [line.variant for line in found.lines] == [
        "tested in the same year",
        "tested in the other year",
    ]
    (row,) = (tmp_path / "years" / "1-random-forest" / "rows").iterdir()
    with np.load(row) as answers:
        assert answers["rows"].tolist() == list(range(120, 240))
    with pytest.raises(LabelError, match="another year"):
        told()


def test_only_the_order_tells_these_crops_apart(tmp_path) -> None:
    found = ablate(seasons(n=240), "shuffle-time", tmp_path, budget=BUDGET)
    ordered, mixed = found.lines
    assert ordered.row.macro_f1 > 0.85
    assert mixed.row.macro_f1 < 0.7
    assert mixed.change == mixed.row.macro_f1 - ordered.row.macro_f1
    assert 0 < ordered.time_share <= 1
    text = (tmp_path / "shuffle-time.md").read_text()
    assert "hal-02386701" in text
    assert "| GRU | 53.8 | 45.3 | -8.5 |" in text
    saved = json.loads((tmp_path / "shuffle-time.json").read_text())
    assert saved["lines"][1]["macro_f1"] == mixed.row.macro_f1


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("composites", ["all 9 dates", "monthly medians"]),
        ("dates", ["all 9 dates", "at most 4 dates", "at most 2 dates", "at most 1 dates"]),
        ("label-noise", [f"{share} % of labels wrong" for share in (0, 10, 20, 40)]),
    ],
)
def test_variants_come_in_order(tmp_path, what, names) -> None:
    found = ablate(seasons(), what, tmp_path, model="random-forest", budget=BUDGET)
    assert [line.variant.replace("%", " %") for line in found.lines] == names
    assert found.lines[0].change == 0


def test_four_bands_of_two_are_refused(tmp_path) -> None:
    with pytest.raises(LabelError, match="nothing to leave out"):
        ablate(seasons(), "bands", tmp_path, budget=BUDGET)
    with pytest.raises(LabelError, match="shuffle-time"):
        ablate(seasons(), "shuffle", tmp_path, budget=BUDGET)  # type: ignore[arg-type]
    with pytest.raises(LabelError, match="for a network"):
        ablate(seasons(), "shuffle-time", tmp_path, model="xgboost")
