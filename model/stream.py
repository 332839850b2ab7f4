"""Training samples live from a Dask cluster, while the cube is still being built.

Tiles are built by tasks on the cluster and cut to samples there; what travels is samples only. A
bounded number of tiles is in flight. Their order is decided by seed and epoch, not by which task
ends first, and the samples are the same to the bit as those read from a finished store.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from distributed import CancelledError, Client, Future, KilledWorker
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError
from torch.utils.data import IterableDataset, get_worker_info

from cube.build import build_tile
from cube.errors import ClusterLostError
from cube.grid import NativeGrid, Window
from cube.planning import GridPlan, Plan, Tile
from cube.store import StoredTile
from model.samples import (
    Assembler,
    Batch,
    Entry,
    Normalisation,
    Raw,
    SampleIndex,
    Sums,
    cut_samples,
    open_labels,
    require_periods,
)
from model.splits import Split

if TYPE_CHECKING:
    from model.networks.catalogue import Input

__all__ = ["LiveTiles"]

logger = logging.getLogger(__name__)

Build = Callable[[GridPlan, Tile], xr.Dataset]
#: Seconds between looks at the cluster while waiting for a tile.
_POLL = 0.5
#: What a client raises when there is nobody at the other end.
_GONE = (OSError, RuntimeError, CancelledError, ClosedClientError)


class LiveTiles(IterableDataset[Batch]):
    """Batches of one stage, built on a cluster as they are needed.

    Every pass builds the stage's tiles again; to train for many epochs, write the cube to a store
    meanwhile and go on with `model.TileData`, or pass a `build` that writes what it builds.

    Parameters
    ----------
    plan : Plan
        What to build.
    labels : path
        Label store written for `plan`.
    client : distributed.Client
        The cluster.
    split : Split
    stage : str
        ``train``, ``val`` or ``test``.
    normalisation : Normalisation, optional
        Default from the training pixels: one pass over the training tiles on the cluster, from
        which only sums come back. Give the one of the artefact or of another stage to save it.
    sample, batch_size : int
        Pixels per side; samples per batch.
    seed, epoch : int
        Decide order and augmentation; each pass counts one epoch up.
    augment : bool
    prefetch : int
        Tiles in flight, waiting or in use; bounds the memory of cluster and client.
    patience : float
        Seconds without any worker, or without an answer of the scheduler, after which the cluster
        counts as lost.
    build : callable
        ``(grid_plan, tile) -> Dataset``; runs on the workers.

    Raises
    ------
    RecipeError
        If the plan is of a dated series.
    ClusterLostError
        While iterating, when the cluster went away.
    ReadError
        While iterating, when a tile cannot be built; later tiles are not waited for.
    """

    kind: Input = "image"

    def __init__(
        self,
        plan: Plan,
        labels: str | Path,
        client: Client,
        split: Split,
        stage: str = "train",
        *,
        normalisation: Normalisation | None = None,
        sample: int = 64,
        batch_size: int = 16,
        seed: int = 0,
        epoch: int = 0,
        augment: bool = False,
        prefetch: int = 4,
        patience: float = 120.0,
        build: Build = build_tile,
    ) -> None:
        super().__init__()
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}; at least one tile must be in flight")
        require_periods(plan.recipe)
        self.plan, self.client, self.build = plan, client, build
        self.stage, self.batch_size, self.epoch, self.seed = stage, batch_size, epoch, seed
        self.augment, self.prefetch, self.patience = augment, prefetch, patience
        self._jobs = [(grid, tile) for grid in plan.grids for tile in grid.tiles]
        places = [
            StoredTile(grid.grid.granule, grid.grid, tile.window) for grid, tile in self._jobs
        ]
        self.index = SampleIndex(open_labels(labels), places, split, sample)
        self.entries = _by_tile(self.index.entries[stage])
        self._given = normalisation
        self._plans: dict[NativeGrid, Future] = {}

    def __len__(self) -> int:
        """Return the number of batches of one pass."""
        return -(-len(self.index.entries[self.stage]) // self.batch_size)

    @cached_property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of the training pixels; equal to those from a store."""
        if self._given is not None:
            return self._given
        total = Sums()
        numbers = sorted(_by_tile(self.index.entries["train"]))
        masks = (self.index.labelled("train", number)[0] for number in numbers)
        for _, sums in self._results(numbers, _sums_of, masks):
            total.merge(sums)
        return total.normalisation()

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the next pass."""
        if get_worker_info() is not None:
            raise ValueError("LiveTiles prefetches on the cluster: use DataLoader(num_workers=0)")
        epoch, self.epoch = self.epoch, self.epoch + 1
        months = self.plan.recipe.periods
        assembler = Assembler(
            self.index, self.stage, self.normalisation, months, self.augment, self.seed
        )
        return assembler.batches(self._samples(assembler, epoch), self.batch_size, epoch)

    def _samples(self, assembler: Assembler, epoch: int) -> Iterator[Raw]:
        random = np.random.default_rng([self.seed, epoch])
        numbers = sorted(self.entries)
        if self.stage == "train":
            numbers = [numbers[i] for i in random.permutation(len(numbers))]
        windows = ([assembler.window(entry) for entry in self.entries[n]] for n in numbers)
        for number, reflectance in self._results(numbers, _samples_of, windows):
            samples = assembler.raw(self.entries[number], reflectance)
            shuffled = self.stage == "train"
            order = random.permutation(len(samples)) if shuffled else range(len(samples))
            yield from (samples[position] for position in order)

    def _results(
        self, numbers: list[int], task: Callable[..., Any], details: Iterator[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Yield tile number and result in the order of `numbers`, a few tasks ahead."""
        coming = iter(zip(numbers, details, strict=True))
        flying: deque[tuple[int, Future]] = deque()
        try:
            while True:
                while len(flying) < self.prefetch and (job := next(coming, None)) is not None:
                    flying.append((job[0], self._submit(task, *job)))
                if not flying:
                    return
                # In line until its result is here: a task that is given up must be cancelled too.
                number, future = flying[0]
                result = self._wait(number, future)
                flying.popleft()
                yield number, result
        finally:
            for _, future in flying:
                _forget(future)

    def _submit(self, task: Callable[..., Any], number: int, detail: Any) -> Future:
        grid, tile = self._jobs[number]
        try:
            # A grid's plan lists all its scenes: it travels once, tasks carry its key. It is a task
            # and not scattered data, because that dies with the worker that holds it.
            if grid.grid not in self._plans:
                text = grid.model_dump_json()
                self._plans[grid.grid] = self.client.submit(GridPlan.model_validate_json, text)
            return self.client.submit(
                task, self.build, self._plans[grid.grid], tile, detail, pure=False
            )
        except _GONE as error:
            raise self._lost(number, f"{type(error).__name__}: {error}") from error

    def _wait(self, number: int, future: Future) -> Any:
        silent_since = None
        while True:
            try:
                return future.result(timeout=_POLL)
            except TimeoutError as error:
                # A task may itself raise TimeoutError; then the future is done.
                if future.done():
                    return future.result()
                why = self._trouble()
                silent_since = (silent_since or time.monotonic()) if why else None
                if silent_since and time.monotonic() - silent_since > self.patience:
                    raise self._lost(number, why) from error
            except (CancelledError, CommClosedError, ClosedClientError, KilledWorker) as error:
                raise self._lost(number, f"{type(error).__name__}: {error}") from error

    def _trouble(self) -> str:
        """Say what is wrong with the cluster, or nothing."""
        if self.client.status != "running":
            return f"the scheduler does not answer (client is {self.client.status})"
        try:
            threads = self.client.nthreads(callback_timeout=_POLL)
        except _GONE as error:
            return f"the scheduler does not answer ({type(error).__name__}: {error})"
        return "" if threads else "no worker is left"

    def _lost(self, number: int, why: str) -> ClusterLostError:
        grid, tile = self._jobs[number]
        self._plans.clear()  # they went with the cluster; a next pass sends them again
        return ClusterLostError(
            f"the Dask cluster was lost while waiting for tile {grid.grid.granule}-{tile.row}-"
            f"{tile.col} ({number + 1} of {len(self._jobs)}): {why}. Start a cluster and iterate "
            f"again with epoch={self.epoch - 1}; build the cube to a store to keep what is done"
        )


def _samples_of(build: Build, plan: GridPlan, tile: Tile, windows: list[Window]) -> np.ndarray:
    """Build a tile and return its samples; runs on a worker, uint16 [N, T, B, s, s]."""
    reflectance = build(plan, tile).reflectance.values
    return cut_samples(reflectance, tile.window, windows)


def _sums_of(build: Build, plan: GridPlan, tile: Tile, mask: np.ndarray) -> Sums:
    """Build a tile and return the sums of its masked pixels; runs on a worker."""
    sums = Sums()
    sums.add(build(plan, tile).reflectance.values[:, :, mask].transpose(2, 1, 0))
    return sums


def _by_tile(entries: np.ndarray) -> dict[int, list[Entry]]:
    found: dict[int, list[Entry]] = {}
    for tile, row, col in entries.tolist():
        found.setdefault(tile, []).append((tile, row, col))
    return found


def _forget(future: Future) -> None:
    # The cluster may be gone; then there is nothing left to cancel.
    with contextlib.suppress(*_GONE):
        future.cancel()
