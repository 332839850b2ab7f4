"""What a tile sees: its clear pixels, and the values of one period at a time.

The scene classification of every scene is read first; a scene without a clear pixel in the tile is
forgotten before its bands are asked for, and so is a block of a file without one. Then the bands
come in batches of whole periods, in one integer buffer: as many periods as fit, so that neither
memory nor the number of reads in flight depends on how often the satellite passes. While the caller
works on a batch, the next one's bytes arrive; they are decoded once the buffer is free.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import groupby
from threading import Event

import numpy as np

from cube.cores import scratch
from cube.errors import ReadError, SceneError
from cube.grid import Window
from cube.kernels import MAX_DN
from cube.mask import clear_mask
from cube.pixeltest import BANDS_BY_DARKNESS, DARK_CLASSES, PLENTY, contradicts, gather
from cube.planning import GridPlan
from cube.read import Reader, native_window, read_window, replicate
from cube.scenes import Scene
from cube.tally import Tally

#: Reads that each tile being built keeps in flight: enough to hide the latency of a network. How
#: many of them decode at once is another matter (`cube.cores`).
READS_IN_FLIGHT = 16
#: Bytes of pixels read at a time, unless one period needs more: twelve passes in four bands.
BATCH = 96 * 2**20
#: Failures that `max_missing` may excuse: of a file or of the way to it, not of the user's rights.
EXCUSABLE = ("missing", "corrupt", "transport")
#: Metres of an SCL pixel in 10 m pixels.
_SCL = 2


@dataclass(frozen=True)
class Look:
    """One scene over the tile.

    Attributes
    ----------
    place : int
        On the cube's time axis.
    scene : Scene
    bits : ndarray of uint8
        `clear`, packed: a year of them is kept.
    size : (int, int)
        Rows and columns of `clear`.
    dark : ndarray of int64 [2, n]
        Rows and columns of some pixels of vegetation and water, to test the offset on.
    seen : int
        Pixels with data.
    """

    place: int
    scene: Scene
    bits: np.ndarray
    size: tuple[int, int]
    dark: np.ndarray
    seen: int

    @property
    def clear(self) -> np.ndarray:
        """Return bool [y, x]: which of the 20 m pixels that cover the window are clear."""
        count = self.size[0] * self.size[1]
        return np.unpackbits(self.bits, count=count).view(np.bool_).reshape(self.size)


@dataclass(frozen=True)
class Period:
    """The observations of one place on the time axis.

    Attributes
    ----------
    place : int
    scenes : tuple of Scene
    values : ndarray of uint16 [scene, band, pixel]
        DN as stored; later periods overwrite them.
    clear : ndarray of bool [scene, pixel]
    subtract : ndarray of uint16 [scene]
    """

    place: int
    scenes: tuple[Scene, ...]
    values: np.ndarray
    clear: np.ndarray
    subtract: np.ndarray


class TileView:
    """What one tile sees; `tally` counts along.

    Parameters
    ----------
    plan : GridPlan
    window : Window
        Pixels of the tile.
    read : Reader
        How pixels are read.
    max_missing : float
        Share of the scenes that may fail to be read without stopping the build; they count as not
        taken, and are counted.

    Raises
    ------
    ReadError
        If a classification cannot be read, or has classes that do not exist.
    """

    def __init__(
        self, plan: GridPlan, window: Window, read: Reader, max_missing: float = 0.0
    ) -> None:
        self._plan, self._window, self._read = plan, window, read
        self._excusable = math.floor(max_missing * len(plan.scenes))
        self._failed: set[str] = set()
        self.tally = Tally(seen=[0] * len(plan.times), clear=[0] * len(plan.times))
        self._looks = self._all_looks()

    def periods(self) -> Iterator[Period]:
        """Yield every period with something to see.

        Raises
        ------
        ReadError
            If an asset cannot be read.
        SceneError
            If pixels contradict what was decided about ESA's offset.
        """
        size = (self._window.height, self._window.width)
        of_one = 2 * len(self._plan.recipe.bands) * math.prod(size)
        batches = _batches(self._looks, BATCH // of_one)
        if not batches:
            return
        most = max(len(batch) for batch in batches)
        values = _kept("values", (most, len(self._plan.recipe.bands), *size), np.uint16)
        clear = _kept("clear", (2, most, *size), np.bool_)
        free = Event()
        free.set()
        coming = self._start(batches[0], values, clear[0], free)
        for turn, batch in enumerate(batches):
            arrived, coming = coming, []
            try:
                self._arrive(batch, arrived, values, clear[turn % 2])
                free = Event()
                if turn + 1 < len(batches):
                    coming = self._start(batches[turn + 1], values, clear[(turn + 1) % 2], free)
                yield from _periods(batch, values, clear[turn % 2])
                free.set()
            except BaseException:
                # Leave no read running behind an error.
                free.set()
                reads = [future for row in (*arrived, *coming) for future in row]
                wait([future for future in reads if not future.cancel()])
                raise

    def _all_looks(self) -> list[Look]:
        scenes = list(zip(self._plan.places.tolist(), self._plan.scenes, strict=True))
        coarse = native_window(self._window, _SCL)
        futures = [_reads().submit(self._look, place, scene, coarse) for place, scene in scenes]
        looks = []
        try:
            for future in futures:
                try:
                    looks.append(future.result())
                except ReadError as error:
                    self._excuse(error)
        except BaseException:
            wait([future for future in futures if not future.cancel()])
            raise
        looks = _one_per_pass(looks)
        for look in looks:
            self.tally.seen[look.place] += look.seen
            self.tally.clear[look.place] += int(np.count_nonzero(look.clear))
        seen = [look for look in looks if look.bits.any()]
        # Earlier ones first: where a composite has to choose between equals, the first one wins.
        return sorted(seen, key=lambda look: (look.place, look.scene.datetime, look.scene.id))

    def _look(self, place: int, scene: Scene, coarse: Window) -> Look:
        margin = self._plan.recipe.margin
        around = coarse.grown(margin).intersect(native_window(scene.grid.window, _SCL))
        scl = scratch("scl").take(around.height * around.width).reshape(around.height, -1)
        self._read(scene, "scl", around, scl)
        inside = coarse.relative_to(around).yx
        try:
            clear = clear_mask(scl, self._plan.recipe.mask)[inside]
        except SceneError as error:
            tile = f"{scene.grid.granule} row {self._window.row} col {self._window.col}"
            raise ReadError(
                f"{scene.id}, scl, tile {tile}: {error}",
                item=scene.id,
                asset="scl",
                tile=tile,
                attempt=1,
                kind="corrupt",
            ) from error
        here = scl[inside]
        bits, seen = np.packbits(clear), int(np.count_nonzero(here))
        return Look(place, scene, bits, here.shape, _dark(here), seen)

    def _start(
        self, group: list[Look], values: np.ndarray, clear: np.ndarray, free: Event
    ) -> list[list[Future[int]]]:
        corner = self._window.row % _SCL, self._window.col % _SCL
        for n, look in enumerate(group):
            replicate(look.clear, _SCL, *corner, clear[n])
        return [
            [
                _reads().submit(
                    read_window,
                    look.scene,
                    band,
                    self._window,
                    values[n, b],
                    wanted=clear[n],
                    free=free,
                    read=self._read,
                )
                for b, band in enumerate(self._plan.recipe.bands)
            ]
            for n, look in enumerate(group)
        ]

    def _arrive(
        self,
        group: list[Look],
        reads: list[list[Future[int]]],
        values: np.ndarray,
        clear: np.ndarray,
    ) -> None:
        for n, (look, row) in enumerate(zip(group, reads, strict=True)):
            for b, future in enumerate(row):
                try:
                    greatest = future.result()
                except ReadError as error:
                    self._excuse(error)
                    # Without one of its bands a scene was not taken here.
                    clear[n] = False
                    continue
                if greatest > MAX_DN:
                    found = int(np.count_nonzero(values[n, b] > MAX_DN))
                    known = self.tally.underflow.get(look.scene.id, 0)
                    self.tally.underflow[look.scene.id] = known + found
            if look.scene.decided == "metadata" and clear[n].any():
                self._test_offset(look, values[n])

    def _test_offset(self, look: Look, values: np.ndarray) -> None:
        bands = self._plan.recipe.bands
        tested = [band for band in BANDS_BY_DARKNESS if band in bands][:2]
        # The first of the 10 m pixels in each; at the window's edge it may lie outside.
        corner = [[self._window.row % _SCL], [self._window.col % _SCL]]
        rows, cols = np.maximum(_SCL * look.dark - corner, 0)
        samples = {band: values[bands.index(band), rows, cols] for band in tested}
        scl = np.full(len(rows), DARK_CLASSES[0], np.uint8)
        why = contradicts(look.scene.subtract or 0, gather(scl, samples))
        if why:
            raise SceneError(
                f"{look.scene.id}, tile row {self._window.row} col {self._window.col}: {why}; "
                "exclude the item, or state its offset by hand (plan with "
                f"offsets={{'{look.scene.id}': 0 or 1000}})"
            )

    def _excuse(self, error: ReadError) -> None:
        self._failed.add(error.item)
        if error.kind not in EXCUSABLE or len(self._failed) > self._excusable:
            raise error
        self.tally.missing.append(f"{error.item}, {error.asset}: {error.kind}")


_threads = threading.local()


def _reads() -> ThreadPoolExecutor:
    # A pool for each thread that builds: a tile whose reads wait for its own buffer never stands in
    # the way of another tile's.
    if not hasattr(_threads, "pool"):
        _threads.pool = ThreadPoolExecutor(READS_IN_FLIGHT, thread_name_prefix="cropcube-read")
    pool: ThreadPoolExecutor = _threads.pool
    return pool


def _dark(scl: np.ndarray) -> np.ndarray:
    # A grid of some ten times the pixels that a contradiction takes.
    step = max(1, math.isqrt(scl.size // (10 * PLENTY)))
    return step * np.array(np.nonzero(np.isin(scl[::step, ::step], DARK_CLASSES)))


def _one_per_pass(looks: list[Look]) -> list[Look]:
    """Where parts of one pass overlap, keep the first clear one in order of ids."""
    taken: dict[str, np.ndarray] = {}
    kept = []
    for look in sorted(looks, key=lambda look: look.scene.id):
        earlier = taken.get(look.scene.acquisition, np.uint8(0))
        taken[look.scene.acquisition] = earlier | look.bits
        kept.append(replace(look, bits=look.bits & ~earlier))
    return kept


def _batches(looks: list[Look], most: int) -> list[list[Look]]:
    """Join periods as long as their looks are at most so many; a period stays whole."""
    batches: list[list[Look]] = []
    for _, period in groupby(looks, key=lambda look: look.place):
        group = list(period)
        if batches and len(batches[-1]) + len(group) <= most:
            batches[-1] += group
        else:
            batches.append(group)
    return batches


def _periods(batch: list[Look], values: np.ndarray, clear: np.ndarray) -> Iterator[Period]:
    start = 0
    for place, period in groupby(batch, key=lambda look: look.place):
        scenes = tuple(look.scene for look in period)
        part = slice(start, start + len(scenes))
        yield Period(
            place=place,
            scenes=scenes,
            values=values[part].reshape(len(scenes), values.shape[1], -1),
            clear=clear[part].reshape(len(scenes), -1),
            subtract=np.array([scene.subtract for scene in scenes], np.uint16),
        )
        start = part.stop


def _kept(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return scratch(name).take(size).view(dtype).reshape(shape)
