"""What one task asks of files, network, memory and core: counted from the plan where it can be.

A plan tells which blocks of which files a tile touches and how many scenes stand in one period. It
does not tell clouds, nor how well blocks compress: those are assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np

from cube.grid import PIXEL, NativeGrid, Window
from cube.looks import READS_IN_FLIGHT
from cube.planning import GridPlan, Tile
from cube.read import gsd, native_window
from cube.tiff import HEADER
from deploy.jobs.bands import Band, exactly


class Assumptions(NamedTuple):
    """What a plan does not tell.

    `bytes_per_pixel`, `scl_bytes_per_pixel` and `stored_share` span what `python -m benchmarks
    sizes` prints for real archives, and go lower for granules that a pass cuts.

    Attributes
    ----------
    bytes_per_pixel, scl_bytes_per_pixel : Band
        Compressed, at the asset's own resolution.
    stored_share : Band
        Size in the store over the size of the integers.
    contributing : Band
        Share of the scenes with a clear pixel in a tile: the bands of others are not fetched. The
        low end is that of patches of 640 m in Flanders (the same command); a tile is larger.
    pixels_per_second : Band
        That one core fetches, decodes and composes. A guess: decoding alone is its upper bound
        (`python -m benchmarks build`).
    block, other_block : int
        Side of a file's blocks in pixels: the likely one, and one that widens the spans.
    base_bytes : Band
        Memory of a process that does tasks, without their pixels; measured on Linux
        (`cropcube job report`, tiles of 20 pixels). It is nearly all that small tiles need.
    """

    bytes_per_pixel: Band = Band(0.6, 1.4, 1.6)
    scl_bytes_per_pixel: Band = Band(0.02, 0.08, 0.15)
    stored_share: Band = Band(0.5, 0.65, 0.75)
    contributing: Band = Band(0.65, 0.85, 1.0)
    pixels_per_second: Band = Band(25e6, 35e6, 60e6)
    block: int = 1024
    other_block: int = 512
    base_bytes: Band = Band(200 * 2.0**20, 400 * 2.0**20, 700 * 2.0**20)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is assumed, one sentence each."""
        speed = self.pixels_per_second * 1e-6
        return (
            f"a pixel of a band takes {self.bytes_per_pixel} bytes in its file, one of the "
            f"classification {self.scl_bytes_per_pixel}",
            f"files have blocks of {self.block} or {self.other_block} pixels",
            f"{self.contributing} of the scenes have a clear pixel in a tile; the bands of the "
            "others are not read",
            f"the store takes {self.stored_share} of the size of its integers",
            f"a core does {speed} million pixels a second, network included: a guess that no "
            "measurement of this job supports (uncalibrated)",
            f"a process takes {self.base_bytes * 2.0**-20} MiB beside the pixels of its task",
        )


@dataclass(frozen=True)
class Load:
    """What tasks take: ranges requested, bytes read and written, seconds of one core."""

    requests: Band
    read: Band
    written: Band
    core_seconds: Band

    def __add__(self, other: Load) -> Load:
        """Add the loads of several tasks."""
        return Load(
            self.requests + other.requests,
            self.read + other.read,
            self.written + other.written,
            self.core_seconds + other.core_seconds,
        )


def header_reads(grid: GridPlan, concurrency: int) -> Band:
    """Return how often a task reads the header of a file that it needs, on average.

    A process keeps the headers that it has read: at best one process builds the whole grid, likely
    all take part, at worst every task meets a process that knows none.
    """
    tiles = len(grid.tiles)
    return Band(1 / tiles, min(concurrency, tiles) / tiles, 1.0)


def load(grid: GridPlan, tile: Tile, assumed: Assumptions, headers: Band) -> Load:
    """Return what one task takes; `headers` is how often it reads each file's header."""
    bands = grid.recipe.bands
    scenes = exactly(len(grid.scenes))
    taken = scenes * assumed.contributing
    scl_blocks, scl_pixels = _touched(grid.grid, tile.window, "scl", assumed)
    touched = [_touched(grid.grid, tile.window, band, assumed) for band in bands]
    blocks = reduce(add, (blocks for blocks, _ in touched))
    pixels = reduce(add, (pixels for _, pixels in touched))
    header_requests = (scenes + taken * len(bands)) * headers
    decoded, speed = scenes * scl_pixels + taken * pixels, assumed.pixels_per_second
    return Load(
        requests=header_requests + scenes * scl_blocks + taken * blocks,
        read=header_requests * HEADER
        + scenes * scl_pixels * assumed.scl_bytes_per_pixel
        + taken * pixels * assumed.bytes_per_pixel,
        written=assumed.stored_share * float(_result_bytes(grid, tile)),
        core_seconds=decoded * Band(1 / speed.high, 1 / speed.mid, 1 / speed.low),
    )


def peak_bytes(grid: GridPlan, tile: Tile, assumed: Assumptions) -> Band:
    """Return the memory of a worker with one task: the buffers of `cube.looks` and `cube.build`."""
    pixels = tile.window.height * tile.window.width
    scenes_at_once = int(np.bincount(grid.places).max())
    # Values of one period, the masks of two, blocks on their way; the masks of all scenes at 20 m.
    period = assumed.contributing * float(
        scenes_at_once * pixels * (2 * len(grid.recipe.bands) + 2)
    )
    arriving = assumed.bytes_per_pixel * float(READS_IN_FLIGHT * assumed.block**2)
    masks = len(grid.scenes) * pixels / 4
    return assumed.base_bytes + period + arriving + exactly(masks + _result_bytes(grid, tile))


def _result_bytes(grid: GridPlan, tile: Tile) -> int:
    pixels = tile.window.height * tile.window.width
    return len(grid.times) * pixels * (2 * len(grid.recipe.bands) + 1)


def _touched(
    grid: NativeGrid, window: Window, band: str, assumed: Assumptions
) -> tuple[Band, Band]:
    """Return the number of blocks of one file that a window touches, and their pixels."""
    factor = gsd(band) // int(PIXEL)
    inside, whole = native_window(window, factor), native_window(grid.window, factor)
    likely, other = (_cover(inside, whole, side) for side in (assumed.block, assumed.other_block))
    blocks, pixels = (
        Band(min(pair), pair[0], max(pair)) for pair in zip(likely, other, strict=True)
    )
    return blocks, pixels


def _cover(window: Window, whole: Window, side: int) -> tuple[float, float]:
    """Return the number of blocks of a size that a window touches, and the pixels they hold."""

    def along(first: int, length: int, end: int) -> tuple[int, int]:
        begin, stop = first // side, -(-(first + length) // side)
        return stop - begin, min(stop * side, end) - begin * side

    rows, high = along(window.row, window.height, whole.height)
    cols, wide = along(window.col, window.width, whole.width)
    return float(rows * cols), float(high * wide)
