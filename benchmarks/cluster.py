"""One worker against two: LocalCluster, one thread each, 2048² of the archive."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dask
import distributed

import cube
from benchmarks.alone import alone, in_turn, run_path, show
from benchmarks.archive import archive


def build(folder: str, workers: str) -> dict[str, Any]:
    """Build on a fresh cluster; starting it and a first tile are outside the clock."""
    plan = cube.load_plan(Path(folder) / "plan.json")
    with (
        dask.config.set({"distributed.worker.memory.target": False}),
        distributed.LocalCluster(
            n_workers=int(workers), threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(cube.kernels.self_test)
        start = time.perf_counter()
        distributed.wait(cube.build(plan).persist())
        return {"wall": time.perf_counter() - start}


PATHS = {"build": build}


def main() -> None:
    with archive() as folder:
        rows = in_turn(
            5,
            {
                f"{count} worker(s)": lambda count=count: alone("cluster", "build", folder, count)
                for count in (1, 2)
            },
        )
    one, two = rows.values()
    lines = [f"{name}: {row['wall']:6.1f} s wall" for name, row in rows.items()]
    lines.append(f"from 1 to 2 workers: {one['wall'] / two['wall']:.2f} ×")
    show({"paths": rows, "speedup": one["wall"] / two["wall"]}, lines)


if __name__ == "__main__":
    run_path(PATHS)
