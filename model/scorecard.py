"""Scores on paper: one page of tables, and pictures of what they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model import report
from model.scores import headline

if TYPE_CHECKING:
    from model.legend import Legend
    from model.scores import Scores

_UNITS = {
    "pixel": "pixels",
    "parcel_vote": "parcels by vote",
    "parcel_mean": "parcels by mean probability",
    "parcel_area": "parcels, weighted by area",
}


def write_card(scores: Scores, legend: Legend, out: Path) -> list[Path]:
    """Write ``metrics.json``, ``scores.md`` and the pictures that need no imagery."""
    matrix = np.array(scores.confusion)
    page = out / "scores.md"
    written = [
        scores.save(out / "metrics.json"),
        report.confusion(matrix, legend, out / "confusion.png"),
        report.class_shares(matrix.sum(1), matrix.sum(0), legend, out / "class_shares.png"),
    ]
    if scores.calibration["bins"]:
        bins = pd.DataFrame(scores.calibration["bins"])
        written.append(report.reliability(bins, out / "reliability.png"))
    page.write_text(card(scores), encoding="utf-8")
    return [*written, page]


def card(scores: Scores) -> str:
    """Return the scores as a page of Markdown tables."""
    parts = [
        f"# Scores on {scores.stage}",
        _units(scores),
        "## Intervals",
        "95 % intervals when whole zones, or whole parcels, are drawn anew.",
        _intervals(scores),
        "## Classes",
        _table(
            ("class", "producer's accuracy", "user's accuracy", "F1", "pixels"),
            (tuple(row.values()) for row in scores.classes if row["support"]),
        ),
        "## Zones and regions",
        _places({**scores.regions, **scores.zones}),
        "## Calibration",
        f"Expected calibration error {_cell(scores.calibration['error'])}.",
    ]
    if scores.back_off:
        parts += ["## Back-off", _table(("level", "share", "accuracy"), _values(scores.back_off))]
    if scores.areas:
        told = (
            "Hectares. The first interval takes each labelled pixel for a find of its own "
            "(Olofsson et al., 2014); the second draws whole zones anew and is the one to believe."
        )
        names = ("class", "mapped", "estimated", "low", "high", "zones low", "zones high")
        parts += ["## Areas", told, _table(names, _values(scores.areas), digits=1)]
    distance = scores.audit.get("train_test")
    parts += ["## Leakage", f"Training and test sets lie {_cell(distance, 0)} m apart."]
    return "\n\n".join(parts) + "\n"


def _units(scores: Scores) -> str:
    names = ("accuracy", "precision", "recall", "f1", "minimum_f1")
    rows = [
        (f"{told}, {way}", *(scores.whole[unit][key][name] for name in names))
        for unit, told in _UNITS.items()
        for key, way in (("all", "with background"), ("crops", "without"))
    ]
    constant = [
        (f"always {entry['class']}, {way}", *(entry[name] for name in names))
        for entry, way in (
            (scores.baseline["all"], "with background"),
            (scores.baseline["crops"], "without"),
        )
    ]
    return _table(
        ("", "OA", "macro precision", "macro recall", "macro F1", "minimum F1"), rows + constant
    )


def _intervals(scores: Scores) -> str:
    figures = headline(scores)
    zones, parcels = scores.intervals["zones"], scores.intervals["parcels"]
    names = [name for name in figures if name in zones or name in parcels]
    heads = ("", "value", f"{zones['groups']} zones", f"{parcels['groups']} parcels")
    rows = [
        (name, figures[name], _range(zones.get(name)), _range(parcels.get(name))) for name in names
    ]
    return _table(heads, rows)


def _places(places: Mapping[str, Any]) -> str:
    rows = []
    for name, found in places.items():
        pixel, parcel = found["pixel"], found["parcel_mean"]["crops"]
        rows.append(
            (
                name,
                pixel["all"]["accuracy"],
                pixel["crops"]["accuracy"],
                pixel["crops"]["f1"],
                parcel["accuracy"],
                pixel["all"]["pixels"],
            )
        )
    return _table(("", "OA", "crops OA", "crops F1", "parcel OA", "pixels"), rows)


def _values(rows: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in rows]


def _range(bounds: Sequence[float] | None) -> str:
    if bounds is None:
        return "–"
    return " to ".join(_cell(bound) for bound in bounds)


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]], digits: int = 3) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    lines += ["| " + " | ".join(_cell(value, digits) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any, digits: int = 3) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    return f"{value:,.{digits}f}" if isinstance(value, float) else str(value)
