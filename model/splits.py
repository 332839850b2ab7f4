"""Who trains, who validates, who tests: by zone or by parcel, never by pixel.

A group is a zone or a parcel, named by its value in the label store's raster. `model.leakage`
checks that sets share nothing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import geopandas as gpd
import numpy as np

from cube.errors import SplitError
from model.distances import label_blocks, parcel_distances
from model.labelstore import LabelStore
from model.legend import IGNORE

logger = logging.getLogger(__name__)

By = Literal["zone", "parcel", "sample"]
STAGES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Groups of each set.

    Attributes
    ----------
    by : {"zone", "parcel", "sample"}
        Which raster of the label store the group indices are values of; ``sample`` numbers the
        samples of a `SampleSet`, for the random splits that stand beside spatial ones.
    train, val, test : frozenset of int
        Group indices, from 1.
    """

    by: By
    train: frozenset[int]
    val: frozenset[int]
    test: frozenset[int]

    def __post_init__(self) -> None:
        if self.by not in get_args(By):
            raise SplitError(f"split by '{self.by}': use {', '.join(get_args(By))}")
        if not self.train:
            raise SplitError("no group is left to train on; fewer test or validation groups")
        if any(group < 1 for stage in STAGES for group in self.groups(stage)):
            raise SplitError("groups are numbered from 1; 0 is the land without a group")

    def groups(self, stage: str) -> frozenset[int]:
        """Return the groups of ``train``, ``val`` or ``test``."""
        if stage not in STAGES:
            raise SplitError(f"no stage '{stage}'; use {', '.join(STAGES)}")
        groups: frozenset[int] = getattr(self, stage)
        return groups

    def stage_of(self) -> np.ndarray:
        """Return a table from group to 0 = none, 1 = train, 2 = val, 3 = test; uint8."""
        table = np.zeros(max(self.train | self.val | self.test) + 1, np.uint8)
        for number, stage in enumerate(STAGES, start=1):
            table[sorted(self.groups(stage))] = number
        return table

    def to_dict(self) -> dict[str, object]:
        """Return plain types, ready for JSON."""
        sets: dict[str, object] = {stage: sorted(self.groups(stage)) for stage in STAGES}
        return {"by": self.by} | sets

    def save(self, path: str | Path) -> Path:
        """Write to one JSON file; returns its path."""
        path = Path(path)
        path.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a file written by `save`.

        Raises
        ------
        SplitError
            If the file is missing or is not a split.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            sets = {stage: frozenset(int(group) for group in fields[stage]) for stage in STAGES}
            return cls(by=fields["by"], **sets)
        except (OSError, ValueError, TypeError, KeyError) as error:
            if isinstance(error, SplitError):
                raise
            raise SplitError(f"{path}: not a file written by `Split.save` ({error})") from error


def split_zones(zones: gpd.GeoDataFrame | str | Path, *, seed: int = 0) -> Split:
    """Split by zone: the flagged zones test, one of the others per region validates.

    Parameters
    ----------
    zones : GeoDataFrame or path
        Columns ``region`` and ``test`` in the order of the label raster, or a label store.
    seed : int
        Chooses the validation zones. A region keeps at least one zone for training; if no region
        can spare one, one zone of all validates as long as another one is left.

    Raises
    ------
    SplitError
        If no zone is left to train on.
    """
    if not isinstance(zones, gpd.GeoDataFrame):
        zones = LabelStore(zones).zones
    random = np.random.default_rng(seed)
    test = frozenset(int(i) + 1 for i in np.flatnonzero(zones["test"]))
    free: dict[str, list[int]] = {}
    for number, region in enumerate(zones["region"], start=1):
        if number not in test:
            free.setdefault(str(region), []).append(number)
    val = {int(random.choice(members)) for _, members in sorted(free.items()) if len(members) > 1}
    others = sorted(set().union(*free.values())) if free else []
    if not val and len(others) > 1:
        val = {int(random.choice(others))}
    return Split("zone", frozenset(others) - val, frozenset(val), test)


