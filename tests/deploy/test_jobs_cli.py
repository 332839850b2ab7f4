"""The commands of jobs: data on stdout, messages on stderr, exit codes for machines."""

from __future__ import annotations

import json

import pytest
import yaml

from deploy.jobs.spec import read_spec
from tests.archive import write_archive
from tests.deploy.jobs_kit import GRID, TILES, write_inputs
from tests.deploy.test_cli import cropcube as cropcube

COMMANDS = ["plan", "run", "status", "verify", "estimate", "cancel", "report", "template", "schema"]


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    dates = ["2023-01-05", "2023-02-03"]
    return write_inputs(folder, write_archive(folder / "archive", dates, ("blue",), grid=GRID))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(cropcube, name):
    done = cropcube("job", name, "--help")
    assert done.code == 0
    assert f"cropcube job {name}" in done.stdout


def test_the_printed_template_is_a_job(cropcube, tmp_path):
    for kind in ("CubeBuild", "CropMap"):
        file = tmp_path / f"{kind}.yaml"
        file.write_text(cropcube("job", "template", "--kind", kind).stdout)
        assert read_spec(file).kind == kind
    assert json.loads(cropcube("job", "schema").stdout)["oneOf"]


def test_from_plan_to_report(cropcube, spec, tmp_path):
    run = tmp_path / "run"
    planned = cropcube("job", "plan", spec, "--out", run, "--json")
    assert (planned.code, json.loads(planned.stdout)["tasks"]) == (0, 9)
    first = cropcube("job", "run", run, "--shard", "0/2")
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    assert first.code == 0
    assert [line["event"] for line in lines].count("task_done") == 5
    assert {"ts", "level", "job", "runner", "event"} <= lines[0].keys()
    assert "finished: 5 of 5 tasks done" in first.stderr
    found = json.loads(cropcube("job", "status", run, "--json").stdout)
    assert (found["done"], found["waiting"]) == (5, 4)
    assert [one["task"] for one in found["tasks"]] == TILES
    assert cropcube("job", "verify", run).code == 65
    assert cropcube("job", "run", run).code == 0
    whole = cropcube("job", "verify", run)
    assert (whole.code, whole.stdout) == (0, "all is as it was written\n")
    told = json.loads(cropcube("job", "report", run, "--json").stdout)
    assert (told["done"], told["attempts"]) == (9, {"done": 9})
    assert "9 of 9 done" in cropcube("job", "report", run).stdout
    assert json.loads((run / "report.json").read_text()) == told


def test_an_estimate_rests_on_measured_tiles_and_stands_in_the_report(cropcube, spec, tmp_path):
    run, prices = tmp_path / "run", tmp_path / "prices.yaml"
    prices.write_text("currency: EUR\ncore_hour: 0.05\n")
    cropcube("job", "plan", spec, "--out", run)
    plain = cropcube("job", "estimate", run)
    assert plain.code == 0
    assert "9 tasks" in plain.stdout
    told = cropcube(
        *("job", "estimate", run, "--prices", prices, "--calibrate", 3, "--concurrency", 2)
    )
    assert told.code == 0
    assert "measured over assumed, 3 tasks" in told.stdout
    assert json.loads(cropcube("job", "status", run, "--json").stdout)["done"] == 3
    over = cropcube("job", "estimate", run, "--prices", prices, "--budget", 1e-9)
    assert over.code == 78
    assert "EUR" in over.stderr
    assert cropcube("job", "run", run).code == 0
    table = cropcube("job", "report", run).stdout
    assert "used/expected" in table
    assert json.loads((run / "report.json").read_text())["estimate"]["prices"]["currency"] == "EUR"


def test_cancel_and_back(cropcube, spec, tmp_path):
    run = tmp_path / "run"
    assert cropcube("job", "plan", spec, "--out", run).code == 0
    assert cropcube("job", "cancel", run).code == 0
    refused = cropcube("job", "run", run)
    assert (refused.code, refused.stdout) == (2, "")
    assert "was cancelled at" in refused.stderr
    assert cropcube("job", "cancel", run, "--undo").code == 0
    assert cropcube("job", "run", run, "--task", TILES[4]).code == 0


def test_mistakes_have_their_exit_code_and_one_sentence(cropcube, spec, tmp_path):
    run = tmp_path / "run"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(yaml.safe_load(spec.read_text()) | {"colour": "red"}))
    for arguments, code, part in (
        (("run", run), 2, "no job is planned there"),
        (("status", run), 2, "no job is planned there"),
        (("plan", wrong, "--out", run), 2, "unknown key 'colour'"),
        (("plan", tmp_path / "none.yaml", "--out", run), 2, "not readable"),
        (("plan", spec, "--out", "ftp://there"), 73, "not a place for a store"),
    ):
        done = cropcube("job", *arguments)
        assert (done.code, done.stdout) == (code, ""), done.stderr
        assert part in done.stderr
        assert "Traceback" not in done.stderr
    cropcube("job", "plan", spec, "--out", run)
    for arguments, part in (
        (("--shard", "3"), "write the part, from 0, and their number, 3/8"),
        (("--shard", "2/2"), "counted from 0 to 1"),
        (("--task", "x"), "has no task x"),
    ):
        done = cropcube("job", "run", run, *arguments)
        assert (done.code, done.stdout) == (2, "")
        assert part in done.stderr


def test_unreadable_data_end_with_65_and_the_task_is_named(cropcube, spec, tmp_path):
    for name in ("area.geojson", "job.yaml"):
        (tmp_path / name).write_text((spec.parent / name).read_text())
    gone = (spec.parent / "scenes.json").read_text().replace("blue.tif", "gone.tif")
    (tmp_path / "scenes.json").write_text(gone)
    run = tmp_path / "run"
    cropcube("job", "plan", tmp_path / "job.yaml", "--out", run)
    assert cropcube("job", "run", run, "--task", TILES[0]).code == 65
    shown = cropcube("job", "status", run).stdout
    assert f"{TILES[0]}  failed  attempts 1  data:" in shown
    assert "gone.tif" in shown
