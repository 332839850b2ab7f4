"""A small job to run and to kill: nine tiny tiles, and processes that start in no time.

Processes come from Python's fork server, which imports everything once: a runner is a real process
of its own, but costs no import.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from pathlib import Path

import shapely

from cube.grid import NativeGrid, Window
from cube.objects import Folder, at
from tests.archive import Archive, write_archive
from tests.cube.test_build import bbox_of

GRID = NativeGrid(
    granule="31TEJ", epsg=32631, left=523_560.0, top=4_832_780.0, height=2080, width=2080
)
#: One window of 20 × 20 pixels in each of the nine cells of the lattice.
WINDOWS = [
    Window(row=1024 * row + 6, col=1024 * col + 8, height=20, width=20)
    for row in range(3)
    for col in range(3)
]
TILES = [f"31TEJ-{row}-{col}" for row in range(3) for col in range(3)]

SPEC = """
apiVersion: cropcube/v1
kind: CubeBuild
name: tiny
area: area.geojson
scenes: scenes.json
recipe: {bands: [blue], start: 2023-01, end: 2023-02}
run: {at_once: 1, lease_s: 60, retries: {transient: 2, backoff_s: 0.01}}
"""

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.deploy.jobs_warm"])


def write_job(folder: Path, spec: str = SPEC) -> Path:
    """Write archive, area, scenes and job file; return the job file."""
    archive = write_archive(folder / "archive", ["2023-01-05", "2023-02-03"], ("blue",), grid=GRID)
    return write_inputs(folder, archive, spec)


def write_inputs(folder: Path, archive: Archive, spec: str = SPEC) -> Path:
    area = shapely.MultiPolygon([shapely.box(*bbox_of(GRID, window)) for window in WINDOWS])
    (folder / "area.geojson").write_text(shapely.to_geojson(area))
    archive.scenes.save(folder / "scenes.json")
    file = folder / "job.yaml"
    file.write_text(spec)
    return file


def cropcube(*arguments: object, out: Path | None = None) -> multiprocessing.process.BaseProcess:
    """Start the command `cropcube` as a process; its stdout goes to a file or nowhere."""
    words = [str(one) for one in arguments]
    keep = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    process = processes.Process(target=_command, args=(words, str(out or os.devnull), keep))
    process.start()
    return process


def code_of(process: multiprocessing.process.BaseProcess, timeout: float = 60) -> int:
    """Wait for a process and return its exit code; negative for a signal that killed it."""
    process.join(timeout)
    assert process.exitcode is not None, "the command does not end"
    return process.exitcode


def contents(place: Path | Folder | str) -> dict[str, bytes]:
    """Return every object of a folder or bucket."""
    folder = at(place)
    return {name: folder.get(name) for name in sorted(folder.listing())}


def written(store: Folder) -> dict[str, object]:
    """Return when each tile of a store was marked."""
    names = [name for name in store.listing(".cropcube") if "31TEJ-" in name]
    return {name: store.modified(name) for name in names}


def _command(words: list[str], out: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with open(out, "a", buffering=1) as stdout, contextlib.redirect_stdout(stdout):  # noqa: PTH123
        sys.stderr = stdout
        sys.argv = ["cropcube", *words]
        from deploy.cli import main

        main()
