"""Training tiles from a store: a Lightning data module over samples of 64 × 64 or more pixels.

Samples are read in blocks of one tile, so that one visit to a shard serves many. Blocks are dealt
out to workers once and for all, shuffled each epoch, and as many as fit in memory are mixed with
each other; a small data set stays in memory whole and is read once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from cube.errors import LabelError, SplitError, StoreError
from cube.grid import Window
from cube.objects import Place, at
from cube.recipe import Recipe
from cube.store import StoredTile, read_plan, read_window, tiles
from model.labelstore import LabelStore
from model.legend import Legend
from model.samples import (
    Assembler,
    Batch,
    Entry,
    Normalisation,
    Raw,
    SampleIndex,
    Sums,
    cut_samples,
    days_of_year,
    open_labels,
    require_periods,
)
from model.splits import Split

if TYPE_CHECKING:
    from model.networks.catalogue import Input

__all__ = ["Normalisation", "Pixels", "SampleStream", "TileData", "days_of_year"]

logger = logging.getLogger(__name__)

#: Samples read at once: a quarter of a full tile at 64 pixels, 25 MB for twelve months of four
#: bands.
BLOCK = 64
#: Bytes of raw samples that one loader keeps in memory, over all its workers.
MEMORY = 1 << 30


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels of one tile.

    Attributes
    ----------
    reflectance : ndarray of uint16 [N, C, T]
        DN, 0 = no data.
    y : ndarray of uint8 [N]
    parcel, zone : ndarray of int32, int16 [N]
    row, col : ndarray of int32 [N]
        In the granule's grid.
    granule : str
    """

    reflectance: np.ndarray
    y: np.ndarray
    parcel: np.ndarray
    zone: np.ndarray
    row: np.ndarray
    col: np.ndarray
    granule: str


