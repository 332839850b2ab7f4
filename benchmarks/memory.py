"""Peak memory of a worker at 12, 72 and 144 dates of one year."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import dask

import cube
from benchmarks.alone import alone, run_path, show
from benchmarks.archive import archive

DATES = (12, 72, 144)


def write(folder: str) -> dict[str, Any]:
    """Build all tiles one after the other into a store, as a worker of one thread does."""
    plan = cube.load_plan(Path(folder) / "plan.json")
    with tempfile.TemporaryDirectory() as out, dask.config.set(num_workers=1):
        root = cube.store.create(plan, Path(out) / "cube.zarr")
        for grid in plan.grids:
            for tile in grid.tiles:
                cube.store.write_tile(root, grid.grid.granule, tile.row, tile.col)
    return {}


PATHS = {"write": write}


def main() -> None:
    rows = {}
    for dates in DATES:
        with archive(dates=dates) as folder:
            rows[dates] = alone("memory", "write", folder)
    growth = {dates: row["peak"] / rows[DATES[0]]["peak"] for dates, row in rows.items()}
    lines = [
        f"{dates:4d} dates: peak {row['peak']:.2f} GiB, {growth[dates]:.2f} × that of {DATES[0]}"
        for dates, row in rows.items()
    ]
    show({"paths": rows, "growth": growth}, lines)


if __name__ == "__main__":
    run_path(PATHS)
