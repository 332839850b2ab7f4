"""Honest scores: groups never trained on, with and without background, per pixel and per parcel.

The pixels of the stage are predicted by the function that makes maps (`predict.predict_window`), in
whole tiles with their surroundings, so a score says what a map of that place would have been worth.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import cube.store
from cube.errors import ArtefactError, SplitError
from cube.grid import Window
from model import metrics, report
from model.artefact import Artefact, Run, load
from model.metrics import IGNORE, Tally
from model.predict import check_recipe, decide, predict_window
from model.splits import Split, audit, folds

if TYPE_CHECKING:
    from model.tiles import TileData

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Scores:
    """What a model is worth on one stage.

    Every block of figures has ``pixel`` (with ``loss``), ``parcel_vote`` and ``parcel_mean``, each
    with ``all`` and ``crops`` (without background): accuracy, macro precision, recall and F1 over
    the classes that occur.

    Attributes
    ----------
    model : dict
        Name and kind.
    stage : str
        ``test``, ``val`` or ``train``.
    whole : dict
        The figures over all groups of the stage, and ``undecided`` pixels.
    baseline : dict
        What the most frequent class of the training pixels would score.
    zones, regions : dict
        Name to figures.
    classes : list of dict
        Precision, recall, F1 and support (pixels) of every class.
    confusion : list of list of int
        Rows truth, columns prediction, pixels.
    audit : dict
        Result of the leakage check.
    """

    model: dict[str, str]
    stage: str
    whole: dict[str, Any]
    baseline: dict[str, Any]
    zones: dict[str, Any] = field(repr=False)
    regions: dict[str, Any] = field(repr=False)
    classes: list[dict[str, Any]] = field(repr=False)
    confusion: list[list[int]] = field(repr=False)
    audit: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types; NaN (nothing to score) becomes None, as JSON has none."""
        return plain(asdict(self))

    def save(self, path: str | Path) -> Path:
        """Write to one JSON file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")
        return path


@dataclass(frozen=True)
class StageTile:
    """One tile with labels of the stage; ``truth`` is 255 outside of the stage's groups."""

    granule: str
    window: Window
    truth: np.ndarray
    parcel: np.ndarray
    zone: np.ndarray


def evaluate(
    artefact: str | Path | Artefact,
    data: TileData,
    stage: str = "test",
    out: str | Path | None = None,
    *,
    progress: Progress | None = None,
) -> Scores:
    """Score a model on the groups of a stage.

    Parameters
    ----------
    artefact : path or Artefact
        The trained model.
    data : TileData
        Store, labels, legend and split.
    stage : {"test", "val", "train"}
        Which groups.
    out : path, optional
        Folder for ``metrics.json`` and the pictures; default none are written.
    progress : callable, optional
        Called with (done, total, what).

    Returns
    -------
    Scores

    Raises
    ------
    ArtefactError
        If recipe or legend differ from the model's.
    SplitError
        If the split leaks, or the stage has no labelled pixels.
    """
    model = artefact if isinstance(artefact, Artefact) else load(artefact)
    check_recipe(model, data.store)
    _check_legend(model, data)
    leakage = asdict(audit(data.split, data.labels))
    predictor = model.predictor()
    tiles = list(stage_tiles(data, stage))
    tallies: dict[int, Tally] = {}
    picture = _Picture()
    for done, tile in enumerate(tiles, start=1):
        read = partial(cube.store.read_window, data.store, tile.granule)
        found = predict_window(predictor, read, tile.window, wanted=tile.truth != IGNORE)
        _count(tile, found, tallies)
        picture.offer(tile, found)
        if progress:
            progress(done, len(tiles), f"evaluating {stage}")
    if not tallies:
        raise SplitError(f"no labelled pixel in the groups of '{stage}'; look at the split")
    scores = _scores(model, data, stage, tallies, leakage)
    if out is not None:
        write_report(scores, data, picture.panels(data), Path(out))
    return scores


def stage_tiles(data: TileData, stage: str) -> Iterator[StageTile]:
    """Yield the tiles of the store that hold labelled pixels of the stage's groups."""
    for number, tile in enumerate(data.index.tiles):
        labelled, block = data.index.labelled(stage, number)
        if labelled.any():
            truth = np.where(labelled, block.label, IGNORE).astype(np.uint8)
            yield StageTile(tile.granule, tile.window, truth, block.parcel, block.zone)


def _count(tile: StageTile, found: np.ndarray, tallies: dict[int, Tally]) -> None:
    labelled = tile.truth != IGNORE
    truth, parcel, zone = (a[labelled] for a in (tile.truth, tile.parcel, tile.zone))
    probabilities = found[:, labelled].T
    for number in np.unique(zone):
        here = zone == number
        tally = tallies.setdefault(int(number), Tally(found.shape[0]))
        tally.add(truth[here], probabilities[here], parcel[here])