class SampleStream(IterableDataset[Batch]):
    """Batches of one stage from a store, in an order that seed, epoch and workers decide.

    Parameters
    ----------
    store : path
        Cube store.
    assembler : Assembler
        Index, stage and normalisation.
    batch_size : int
    shuffle : bool
    workers : int
        Worker processes that the loader will have; 0 = none.
    memory : int
        Bytes of raw samples to keep, over all workers.
    epoch : int
        Number of the first pass; each further pass counts one up.
    """

    def __init__(
        self,
        store: Place,
        assembler: Assembler,
        *,
        batch_size: int,
        shuffle: bool,
        workers: int = 0,
        memory: int = MEMORY,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        self.store, self.assembler = store, assembler
        self.batch_size, self.shuffle, self.workers = batch_size, shuffle, workers
        self.memory, self.epoch = memory // max(1, workers), epoch
        self.blocks = _blocks(assembler.index.entries[assembler.stage])
        self._kept: dict[int, list[Raw]] = {}

    def __len__(self) -> int:
        """Return the number of batches of one pass."""
        counts = [sum(len(self.blocks[i]) for i in self._mine(w)) for w in range(self._share)]
        return sum(-(-count // self.batch_size) for count in counts)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the next pass, in a worker those of the worker's own blocks."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        info = get_worker_info()
        if info is not None and info.num_workers != self.workers:
            raise ValueError(
                f"made for {self.workers} workers, run with {info.num_workers}; "
                "use TileData(workers=…)"
            )
        samples = self._samples(info.id if info else 0, epoch)
        return self.assembler.batches(samples, self.batch_size, epoch)

    @property
    def _share(self) -> int:
        return max(1, self.workers)

    def _mine(self, worker: int) -> list[int]:
        return list(range(worker, len(self.blocks), self._share))

    def _samples(self, worker: int, epoch: int) -> Iterator[Raw]:
        mine = self._mine(worker)
        fits = sum(map(self._bytes, mine)) <= self.memory
        random = np.random.default_rng([self.assembler.seed, epoch, worker])
        if self.shuffle:
            mine = [mine[i] for i in random.permutation(len(mine))]
        for group in self._groups(mine):
            samples = [sample for number in group for sample in self._load(number, fits)]
            order = random.permutation(len(samples)) if self.shuffle else range(len(samples))
            for position in order:
                yield samples[position]

    def _groups(self, blocks: list[int]) -> Iterator[list[int]]:
        """Yield runs of blocks that fit in memory together; one by one when order is kept."""
        group: list[int] = []
        for number in blocks:
            held = sum(map(self._bytes, group))
            if group and (not self.shuffle or held + self._bytes(number) > self.memory):
                yield group
                group = []
            group.append(number)
        if group:
            yield group

    def _bytes(self, number: int) -> int:
        assembler = self.assembler
        values = len(assembler.months) * len(assembler.normalisation.mean)
        # Two bytes per value, seven for label, parcel and zone.
        return len(self.blocks[number]) * assembler.index.sample**2 * (2 * values + 7)

    def _load(self, number: int, keep: bool) -> list[Raw]:
        if number in self._kept:
            return self._kept[number]
        entries = self.blocks[number]
        windows = [self.assembler.window(entry) for entry in entries]
        tile = self.assembler.index.tiles[entries[0][0]]
        held = _around(windows).intersect(tile.window)
        reflectance, _ = read_window(self.store, tile.granule, held)
        samples = self.assembler.raw(entries, cut_samples(reflectance, held, windows))
        if keep:
            self._kept[number] = samples
        return samples


class TileData(pl.LightningDataModule):
    """Training, validation and test samples of a cube with labels.

    Parameters
    ----------
    store : path
        Cube store (`cube.store.write`).
    labels : path
        Label store of the same cube (`model.labels.write_labels`).
    legend : Legend or None
        Checked against the one the labels were written with; None takes that one.
    split : Split
        Which groups train, validate and test.
    sample : int
        Pixels per side of a sample; divides 1024.
    batch_size : int
        Samples per batch; the last batch may be smaller.
    seed : int
        Decides order and augmentation; same seed and workers, same batches.
    workers : int
        Loader processes. They are started by forkserver (or spawn), never by fork: a forked
        process inherits locks of Zarr, GDAL or Dask threads and may hang.
    augment : bool
        Flip and turn training samples.
    memory : int
        Bytes of raw samples each loader may keep.
    normalisation : Normalisation, optional
        Use this one; default from the training pixels.

    Raises
    ------
    LabelError
        If the labels are of another cube or legend.
    RecipeError
        If the cube is a dated series.
    StoreError
        If a tile of the cube is not built.
    """

    kind: Input = "image"

    def __init__(
        self,
        store: str | Path,
        labels: str | Path,
        legend: Legend | None,
        split: Split,
        *,
        sample: int = 64,
        batch_size: int = 16,
        seed: int = 0,
        workers: int = 0,
        augment: bool = False,
        memory: int = MEMORY,
        normalisation: Normalisation | None = None,
    ) -> None:
        super().__init__()
        if split.by == "sample":
            raise SplitError("a cube is split by zone or by parcel, not by sample")
        self.store, self.labels, self.split = at(store).place, Path(labels), split
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.augment, self.memory = augment, memory
        self.label_store = open_labels(labels, legend)
        self.legend = self.label_store.legend
        plan = read_plan(self.store)
        self.recipe: Recipe = plan.recipe
        require_periods(self.recipe)
        done = tiles(self.store)
        if len(done) < plan.n_tiles:
            raise StoreError(
                f"{self.store}: {len(done)} of {plan.n_tiles} tiles are built; run the build "
                "again (it resumes), or stream with model.LiveTiles"
            )
        require_same_grids(self.store, self.label_store, done)
        self.index = SampleIndex(self.label_store, done, split, sample)
        self._given = normalisation

    def with_split(self, split: Split) -> TileData:
        """Return the same data under another split, with the normalisation of its own training."""
        return TileData(
            self.store,
            self.labels,
            self.legend,
            split,
            sample=self.index.sample,
            batch_size=self.batch_size,
            seed=self.seed,
            workers=self.workers,
            augment=self.augment,
            memory=self.memory,
        )

    @property
    def bands(self) -> tuple[str, ...]:
        """Common names in the order of axis C."""
        return self.recipe.bands

    @property
    def n_classes(self) -> int:
        """K, background included."""
        return self.legend.n_classes

    @property
    def months(self) -> int:
        """T, the number of months."""
        return len(self.recipe.periods)

    @property
    def fingerprint(self) -> str:
        """What a continued training must find again."""
        return self.recipe.hash

    @property
    def zones(self) -> pd.DataFrame:
        """``zone``, ``region``, ``test``, geometry; row i is raster value i + 1."""
        return self.label_store.zones

    @property
    def parcels(self) -> pd.DataFrame:
        """``index`` (raster value), ``id``, ``code``, ``class`` of every parcel."""
        return self.label_store.parcels

    @property
    def class_counts(self) -> np.ndarray:
        """Labelled training pixels per class; int64 [K]."""
        return self.index.class_counts["train"]

    @cached_property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of the training pixels, from exact integer sums."""
        if self._given is not None:
            return self._given
        sums = Sums()
        for pixels in self.pixels("train"):
            sums.add(pixels.reflectance)
        return sums.normalisation()

    def samples(self, stage: str) -> int:
        """Return the number of samples of ``train``, ``val`` or ``test``."""
        return len(self.index.entries[stage])

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled training batches; after a resume they go on with the trainer's epoch."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return self._loader("train", shuffle=True, augment=self.augment, epoch=epoch)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return validation batches in a fixed order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return test batches in a fixed order."""
        return self._loader("test")

    def pixels(self, stage: str) -> Iterator[Pixels]:
        """Yield the labelled pixels of each tile that has any, for models without neighbours."""
        for number, tile in enumerate(self.index.tiles):
            mask, block = self.index.labelled(stage, number)
            row, col = np.nonzero(mask)
            if not row.size:
                continue
            near = Window(
                row=tile.window.row + int(row.min()),
                col=tile.window.col + int(col.min()),
                height=int(np.ptp(row)) + 1,
                width=int(np.ptp(col)) + 1,
            )
            reflectance, _ = read_window(self.store, tile.granule, near)
            picked = reflectance[:, :, row - row.min(), col - col.min()]
            yield Pixels(
                reflectance=np.ascontiguousarray(picked.transpose(2, 1, 0)),
                y=block.label[mask],
                parcel=block.parcel[mask],
                zone=block.zone[mask],
                row=(tile.window.row + row).astype(np.int32),
                col=(tile.window.col + col).astype(np.int32),
                granule=tile.granule,
            )

    def _loader(
        self, stage: str, *, shuffle: bool = False, augment: bool = False, epoch: int = 0
    ) -> DataLoader[Batch]:
        assembler = Assembler(
            self.index, stage, self.normalisation, self.recipe.periods, augment, self.seed
        )
        stream = SampleStream(
            self.store,
            assembler,
            batch_size=self.batch_size,
            shuffle=shuffle,
            workers=self.workers,
            memory=self.memory,
            epoch=epoch,
        )
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=self.workers,
            multiprocessing_context="forkserver" if self.workers else None,
            persistent_workers=self.workers > 0,
        )


def _blocks(entries: np.ndarray) -> list[list[Entry]]:
    """Cut an index into runs of at most `BLOCK` samples of one tile."""
    blocks = []
    for tile in np.unique(entries[:, 0]):
        rows = [(int(t), int(r), int(c)) for t, r, c in entries[entries[:, 0] == tile]]
        blocks += [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    return blocks


def _around(windows: list[Window]) -> Window:
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    bottom = max(w.row + w.height for w in windows)
    right = max(w.col + w.width for w in windows)
    return Window(row=row, col=col, height=bottom - row, width=right - col)


def require_same_grids(store: Place, labels: LabelStore, tiles: list[StoredTile]) -> None:
    """Raise LabelError unless the labels lie on the grids of these tiles of a store."""
    known = {grid.granule: grid for grid in labels.grids}
    for tile in tiles:
        if known.get(tile.granule) != tile.grid:
            raise LabelError(
                f"{labels.path} and {store} differ in the grid of {tile.granule}; "
                "write the labels for this cube"
            )
