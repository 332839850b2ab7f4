"""An area that does not sit on block edges: which blocks are decoded, how often."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import cube
import cube.read
from benchmarks.alone import alone, run_path, show
from benchmarks.archive import archive, bounds, plan_of
from cube.grid import Window
from cube.read import gsd, native_window

#: Rows, columns, height, width of the area in pixels of 10 m.
AREA = (300, 700, 1100, 900)


def count_blocks(folder: str) -> dict[str, Any]:
    """Build the area; count decoded and touched blocks, in bytes of pixels."""
    plan = plan_of_area(folder)
    decoded: Counter[tuple[str, str, int]] = Counter()
    layouts, lock, copy = {}, threading.Lock(), cube.read.copy_block

    def counting(layout: Any, index: int, *rest: Any) -> int:
        with lock:
            decoded[id(layout), index] += 1
            layouts[id(layout)] = layout
        return copy(layout, index, *rest)

    cube.read.copy_block = counting
    for grid in plan.grids:
        for tile in grid.tiles:
            cube.build_tile(grid, tile)
    touched = 0
    for grid in plan.grids:
        for scene in grid.scenes:
            for band in scene.hrefs:
                if band in (*grid.recipe.bands, "scl"):
                    touched += touched_bytes(grid, scene, band)
    bytes_of = {
        key: one.block[0] * one.block[1] * one.dtype.itemsize for key, one in layouts.items()
    }
    total = sum(count * bytes_of[key] for (key, _), count in decoded.items())
    return {"decoded": total, "touched": touched, "twice": sum(n > 1 for n in decoded.values())}


def touched_bytes(grid: Any, scene: Any, band: str) -> int:
    """Return the bytes of all blocks of a file that the area's window meets."""
    asset = cube.read._asset(scene, band, grid.window)
    layout = cube.read._layout(asset)
    window: Window = native_window(grid.window, gsd(band) // 10)
    size = layout.block[0] * layout.block[1] * layout.dtype.itemsize
    return size * sum(1 for _ in layout.blocks(window))


def plan_of_area(folder: str) -> cube.Plan:
    from pathlib import Path

    return plan_of(Path(folder), bounds(*AREA))


PATHS = {"count": count_blocks}


def main() -> None:
    rows = {}
    for block in (1024, 512):
        with archive(dates=12, block=block, cloudy_blocks=0.0) as folder:
            rows[block] = alone("misaligned", "count", folder)
    ratios = {block: row["decoded"] / row["touched"] for block, row in rows.items()}
    lines = [
        f"blocks of {block}: {row['decoded'] / 2**20:.0f} MiB decoded, "
        f"{row['touched'] / 2**20:.0f} MiB in the blocks touched: {ratios[block]:.3f} ×; "
        f"{row['twice']} blocks twice"
        for block, row in rows.items()
    ]
    show({"paths": rows, "ratios": ratios}, lines)


if __name__ == "__main__":
    run_path(PATHS)
