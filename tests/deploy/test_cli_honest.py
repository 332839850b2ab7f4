"""Calibration, scores with their options, trials and weak labels, as commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from deploy.cli import main
from model import artefact
from tests.model.fixture_store import write_study


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("honest")
    study = write_study(folder, height=128, width=512, noise=900)
    split = study.data(sample=32).split.save(folder / "split.json")
    return ("--store", str(study.store), "--labels", str(study.labels), "--split", str(split))


def run(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["cropcube", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


def test_a_model_is_calibrated_and_scored(monkeypatch, capsys, options, tmp_path: Path) -> None:
    trees = tmp_path / "trees"
    assert run(monkeypatch, capsys, "boost", *options, "--rounds", 4, "--out", trees)[0] == 0
    _, told, _ = run(monkeypatch, capsys, "calibrate", "--model", trees, *options, "--json")
    levels = json.loads(told)["levels"]
    assert [row["temperature"] for row in levels] == list(artefact.load(trees).temperature)
    scored = ("evaluate", "--model", trees, *options, "--out", tmp_path / "scores")
    code, _, _ = run(monkeypatch, capsys, *scored, "--target-confidence", 0.8)
    assert code == 0
    page = (tmp_path / "scores" / "trees" / "scores.md").read_text()
    for part in ("Intervals", "Classes", "Zones and regions", "Back-off", "Areas", "Leakage"):
        assert f"## {part}" in page
    # The zones of this study touch each other.
    code, _, sentence = run(monkeypatch, capsys, *scored, "--buffer", 10)
    assert code == 2
    assert "closer than the buffer of 10 m" in " ".join(sentence.split())


@pytest.mark.slow
def test_regions_and_weak_labels(monkeypatch, capsys, options, tmp_path: Path) -> None:
    trial = ("trial", "tempcnn", "--what", "regions", "--epochs", 1, *options)
    code, told, _ = run(monkeypatch, capsys, *trial, "--out", tmp_path / "trial", "--json")
    assert code == 0
    assert list(json.loads(told)) == ["west", "east", "mean"]
    weak = ("weak", "tempcnn", *options, "--total", 300, "--epochs", 1, "--per-class", 60)
    code, told, _ = run(monkeypatch, capsys, *weak, "--out", tmp_path / "weak", "--json")
    assert code == 0
    found = json.loads(told)
    assert Path(found["model"]) == tmp_path / "weak" / "final"
    assert len(found["before_and_after"]) == 3
    assert all(row["final"] <= row["agreeing"] for row in found["classes"])
