"""What a model is worth on one stage, as numbers that add up, and the figures tables show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model import metrics
from model.bootstrap import groups_of_parcels, groups_of_tallies, intervals
from model.legend import Legend
from model.tally import Tally


@dataclass(frozen=True)
class Scores:
    """What a model is worth on one stage.

    Every block of figures has ``pixel`` (with ``loss``), ``parcel_vote``, ``parcel_mean`` and
    ``parcel_area``, each with ``all`` and ``crops`` (without background): accuracy, macro
    precision, recall and F1 over the classes that occur, and the F1 of the worst of them. Of a
    `SampleSet` a pixel is a sample; where parcels are one sample each, their area is not known.

    Attributes
    ----------
    model : dict
        Name and kind; empty for probabilities that came from elsewhere.
    stage : str
        ``test``, ``val`` or ``train``.
    whole : dict
        The figures over all groups of the stage, and ``undecided`` pixels.
    baseline : dict
        What the most frequent class of the training pixels would score.
    zones, regions : dict
        Name to figures; a `SampleSet` has no regions.
    classes : list of dict
        Producer's accuracy (recall), user's accuracy (precision), F1 and support (pixels).
    confusion : list of list of int
        Rows truth, columns prediction, pixels.
    intervals : dict
        ``zones`` and ``parcels``: how many there are (``groups``), and 95 % intervals of figures
        named as in `headline` when these are drawn anew, see `model.bootstrap`.
    calibration : dict
        ``error`` (expected calibration error) and ``bins`` (confidence against accuracy).
    audit : dict
        Result of the leakage check.
    areas : list of dict
        See `model.areas.estimate_areas`; in pixels, empty where there is no map of the zones.
    back_off : list of dict
        See `model.backoff`; empty without a target confidence.
    """

    model: dict[str, str]
    stage: str
    whole: dict[str, Any]
    baseline: dict[str, Any]
    zones: dict[str, Any] = field(repr=False)
    regions: dict[str, Any] = field(repr=False)
    classes: list[dict[str, Any]] = field(repr=False)
    confusion: list[list[int]] = field(repr=False)
    intervals: dict[str, dict[str, Any]] = field(repr=False)
    calibration: dict[str, Any] = field(repr=False)
    audit: dict[str, Any] = field(repr=False)
    areas: list[dict[str, Any]] = field(default_factory=list, repr=False)
    back_off: list[dict[str, Any]] = field(default_factory=list, repr=False)

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
class Place:
    """Names of a group: its zone, and the region it lies in, if it has one."""

    zone: str
    region: str | None = None


def score(
    tallies: Mapping[int, Tally],
    places: Mapping[int, Place],
    *,
    legend: Legend,
    training_counts: np.ndarray,
    stage: str,
    audit: dict[str, Any],
    model: dict[str, str] | None = None,
) -> Scores:
    """Return the scores of tallied groups.

    Parameters
    ----------
    tallies : dict of int to Tally
        Of every group of the stage; at least one.
    places : dict of int to Place
        Names of the groups.
    legend : Legend
        Names of the K classes.
    training_counts : int [K]
        Training pixels per class, for the baseline.
    stage, audit, model
        See `Scores`.
    """
    whole = Tally(legend.n_classes)
    by_region: dict[str, Tally] = {}
    for number, tally in sorted(tallies.items()):
        whole = whole + tally
        region = places[number].region
        if region is not None:
            by_region[region] = by_region.get(region, Tally(legend.n_classes)) + tally
    return Scores(
        model=model or {},
        stage=stage,
        whole=whole.scores(),
        baseline=_baseline(whole.matrix, training_counts, legend),
        zones={places[n].zone: tally.scores() for n, tally in sorted(tallies.items())},
        regions={name: tally.scores() for name, tally in by_region.items()},
        classes=class_table(whole.matrix, legend.classes),
        confusion=whole.matrix.tolist(),
        intervals=_intervals(whole, [tallies[number] for number in sorted(tallies)]),
        calibration=_calibration(whole),
        audit=audit,
    )


def class_table(matrix: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per class, absent ones too.

    Producer's accuracy is the share of the truth that was found (recall), user's accuracy the
    share of what was claimed that is true (precision); F1 and support go with them.
    """
    columns = metrics.class_scores(matrix)
    return [
        {
            "class": name,
            "producers_accuracy": columns["recall"][i].item(),
            "users_accuracy": columns["precision"][i].item(),
            "f1": columns["f1"][i].item(),
            "support": columns["support"][i].item(),
        }
        for i, name in enumerate(names)
    ]


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
        "min F1": pixel["crops"]["minimum_f1"],
        "parcel OA": parcel["crops"]["accuracy"],
        "parcel F1": parcel["crops"]["f1"],
        "area OA": scores.whole["parcel_area"]["crops"]["accuracy"],
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


def _baseline(matrix: np.ndarray, counts: np.ndarray, legend: Legend) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for way, background in (("all", True), ("crops", False)):
        answer = metrics.majority_class(counts, background=background)
        constant = metrics.always(matrix, answer)
        found[way] = {
            "class": legend.classes[answer],
            **metrics.summary(constant, background=background),
        }
    return found


def _intervals(whole: Tally, tallies: list[Tally]) -> dict[str, dict[str, Any]]:
    zones = intervals(groups_of_tallies(tallies))
    parcels = intervals(groups_of_parcels(whole.parcels))
    # Land without a parcel is not drawn, so nothing can be said about figures that count it.
    for name in ("OA", "F1"):
        parcels.pop(name, None)
    return {
        "zones": {"groups": len(tallies), **zones},
        "parcels": {"groups": len(whole.parcels), **parcels},
    }


def _calibration(whole: Tally) -> dict[str, Any]:
    table = metrics.reliability_table(whole.sure)
    bins = table.reset_index().to_dict("records")
    return {"error": metrics.calibration_error(table), "bins": bins}
