"""Training, validation and test batches of a `SampleSet`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from model.legend import IGNORE
from model.samples import Batch, Normalisation
from model.splits import STAGES, Split

if TYPE_CHECKING:
    from cube.recipe import Recipe
    from model.legend import Legend
    from model.networks.catalogue import Input
    from model.sampleset import SampleSet


class SetData(pl.LightningDataModule):
    """Batches of samples that are in memory; `model.train` takes it as it takes `TileData`.

    Parameters
    ----------
    samples : SampleSet
    split : Split
        Which groups, parcels or samples train, validate and test.
    batch_size : int
        Samples per batch; the last one may be smaller.
    seed : int
        Decides order, dates and turns; same seed, same batches.
    dates : int, optional
        Training samples are thinned to at most so many of their valid dates, drawn anew each epoch
        and kept in order. Validation and test always see all dates. Default: no thinning.
    augment : bool
        Flip and turn training samples that have rows and columns.
    sampling : {"all", "balanced"}
        Each training sample once per epoch; or as many draws with replacement of labelled ones,
        each class of the training samples as likely as any other. `class_counts` stays that of
        the samples: weights of the loss come on top.
    normalisation : Normalisation, optional
        Default from the training samples.

    Notes
    -----
    Thinning in training only, and every date at test, replaces the random dates at test of Rußwurm
    and Körner (2020), arXiv 1910.10536, which make scores random.
    """

    def __init__(
        self,
        samples: SampleSet,
        split: Split,
        *,
        batch_size: int = 128,
        seed: int = 0,
        dates: int | None = None,
        augment: bool = False,
        sampling: Literal["all", "balanced"] = "all",
        normalisation: Normalisation | None = None,
    ) -> None:
        super().__init__()
        if dates is not None and dates < 1:
            raise ValueError(f"dates is {dates}: keep at least one date of each series")
        self.set, self.split, self.batch_size, self.seed = samples, split, batch_size, seed
        self.dates, self.augment, self._given = dates, augment, normalisation
        self.stage_rows = {stage: samples.rows(split, stage) for stage in STAGES}
        if sampling == "balanced" and samples.y.ndim > 1:
            raise ValueError("balanced sampling needs one label per sample, and these are windows")
        self.sampling = sampling

    @property
    def recipe(self) -> Recipe | None:
        """That of the cube the samples are from, if they are from one."""
        return self.set.recipe

    @property
    def kind(self) -> Input:
        """What one sample is."""
        return self.set.kind

    @property
    def legend(self) -> Legend:
        """Meaning of the labels."""
        return self.set.legend

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of axis C."""
        return self.set.bands

    @property
    def n_classes(self) -> int:
        """K, background included."""
        return self.set.n_classes

    @property
    def months(self) -> int:
        """T, the most dates of a sample."""
        return self.set.dates

    @property
    def fingerprint(self) -> str:
        """What a continued training must find again."""
        return f"{self.set.hash}, dates {self.dates}, sampling {self.sampling}"

    @property
    def class_counts(self) -> np.ndarray:
        """Training labels per class; int64 [K]."""
        return self.set.class_counts(self.stage_rows["train"])

    @cached_property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each band over the training samples."""
        return self._given or self.set.normalisation(self.stage_rows["train"])

    def samples(self, stage: str) -> int:
        """Return the number of samples of ``train``, ``val`` or ``test``."""
        return len(self.stage_rows[stage])

    def with_normalisation(self, normalisation: Normalisation) -> SetData:
        """Return the same data as another model is used to it."""
        other = copy.copy(self)
        other._given = normalisation
        other.__dict__.pop("normalisation", None)  # what was computed before
        return other

    def with_split(self, split: Split) -> SetData:
        """Return the same data under another split, with the normalisation of its own training."""
        other = copy.copy(self)
        other.split, other._given = split, None
        other.stage_rows = {stage: self.set.rows(split, stage) for stage in STAGES}
        other.__dict__.pop("normalisation", None)
        return other

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled training batches."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return self._loader("train", shuffle=True, epoch=epoch)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return validation batches in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return test batches in order."""
        return self._loader("test")

    def batch(self, rows: np.ndarray) -> Batch:
        """Return the tensors of some rows, with all their dates."""
        samples = self.set.take(rows)
        batch = {
            "x": self._standardised(samples.x, samples.valid),
            "valid": samples.valid,
            "doy": samples.doy.astype(np.int64),
            "y": samples.y.astype(np.int64),
            "row": rows.astype(np.int64),
        }
        if samples.geometry is not None:
            batch["geometry"] = samples.geometry
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def _standardised(self, x: np.ndarray, valid: np.ndarray) -> np.ndarray:
        lead = (1, len(self.bands)) + (1,) * (x.ndim - 2)
        mean, std = (
            np.asarray(values, np.float32).reshape(lead)
            for values in (self.normalisation.mean, self.normalisation.std)
        )
        out: np.ndarray = (x - mean) / std
        np.copyto(out, 0, where=~valid[:, None])
        return out.astype(np.float32, copy=False)

    def _loader(self, stage: str, *, shuffle: bool = False, epoch: int = 0) -> DataLoader[Batch]:
        return DataLoader(_Batches(self, stage, shuffle, epoch), batch_size=None)


