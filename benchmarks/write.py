"""What writing costs: a build into the sharded store against the same build without writing."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import dask

import cube
from benchmarks.alone import alone, in_turn, run_path, show
from benchmarks.archive import BANDS, DATES, SIZE, THREADS, archive

RUNS = 3


def build(folder: str) -> dict[str, Any]:
    """Build every tile and let it go."""

    def forget(grid: cube.GridPlan, tile: cube.Tile) -> None:
        cube.build_tile(grid, tile)

    plan = cube.load_plan(Path(folder) / "plan.json")
    with dask.config.set(num_workers=THREADS), ThreadPoolExecutor(THREADS) as pool:
        tasks = [pool.submit(forget, grid, tile) for grid in plan.grids for tile in grid.tiles]
        for task in tasks:
            task.result()
    return {}


def write(folder: str) -> dict[str, Any]:
    """Build every tile, write it, read it back, mark it."""
    plan = cube.load_plan(Path(folder) / "plan.json")
    with tempfile.TemporaryDirectory() as out, dask.config.set(num_workers=THREADS):
        root = cube.store.write(plan, Path(out) / "cube.zarr")
        stored = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return {"stored": stored / 2**20}


PATHS = {"build": build, "write": write}


def main() -> None:
    with archive() as folder:
        alone("write", "build", folder)  # page cache warm for both
        rows = in_turn(RUNS, {name: partial(alone, "write", name, folder) for name in PATHS})
    ratio = {cost: rows["write"][cost] / rows["build"][cost] for cost in ("wall", "cpu")}
    lines = [
        f"{DATES} dates × ({len(BANDS)} bands + SCL) × {SIZE}², {THREADS} threads, "
        f"median of {RUNS} runs",
        *(
            f"{name:<6} {row['wall']:6.2f} s wall  {row['cpu']:6.2f} s CPU  "
            f"peak {row['peak']:5.2f} GiB"
            for name, row in rows.items()
        ),
        f"stored       {rows['write']['stored']:.0f} MiB",
        f"write/build  {ratio['wall']:.2f} × the wall time, {ratio['cpu']:.2f} × the CPU time",
    ]
    show({"paths": rows, "ratio": ratio}, lines)


if __name__ == "__main__":
    run_path(PATHS)