def _scores(
    model: Artefact,
    data: TileData,
    stage: str,
    tallies: dict[int, Tally],
    leakage: dict[str, Any],
) -> Scores:
    names: dict[int, tuple[str, str]] = {0: ("outside zones", "outside zones")}
    pairs = zip(data.zones["zone"], data.zones["region"], strict=True)
    for number, (zone, region) in enumerate(pairs, start=1):
        names[number] = (str(zone), str(region))
    by_region: dict[str, Tally] = {}
    whole = Tally(len(data.legend.classes))
    for number, tally in sorted(tallies.items()):
        whole = whole + tally
        region = names[number][1]
        by_region[region] = by_region.get(region, Tally(whole.n_classes)) + tally
    return Scores(
        model={"architecture": model.architecture, "kind": model.kind},
        stage=stage,
        whole=whole.scores(),
        baseline=_baseline(whole.matrix, data),
        zones={names[n][0]: tally.scores() for n, tally in sorted(tallies.items())},
        regions={name: tally.scores() for name, tally in by_region.items()},
        classes=class_table(whole.matrix, data.legend.classes),
        confusion=whole.matrix.tolist(),
        audit=leakage,
    )


def class_table(matrix: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per class: name, precision, recall, F1, support; absent ones too."""
    columns = metrics.class_scores(matrix)
    return [
        {"class": name, **{key: values[i].item() for key, values in columns.items()}}
        for i, name in enumerate(names)
    ]


def _baseline(matrix: np.ndarray, data: TileData) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for way, background in (("all", True), ("crops", False)):
        answer = metrics.majority_class(data.class_counts, background=background)
        constant = metrics.always(matrix, answer)
        found[way] = {
            "class": data.legend.classes[answer],
            **metrics.summary(constant, background=background),
        }
    return found


def _check_legend(model: Artefact, data: TileData) -> None:
    if tuple(model.legend.classes) != tuple(data.legend.classes):
        raise ArtefactError(
            f"the model knows {len(model.legend.classes)} classes of legend {model.legend.name}, "
            f"the labels hold {len(data.legend.classes)} of {data.legend.name}; write the labels "
            "with the model's legend, or train on these labels"
        )


def write_report(
    scores: Scores, data: TileData, panels: dict[str, np.ndarray], out: Path
) -> list[Path]:
    """Write ``metrics.json`` and the pictures into `out`; return their paths."""
    matrix, legend = np.array(scores.confusion), data.legend
    written = [
        scores.save(out / "metrics.json"),
        report.confusion(matrix, legend, out / "confusion.png"),
        report.class_shares(matrix.sum(1), matrix.sum(0), legend, out / "class_shares.png"),
        report.map_picture(panels, legend, out / "map.png"),
    ]
    bands = list(data.recipe.bands)
    if {"red", "nir"} <= set(bands):
        profiles = report.ndvi_profiles(
            data.pixels(scores.stage), bands.index("red"), bands.index("nir"), len(legend.classes)
        )
        months = list(data.recipe.periods)
        written.append(report.ndvi_picture(profiles, months, legend, out / "ndvi.png"))
    return written


class _Picture:
    """Keeps the tile with most labelled pixels, for the picture."""

    def __init__(self) -> None:
        self._best: tuple[int, StageTile, np.ndarray, np.ndarray] | None = None

    def offer(self, tile: StageTile, probabilities: np.ndarray) -> None:
        labelled = int((tile.truth != IGNORE).sum())
        if self._best is None or labelled > self._best[0]:
            self._best = (labelled, tile, *decide(probabilities))

    def panels(self, data: TileData) -> dict[str, np.ndarray]:
        """Return the panels of `report.map_picture`, cut to the labelled part of the tile."""
        if self._best is None:
            return {}
        _, tile, classes, confidence = self._best
        crop = _bounds(tile.truth != IGNORE)
        percent = confidence[crop].astype(np.float32)
        panels: dict[str, np.ndarray] = {
            "labels": tile.truth[crop],
            "prediction": classes[crop],
            "confidence": np.where(percent == IGNORE, np.nan, percent / 100),
        }
        bands = list(data.recipe.bands)
        if {"red", "green", "blue"} <= set(bands):
            reflectance, _ = cube.store.read_window(data.store, tile.granule, tile.window)
            month = len(data.recipe.periods) // 2
            rgb = [reflectance[month, bands.index(b)][crop] for b in ("red", "green", "blue")]
            title = f"imagery, {data.recipe.periods[month]:%B %Y}"
            panels[title] = report.natural_colours(*rgb)
        return panels


def _bounds(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


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


def headline(scores: Scores) -> dict[str, float]:
    """Return the figures that a comparison shows, in the order in which it shows them."""
    pixel, parcel = scores.whole["pixel"], scores.whole["parcel_mean"]
    return {
        "loss": pixel["all"]["loss"],
        "OA": pixel["all"]["accuracy"],
        "P": pixel["all"]["precision"],
        "R": pixel["all"]["recall"],
        "F1": pixel["all"]["f1"],
        "crops OA": pixel["crops"]["accuracy"],
        "crops F1": pixel["crops"]["f1"],
        "parcel OA": parcel["crops"]["accuracy"],
        "parcel F1": parcel["crops"]["f1"],
    }


def plain(value: Any) -> Any:
    """Return plain types, ready for JSON; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
