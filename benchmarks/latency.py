"""The build of the benchmark `build` over HTTP, each answer 50 ms late, against the local one.

The server runs on the same two cores, in a process of its own. The peer reads the same blocks with
two synchronous readers (GDAL, one request at a time each).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import rasterio
from rasterio.windows import Window as RasterWindow

import cube
from benchmarks.alone import alone, in_turn, run_path, show
from benchmarks.archive import BANDS, SIZE, THREADS, archive
from cube.looks import READS_IN_FLIGHT
from tests.range_server import serve

DELAY = 0.05


def local(folder: str) -> dict[str, Any]:
    return build(cube.load_plan(Path(folder) / "plan.json"))


def remote(folder: str, origin: str) -> dict[str, Any]:
    """The same plan, its files behind the server."""
    text = (Path(folder) / "plan.json").read_text()
    text = text.replace(f"earth-search@{folder}", f"earth-search@{origin}")
    plan = json.loads(text.replace(str(folder), origin))
    path = Path(folder) / "remote.json"
    path.write_text(json.dumps(plan))
    return build(cube.load_plan(path))


def build(plan: cube.Plan) -> dict[str, Any]:
    start = time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        cube.build(plan).persist()
    return {"wall": time.perf_counter() - start}


def synchronous(folder: str, origin: str) -> dict[str, Any]:
    """Read every block with GDAL, two readers, each waiting for one answer after the other."""
    names = [path.relative_to(folder) for path in sorted(Path(folder).rglob("*.tif"))]
    halves = [names[n::THREADS] for n in range(THREADS)]

    def read(some: list[Path]) -> None:
        options = {
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
            "CPL_VSIL_CURL_USE_HEAD": "NO",
            "VSI_CACHE": True,
        }
        with rasterio.Env(**options):
            for name in some:
                size = SIZE // 2 if name.stem == "SCL" else SIZE
                with rasterio.open(f"/vsicurl/{origin}/{name}") as source:
                    for row in range(0, size, 1024):
                        for col in range(0, size, 1024):
                            source.read(1, window=RasterWindow(col, row, 1024, 1024))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, halves))
    return {}


def server(folder: str) -> dict[str, Any]:
    """Serve until the parent closes the pipe."""
    with serve(Path(folder), delay=DELAY) as running:
        print(running.origin, flush=True)
        sys.stdin.read()
    return {}


PATHS = {"local": local, "remote": remote, "synchronous": synchronous, "server": server}


def main() -> None:
    with archive() as folder:
        command = [sys.executable, "-m", "benchmarks.latency", "server", str(folder)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            origin = child.stdout.readline().strip()
            alone("latency", "local", folder)
            rows = in_turn(
                3,
                {
                    "local": lambda: alone("latency", "local", folder),
                    "remote": lambda: alone("latency", "remote", folder, origin),
                    "synchronous": lambda: alone("latency", "synchronous", folder, origin),
                },
            )
            child.communicate()
    requests = 72 * (len(BANDS) * 4 + 1) + 72 * (len(BANDS) + 1)
    floor = requests * DELAY / READS_IN_FLIGHT
    ratios = {
        "remote / local": rows["remote"]["wall"] / rows["local"]["wall"],
        "synchronous / remote": rows["synchronous"]["wall"] / rows["remote"]["wall"],
    }
    lines = [
        *(
            f"{name:<12} {row['wall']:7.1f} s wall {row['cpu']:6.1f} s CPU"
            for name, row in rows.items()
        ),
        f"latency ÷ concurrency: {requests} requests × {DELAY} s ÷ {READS_IN_FLIGHT} "
        f"= {floor:.1f} s",
        *(f"{name:<22} {ratio:5.2f} × the wall time" for name, ratio in ratios.items()),
    ]
    show({"paths": rows, "ratios": ratios, "floor": floor}, lines)


if __name__ == "__main__":
    run_path(PATHS)
