"""Labelled samples in memory: the one form in which points, parcels and published data sets arrive.

A cube with labels is far larger than memory and is streamed (`model.tiles`). Everything else that
networks learn from, single pixels, parcels, small windows, dated or composited, fits into one
`SampleSet`, whatever it came from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cube.errors import LabelError, SplitError
from model.legend import IGNORE, Legend
from model.samples import Normalisation
from model.splits import STAGES, Split

if TYPE_CHECKING:
    from cube.recipe import Recipe
    from model.networks.catalogue import Input


@dataclass(frozen=True, eq=False)
class SampleSet:
    """N labelled samples of C bands and up to T dates.

    S stands for the places inside a sample: none for series of pixels or parcel means, ``(S,)`` for
    sets of pixels of a parcel, ``(H, W)`` for patches and windows.

    Attributes
    ----------
    name : str
        Of the data set, for tables and messages.
    kind : {"pixel", "parcel-pixels", "parcel-image", "image"}
        What one sample is; see `model.networks.catalogue`.
    bands : tuple of str
        Names of axis C.
    legend : Legend
        Classes; 0 is background, also where no sample has it.
    x : ndarray of uint16 or float32 [N, C, T, *S]
        DN or reflectance as the source has it; standardised by who trains. 0 where not valid.
    valid : ndarray of bool [N, T, *S]
        Where there is data in every band. Dates need not be the same, nor as many, in each sample:
        short series are filled up with invalid dates.
    doy : ndarray of int16 [N, T]
        Day of the year of each date, counted on from 366 where a season crosses the new year; 0
        where there is no date.
    y : ndarray of uint8 [N], or [N, H, W] for ``image``
        Class, 255 = ignore.
    group : ndarray of int32 [N]
        What a spatial split keeps together (block, zone, region), from 1.
    parcel : ndarray of int32, shaped as y, optional
        Parcel of each label, 0 = none.
    lonlat : ndarray of float64 [N, 2], optional
        Degrees; what an audit of distances needs.
    geometry : ndarray of float32 [N, 4], optional
        Shape of each parcel, for networks that take sets of pixels; see `model.datasets.parcel`.
    recipe : Recipe, optional
        That of the cube the samples were taken from; without it a model draws no maps.
    """

    name: str
    kind: Input
    bands: tuple[str, ...]
    legend: Legend
    x: np.ndarray
    valid: np.ndarray
    doy: np.ndarray
    y: np.ndarray
    group: np.ndarray
    parcel: np.ndarray | None = None
    lonlat: np.ndarray | None = None
    geometry: np.ndarray | None = None
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        n, c, t, *places = self.x.shape
        shapes = {
            "bands": ((c,), (len(self.bands),)),
            "valid": ((n, t, *places), self.valid.shape),
            "doy": ((n, t), self.doy.shape),
            "y": ((n, *(places if self.kind == "image" else ())), self.y.shape),
            "group": ((n,), self.group.shape),
        }
        for name, (wanted, found) in shapes.items():
            if wanted != found:
                raise LabelError(
                    f"{self.name}: {name} has shape {found}, x {self.x.shape} needs {wanted}"
                )
        classes = self.y[self.y != IGNORE]
        if classes.size and int(classes.max()) >= self.n_classes:
            raise LabelError(
                f"{self.name}: label {int(classes.max())}, but the legend ends at "
                f"{self.n_classes - 1}"
            )
        if n and int(self.group.min()) < 1:
            raise SplitError(f"{self.name}: groups are numbered from 1")

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.x)

    @property
    def n_classes(self) -> int:
        """K, background included."""
        return self.legend.n_classes

    @property
    def dates(self) -> int:
        """T, the most dates that a sample has room for."""
        return int(self.x.shape[2])

    @cached_property
    def hash(self) -> str:
        """Return a hash of pixels, labels and classes."""
        digest = hashlib.sha256(repr((self.name, self.bands, self.legend.classes)).encode())
        for array in (self.x, self.valid, self.doy, self.y):
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()[:16]

    def take(self, rows: np.ndarray) -> SampleSet:
        """Return the samples of these rows (indices or a mask)."""
        return replace(
            self,
            x=self.x[rows],
            valid=self.valid[rows],
            doy=self.doy[rows],
            y=self.y[rows],
            group=self.group[rows],
            parcel=None if self.parcel is None else self.parcel[rows],
            lonlat=None if self.lonlat is None else self.lonlat[rows],
            geometry=None if self.geometry is None else self.geometry[rows],
        )

    def rows(self, split: Split, stage: str) -> np.ndarray:
        """Return the rows that serve a stage; int64, in order.

        A split by ``zone`` goes by `group`, by ``parcel`` by `parcel` (one per sample), by
        ``sample`` by the sample's own number, from 1.

        Raises
        ------
        SplitError
            If the split is by parcel and the samples have none, or several each.
        """
        if stage not in STAGES:
            raise SplitError(f"no stage '{stage}'; use {', '.join(STAGES)}")
        key = self.key(split)
        table = split.stage_of()
        stages = table[np.where(key < len(table), key, 0)]
        return np.flatnonzero(stages == STAGES.index(stage) + 1)

    def class_counts(self, rows: np.ndarray) -> np.ndarray:
        """Return the labels per class among these rows; int64 [K]."""
        y = self.y[rows]
        return np.bincount(y[y != IGNORE], minlength=self.n_classes).astype(np.int64)

    def normalisation(self, rows: np.ndarray) -> Normalisation:
        """Return mean and standard deviation per band over the valid values of these rows.

        Raises
        ------
        SplitError
            If there is no valid value.
        """
        valid = self.valid[rows]
        if not valid.any():
            raise SplitError(f"{self.name}: the training samples hold no valid value")
        chosen = [self.x[rows, band][valid].astype(np.float64) for band in range(len(self.bands))]
        return Normalisation(
            tuple(float(values.mean()) for values in chosen),
            tuple(float(values.std()) or 1.0 for values in chosen),
        )

    def key(self, split: Split) -> np.ndarray:
        """Return the group of each sample that a split goes by, int [N]; see `rows`."""
        if split.by == "zone":
            return self.group
        if split.by == "sample":
            return np.arange(1, len(self) + 1)
        if self.parcel is None or self.parcel.ndim != 1:
            raise SplitError(f"{self.name}: no parcel per sample to split by; split by zone")
        return self.parcel
