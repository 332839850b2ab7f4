"""A tiny data set in the form of `model.tiles.TileData`, learnable in seconds.

Fields are stripes; the class of a pixel says in which month its near infrared peaks. Values, labels
and splits are real, only the crops are invented.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from cube.recipe import Recipe
from model.legend import Legend
from model.samples import Normalisation, days_of_year

LEGEND = Legend(
    name="seasons",
    level="month",
    year=2023,
    classes=("background", "spring", "summer", "autumn", "winter"),
    colours=("#000000", "#33aa33", "#aaaa33", "#aa5533", "#3333aa"),
    codes={"SPR": 1, "SUM": 2, "AUT": 3, "WIN": 4},
)
PEAKS = {1: 4, 2: 6, 3: 9, 4: 11}


def reflectance_of(label: np.ndarray, bands: int, months: int, seed: int) -> np.ndarray:
    """Return uint16 [T, B, y, x] for labels [y, x]."""
    random = np.random.default_rng(seed)
    time = np.arange(months)[:, None, None]
    peak = np.select([label == k for k in PEAKS], list(PEAKS.values()), default=-100)
    bump = np.exp(-((time - peak) ** 2) / 3.0)[:, None]
    gain = np.linspace(-0.3, 1.0, bands)[None, :, None, None]
    values = 2000 + 2500 * gain * bump + random.normal(0, 150, (months, bands, *label.shape))
    return np.clip(values, 1, 10_000).astype(np.uint16)


def labels_of(size: int, seed: int) -> np.ndarray:
    """Return stripes of classes 0 to 4, a few pixels ignored; uint8 [y, x]."""
    random = np.random.default_rng(seed)
    stripe = random.integers(0, 5, size // 4)
    label = np.repeat(stripe, 4)[None, :].repeat(size, axis=0).astype(np.uint8)
    label = label if seed % 2 else label.T.copy()
    label[random.random(label.shape) < 0.05] = 255
    return label


class _Stream(IterableDataset):
    """Counts its passes like `model.tiles.SampleStream`: pass and seed decide the order."""

    def __init__(self, data: Seasons, seeds: list[int], shuffle: bool, epoch: int) -> None:
        self.data, self.seeds, self.shuffle, self.epoch = data, seeds, shuffle, epoch

    def __len__(self) -> int:
        return -(-len(self.seeds) // self.data.batch_size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        order = np.arange(len(self.seeds))
        if self.shuffle:
            order = np.random.default_rng([7, self.epoch]).permutation(order)
        self.epoch += 1
        for start in range(0, len(order), self.data.batch_size):
            picked = [self.seeds[i] for i in order[start : start + self.data.batch_size]]
            yield self.data.batch(picked)


class Seasons(pl.LightningDataModule):
    """The attributes of `TileData` that trainers and predictors use."""

    legend = LEGEND
    kind = "image"

    def __init__(
        self,
        bands: tuple[str, ...] = ("red", "nir"),
        size: int = 16,
        train: int = 6,
        val: int = 3,
        batch_size: int = 4,
    ) -> None:
        super().__init__()
        self.recipe = Recipe(bands=bands, start="2023-01", end="2023-12")
        self.size, self.batch_size = size, batch_size
        self.train_seeds, self.val_seeds = list(range(train)), list(range(100, 100 + val))

    bands = property(lambda self: self.recipe.bands)
    n_classes = property(lambda self: self.legend.n_classes)
    months = property(lambda self: len(self.recipe.periods))
    fingerprint = property(lambda self: self.recipe.hash)

    def sample(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        label = labels_of(self.size, seed)
        return reflectance_of(label, len(self.bands), self.months, seed), label

    @cached_property
    def normalisation(self) -> Normalisation:
        values = np.stack([self.sample(seed)[0] for seed in self.train_seeds]).astype(float)
        mean, std = values.mean(axis=(0, 1, 3, 4)), values.std(axis=(0, 1, 3, 4))
        return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))

    @cached_property
    def class_counts(self) -> np.ndarray:
        labels = np.stack([self.sample(seed)[1] for seed in self.train_seeds])
        return np.bincount(labels[labels != 255], minlength=self.n_classes).astype(np.int64)

    def batch(self, seeds: list[int]) -> dict[str, torch.Tensor]:
        samples = [self.sample(seed) for seed in seeds]
        applied = [self.normalisation.apply(reflectance) for reflectance, _ in samples]
        y = torch.from_numpy(np.stack([label for _, label in samples]).astype(np.int64))
        return {
            "x": torch.from_numpy(np.stack([x for x, _ in applied])),
            "valid": torch.from_numpy(np.stack([valid for _, valid in applied])),
            "doy": torch.from_numpy(np.stack([days_of_year(self.recipe.periods)] * len(seeds))),
            "y": y,
            "parcel": torch.zeros_like(y, dtype=torch.int32),
            "zone": torch.ones_like(y, dtype=torch.int32),
        }

    def samples(self, stage: str) -> int:
        return len({"train": self.train_seeds, "val": self.val_seeds}[stage])

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return DataLoader(_Stream(self, self.train_seeds, True, epoch), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(_Stream(self, self.val_seeds, False, 0), batch_size=None)
