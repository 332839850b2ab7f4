"""The command as a user meets it: results on stdout, messages on stderr, mistakes in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from cube.planning import load_plan
from cube.recipe import Mask, Recipe
from cube.scenes import Scenes
from cube.simulate import demo_settings, simulate
from deploy.cli import main
from tests.archive import GRID, write_archive
from tests.cube.stac_items import BBOX_UES, planetary_computer
from tests.cube.test_build import whole
from tests.stac_api import stac_api

COMMANDS = ["run", "simulate", "search", "plan", "build", "quality", "label", "train", "boost"]
COMMANDS += ["evaluate", "predict", "export", "models", "calibrate", "trial", "weak"]


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
        (("search", "--area", box, "--start", "2023-01-28", *period[2:]), "no whole month starts"),
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
    assert list(built["masked"]) == [f"2023-{month:02d}-01" for month in range(1, 13)]
    assert built["missing"] == []
    seen = step("quality", "zones.zarr", "--out", "quality")
    assert [row["time"] for row in seen["periods"]] == [f"2023-{m:02d}-01" for m in range(1, 13)]
    assert all(Path(file).stat().st_size > 0 for file in seen["files"])
    assert cropcube("quality", "zones.zarr", "--out", "quality").stdout.count("Jan 2023") == 1
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


def test_every_rule_of_a_recipe_is_an_option(cropcube, archive, tmp_path):
    scenes, plan = tmp_path / "scenes.json", tmp_path / "plan.json"
    where = ("--area", archive.new_area, "--start", "2023-01-02", "--end", "2023-03-26")
    where += ("--period", "W-MON", "--bands", "red,nir")
    done = cropcube("search", *where, "--provider", archive.items, "--out", scenes)
    assert done.code == 0, done.stderr
    stated = Scenes.load(scenes).scenes[0]
    rules = ("--composite", "percentile", "--percentile", 25, "--fill", "linear")
    rules += ("--mask-dilate", 60, "--mask-erode", 20, "--scenes", scenes, "--out", plan)
    done = cropcube("plan", *where, *rules, "--offset", f"{stated.id}=1000")
    assert done.code == 0, done.stderr
    made = load_plan(plan)
    assert made.recipe == Recipe(
        bands=("red", "nir"),
        start="2023-01-02",
        end="2023-03-26",
        period="W-MON",
        composite="percentile",
        percentile=25,
        fill="linear",
        mask=Mask(dilate=60, erode=20),
    )
    by_hand = {s.id: s.subtract for g in made.grids for s in g.scenes if s.decided == "hand"}
    assert by_hand == {stated.id: 1000}
    for offset, part in (
        (f"{stated.id}=7", "neither 0 nor 1000"),
        ("S2X=0", "no scene 'S2X'"),
        (stated.id, f"--offset {stated.id}: write the item's id"),
    ):
        assert_one_sentence(cropcube("plan", *where, *rules, "--offset", offset), part)


def test_a_build_tells_what_it_masked_and_what_it_could_not_read(cropcube, tmp_path):
    archive = write_archive(tmp_path, ["2023-01-05", "2023-01-15", "2023-02-05"])
    archive.scenes.save(tmp_path / "scenes.json")
    box = ",".join(map(str, whole(GRID)))
    options = ("--start", "2023-01", "--end", "2023-03", "--bands", "blue,nir")
    options += ("--area", box, "--scenes", tmp_path / "scenes.json")
    done = cropcube("plan", *options, "--out", tmp_path / "plan.json")
    assert done.code == 0, done.stderr
    lost = archive.scenes.scenes[1]
    Path(lost.hrefs["scl"]).unlink()
    build = ("build", tmp_path / "plan.json", "--out", tmp_path / "cube.zarr")
    assert_one_sentence(cropcube(*build), lost.id)
    build += ("--max-missing", 0.4)
    told = json.loads(cropcube(*build, "--json").stdout)
    assert told["missing"] == [f"{lost.id}, scl: missing"]
    assert told["underflow"] == {}
    scl = archive.scl.values[[0, 2], ::2, ::2]
    masked = 1 - np.isin(scl, (4, 5, 6, 7)).sum((1, 2)) / (scl != 0).sum((1, 2))
    assert list(told["masked"]) == ["2023-01-01", "2023-02-01", "2023-03-01"]
    assert list(told["masked"].values())[:2] == pytest.approx(masked, abs=1e-4)
    assert told["masked"]["2023-03-01"] is None
    done = cropcube(*build)
    assert f"2023-02-01  {masked[1]:.0%}\n2023-03-01  nothing seen" in done.stdout
    assert f"not read: {lost.id}, scl: missing" in done.stderr


def test_a_catalogue_of_ones_own_is_searched(cropcube, tmp_path):
    item = planetary_computer(baseline="05.11")
    for key, asset in item["assets"].items():
        asset["href"] = f"https://files.example.org/{key}.tif"
    example = Path(__file__).parents[2] / "studies" / "provider-example.yaml"
    search = ("search", "--provider", tmp_path / "mine.yaml", "--out", tmp_path / "scenes.json")
    search += ("--area", ",".join(map(str, BBOX_UES)), "--start", "2019-01", "--end", "2019-12")
    with stac_api([item]) as server:
        text = example.read_text().replace("https://stac.example.org/v1", server.url)
        text = text.replace("_10m", "").replace("_20m", "")
        (tmp_path / "mine.yaml").write_text(text)
        done = cropcube(*search, "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["scenes"] == 1
    assert "provider-example.yaml" in cropcube("search", "--help").stdout
    (tmp_path / "mine.yaml").write_text(text.replace("hosts:", "host:"))
    assert_one_sentence(cropcube(*search), "unknown key 'host'; did you mean 'hosts'?")


def test_models_lists_every_network_with_its_cost(cropcube):
    size = ("--bands", 4, "--classes", 12, "--dates", 2)
    done = cropcube("models", *size, "--json")
    told = {(one["name"], one["preset"]): one for one in json.loads(done.stdout)["models"]}
    # 489,728 + 33 K of the U-Net and 22,144 of the temporal part, as published.
    assert told["hybrid", "lite"]["cost"]["parameters"] == 489_728 + 33 * 12 + 22_144
    assert told["garnot-cnn", "default"]["cost"]["time_share"] == 0
    assert all(one["source"] and one["cost"]["mflop_per_pixel"] > 0 for one in told.values())


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