class _Batches(IterableDataset[Batch]):
    """One pass after the other over the rows of a stage."""

    def __init__(self, data: SetData, stage: str, shuffle: bool, epoch: int) -> None:
        super().__init__()
        self.data, self.stage, self.shuffle, self.epoch = data, stage, shuffle, epoch

    def __len__(self) -> int:
        return -(-self.data.samples(self.stage) // self.data.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        data, epoch = self.data, self.epoch
        self.epoch += 1
        rows = data.stage_rows[self.stage]
        random = np.random.default_rng([data.seed, epoch])
        if self.shuffle:
            balanced = data.sampling == "balanced"
            rows = _drawn(rows, data.set.y[rows], random) if balanced else random.permutation(rows)
        for start in range(0, len(rows), data.batch_size):
            batch = data.batch(rows[start : start + data.batch_size])
            if self.shuffle and data.dates is not None:
                batch = thinned(batch, data.dates, random)
            if self.shuffle and data.augment and batch["x"].ndim == 5:
                batch = _turned(batch, int(random.integers(4)), bool(random.integers(2)))
            yield batch


def _drawn(rows: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return as many of the rows, drawn with replacement so that classes come equally often."""
    labelled, y = rows[y != IGNORE], y[y != IGNORE]
    share = 1 / np.bincount(y)[y]
    return random.choice(labelled, size=len(rows), p=share / share.sum())


def thinned(batch: Batch, dates: int, random: np.random.Generator) -> Batch:
    """Return a batch with at most `dates` of each sample's valid dates, in order, moved together.

    Parameters
    ----------
    batch : dict of Tensor
        ``x`` [B, C, T, *S], ``valid`` [B, T, *S], ``doy`` [B, T] and whatever else, untouched.
    dates : int
        Length of the result, or T where that is less.
    random : Generator
        Draws the dates.
    """
    valid = batch["valid"]
    seen = valid.flatten(2).any(dim=2) if valid.ndim > 2 else valid
    keys = torch.from_numpy(random.random(seen.shape)).masked_fill(~seen, 2.0)
    # The smallest keys win; dates without data come last, and time order is restored.
    chosen = keys.argsort(dim=1)[:, :dates].sort(dim=1).values
    places = chosen.reshape(*chosen.shape, *(1,) * (valid.ndim - 2))
    places = places.expand(-1, -1, *valid.shape[2:])
    x = batch["x"]
    return batch | {
        "x": x.gather(2, places[:, None].expand(-1, x.shape[1], *places.shape[1:])),
        "valid": valid.gather(1, places),
        "doy": batch["doy"].gather(1, chosen),
    }


def _turned(batch: Batch, turns: int, mirror: bool) -> Batch:
    """Turn every tensor with rows and columns by quarters, and mirror it."""

    def turn(value: torch.Tensor) -> torch.Tensor:
        value = value.rot90(turns, (-2, -1))
        return (value.flip(-1) if mirror else value).contiguous()

    spatial = {"x", "valid"} | ({"y"} if batch["y"].ndim == 3 else set())
    return {name: turn(value) if name in spatial else value for name, value in batch.items()}
