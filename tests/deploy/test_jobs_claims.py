"""Claims: one runner each, taken over from the dead and the silent, whatever the clocks say."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cube.objects import at
from deploy.jobs.claims import Attempt, Claims, Heart, Runner, read_runner
from tests.deploy.jobs_kit import processes


class Other:
    """A runner of another machine, so that only its silence tells."""

    def __init__(self, folder, name, lease_s=60.0):
        self.me = replace(Runner.here(), id=name, machine=f"machine of {name}")
        self.heart = Heart(folder, self.me, lease_s)
        self.claims = Claims(folder, self.me, self.heart.now, lease_s)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return at(tmp_path / "run")


def silence(folder, name, seconds):
    then = time.time() - seconds
    os.utime(folder.place / "runners" / f"{name}.json", (then, then))


def outcome(task, number, runner, **facts):
    now = datetime.now(UTC).isoformat()
    return Attempt(task=task, attempt=number, runner=runner, began=now, ended=now, **facts)


def test_a_hundred_tasks_are_claimed_once_each(folder):
    others = [Other(folder, f"r{n}") for n in range(4)]
    tasks = [f"t{n}" for n in range(100)]
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda o: {t for t in tasks if o.claims.take(t, 1)}, others))
    assert sum(map(len, won)) == 100
    assert set.union(*won) == set(tasks)


def test_a_claim_holds_until_its_runner_says_what_became_of_it(folder):
    a, b = Other(folder, "a"), Other(folder, "b")
    assert b.claims.standing("t") == replace(b.claims.standing("t"), attempt=0, held=False)
    assert a.claims.take("t", 1)
    assert (b.claims.standing("t").attempt, b.claims.standing("t").held) == (1, True)
    a.claims.record(outcome("t", 1, "a", outcome="failed", failure="data", error="no"))
    assert (b.claims.standing("t").attempt, b.claims.standing("t").held) == (1, False)
    assert b.claims.recorded("t", 1).failure == "data"
    assert b.claims.take("t", 2)
    assert not a.claims.take("t", 2)


def test_the_claims_of_a_silent_runner_are_taken_over(folder):
    a, b = Other(folder, "a"), Other(folder, "b")
    a.heart.stop()
    assert a.claims.take("t", 1)
    silence(folder, "a", 50)
    assert b.claims.standing("t").held
    silence(folder, "a", 70)
    assert not b.claims.standing("t").held


def test_clocks_that_disagree_by_an_hour_change_nothing(folder, monkeypatch):
    a = Other(folder, "a")
    assert a.claims.take("t", 1)
    clock = time.time
    with monkeypatch.context() as patch:
        patch.setattr("deploy.jobs.claims.time.time", lambda: clock() + 3600)
        ahead = Other(folder, "ahead")
        assert abs((ahead.heart.now() - datetime.now(UTC)).total_seconds()) < 5
        assert ahead.claims.standing("t").held
    wrong = Claims(folder, a.me, lambda: datetime.now(UTC) + timedelta(hours=1), 60.0)
    assert wrong.standing("t").held, "its own claim"


def test_a_heart_beats_and_its_silence_is_noticed(folder):
    a = Other(folder, "a", lease_s=0.2)
    silence(folder, "a", 1000)
    time.sleep(0.3)
    assert (datetime.now(UTC) - folder.modified("runners/a.json")).total_seconds() < 5
    assert a.heart.silent_s < 0.2
    a.heart.stop()
    time.sleep(0.25)
    assert a.heart.silent_s > 0.2


def _claim(place):
    folder, me = at(place), Runner.here()
    heart = Heart(folder, replace(me, id="child"), 60.0)
    Claims(folder, replace(me, id="child"), heart.now, 60.0).take("t", 1)
    time.sleep(60)


def test_a_dead_process_of_this_machine_holds_nothing(folder):
    here = Runner.here()
    heart = Heart(folder, here, 60.0)
    claims = Claims(folder, here, heart.now, 60.0)
    child = processes.Process(target=_claim, args=(str(folder),))
    child.start()
    deadline = time.monotonic() + 60
    while not folder.exists("claims/t/1.json"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert claims.standing("t").held
    assert not read_runner(folder, "child").dead
    child.kill()
    child.join()
    assert read_runner(folder, "child").dead
    assert not claims.standing("t").held
