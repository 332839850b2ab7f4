"""One data set, many models: the same folds, budget and seeds for all of them.

Each model is trained once per seed and fold and leaves a row file: what it answered for the test
samples, and what it cost. Tables are made from row files, so a benchmark that was stopped goes on
where it was, and an ensemble of models that are there costs nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cube.errors import ArtefactError
from model import artefact, networks
from model.bench_table import BenchTable, Result, summarise
from model.crossing import Way, crossing
from model.early import timing
from model.evaluate_set import predict_set
from model.networks.cost import count
from model.setdata import SetData
from model.splits import Split
from model.train import train
from model.trees import boost_set, predict_trees, train_forest

if TYPE_CHECKING:
    from torch import nn

    from model.artefact import Run
    from model.sampleset import SampleSet

Progress = Callable[[int, int, str], None]
#: What takes the place of `SetData` and of `crossing` in ablations.
Batches = Callable[..., SetData]
Splits = Callable[["SampleSet", Way, int, int], list[Split]]

FOREST, BOOST = "random-forest", "xgboost"


@dataclass(frozen=True)
class Budget:
    """What every model gets; stored with every row.

    Attributes
    ----------
    folds : int
        Of the cross-validation.
    epochs, batch_size, lr, weight_decay
        Of networks. The epoch with the best macro-F1 on the validation groups is kept.
    loss : str, optional
        Of networks, as in `model.train.train`; default each network's own.
    trees : int
        Of the Random Forest, and rounds of XGBoost. They choose nothing by validation groups, so
        they train on those as well.
    """

    folds: int = 5
    epochs: int = 12
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 1e-2
    trees: int = 300
    loss: str | None = None


def benchmark(
    samples: SampleSet,
    models: Sequence[str],
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    budget: Budget | None = None,
    random: bool = True,
    batches: Batches = SetData,
    splits: Splits = crossing,
    progress: Progress | None = None,
) -> BenchTable:
    """Compare models on one data set.

    Parameters
    ----------
    samples : SampleSet
    models : sequence of str
        ``random-forest``, ``xgboost``, a network of `model.networks.names`, a network with its
        preset (``tempcnn:small``), or an ensemble (``tempcnn:small+ltae+xgboost``): the mean of
        the probabilities of its members with the same seed and fold.
    out : path
        Folder of the row files and of ``table.md``, ``table.csv``, ``table.json``. Rows that are
        there already are not made again.
    seeds : sequence of int
        Each decides weights, order and validation groups.
    budget : Budget, optional
    random : bool
        Also cross-validate at random, with the first seed, to stand beside the spatial figures.
    batches, splits : callable
        `SetData` and `crossing`, or what takes their place in an ablation.
    progress : callable, optional
        Called with (trainings done, trainings at most, what).

    Returns
    -------
    BenchTable
        Mean and spread over the seeds of accuracy, macro-F1 and minimum class F1, each over the
        pooled answers of all folds; parameters, training seconds and samples per second.

    Raises
    ------
    ArtefactError
        If a model is unknown, or `out` holds rows of other data or another budget.
    """
    budget = budget or Budget()
    members = list(dict.fromkeys(one for name in models for one in name.split("+")))
    for name in members:
        _check(name)
    bench = _Bench(samples, Path(out), budget, batches, splits)
    ways: list[tuple[Way, int]] = [("spatial", seed) for seed in seeds]
    if random:
        ways.append(("random", seeds[0]))
    tasks = [(m, *way, f) for m in members for way in ways for f in range(bench.folds(*way))]
    for number, (name, way, seed, fold) in enumerate(tasks):
        if progress is not None:
            progress(number, len(tasks), f"{name}, {way} fold {fold + 1}, seed {seed}")
        bench.row(name, way, seed, fold)
    results = [bench.result(name, way, seed) for name in models for way, seed in ways]
    table = summarise(samples, list(models), results, asdict(budget))
    table.save(out)
    return table


@dataclass(frozen=True)
class _Row:
    """Answers for one test fold, and what they cost."""

    rows: np.ndarray
    probabilities: np.ndarray
    parameters: int
    seconds: float
    per_second: float
    season: float
    accuracy_all: float


class _Bench:
    """The row files of a benchmark, made where they are missing."""

    def __init__(
        self, samples: SampleSet, out: Path, budget: Budget, batches: Batches, splits: Splits
    ) -> None:
        self.samples, self.out, self.budget, self.batches = samples, out, budget, batches
        self.splits = functools.cache(lambda way, seed: splits(samples, way, budget.folds, seed))
        told = {name: value for name, value in asdict(budget).items() if value is not None}
        facts = json.dumps([samples.hash, told])
        self.identity = hashlib.sha256(facts.encode()).hexdigest()[:16]
        (out / "rows").mkdir(parents=True, exist_ok=True)

    def folds(self, way: Way, seed: int) -> int:
        """Return how many splits there are."""
        return len(self.splits(way, seed))

    def row(self, name: str, way: Way, seed: int, fold: int) -> _Row:
        """Return the row of one training."""
        # It draws no rows and no columns, and learns from validation groups too: seeds are alike.
        seed = 0 if name == BOOST else seed
        path = self.out / "rows" / f"{name.replace(':', '-')}.{way}.{seed}.{fold}.npz"
        if path.exists():
            return self._read(path)
        data = self.batches(
            self.samples,
            self.splits(way, seed)[fold],
            batch_size=self.budget.batch_size,
            seed=seed,
            augment=self.samples.kind == "image",
        )
        with tempfile.TemporaryDirectory(dir=self.out) as folder:
            row = _trained(name, data, Path(folder), self.budget, seed)
        fresh = path.with_suffix(".tmp")
        with fresh.open("wb") as file:
            np.savez_compressed(file, identity=self.identity, **vars(row))
        fresh.replace(path)
        return row

    def result(self, name: str, way: Way, seed: int) -> Result:
        """Return the pooled answers of all folds, of a model or the mean of several."""
        members = name.split("+")
        folds = [
            [self.row(one, way, seed, fold) for one in members]
            for fold in range(self.folds(way, seed))
        ]
        rows = np.concatenate([fold[0].rows for fold in folds])
        mean = [np.mean([row.probabilities for row in fold], axis=0) for fold in folds]
        every = [row for fold in folds for row in fold]
        return Result(
            model=name,
            way=way,
            seed=seed,
            truth=self.samples.y[rows],
            probabilities=np.concatenate(mean).astype(np.float32),
            parameters=sum(row.parameters for row in folds[0]),
            seconds=sum(row.seconds for row in every) / len(folds),
            per_second=len(folds) / sum(1 / row.per_second for row in every),
            season=float(np.mean([row.season for row in every])),
            accuracy_all=float(np.mean([row.accuracy_all for row in every])),
        )

    def _read(self, path: Path) -> _Row:
        with np.load(path, allow_pickle=False) as found:
            if str(found["identity"]) != self.identity:
                raise ArtefactError(
                    f"{path} is a row of other data or of another budget; choose another folder"
                )
            return _Row(
                rows=found["rows"],
                probabilities=found["probabilities"],
                parameters=int(found["parameters"]),
                seconds=float(found["seconds"]),
                per_second=float(found["per_second"]),
                season=float(found["season"]),
                accuracy_all=float(found["accuracy_all"]),
            )


def _trained(name: str, data: SetData, folder: Path, budget: Budget, seed: int) -> _Row:
    """Train one model and let it answer for its test fold."""
    start = time.perf_counter()
    run = _train(name, data, folder, budget, seed)
    seconds = time.perf_counter() - start
    trained = artefact.load(run.folder)
    network = trained.network() if trained.kind == "network" else None
    start = time.perf_counter()
    if network is None:
        probabilities = predict_trees(trained, data, "test")
    else:
        probabilities = predict_set(network, data, "test")
    took = time.perf_counter() - start
    season, accuracy_all = _season(network, data)
    return _Row(
        rows=data.stage_rows["test"],
        probabilities=probabilities,
        parameters=run.metrics["nodes"] if network is None else count(network),
        seconds=seconds,
        per_second=probabilities.size // data.n_classes / took,
        season=season,
        accuracy_all=accuracy_all,
    )


def _season(network: nn.Module | None, data: SetData) -> tuple[float, float]:
    """Return the season read before decisions, and the accuracy of reading all; else NaN."""
    if network is None or not hasattr(network, "decisions"):
        return float("nan"), float("nan")
    told = timing(network, data)
    return told.season, told.accuracy_all


def _train(name: str, data: SetData, folder: Path, budget: Budget, seed: int) -> Run:
    everything = ("train", "val")
    if name == FOREST:
        return train_forest(data, folder, trees=budget.trees, stages=everything, seed=seed)
    if name == BOOST:
        return boost_set(data, folder, rounds=budget.trees, stages=everything, seed=seed)
    architecture, _, preset = name.partition(":")
    return train(
        architecture,
        data,
        folder,
        preset=preset or None,
        epochs=budget.epochs,
        lr=budget.lr,
        weight_decay=budget.weight_decay,
        patience=budget.epochs,
        loss=budget.loss,
        seed=seed,
    )


def _check(name: str) -> None:
    """Refuse a model that does not exist before anything is trained."""
    if name not in (FOREST, BOOST):
        architecture, _, preset = name.partition(":")
        networks.options(architecture, preset=preset or None)
