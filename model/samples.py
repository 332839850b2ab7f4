"""Samples: windows of tiles as a network sees them, and the numbers that standardise them.

`SampleIndex` decides which windows serve which set, `Assembler` turns their pixels into tensors.
Both know nothing about where the pixels come from, so samples read from a store and samples
streamed from a cluster are the same to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cube.errors import LabelError, RecipeError, SplitError
from cube.grid import TILE, Window
from cube.recipe import Recipe
from cube.store import StoredTile
from model.labelstore import LabelBlock, LabelStore
from model.legend import IGNORE
from model.splits import STAGES, Split

Batch = dict[str, torch.Tensor]
#: Row of an index: tile number, row and column of the window's first pixel in the granule's grid.
Entry = tuple[int, int, int]


def require_periods(recipe: Recipe) -> None:
    """Refuse a dated series as input of a model.

    Raises
    ------
    RecipeError
        If the recipe's composite is ``series``.
    """
    if recipe.composite == "series":
        raise RecipeError(
            "models take one value per period, and every granule of a dated series has dates of "
            "its own; make the cube with another composite than 'series', for example 'median'"
        )


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per band, DN; from training groups only.

    Attributes
    ----------
    mean, std : tuple of float
        In the order of the recipe's bands.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)

    def apply(self, reflectance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Standardise.

        Parameters
        ----------
        reflectance : ndarray of uint16 [T, B, ...]
            DN, 0 = no data.

        Returns
        -------
        x : ndarray of float32 [C, T, ...]
            0 where there is no data.
        valid : ndarray of bool [T, ...]
            Where every band has a value.
        """
        valid: np.ndarray = (reflectance != 0).all(axis=1)
        bands = reflectance.swapaxes(0, 1)
        lead = (len(self.mean),) + (1,) * (bands.ndim - 1)
        x = np.empty(bands.shape, np.float32)
        np.subtract(bands, np.asarray(self.mean, np.float32).reshape(lead), out=x)
        x /= np.asarray(self.std, np.float32).reshape(lead)
        np.copyto(x, 0, where=~valid)
        return x, valid

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain types, ready for JSON."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Normalisation:
        """Return what `to_dict` described."""
        return cls(tuple(fields["mean"]), tuple(fields["std"]))


@dataclass
class Sums:
    """Exact sums per band, from which any order of tiles gives the same normalisation."""

    count: int = 0
    first: list[int] = field(default_factory=list)
    second: list[int] = field(default_factory=list)

    def add(self, values: np.ndarray) -> None:
        """Add the valid values of uint16 [N, C, T]; a month without data in a band is left out."""
        bands = values.transpose(1, 0, 2).reshape(values.shape[1], -1)
        bands = bands[:, (bands != 0).all(axis=0)].astype(np.uint64)
        self.merge(
            Sums(
                bands.shape[1],
                [int(total) for total in bands.sum(axis=1)],
                [int(total) for total in (bands * bands).sum(axis=1)],
            )
        )

    def merge(self, other: Sums) -> None:
        """Add the sums of other pixels."""
        self.count += other.count
        self.first = _added(self.first, other.first)
        self.second = _added(self.second, other.second)

    def normalisation(self) -> Normalisation:
        """Return mean and population standard deviation (1 for a band without variation).

        Raises
        ------
        SplitError
            If nothing was added.
        """
        if not self.count:
            raise SplitError("the training groups hold no valid pixel; check cube and labels")
        mean = [Fraction(total, self.count) for total in self.first]
        variance = [
            Fraction(total, self.count) - m * m for total, m in zip(self.second, mean, strict=True)
        ]
        return Normalisation(
            tuple(float(m) for m in mean), tuple(math.sqrt(v) or 1.0 for v in variance)
        )


