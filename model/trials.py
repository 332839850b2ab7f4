"""Trainings that belong together: folds, a random split beside the spatial one, other regions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cube.errors import SplitError
from model.artefact import Run
from model.compare import Comparison
from model.distances import label_blocks
from model.evaluate import evaluate
from model.legend import IGNORE
from model.scores import headline, plain
from model.setdata import SetData
from model.splits import STAGES, Split, folds
from model.tiles import TileData

Progress = Callable[[int, int, str], None]
Data = TypeVar("Data", TileData, SetData)

_BESIDE = (
    "random: neighbours of the test samples were trained on, as in no use of a map; the spatial "
    "figures are what to expect"
)
_LEFT_OUT = "each row: trained on the other regions, scored on the whole of this one"


def compare_splits(train: Callable[[Data, Path], Run], data: Data, out: str | Path) -> Comparison:
    """Train on the split of the data and on a random one of the same size; scores side by side.

    Parameters
    ----------
    train : callable
        Takes data and a folder, returns the `Run` of the trained model.
    data : TileData or SetData
        Its split is the spatial one. A cube's pixels are split by parcel at random, samples in
        memory one by one.
    out : path
        Folder with ``spatial``, ``random``, ``comparison.md`` and ``comparison.json``.

    Returns
    -------
    Comparison
        Rows ``spatial split`` and ``random split``, in the figures of `model.scores.headline`. A
        random split of parcels holds no background; its figures are those of crops.

    Raises
    ------
    SplitError
        If the split of the data is random itself.
    """
    out = Path(out)
    random = data.with_split(random_split(data))
    rows = {}
    for name, part in (("spatial", data), ("random", random)):
        run = train(part, out / name)
        scores = evaluate(run.folder, part, out=out / name / "scores")
        rows[f"{name} split"] = plain(headline(scores))
    found = Comparison(rows, _BESIDE)
    found.save(out)
    return found


def random_split(data: TileData | SetData) -> Split:
    """Return a random split with as many parcels (or samples) in each set as the data's own.

    Raises
    ------
    SplitError
        If the data's own is by parcel or sample, which is random already.
    """
    split = data.split
    if split.by != "zone":
        raise SplitError(f"the split is by {split.by}, which is random already; give one by zone")
    if isinstance(data, SetData):
        parts = [data.stage_rows[stage] + 1 for stage in STAGES]
    else:
        parts = _parcels_of(data)
    numbers = np.random.default_rng(data.seed).permutation(np.concatenate(parts))
    ends = np.cumsum([len(part) for part in parts])[:-1]
    sets = [frozenset(map(int, part)) for part in np.split(numbers, ends)]
    return Split("sample" if isinstance(data, SetData) else "parcel", *sets)


def transfer(
    train: Callable[[Data, Path], Run],
    data: Data,
    out: str | Path,
    regions: Mapping[str, frozenset[int]] | None = None,
    *,
    progress: Progress | None = None,
) -> Comparison:
    """Leave each region out in turn: train on the others, score the whole of it.

    Parameters
    ----------
    train : callable
        As in `compare_splits`.
    data : TileData or SetData
        All groups of its split take part.
    out : path
        Folder with one subfolder per region, ``comparison.md`` and ``comparison.json``.
    regions : dict of str to set of int, optional
        Name to groups. Default the regions of a cube's zones, or every group of samples in memory.
    progress : callable, optional
        Called with (done, total, what).

    Returns
    -------
    Comparison
        A row per region, and their mean.

    Raises
    ------
    SplitError
        If there are fewer than two regions, or a region has no groups.
    """
    out, rows = Path(out), {}
    regions = _regions(data) if regions is None else regions
    for done, name in enumerate(regions, start=1):
        part = data.with_split(left_out(data.split, regions, name, data.seed))
        run = train(part, out / name)
        rows[name] = plain(headline(evaluate(run.folder, part, out=out / name / "scores")))
        if progress:
            progress(done, len(regions), f"without {name}")
    figures = {
        key: [row[key] for row in rows.values() if row[key] is not None]
        for key in next(iter(rows.values()))
    }
    mean = {key: float(np.mean(values)) if values else None for key, values in figures.items()}
    found = Comparison({**rows, "mean": mean}, _LEFT_OUT)
    found.save(out)
    return found


def left_out(
    split: Split, regions: Mapping[str, frozenset[int]], name: str, seed: int = 0
) -> Split:
    """Return a split that tests on one region; a fifth of the other groups validates.

    Raises
    ------
    SplitError
        If there is no other region with groups of the split, or this one has none.
    """
    known = split.train | split.val | split.test
    test = regions[name] & known
    others = frozenset().union(*(g for other, g in regions.items() if other != name)) & known
    others -= test
    if not test or len(others) < 2:
        raise SplitError(
            f"region '{name}' has {len(test)} groups and the others {len(others)}; leaving one out "
            "needs one at least, and two to train and validate on"
        )
    return held_out(Split(split.by, others, test, frozenset()), seed)


def cross_validate(
    train: Callable[[TileData, Path], Run],
    data: TileData,
    out: str | Path,
    k: int = 3,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train and score k times, each time with other zones held out.

    Parameters
    ----------
    train : callable
        Takes the data of a fold and a folder, returns the `Run` of the trained model, for example
        ``lambda data, out: model.boost(data, out)``.
    data : TileData
        Its training and validation groups are dealt into `k` spatial folds; its test groups are
        not touched.
    out : path
        Folder with one subfolder per fold, and ``folds.json``.
    k : int
        Number of folds.

    Returns
    -------
    dict
        ``folds`` (list of score dicts), ``mean`` and ``spread`` (standard deviation between
        folds) of the main figures.
    """
    out, found = Path(out), []
    for number, fold in enumerate(folds(data.split, k, labels=data.labels, seed=data.seed), 1):
        fold_data = data.with_split(held_out(fold, data.seed))
        folder = out / f"fold-{number}"
        run = train(fold_data, folder)
        found.append(evaluate(run.folder, fold_data, stage="test", out=folder / "scores"))
        if progress:
            progress(number, k, "folds")
    rows = [headline(scores) for scores in found]
    values = {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}
    result = {
        "folds": [scores.to_dict() for scores in found],
        "mean": {name: float(v.mean()) for name, v in values.items()},
        "spread": {name: float(v.std(ddof=1)) for name, v in values.items()},
    }
    figures: dict[str, Any] = plain(result)
    (out / "folds.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


def held_out(fold: Split, seed: int = 0) -> Split:
    """Return a fold whose validation groups test, and a fifth of the training groups validates.

    Early stopping looks at the validation set, so the groups that score a fold must not be it.
    """
    groups = np.random.default_rng(seed).permutation(sorted(fold.train))
    inner = frozenset(int(group) for group in groups[: len(groups) // 5 or len(groups) // 2])
    return Split(fold.by, fold.train - inner, inner, fold.val)


def _regions(data: TileData | SetData) -> dict[str, frozenset[int]]:
    if isinstance(data, SetData):
        return {str(group): frozenset({int(group)}) for group in np.unique(data.set.group)}
    found: dict[str, set[int]] = {}
    for number, region in enumerate(data.zones["region"], start=1):
        found.setdefault(str(region), set()).add(number)
    return {name: frozenset(groups) for name, groups in found.items()}


def _parcels_of(data: TileData) -> list[np.ndarray]:
    """Return the labelled parcels of each stage's zones; int [n] each."""
    table = data.split.stage_of()
    found: list[list[np.ndarray]] = [[] for _ in STAGES]
    for _, _, block in label_blocks(data.label_store):
        known = (block.label != IGNORE) & (block.parcel > 0) & (block.zone < len(table))
        stage = np.where(known, table[np.where(known, block.zone, 0)], 0)
        for number, parts in enumerate(found, start=1):
            parts.append(np.unique(block.parcel[stage == number]))
    # A parcel that crosses a border counts once, for the first set that has it.
    seen = np.empty(0, np.int64)
    parts = []
    for some in found:
        parts.append(np.setdiff1d(np.concatenate(some), seen))
        seen = np.union1d(seen, parts[-1])
    return parts
