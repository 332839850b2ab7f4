"""Ablations: the same model on data that lack something, beside what was published."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from cube.errors import LabelError
from model import networks
from model.bench_table import Row
from model.benchmark import BOOST, FOREST, Batches, Budget, Progress, Splits, benchmark
from model.crossing import Way, crossing
from model.datasets.choose import select_bands, thin_dates
from model.datasets.composites import monthly
from model.legend import IGNORE
from model.published import PUBLISHED, Published
from model.samples import Batch
from model.sampleset import SampleSet
from model.setdata import SetData
from model.splits import Split

What = Literal["shuffle-time", "time-share", "composites", "dates", "bands", "years", "label-noise"]
#: The bands of the reference study.
FOUR = ("blue", "green", "red", "nir")
NOISE = (0.0, 0.1, 0.2, 0.4)
#: Networks of `time-share`, by kind of samples.
BUDGETS = {
    "pixel": ("tempcnn:small", "transformer-unordered", "gru", "ltae", "inceptiontime"),
    "parcel-image": (
        "garnot-cnn",
        "garnot-cnn-gru:gru7",
        "garnot-cnn-gru:gru8",
        "garnot-cnn-gru:gru9",
        "garnot-gru",
        "garnot-convlstm",
    ),
    "image": ("hybrid", "utae", "convgru", "unet3d"),
    "parcel-pixels": ("pse-ltae",),
}


@dataclass(frozen=True)
class Variant:
    """One line of an ablation: what the model is, and what it is given."""

    name: str
    samples: SampleSet
    model: str
    batches: Batches = SetData
    splits: Splits = crossing


@dataclass(frozen=True)
class Line:
    """A variant with its figures; `change` is in macro-F1 against the first line."""

    variant: str
    row: Row
    change: float
    time_share: float


@dataclass(frozen=True)
class Ablation:
    """An ablation beside the published one.

    Attributes
    ----------
    what, dataset : str
    lines : tuple of Line
    published : Published or None
        None where the field has no such table.
    """

    what: What
    dataset: str
    lines: tuple[Line, ...]
    published: Published | None = field(default=None)

    def markdown(self) -> str:
        """Return both tables in Markdown."""
        head = ["", "model", "OA", "macro-F1", "±", "change", "parameters", "share on time"]
        rows = [
            [
                line.variant,
                line.row.model,
                f"{line.row.accuracy:.3f}",
                f"{line.row.macro_f1:.3f}",
                "–" if np.isnan(line.row.macro_f1_spread) else f"{line.row.macro_f1_spread:.3f}",
                f"{100 * line.change:+.1f}",
                f"{line.row.parameters:,}",
                "–" if np.isnan(line.time_share) else f"{line.time_share:.0%}",
            ]
            for line in self.lines
        ]
        text = [f"{self.what}, {self.dataset}: change in points of macro-F1", ""]
        text += _table(head, rows)
        if self.published is not None:
            text += ["", f"Published: {self.published.source}", ""]
            text += _table(list(self.published.head), [list(row) for row in self.published.rows])
        return "\n".join([*text, ""])

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, ready for JSON; None where there is no figure."""
        lines = [
            {"variant": one.variant, "change": one.change, "time_share": one.time_share}
            | vars(one.row)
            for one in self.lines
        ]
        plain = [{k: None if v != v else v for k, v in line.items()} for line in lines]
        published = None if self.published is None else vars(self.published)
        facts = {"what": self.what, "dataset": self.dataset}
        return {**facts, "lines": plain, "published": published}

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``<what>.md``, ``<what>.csv`` and ``<what>.json``."""
        folder = Path(folder)
        paths = [folder / f"{self.what}.{suffix}" for suffix in ("md", "csv", "json")]
        told = self.to_dict()
        paths[0].write_text(self.markdown(), encoding="utf-8")
        with paths[1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(told["lines"][0]))
            writer.writeheader()
            writer.writerows(told["lines"])
        paths[2].write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return paths


def ablate(
    samples: SampleSet,
    what: What,
    out: str | Path,
    *,
    model: str = "tempcnn:small",
    other_year: SampleSet | None = None,
    seeds: Sequence[int] = (0,),
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Ablation:
    """Train a model on variants of a data set, all with the same folds, budget and seeds.

    Parameters
    ----------
    samples : SampleSet
    what : str
        ``shuffle-time``: the valid dates of each sample in a new random order at every access, in
        training and at test, retrained. ``time-share``: networks that spend more or less of their
        parameters on time. ``composites``: all dates against monthly medians with gaps filled.
        ``dates``: all, half, a quarter and an eighth of the dates of each sample. ``bands``: all
        against blue, green, red and near infrared. ``years``: tested in the year of the training
        and in another. ``label-noise``: shares of wrong labels in training and validation; those
        of the test stay.
    out : path
        Folder of the rows, which are found again, and of the tables.
    model : str
        As in `model.benchmark.benchmark`; not for ``time-share``.
    other_year : SampleSet, optional
        For ``years``: the same bands and some of the same classes, in another year.
    seeds, budget, progress
        As in `model.benchmark.benchmark`.

    Raises
    ------
    LabelError
        If the data cannot be had without it: four bands of four, a second year.
    ArtefactError
        As for `model.benchmark.benchmark`.
    """
    if what not in get_args(What):
        raise LabelError(f"no ablation '{what}'; choose one of {', '.join(get_args(What))}")
    variants = _variants(samples, what, model, other_year)
    lines: list[Line] = []
    for number, variant in enumerate(variants):
        table = benchmark(
            variant.samples,
            [variant.model],
            Path(out) / what / f"{number}-{variant.model.replace(':', '-')}",
            seeds=seeds,
            budget=budget,
            random=False,
            batches=variant.batches,
            splits=variant.splits,
            progress=_part(progress, number, len(variants), variant.name),
        )
        row = table.rows[0]
        first = lines[0].row if lines else row
        share = _time_share(variant)
        lines.append(Line(variant.name, row, row.macro_f1 - first.macro_f1, share))
    found = Ablation(what, samples.name, tuple(lines), PUBLISHED.get(what))
    found.save(out)
    return found


class ShuffledDates(SetData):
    """Samples whose valid dates come in a new random order at every access, also at test.

    As in the experiment of Garnot et al. (2019), hal-02386701, Table 4: the order tells nothing,
    and days stay where they were.
    """

    _accesses = 0

    def batch(self, rows: np.ndarray) -> Batch:
        """Return the tensors of some rows."""
        self._accesses += 1
        random = np.random.default_rng([self.seed, self._accesses])
        return shuffled(super().batch(rows), random)


def shuffled(batch: Batch, random: np.random.Generator) -> Batch:
    """Return a batch with the valid dates of each sample exchanged among each other."""
    valid = batch["valid"]
    seen = valid.flatten(2).any(dim=2) if valid.ndim > 2 else valid
    drawn = torch.from_numpy(random.random(seen.shape)).masked_fill(~seen, 2.0)
    # The valid places in order, and the same places in random order; the others behind both.
    place = (~seen).to(torch.uint8).argsort(dim=1, stable=True)
    source = drawn.argsort(dim=1, stable=True)
    order = torch.empty_like(place).scatter_(1, place, source)
    where = order.reshape(*order.shape, *(1,) * (valid.ndim - 2)).expand_as(valid)
    x = batch["x"].gather(2, where[:, None].expand_as(batch["x"]))
    return batch | {"x": x, "valid": valid.gather(1, where)}


def noisy(share: float, samples: SampleSet, split: Split, *, seed: int, **settings: Any) -> SetData:
    """Return data in which a share of the labels of training and validation is another class.

    Parameters
    ----------
    share : float
        0 to 1; each class that occurs but the right one is as likely.
    samples, split, seed, settings
        As for `SetData`.
    """
    random = np.random.default_rng([seed, round(1000 * share)])
    rows = np.concatenate([samples.rows(split, stage) for stage in ("train", "val")])
    y = samples.y[rows]
    classes = np.unique(y[y != IGNORE])
    wrong = (y != IGNORE) & (random.random(y.shape) < share)
    step = random.integers(1, len(classes), int(wrong.sum()))
    y[wrong] = classes[(np.searchsorted(classes, y[wrong]) + step) % len(classes)]
    changed = samples.y.copy()
    changed[rows] = y
    return SetData(replace(samples, y=changed), split, seed=seed, **settings)


def _variants(
    samples: SampleSet, what: What, model: str, other_year: SampleSet | None
) -> list[Variant]:
    every = Variant("as it is", samples, model)
    if what == "shuffle-time":
        if model in (FOREST, BOOST):
            raise LabelError(f"{model} takes monthly medians, not batches; shuffle for a network")
        return [every, replace(every, name="dates shuffled", batches=ShuffledDates)]
    if what == "time-share":
        return [Variant(name, samples, name) for name in BUDGETS[samples.kind]]
    if what == "composites":
        return [
            replace(every, name=f"all {samples.dates} dates"),
            Variant("monthly medians", monthly(samples), model),
        ]
    if what == "dates":
        counts = [max(1, samples.dates // part) for part in (2, 4, 8)]
        thin = [Variant(f"at most {n} dates", thin_dates(samples, n), model) for n in counts]
        return [replace(every, name=f"all {samples.dates} dates"), *thin]
    if what == "bands":
        if len(samples.bands) <= len(FOUR):
            raise LabelError(
                f"{samples.name} has the bands {', '.join(samples.bands)} only: nothing to leave "
                "out; choose a data set with ten"
            )
        return [
            replace(every, name=f"all {len(samples.bands)} bands"),
            Variant("four bands", select_bands(samples, FOUR), model),
        ]
    if what == "label-noise":
        return [
            replace(every, name=f"{share:.0%} of labels wrong", batches=partial(noisy, share))
            for share in NOISE
        ]
    return _years(samples, other_year, model)


def _years(samples: SampleSet, other: SampleSet | None, model: str) -> list[Variant]:
    """Return the variants tested in the year of the training, and in another one."""
    if other is None:
        raise LabelError(
            f"{samples.name} is of one year; name a data set of another year with the same bands"
        )
    both, years = joined(samples, other)

    def same(samples: SampleSet, way: Way, folds: int, seed: int) -> list[Split]:
        first = samples.take(years == 0)
        return crossing(first, way, folds, seed)

    def across(samples: SampleSet, way: Way, folds: int, seed: int) -> list[Split]:
        tested = frozenset(np.unique(samples.group[years == 1]).tolist())
        first = same(samples, way, folds, seed)[0]
        return [replace(first, train=first.train | first.test, test=tested)]

    return [
        Variant("tested in the same year", both, model, splits=same),
        Variant("tested in the other year", both, model, splits=across),
    ]


def joined(one: SampleSet, other: SampleSet) -> tuple[SampleSet, np.ndarray]:
    """Join two sets of the same kind and bands; classes that only one has become 255.

    Returns
    -------
    samples : SampleSet
        Classes and name of the first; the groups of the second are numbered after its.
    which : int8 [N]
        0 for samples of the first, 1 for those of the second.

    Raises
    ------
    LabelError
        If bands, kind, number of dates or windows differ, or fewer than two classes are common.
    """
    if (one.bands, one.kind, one.x.shape[1:]) != (other.bands, other.kind, other.x.shape[1:]):
        raise LabelError(
            f"{one.name} and {other.name} differ in kind, bands or dates: {one.x.shape[1:]} and "
            f"{other.x.shape[1:]}; make monthly composites of both, or choose another"
        )
    common = [name for name in one.legend.classes if name in other.legend.classes]
    if len(common) < 2:
        raise LabelError(f"{one.name} and {other.name} have no two classes in common")
    kept, moved = np.full(256, IGNORE, np.uint8), np.full(256, IGNORE, np.uint8)
    for name in common:
        number = one.legend.classes.index(name)
        kept[number] = number
        moved[other.legend.classes.index(name)] = number
    count = int(one.group.max())
    samples = replace(
        one,
        x=np.concatenate([one.x, other.x]),
        valid=np.concatenate([one.valid, other.valid]),
        doy=np.concatenate([one.doy, other.doy]),
        y=np.concatenate([kept[one.y], moved[other.y]]),
        group=np.concatenate([one.group, other.group + count]).astype(np.int32),
        parcel=None,
        lonlat=None,
        geometry=None,
        recipe=None,
    )
    return samples, np.repeat(np.array([0, 1], np.int8), [len(one), len(other)])


def _time_share(variant: Variant) -> float:
    architecture, _, preset = variant.model.partition(":")
    if architecture not in networks.names():
        return float("nan")
    samples = variant.samples
    sizes = {
        "c_in": len(samples.bands),
        "n_classes": samples.n_classes,
        "months": samples.dates,
    }
    return networks.describe(architecture, preset or None, **sizes).cost.time_share


def _part(
    progress: Progress | None, number: int, of: int, name: str
) -> Callable[[int, int, str], None] | None:
    """Return the progress of one variant as a part of all."""
    if progress is None:
        return None
    return lambda done, total, what: progress(number * total + done, of * total, f"{name}: {what}")


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