class SampleIndex:
    """Which windows of which tiles serve which set.

    Windows lie on a lattice of the granule's grid. A window is a sample of a set when it holds a
    labelled pixel of it. By zone, a window that touches several sets serves one alone (test before
    validation before training), so that no training input shows land of a test zone. By parcel,
    one window may serve several sets, each with the labels of the others masked.

    Parameters
    ----------
    labels : LabelStore
    tiles : sequence of StoredTile
        Tiles of the cube.
    split : Split
    sample : int
        Pixels per side; divides 1024.

    Attributes
    ----------
    entries : dict of str to ndarray
        Stage to int64 [N, 3], rows of `Entry`, in order of tile, row and column.
    class_counts : dict of str to ndarray
        Stage to labelled pixels per class, int64 [K].
    """

    def __init__(
        self, labels: LabelStore, tiles: Sequence[StoredTile], split: Split, sample: int
    ) -> None:
        if sample < 1 or TILE % sample:
            raise ValueError(f"sample is {sample} pixels; it must divide {TILE}: 32, 64, 128, …")
        self.labels, self.tiles, self.split, self.sample = labels, tuple(tiles), split, sample
        self._stage_of = split.stage_of()
        found: dict[str, list[np.ndarray]] = {stage: [] for stage in STAGES}
        k = labels.legend.n_classes
        self.class_counts = {stage: np.zeros(k, np.int64) for stage in STAGES}
        for number, tile in enumerate(self.tiles):
            labels.require(tile.granule, tile.window)
            for stage, mask, block in self._masks(tile):
                counts = np.bincount(block.label[mask], minlength=k)
                self.class_counts[stage] += counts
                found[stage].append(self._entries(number, tile.window, mask))
        self.entries = {
            stage: np.concatenate([np.empty((0, 3), np.int64), *parts])
            for stage, parts in found.items()
        }

    def labelled(self, stage: str, number: int) -> tuple[np.ndarray, LabelBlock]:
        """Return the labelled pixels of a stage in a tile (bool [y, x]) and the tile's labels."""
        for name, mask, block in self._masks(self.tiles[number]):
            if name == stage:
                return mask, block
        raise SplitError(f"no stage '{stage}'; use {', '.join(STAGES)}")

    def target(self, block: LabelBlock, stage: str) -> np.ndarray:
        """Return the labels of one sample as the stage sees them: 255 outside of its groups."""
        group = block.zone if self.split.by == "zone" else block.parcel
        mine = self._stages(group) == STAGES.index(stage) + 1
        return np.where(mine, block.label, IGNORE).astype(np.uint8)

    def _stages(self, group: np.ndarray) -> np.ndarray:
        known = np.where(group < len(self._stage_of), group, 0)
        return self._stage_of[known]

    def _masks(self, tile: StoredTile) -> Iterator[tuple[str, np.ndarray, LabelBlock]]:
        block = self.labels.read(tile.granule, tile.window)
        stages = self._stages(block.zone if self.split.by == "zone" else block.parcel)
        taken = np.zeros(stages.shape, bool)
        masks = {}
        for number in (3, 2, 1):
            mine = (stages == number) & ~taken
            masks[STAGES[number - 1]] = mine & (block.label != IGNORE)
            if self.split.by == "zone":
                taken |= self._windows_with(stages == number, tile.window)
        for stage in STAGES:
            yield stage, masks[stage], block

    def _cells(self, window: Window) -> tuple[np.ndarray, int, int, int]:
        """Return the lattice cell of each pixel (int [y, x]), first cell row and col, columns."""
        row = (window.row + np.arange(window.height)) // self.sample
        col = (window.col + np.arange(window.width)) // self.sample
        columns = int(col[-1] - col[0] + 1)
        return (row - row[0])[:, None] * columns + (col - col[0]), int(row[0]), int(col[0]), columns

    def _windows_with(self, mask: np.ndarray, window: Window) -> np.ndarray:
        """Return the pixels of all lattice cells that hold a True pixel; bool [y, x]."""
        cells, *_ = self._cells(window)
        hit: np.ndarray = np.bincount(cells[mask], minlength=int(cells.max()) + 1) > 0
        return hit[cells]

    def _entries(self, number: int, window: Window, mask: np.ndarray) -> np.ndarray:
        cells, first_row, first_col, columns = self._cells(window)
        row, col = np.divmod(np.unique(cells[mask]), columns)
        places = np.stack([first_row + row, first_col + col], axis=1) * self.sample
        return np.column_stack([np.full(len(places), number, np.int64), places])


def cut(array: np.ndarray, held: Window, wanted: Window, fill: int = 0) -> np.ndarray:
    """Return the pixels of window `wanted` from an array that holds window `held`.

    Parameters
    ----------
    array : ndarray [..., y, x]
        Pixels of `held`.
    held, wanted : Window
        In the granule's grid.
    fill : int
        Where `wanted` reaches beyond `held`.

    Returns
    -------
    ndarray [..., wanted.height, wanted.width]
        A copy.
    """
    common = wanted.intersect(held)
    out = np.full((*array.shape[:-2], wanted.height, wanted.width), fill, array.dtype)
    if not common.empty:
        source, target = common.relative_to(held).yx, common.relative_to(wanted).yx
        out[..., target[0], target[1]] = array[..., source[0], source[1]]
    return out