def split_parcels(
    labels: str | Path,
    *,
    val: float = 0.2,
    test: float = 0.2,
    buffer: float = 0.0,
    seed: int = 0,
) -> Split:
    """Split by parcel, stratified by class: for one small area, where zones are not possible.

    Neighbouring parcels look alike, so scores are kinder than those by zone; say so beside them.

    Parameters
    ----------
    labels : path
        Label store.
    val, test : float
        Share of the parcels of each class. A class with two parcels trains and tests, one with a
        single parcel trains.
    buffer : float
        Training and validation parcels closer than this many metres to a test parcel are left
        out, and training parcels that close to a validation parcel too.
    seed : int
        Shuffles the parcels of each class.

    Raises
    ------
    SplitError
        If the shares leave nothing to train on.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise SplitError(f"shares val {val} and test {test} must leave something to train on")
    store = LabelStore(labels)
    random = np.random.default_rng(seed)
    present = _labelled_parcels(store)
    table = store.parcels.set_index("index")["class"]
    sets: dict[str, set[int]] = {stage: set() for stage in STAGES}
    for _, members in table[table.index.isin(present)].groupby(table):
        shuffled = random.permutation(np.sort(members.index.to_numpy()))
        first, second = _shares(len(shuffled), val, test)
        sets["test"].update(map(int, shuffled[:first]))
        sets["val"].update(map(int, shuffled[first:second]))
        sets["train"].update(map(int, shuffled[second:]))
    split = Split("parcel", *(frozenset(sets[stage]) for stage in STAGES))
    return _apart(split, store, buffer) if buffer > 0 else split


def folds(
    split: Split, k: int = 3, *, labels: str | Path | None = None, seed: int = 0
) -> list[Split]:
    """Cross-validation folds over the training and validation groups; the test set stays out.

    Parameters
    ----------
    split : Split
        Its groups are never cut.
    k : int
        Number of folds; each is the validation set once.
    labels : path, optional
        Label store. With it groups are dealt out rarest class first, so that a class that few
        groups have does not end up in one fold.
    seed : int
        Order among equals.

    Raises
    ------
    SplitError
        If there are fewer groups than folds.
    """
    groups = sorted(split.train | split.val)
    if not 2 <= k <= len(groups):
        raise SplitError(f"{k} folds from {len(groups)} {split.by}s; use 2 to {len(groups)}")
    order = np.random.default_rng(seed).permutation(groups)
    counts = np.ones((len(groups), 1)) if labels is None else _counts(split, groups, labels)
    dealt = _deal([int(group) for group in order], dict(zip(groups, counts, strict=True)), k)
    everything = frozenset(groups)
    return [replace(split, train=everything - part, val=part) for part in dealt]


def _shares(count: int, val: float, test: float) -> tuple[int, int]:
    """Return where test and validation end in a shuffled list of `count` parcels."""
    tested = round(count * test)
    if test and count > 1:
        tested = max(1, tested)
    validated = round(count * val)
    if val and count > 2:
        validated = max(1, validated)
    validated = min(validated, count - tested - 1)
    return tested, tested + max(0, validated)


def _deal(order: list[int], counts: dict[int, np.ndarray], k: int) -> list[frozenset[int]]:
    """Deal groups into k sets of near equal size and near equal pixels of every class."""
    total = np.sum([counts[group] for group in order], axis=0)
    share = {group: counts[group] / np.maximum(total, 1) for group in order}
    parts: list[list[int]] = [[] for _ in range(k)]
    held = np.zeros((k, len(total)))
    limit = -(-len(order) // k)
    # A group with a large share of any class is the hardest to place: it goes first.
    for group in sorted(order, key=lambda g: -float(share[g].max(initial=0))):
        open_parts = [i for i in range(k) if len(parts[i]) < limit]
        best = min(open_parts, key=lambda i: (float(held[i] @ share[group]), len(parts[i])))
        parts[best].append(group)
        held[best] += share[group]
    return _no_empty(parts)


def _no_empty(parts: list[list[int]]) -> list[frozenset[int]]:
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())
    return [frozenset(part) for part in parts]


def _counts(split: Split, groups: list[int], labels: str | Path) -> np.ndarray:
    """Return pixels per group and class, int64 [len(groups), K]."""
    store = LabelStore(labels)
    k = store.legend.n_classes
    counts = np.zeros((max(groups) + 1, k), np.int64)
    for _, _window, block in label_blocks(store):
        group = block.zone if split.by == "zone" else block.parcel
        good = (block.label != IGNORE) & (group > 0) & (group <= max(groups))
        np.add.at(counts, (group[good], block.label[good]), 1)
    return counts[groups]


def _labelled_parcels(store: LabelStore) -> np.ndarray:
    found = [
        np.unique(block.parcel[(block.label != IGNORE) & (block.parcel > 0)])
        for _, _, block in label_blocks(store)
    ]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int32)


def _apart(split: Split, store: LabelStore, buffer: float) -> Split:
    near_test = _closer(store, split.train | split.val, split.test, buffer)
    val = split.val - near_test
    train = split.train - near_test - _closer(store, split.train, val, buffer)
    dropped = len(split.train | split.val) - len(train | val)
    logger.info("%d parcels left out: within %g m of another set", dropped, buffer)
    return replace(split, train=train, val=val)


def _closer(
    store: LabelStore, groups: frozenset[int], to: frozenset[int], metres: float
) -> frozenset[int]:
    return frozenset(g for g, d in parcel_distances(store, groups, to).items() if d < metres)
