"""Blocks that are wholly cloudy are never fetched: time and bytes against their share.

Blocks of 512, four to a tile, so that a block is skipped inside a tile that is read.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import dask

import cube
from benchmarks.alone import alone, in_turn, run_path, show
from benchmarks.archive import THREADS, archive
from cube.ranges import Source

SHARES = (0.0, 0.6)


def build(folder: str) -> dict[str, Any]:
    """Build, counting the bytes that were read."""
    plan = cube.load_plan(Path(folder) / "plan.json")
    total, lock, read_into = [0], threading.Lock(), Source.read_into

    def counting(self: Source, start: int, buffer: memoryview) -> int:
        got = read_into(self, start, buffer)
        with lock:
            total[0] += got
        return got

    Source.read_into = counting  # type: ignore[method-assign]
    start = time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        cube.build(plan).persist()
    return {"wall": time.perf_counter() - start, "read": total[0]}


PATHS = {"build": build}


def main() -> None:
    rows = {}
    for share in SHARES:
        with archive(block=512, cloudy_blocks=share) as folder:
            alone("cloudy", "build", folder)  # page cache warm
            rows |= in_turn(
                3, {f"{share:.0%}": lambda folder=folder: alone("cloudy", "build", folder)}
            )
    clear, cloudy = (rows[f"{share:.0%}"] for share in SHARES)
    ratios = {name: cloudy[name] / clear[name] for name in ("read", "cpu", "wall")}
    lines = [
        f"{name} of blocks cloudy: {row['read'] / 2**30:5.2f} GiB read, {row['cpu']:5.1f} s CPU, "
        f"{row['wall']:5.1f} s wall"
        for name, row in rows.items()
    ]
    lines.append("with 60 % cloudy: " + ", ".join(f"{n} {r:.2f} ×" for n, r in ratios.items()))
    show({"paths": rows, "ratios": ratios}, lines)


if __name__ == "__main__":
    run_path(PATHS)
