"""Several models side by side, against the score of answering one class."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from model.scores import Scores

_NOTE = "macro over present classes; crops = truth is not background; parcel = mean probability"


@dataclass(frozen=True)
class Comparison:
    """Rows of figures by model name; figures are fractions, None where nothing was scored.

    Attributes
    ----------
    rows : dict of str to dict
    note : str
        What to know when reading them.
    """

    rows: dict[str, dict[str, float | None]]
    note: str = _NOTE

    def table(self) -> Table:
        """Return the table for a terminal."""
        table = Table(caption=self.note, caption_justify="left", box=None, padding=(0, 1))
        table.add_column("model")
        for name in self._columns():
            table.add_column(name, justify="right")
        for model, figures in self.rows.items():
            table.add_row(model, *map(_figure, figures.values()))
        return table

    def text(self) -> str:
        """Return the table as plain text."""
        sink = io.StringIO()
        # Plain text everywhere: a notebook would get colour codes.
        Console(file=sink, width=140, force_jupyter=False, color_system=None).print(self.table())
        return sink.getvalue()

    def markdown(self) -> str:
        """Return the table in Markdown."""
        columns = self._columns()
        lines = ["| model | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
        for model, figures in self.rows.items():
            lines.append(f"| {model} | " + " | ".join(map(_figure, figures.values())) + " |")
        return "\n".join([*lines, "", f"{self.note}.", ""])

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``comparison.md`` and ``comparison.json``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        markdown, plain = folder / "comparison.md", folder / "comparison.json"
        markdown.write_text(self.markdown(), encoding="utf-8")
        plain.write_text(json.dumps(self.rows, indent=1), encoding="utf-8")
        return [markdown, plain]

    def _columns(self) -> list[str]:
        return list(next(iter(self.rows.values())))


def compare(scores: dict[str, Scores]) -> Comparison:
    """Put models side by side, with the majority class of the training pixels as last row.

    Parameters
    ----------
    scores : dict
        Name of the model to its scores, all on the same stage of the same data.

    Raises
    ------
    ValueError
        If there is none, or they were scored on different pixels.
    """
    from model.scores import headline, plain

    if not scores:
        raise ValueError("nothing to compare: give the scores of at least one model")
    supports = {tuple(row["support"] for row in s.classes) for s in scores.values()}
    if len(supports) > 1:
        raise ValueError(
            "the models were scored on different pixels; evaluate them on one stage of one split"
        )
    rows = {name: plain(headline(found)) for name, found in scores.items()}
    first = next(iter(scores.values()))
    everything, crops = first.baseline["all"], first.baseline["crops"]
    figures = {
        "OA": everything["accuracy"],
        "P": everything["precision"],
        "R": everything["recall"],
        "F1": everything["f1"],
        "crops OA": crops["accuracy"],
        "crops F1": crops["f1"],
    }
    empty = dict.fromkeys(next(iter(rows.values())))
    label = " / ".join(dict.fromkeys((everything["class"], crops["class"])))
    rows[f"always {label}"] = empty | plain(figures)
    return Comparison(rows)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
