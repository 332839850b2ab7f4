"""Run one path of a benchmark in a process of its own, so that times and memory are its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.settled import touch_memory
from cube.kernels import self_test

#: Takes the command line's other words; returns facts to report beside the cost.
Path_ = Callable[..., dict[str, Any]]


def run_path(paths: dict[str, Path_]) -> None:
    """Run the path that the command line names and print its cost: the child's side of `alone`."""
    self_test()  # compiles, once per installation
    touch_memory()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    facts = paths[sys.argv[1]](*sys.argv[2:])
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "wall": facts.pop("wall", wall),
        "cpu": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        "peak": after.ru_maxrss / 2**20,
    }
    print(json.dumps(cost | facts))


def alone(module: str, path: str, *words: object) -> dict[str, Any]:
    """Return wall and CPU seconds, peak memory in GiB and the facts of one path of a module."""
    command = [sys.executable, "-m", f"benchmarks.{module}", path, *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_turn(runs: int, rows: dict[str, Callable[[], dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Run all rows `runs` times in turn; return the fastest run of each.

    In turn, so that a machine that slows down slows all of them; the fastest, because what else
    goes on in a machine only ever adds time.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for _ in range(runs):
        for name, run in rows.items():
            found[name].append(run())
    return {name: min(some, key=lambda run: run["wall"]) for name, some in found.items()}


def show(facts: dict[str, Any], lines: list[str]) -> None:
    """Print the lines, or with ``--json`` the facts as one object."""
    print(json.dumps(facts, indent=1) if "--json" in sys.argv else "\n".join(lines))


def say(text: str) -> None:
    """Tell what is going on, to stderr."""
    print(text, file=sys.stderr)