def cut_samples(reflectance: np.ndarray, held: Window, wanted: Sequence[Window]) -> np.ndarray:
    """Return several samples of one tile; uint16 [T, B, y, x] → [N, T, B, sample, sample]."""
    return np.stack([cut(reflectance, held, window) for window in wanted])


@dataclass(frozen=True)
class Raw:
    """One sample as stored: reflectance uint16 [T, B, s, s] and its labels, [s, s] each."""

    entry: Entry
    reflectance: np.ndarray
    labels: LabelBlock


@dataclass(frozen=True)
class Assembler:
    """Turns raw samples into batches of tensors.

    Attributes
    ----------
    index : SampleIndex
    stage : str
    normalisation : Normalisation
    months : DatetimeIndex
    augment : bool
        Flip and turn by quarters, decided by seed, epoch and place alone.
    seed : int
    """

    index: SampleIndex
    stage: str
    normalisation: Normalisation
    months: pd.DatetimeIndex
    augment: bool = False
    seed: int = 0

    def window(self, entry: Entry) -> Window:
        """Return the pixels of a sample in its granule's grid."""
        size = self.index.sample
        return Window(row=entry[1], col=entry[2], height=size, width=size)

    def raw(self, entries: Sequence[Entry], reflectance: np.ndarray) -> list[Raw]:
        """Join the samples of one tile (uint16 [N, T, B, s, s]) with their labels."""
        tile = self.index.tiles[entries[0][0]]
        held = tile.window
        block = self.index.labels.read(tile.granule, held)
        return [
            Raw(
                entry,
                pixels,
                LabelBlock(
                    cut(block.label, held, self.window(entry), IGNORE),
                    cut(block.parcel, held, self.window(entry)),
                    cut(block.zone, held, self.window(entry)),
                ),
            )
            for entry, pixels in zip(entries, reflectance, strict=True)
        ]

    def batches(self, samples: Iterable[Raw], size: int, epoch: int) -> Iterator[Batch]:
        """Yield batches of up to `size` samples; the last one may be smaller."""
        waiting: list[dict[str, np.ndarray]] = []
        for sample in samples:
            waiting.append(self._tensors(sample, epoch))
            if len(waiting) == size:
                yield _collate(waiting)
                waiting = []
        if waiting:
            yield _collate(waiting)

    def _tensors(self, sample: Raw, epoch: int) -> dict[str, np.ndarray]:
        x, valid = self.normalisation.apply(sample.reflectance)
        arrays = {
            "x": x,
            "valid": valid,
            "y": self.index.target(sample.labels, self.stage).astype(np.int64),
            "parcel": sample.labels.parcel.astype(np.int32),
            "zone": sample.labels.zone.astype(np.int16),
        }
        if self.augment:
            random = np.random.default_rng([self.seed, epoch, *sample.entry])
            turns, mirror = int(random.integers(4)), bool(random.integers(2))
            arrays = {name: _turned(array, turns, mirror) for name, array in arrays.items()}
        return arrays | {"doy": days_of_year(self.months)}


def inputs(batch: Batch) -> Batch:
    """Return what a network is given of a batch, as keywords of its `forward`."""
    return {name: batch[name] for name in ("x", "valid", "doy", "geometry") if name in batch}


def days_of_year(months: pd.DatetimeIndex) -> np.ndarray:
    """Return the day of the year of the middle (15th) of each month; int64 [T]."""
    return (months + pd.Timedelta(days=14)).dayofyear.to_numpy().astype(np.int64)


def open_labels(path: str | Path, legend: Any = None) -> LabelStore:
    """Open a label store and check that it was written with `legend`.

    Raises
    ------
    LabelError
        If the classes differ.
    """
    store = LabelStore(path)
    if legend is not None and legend.classes != store.legend.classes:
        raise LabelError(
            f"{path} was written with legend {store.legend.title} "
            f"({store.legend.n_classes} classes), not {legend.title} ({legend.n_classes}); "
            "write the labels again or use the store's legend"
        )
    return store


def _turned(array: np.ndarray, turns: int, mirror: bool) -> np.ndarray:
    turned = np.rot90(array, turns, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if mirror else turned)


def _collate(samples: list[dict[str, np.ndarray]]) -> Batch:
    return {
        name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
        for name in samples[0]
    }


def _added(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)] if one else list(other)
