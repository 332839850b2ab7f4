"""The command as a user meets it: results on stdout, messages on stderr, mistakes in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import geopandas as gpd
import pytest
import rasterio

from cube.simulate import demo_settings, simulate
from deploy.cli import main

COMMANDS = ["run", "simulate", "search", "plan", "build", "label", "train", "boost"]
COMMANDS += ["evaluate", "predict"]


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def cropcube(monkeypatch, capsys):
    """Run the command in this process: a start of its own for each would only import again."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["cropcube", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(cropcube, name):
    done = cropcube(name, "--help")
    assert done.code == 0
    assert f"cropcube {name}" in done.stdout
    assert "Example:" in done.stdout


def assert_one_sentence(done: Done, part: str) -> None:
    assert done.code == 2, done.stderr
    assert done.stdout == ""
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_mistakes_end_with_one_sentence_and_exit_code_2(cropcube, tmp_path):
    box = "3.29,43.61,3.32,43.64"
    period = ("--start", "2023-01", "--end", "2023-12", "--out", tmp_path / "x.json")
    for arguments, part in (
        (("search", "--area", box, *period, "--bands", "bleu"), "did you mean 'blue'?"),
        (("search", "--area", "nowhere.geojson", *period), "nowhere.geojson"),
        (("search", "--area", box, *period, "--provider", "earth-serch"), "earth-search"),
        (("search", "--area", box, "--start", "2023-01-28", *period[2:]), "not a whole month"),
        (("build", tmp_path / "no-plan.json", "--out", tmp_path / "c.zarr"), "not readable"),
        (("run", tmp_path / "no-study.yaml"), "not readable"),
        (("predict", "--model", tmp_path, "--area", box, "--out", tmp_path), "model.json"),
    ):
        assert_one_sentence(cropcube(*arguments), part)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    region = demo_settings().regions[2]
    settings = demo_settings(
        regions=(region,), zones_per_region=4, zone_metres=640, revisit_days=16, seed=4
    )
    return simulate(tmp_path_factory.mktemp("archive"), settings)


def test_the_main_job_from_files(cropcube, archive, tmp_path, monkeypatch):
    """Search to map, one command after the other, each from the files of the one before."""
    zones = archive.zones
    monkeypatch.chdir(tmp_path)
    period = ("--start", "2023-01", "--end", "2023-12")

    def step(*arguments: object) -> dict:
        done = cropcube(*arguments, "--json")
        assert done.code == 0, done.stderr
        return json.loads(done.stdout)

    found = step(
        "search", "--area", zones, "--provider", archive.items, *period, "--out", "scenes.json"
    )
    assert found["scenes"] > 10
    planned = step(
        "plan", "--area", zones, "--scenes", "scenes.json", *period, "--out", "plan.json"
    )
    built = step("build", "plan.json", "--out", "zones.zarr")
    assert built["tiles"] == planned["tiles"]
    labelled = step(
        *("label", "--store", "zones.zarr", "--parcels", archive.parcels, "--zones", zones),
        *("--erosion", 5, "--out", "labels.zarr"),
    )
    assert labelled["split"] == "split.json"
    data = ("--store", "zones.zarr", "--labels", "labels.zarr", "--split", "split.json")
    trained = step("train", "hybrid", *data, "--epochs", 2, "--out", "runs/hybrid")
    assert 0 <= trained["val_macro_f1"] <= 1
    step("boost", *data, "--rounds", 5, "--out", "runs/xgboost")
    models = ("--model", "runs/hybrid", "--model", "runs/xgboost")
    scores = step("evaluate", *models, *data, "--out", "scores")
    assert {"hybrid", "xgboost"} <= scores.keys()
    mapped = step(
        *("predict", "--model", "runs/xgboost", "--area", archive.new_area),
        *("--provider", archive.items, "--year", 2023, "--out", "maps"),
    )
    with rasterio.open(tmp_path / mapped["maps"][0]) as classes:
        assert classes.colormap(1)
        assert classes.crs.is_projected
    hectares = gpd.read_file(archive.new_area).to_crs(2154).area.sum() / 1e4
    assert sum(mapped["hectares"].values()) == pytest.approx(hectares, rel=0.03)


def test_progress_and_results_do_not_mix(cropcube, archive, tmp_path):
    done = cropcube(
        *("search", "--area", archive.new_area, "--provider", archive.items),
        *("--start", "2023-01", "--end", "2023-12", "--out", tmp_path / "s.json"),
    )
    assert done.stdout.startswith("scenes ")
    assert "search" in done.stderr
    assert "search" not in done.stdout


def test_the_installed_command_runs():
    command = Path(sys.executable).with_name("cropcube")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)
