"""The table of a benchmark."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.metrics import class_scores, confusion_matrix, summary

if TYPE_CHECKING:
    from model.crossing import Way
    from model.sampleset import SampleSet


@dataclass(frozen=True)
class Result:
    """Pooled answers of all folds of one model and seed.

    Attributes
    ----------
    model : str
    way : {"spatial", "random"}
    seed : int
    truth : uint8 [N, …]
    probabilities : float32 [N, K, …]
        NaN = no decision.
    parameters : int
        Of a network; nodes of trees.
    seconds : float
        Of training, per fold.
    per_second : float
        Samples (or pixels) classified per second.
    season : float
        Mean share of the season before a decision; NaN for models that read everything.
    accuracy_all : float
        Accuracy, mean over folds, of an early classifier that reads everything all the same.
    """

    model: str
    way: Way
    seed: int
    truth: np.ndarray
    probabilities: np.ndarray
    parameters: int
    seconds: float
    per_second: float
    season: float
    accuracy_all: float

    def scores(self) -> dict[str, float]:
        """Return accuracy, macro-F1 and least class F1 over the classes that occur."""
        k = self.probabilities.shape[1]
        decided = ~np.isnan(self.probabilities).any(axis=1)
        answer = np.where(decided, np.nan_to_num(self.probabilities).argmax(axis=1), 255)
        matrix = confusion_matrix(self.truth, answer, k)
        told, classes = summary(matrix), class_scores(matrix)
        least = classes["f1"][classes["support"] > 0].min(initial=1.0)
        return {
            "accuracy": float(told["accuracy"]),
            "macro_f1": float(told["f1"]),
            "min_f1": float(least),
        }


@dataclass(frozen=True)
class Row:
    """A line of the table: figures are fractions, spreads standard deviations over seeds.

    `random_f1` is the macro-F1 of the random cross-validation, which is never shown alone.
    """

    model: str
    seeds: int
    accuracy: float
    accuracy_spread: float
    macro_f1: float
    macro_f1_spread: float
    min_f1: float
    min_f1_spread: float
    random_f1: float
    season: float
    accuracy_all: float
    parameters: int
    train_seconds: float
    per_second: float


@dataclass(frozen=True)
class BenchTable:
    """Models side by side.

    Attributes
    ----------
    dataset : str
    samples, groups : int
        How many there are.
    budget : dict
        See `model.benchmark.Budget`.
    rows : tuple of Row
    """

    dataset: str
    samples: int
    groups: int
    budget: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def note(self) -> str:
        """What the figures are, in one line."""
        return (
            f"{self.dataset}: {self.samples} samples, {self.budget['folds']} folds of whole groups "
            f"({self.groups}), mean ± standard deviation over seeds of the pooled answers. "
            "Random: macro-F1 of random folds, first seed; neighbours are in training and test. "
            "Parameters of trees are their nodes; seconds are of one fold."
        )

    def markdown(self) -> str:
        """Return the table in Markdown."""
        early = any(not np.isnan(row.season) for row in self.rows)
        head = ["model", "OA", "macro-F1", "min class F1", "random macro-F1"]
        head += ["season read", "OA reading all"] if early else []
        head += ["parameters", "train s", "samples/s", "seeds"]
        lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        for row in self.rows:
            cells = [
                row.model,
                _pair(row.accuracy, row.accuracy_spread),
                _pair(row.macro_f1, row.macro_f1_spread),
                _pair(row.min_f1, row.min_f1_spread),
                _figure(row.random_f1),
                *([_figure(row.season), _figure(row.accuracy_all)] if early else []),
                f"{row.parameters:,}",
                f"{row.train_seconds:.1f}",
                f"{row.per_second:,.0f}",
                str(row.seeds),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join([*lines, "", self.note, ""])

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``table.md``, ``table.csv`` and ``table.json``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"table.{suffix}" for suffix in ("md", "csv", "json")]
        paths[0].write_text(self.markdown(), encoding="utf-8")
        with paths[1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(vars(self.rows[0])))
            writer.writeheader()
            writer.writerows(vars(row) for row in self.rows)
        paths[2].write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        return paths

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, ready for JSON; None where there is no figure."""
        rows = [
            {
                key: None if isinstance(value, float) and np.isnan(value) else value
                for key, value in vars(row).items()
            }
            for row in self.rows
        ]
        return {**vars(self), "rows": rows}


def summarise(
    samples: SampleSet, models: Sequence[str], results: Sequence[Result], budget: dict[str, Any]
) -> BenchTable:
    """Return the table of all results, a row per model in the order given."""
    return BenchTable(
        dataset=samples.name,
        samples=len(samples),
        groups=len(np.unique(samples.group)),
        budget=budget,
        rows=tuple(_row(name, [one for one in results if one.model == name]) for name in models),
    )


def _row(name: str, results: Sequence[Result]) -> Row:
    spatial = [one for one in results if one.way == "spatial"]
    scores = [one.scores() for one in spatial]
    random = [one.scores()["macro_f1"] for one in results if one.way == "random"]
    values = {key: np.array([score[key] for score in scores]) for key in scores[0]}
    spread = {key: float(v.std(ddof=1)) if len(v) > 1 else np.nan for key, v in values.items()}
    return Row(
        model=name,
        seeds=len(spatial),
        accuracy=float(values["accuracy"].mean()),
        accuracy_spread=spread["accuracy"],
        macro_f1=float(values["macro_f1"].mean()),
        macro_f1_spread=spread["macro_f1"],
        min_f1=float(values["min_f1"].mean()),
        min_f1_spread=spread["min_f1"],
        random_f1=float(np.mean(random)) if random else float("nan"),
        season=float(np.mean([one.season for one in spatial])),
        accuracy_all=float(np.mean([one.accuracy_all for one in spatial])),
        parameters=spatial[0].parameters,
        train_seconds=float(np.mean([one.seconds for one in spatial])),
        per_second=float(np.mean([one.per_second for one in spatial])),
    )


def _pair(value: float, spread: float) -> str:
    return _figure(value) if np.isnan(spread) else f"{value:.3f} ± {spread:.3f}"


def _figure(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
