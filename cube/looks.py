"""What a tile sees: scenes with a clear pixel in it, and their pixels, month by month.

The scene classification of every scene is read first; a scene without a clear pixel in the tile is
forgotten before its bands are asked for. Then the months come one after the other in one integer
buffer, the next arriving while the caller works on this one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache

import numpy as np

from cube.grid import Window
from cube.kernels import clear_of
from cube.planning import GridPlan
from cube.read import Reader
from cube.recipe import Recipe
from cube.scenes import Scene

#: Reads that one process keeps in flight: enough to hide a network's latency, and twice what two
#: cores can decode.
READS_IN_FLIGHT = 8


@dataclass(frozen=True)
class Looks:
    """Scenes with a clear pixel in the tile, in order of time; `clear` is bool [scene, pixel]."""

    scenes: tuple[Scene, ...]
    clear: np.ndarray


@dataclass(frozen=True)
class Month:
    """A month of the recipe and its scenes, `first` to `last` of the looks."""

    index: int
    first: int
    last: int
    scenes: tuple[Scene, ...]


@cache
def _reads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READS_IN_FLIGHT, thread_name_prefix="cropcube-read")


def clear_looks(plan: GridPlan, window: Window, read: Reader) -> Looks:
    pixels = window.height * window.width
    clear = np.empty((len(plan.scenes), pixels), np.bool_)
    scenes = sorted(plan.scenes, key=lambda scene: (scene.month, scene.id))

    def look(n: int) -> bool:
        scl = np.empty((window.height, window.width), np.uint8)
        read(scenes[n], "scl", window, scl)
        clear_of(scl.ravel(), plan.recipe.keep, clear[n])
        return bool(clear[n].any())

    seen = [n for n, any_clear in enumerate(_reads().map(look, range(len(scenes)))) if any_clear]
    for place, n in enumerate(seen):
        if place != n:
            clear[place] = clear[n]
    return Looks(tuple(scenes[n] for n in seen), clear[: len(seen)])


def _split_months(looks: Looks, recipe: Recipe) -> list[Month]:
    dates = [scene.month for scene in looks.scenes]
    months = []
    for index, first_day in enumerate(recipe.months):
        first, last = bisect_left(dates, first_day), bisect_right(dates, first_day)
        if last > first:
            months.append(Month(index, first, last, looks.scenes[first:last]))
    return months


def months_of(
    looks: Looks, recipe: Recipe, window: Window, read: Reader
) -> Iterator[tuple[Month, np.ndarray]]:
    """Yield every month with something to see and its DN, uint16 [scene, band, pixel]."""
    months = _split_months(looks, recipe)
    if not months:
        return
    most = max(len(month.scenes) for month in months)
    shape = (2, most, len(recipe.bands), window.height, window.width)
    buffers = np.empty(shape, np.uint16)

    def start(position: int) -> list[Future[None]]:
        if position >= len(months):
            return []
        out = buffers[position % 2]
        return [
            _reads().submit(read, scene, band, window, out[n, b])
            for n, scene in enumerate(months[position].scenes)
            for b, band in enumerate(recipe.bands)
        ]

    coming = start(0)
    for position, month in enumerate(months):
        arrived, coming = coming, []
        try:
            for future in arrived:
                future.result()
            coming = start(position + 1)
            values = buffers[position % 2, : len(month.scenes)]
            yield month, values.reshape(*values.shape[:2], -1)
        except BaseException:
            # Leave no read running behind an error.
            wait([future for future in (*arrived, *coming) if not future.cancel()])
            raise
