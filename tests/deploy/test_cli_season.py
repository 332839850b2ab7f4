"""Losses, label levels and early season from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cube.errors import StudyError
from deploy.studyfile import read_study
from model import artefact
from model.splits import split_zones
from tests.deploy.test_cli import assert_one_sentence, cropcube  # noqa: F401
from tests.deploy.test_studyfile import GOOD
from tests.model.fixture_store import Study, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = write_study(tmp_path_factory.mktemp("season"), height=96, width=256)
    split_zones(study.labels).save(study.labels.parent / "split.json")
    return study


def files(study: Study) -> tuple[object, ...]:
    split = study.labels.parent / "split.json"
    return "--store", study.store, "--labels", study.labels, "--split", split


def test_help_shows_an_example(cropcube):  # noqa: F811
    done = cropcube("early", "--help")
    assert done.code == 0
    assert "cropcube early --model" in done.stdout


def test_an_early_classifier_from_training_to_its_curve(cropcube, study, tmp_path):  # noqa: F811
    run = tmp_path / "elects"
    trained = cropcube(
        *("train", "elects", *files(study), "--epochs", 1, "--loss", "early-reward:0.7"),
        *("--class-weights", "sqrt", "--out", run, "--json"),
    )
    assert trained.code == 0, trained.stderr
    assert 0 <= json.loads(trained.stdout)["val_earliness"] <= 1
    told = artefact.load(run).training
    assert (told["loss"], told["class_weights"]) == ("early-reward:0.7", "sqrt")
    out = tmp_path / "early"
    done = cropcube("early", "--model", run, *files(study), "--out", out, "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["month"] for row in found["months"]] == [4, 5, 6]
    assert 0 <= found["season"] <= 1
    assert pd.read_csv(out / "months.csv")["month"].tolist() == [4, 5, 6]
    assert (out / "months.png").stat().st_size > 1000
    text = cropcube("early", "--model", run, *files(study))
    assert "macro_f1" in text.stdout.splitlines()[0]
    more = cropcube(
        *("train", "elects", *files(study), "--epochs", 1, "--start-from", run),
        *("--out", tmp_path / "tuned"),
    )
    assert more.code == 0, more.stderr
    tuned = artefact.load(tmp_path / "tuned")
    assert tuned.training["start"]
    assert tuned.normalisation == artefact.load(run).normalisation


def test_levels_from_the_command_line(cropcube, study, tmp_path):  # noqa: F811
    run = tmp_path / "levels"
    done = cropcube(
        *("train", "ltae", *files(study), "--epochs", 1, "--levels", "plain", "--out", run)
    )
    assert done.code == 0, done.stderr
    assert artefact.load(run).options["levels"] == [3, 4]
    assert_one_sentence(cropcube("early", "--model", run, *files(study)), "needs a causal network")


def test_mistakes_end_with_one_sentence(cropcube, study, tmp_path):  # noqa: F811
    out = ("--out", tmp_path / "none")
    wrong = cropcube("train", "hybrid", *files(study), "--loss", "dice", *out)
    assert_one_sentence(wrong, "loss 'dice' is unknown")
    kind = cropcube("train", "garnot-cnn", *files(study), *out)
    assert_one_sentence(kind, "garnot-cnn takes samples of kind 'parcel-image'")


def test_a_study_names_loss_and_levels(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(GOOD + "network:\n  loss: focal:1\n  levels: refined\n")
    network = read_study(path).network
    assert (network.loss, network.levels) == ("focal:1", "refined")
    path.write_text(GOOD + "network:\n  loss: dice\n")
    with pytest.raises(StudyError, match="loss 'dice' is unknown"):
        read_study(path)


def test_days_of_decisions_need_an_early_classifier(cropcube, study, tmp_path: Path):  # noqa: F811
    run = tmp_path / "hybrid"
    cropcube("train", "hybrid", *files(study), "--epochs", 1, "--out", run)
    done = cropcube(
        *("predict", "--model", run, "--area", "2.8,43.5,2.9,43.6", "--out", tmp_path / "maps"),
        "--decision-dates",
    )
    assert_one_sentence(done, "has no date of decision; train 'elects'")
    assert not (tmp_path / "maps").exists()
