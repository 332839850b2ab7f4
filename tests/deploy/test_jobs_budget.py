"""What others spend counts, and estimates say what they rest on."""

from __future__ import annotations

import json

import pytest

from cube.objects import at
from deploy.jobs import open_job, plan_job, report, run_job, watch
from deploy.jobs.cost import estimate_job
from deploy.jobs.report import read_attempts
from tests.archive import write_archive
from tests.deploy.jobs_kit import GRID, SPEC, TILES, code_of, cropcube, write_inputs

BUDGET = "budget: {limit: 10, prices: {currency: EUR, thousand_requests: 1000}}"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    dates = ["2023-01-05", "2023-02-03"]
    return write_inputs(folder, write_archive(folder / "archive", dates, ("blue",), grid=GRID))


def test_a_runner_stops_when_others_have_spent_the_budget(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_SUM_S", 0)
    priced = spec.with_name("priced.yaml")
    priced.write_text(SPEC.replace("run: {", f"run: {{{BUDGET}, "))
    plan_job(priced, tmp_path / "run")
    others = []

    def listen(event):
        # Another runner spends everything after this one has looked at what was spent before.
        if event["event"] == "run_began":
            others.append(run_job(tmp_path / "run"))

    ours = run_job(tmp_path / "run", listener=listen)
    assert others[0].code == ours.code == 78
    assert "EUR are spent, the budget is 10.00 EUR" in ours.ended
    attempts = read_attempts(at(tmp_path / "run"))
    assert 0 < others[0].done == len(attempts) < len(TILES)
    assert len({one.runner for one in attempts}) == 1, "this runner has begun nothing"


def test_a_measurement_holds_for_later_estimates_and_its_lack_is_told(spec, tmp_path):
    job = plan_job(spec, tmp_path / "run")
    guess = estimate_job(job, concurrency=1)
    assert guess.calibration is None
    assert "core-hours (uncalibrated)" in guess.text
    assert "a guess that no measurement" in guess.text
    measured = estimate_job(job, concurrency=1, measure=2)
    again = estimate_job(open_job(tmp_path / "run"), concurrency=4)
    assert again.calibration == measured.calibration
    assert again.core_hours == measured.core_hours
    assert again.concurrency == 4
    assert "uncalibrated" not in again.text
    assert len(read_attempts(job.folder)) == 2, "nothing is measured twice"


def test_a_runner_of_tiny_tiles_needs_the_memory_that_is_estimated(spec, tmp_path):
    job = plan_job(spec, tmp_path / "run")
    peak = estimate_job(job, concurrency=1).peak_gib
    assert code_of(cropcube("job", "run", tmp_path / "run")) == 0
    used = report(job).used.rss_mib / 2**10
    assert peak.low <= used <= peak.high, json.dumps([peak.low, used, peak.high])
