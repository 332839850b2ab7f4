"""The comparison of models: folds, rows that are found again, ensembles, the table."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GroupKFold

from cube.errors import ArtefactError, LabelError, SplitError
from model.bench_table import Result
from model.benchmark import Budget, benchmark
from model.crossing import crossing
from model.datasets.catalogue import load_set
from tests.model.test_sampleset import seasons

BUDGET = Budget(folds=3, epochs=3, batch_size=32, trees=10)


def test_folds_are_those_of_scikit_learn_and_share_no_group() -> None:
    samples = seasons()
    splits = crossing(samples, "spatial", 3, seed=4)
    wanted = GroupKFold(3).split(samples.y, groups=samples.group)
    for split, (_, test) in zip(splits, wanted, strict=True):
        assert samples.rows(split, "test").tolist() == test.tolist()
        stages = [split.train, split.val, split.test]
        assert sum(map(len, stages)) == len(frozenset().union(*stages)) == 6
    again = crossing(samples, "spatial", 3, seed=5)
    assert [s.test for s in splits] == [s.test for s in again]
    assert [s.val for s in splits] != [s.val for s in again]


def test_random_folds_test_each_sample_once() -> None:
    samples = seasons()
    splits = crossing(samples, "random", 4)
    tested = np.concatenate([samples.rows(split, "test") for split in splits])
    assert sorted(tested) == list(range(len(samples)))
    assert all(0.05 < len(split.val) / len(samples) < 0.15 for split in splits)


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(SplitError, match="fewer folds"):
        crossing(seasons(), "spatial", 6)


def test_scores_are_those_of_scikit_learn_on_pooled_answers() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(1, 4, 90).astype(np.uint8)
    chance = random.random((90, 5)).astype(np.float32)
    chance[np.arange(90), truth] += 0.3
    result = Result("m", "spatial", 0, truth, chance, 1, 1.0, 1.0, np.nan, np.nan)
    answer = chance.argmax(axis=1)
    each = f1_score(truth, answer, labels=[1, 2, 3], average=None)
    assert result.scores() == pytest.approx(
        {
            "accuracy": accuracy_score(truth, answer),
            "macro_f1": each.mean(),
            "min_f1": each.min(),
        }
    )


def test_a_benchmark_compares_and_goes_on_where_it_was(tmp_path) -> None:
    samples = seasons()
    models = ["random-forest", "ltae", "ltae+random-forest"]
    told: list[str] = []
    table = benchmark(
        samples,
        models,
        tmp_path,
        seeds=(0, 1),
        budget=BUDGET,
        progress=lambda done, total, what: told.append(what),
    )
    assert [row.model for row in table.rows] == models
    # Two models, two seeds and the random folds of the first, three folds each.
    assert len(told) == len(list((tmp_path / "rows").iterdir())) == 2 * 3 * 3
    forest, network, both = table.rows
    assert forest.seeds == 2
    assert forest.macro_f1 > 0.8
    assert not np.isnan(network.random_f1)
    assert both.parameters == forest.parameters + network.parameters
    assert both.train_seconds == pytest.approx(forest.train_seconds + network.train_seconds)
    assert both.per_second < min(forest.per_second, network.per_second)

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    (gone,) = (tmp_path / "rows").glob("ltae.spatial.1.2.npz")
    gone.unlink()
    again = benchmark(samples, models, tmp_path, seeds=(0, 1), budget=BUDGET)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    assert [path for path in before if before[path] != after[path]] == [gone]
    assert again.rows[1].macro_f1 == table.rows[1].macro_f1

    saved = json.loads((tmp_path / "table.json").read_text())
    assert saved["rows"][0]["macro_f1"] == forest.macro_f1
    assert saved["rows"][0]["season"] is None
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["model"] for row in rows] == models
    assert "| ltae+random-forest |" in (tmp_path / "table.md").read_text()


def test_an_ensemble_is_the_mean_of_its_members(tmp_path) -> None:
    samples = seasons()
    benchmark(
        samples, ["random-forest", "xgboost"], tmp_path, seeds=(0,), budget=BUDGET, random=False
    )
    table = benchmark(
        samples, ["random-forest+xgboost"], tmp_path, seeds=(0,), budget=BUDGET, random=False
    )
    truth, answer = [], []
    for fold in range(3):
        one, other = (
            np.load(tmp_path / "rows" / f"{name}.spatial.0.{fold}.npz")
            for name in ("random-forest", "xgboost")
        )
        assert (one["rows"] == other["rows"]).all()
        truth.append(samples.y[one["rows"]])
        answer.append((one["probabilities"] + other["probabilities"]).argmax(axis=1))
    wanted = accuracy_score(np.concatenate(truth), np.concatenate(answer))
    assert table.rows[0].accuracy == pytest.approx(wanted)


def test_an_early_classifier_says_how_much_of_the_season_it_read(tmp_path) -> None:
    table = benchmark(seasons(), ["elects"], tmp_path, seeds=(0,), budget=BUDGET, random=False)
    assert 0 <= table.rows[0].season <= 1
    assert 0 <= table.rows[0].accuracy_all <= 1
    assert "season read | OA reading all" in table.markdown()


@pytest.mark.parametrize("other", [{"trees": 9}, {"trees": 10, "loss": "focal:2"}])
def test_rows_of_another_budget_are_refused(tmp_path, other) -> None:
    names = ["random-forest"]
    benchmark(seasons(), names, tmp_path, seeds=(0,), budget=BUDGET, random=False)
    changed = Budget(folds=3, epochs=3, batch_size=32, **other)
    with pytest.raises(ArtefactError, match="another budget"):
        benchmark(seasons(), names, tmp_path, seeds=(0,), budget=changed, random=False)


def test_an_unknown_model_is_refused_before_anything_is_trained(tmp_path) -> None:
    with pytest.raises(ArtefactError, match="did you mean 'tempcnn'"):
        benchmark(seasons(), ["random-forest", "tempcn"], tmp_path)
    assert not (tmp_path / "rows").exists()


def test_data_that_are_not_there_are_named(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("CROPCUBE_DATA", raising=False)
    with pytest.raises(LabelError, match="did you mean 'beziers'"):
        load_set("bezier", tmp_path, tmp_path)
    with pytest.raises(LabelError, match="CROPCUBE_DATA"):
        load_set("us-cdl-arkansas", None, tmp_path)
    with pytest.raises(LabelError, match="us-cdl-2021-arkansas"):
        load_set("us-cdl-arkansas", tmp_path, tmp_path)
