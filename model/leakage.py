"""The leakage check: every group in one set, no ground shared, and sets as far apart as asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cube.errors import SplitError
from model.distances import parcel_distances, sample_distances, zone_distances
from model.labelstore import LabelStore
from model.splits import STAGES, Split

if TYPE_CHECKING:
    from model.sampleset import SampleSet

logger = logging.getLogger(__name__)

_PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))
_NAMED = 5


@dataclass(frozen=True)
class Audit:
    """Smallest distance in metres between the sets; NaN where a set is empty or has no places.

    By zone between outlines, by parcel between pixel centres, of samples between coordinates.

    Attributes
    ----------
    train_test, train_val, val_test : float
    buffer : float
        What they had to be at least.
    shared_parcels : int
        Parcels of a `SampleSet` with samples in more than one set.
    """

    train_test: float
    train_val: float
    val_test: float
    buffer: float = 0
    shared_parcels: int = 0


def audit(split: Split, labels: str | Path, buffer: float = 0) -> Audit:
    """Check a split for leaks against a label store.

    Parameters
    ----------
    split : Split
    labels : path
        Label store.
    buffer : float
        Metres that must lie between any two sets.

    Raises
    ------
    SplitError
        If a group is in two sets or does not exist, or sets share ground or are too close.
    """
    store = LabelStore(labels)
    _require_disjoint(split)
    known = len(store.zones) if split.by == "zone" else int(store.parcels["index"].max())
    strange = [g for stage in STAGES for g in split.groups(stage) if g > known]
    if strange:
        raise SplitError(f"{split.by} {sorted(strange)} not in {store.path}, which has {known}")
    measure = zone_distances if split.by == "zone" else parcel_distances
    apart = _nearest(split, partial(measure, store), buffer)
    logger.info("split by %s: no leak; %.0f m from train to test", split.by, apart.train_test)
    return apart


def audit_set(split: Split, samples: SampleSet, buffer: float = 0) -> Audit:
    """Check a split of samples in memory for leaks.

    A random split (by ``sample``) leaks by design and is measured like any other.

    Parameters
    ----------
    split : Split
    samples : SampleSet
        Its coordinates, if it has any, say how far apart the sets lie.
    buffer : float
        Metres that must lie between any two sets.

    Raises
    ------
    SplitError
        If a group is in two sets, sets are too close, or there is a buffer but no coordinates.
    """
    _require_disjoint(split)
    shared = _shared_parcels(split, samples)
    if shared:
        logger.warning("%s: %d parcels have samples in several sets", samples.name, shared)
    if samples.lonlat is None:
        if buffer > 0:
            raise SplitError(
                f"{samples.name} has no coordinates, so a buffer of {buffer:g} m cannot be "
                "checked; load it with lonlat, or evaluate without a buffer"
            )
        nowhere = float("nan")
        return Audit(nowhere, nowhere, nowhere, shared_parcels=shared)
    measure = partial(_between, samples.lonlat, samples.key(split))
    return replace(_nearest(split, measure, buffer), shared_parcels=shared)


def _require_disjoint(split: Split) -> None:
    for one, other in _PAIRS:
        both = split.groups(one) & split.groups(other)
        if both:
            raise SplitError(f"{split.by} {sorted(both)} in both {one} and {other}: a leak")


def _nearest(
    split: Split,
    measure: Callable[[frozenset[int], frozenset[int]], dict[int, float]],
    buffer: float,
) -> Audit:
    """Return the smallest distance of each pair of sets, or refuse one under the buffer."""
    found = []
    for one, other in _PAIRS:
        groups, to = split.groups(one), split.groups(other)
        distances = measure(groups, to) if groups and to else {}
        found.append(min(distances.values(), default=float("nan")))
        close = sorted(group for group, metres in distances.items() if metres < buffer)
        if close:
            more = f" and {len(close) - _NAMED} more" if len(close) > _NAMED else ""
            names = ", ".join(map(str, close[:_NAMED])) + more
            raise SplitError(
                f"{split.by} {names} of {one} within {found[-1]:.0f} m of {other}, closer than the "
                f"buffer of {buffer:g} m; leave them out of the split, or ask for less"
            )
    train_test, train_val, val_test = found
    return Audit(train_test, train_val, val_test, buffer)


def _between(
    lonlat: np.ndarray, key: np.ndarray, one: frozenset[int], other: frozenset[int]
) -> dict[int, float]:
    return sample_distances(
        lonlat, np.where(np.isin(key, sorted(one)), key, 0), np.isin(key, sorted(other))
    )


def _shared_parcels(split: Split, samples: SampleSet) -> int:
    if samples.parcel is None:
        return 0
    parcels = [np.unique(samples.parcel[samples.rows(split, stage)]) for stage in STAGES]
    numbers, sets = np.unique(np.concatenate(parcels), return_counts=True)
    return int(((sets > 1) & (numbers > 0)).sum())
