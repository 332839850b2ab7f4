"""Pictures of scores and maps (PNG), in the colours of the legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

if TYPE_CHECKING:
    from model.legend import Legend
    from model.tiles import Pixels

IGNORE = 255
_STYLE: dict[str, Any] = {"dpi": 150, "bbox_inches": "tight", "facecolor": "white"}
_GREY = "#666666"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Longest side of a map in a picture, pixels.
_SIDE = 1200

Place = Literal["outside lower center", "outside right upper"]


def confusion(matrix: np.ndarray, legend: Legend, path: Path) -> Path:
    """Draw a confusion matrix, each row as percent of its truth.

    Parameters
    ----------
    matrix : int [K, K]
        Rows truth, columns prediction. Classes that neither occur nor are predicted are left out.
    legend : Legend
        Names of the classes.
    path : Path
        PNG to write.
    """
    n = max(len(_occurring(matrix)), 2)
    side = 1.6 + 0.34 * n
    figure = Figure(figsize=(side, side))
    draw_confusion(figure.add_subplot(), matrix, legend)
    return _save(figure, path)


def draw_confusion(axes: Axes, matrix: np.ndarray, legend: Legend) -> None:
    """Draw a confusion matrix as `confusion` does, into axes of a larger figure."""
    used = _occurring(matrix)
    counts = matrix[np.ix_(used, used)]
    support = counts.sum(axis=1)
    shares = counts / np.maximum(support, 1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [legend.classes[i] for i in used]
    axes.set_xticks(range(len(used)), names, rotation=90)
    axes.set_yticks(range(len(used)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.set_title("percent of the true class; right: its pixels", fontsize=9, color=_GREY)
    for row, column in np.argwhere(shares >= 0.005):
        value = shares[row, column]
        ink = "white" if value > 0.5 else "black"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", size=7, color=ink)
    for row, number in enumerate(support):
        axes.text(len(used) - 0.3, row, f"{number:,}", va="center", size=7, color=_GREY)
    _bare(axes)


def _occurring(matrix: np.ndarray) -> np.ndarray:
    return np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))


def class_shares(truth: np.ndarray, predicted: np.ndarray, legend: Legend, path: Path) -> Path:
    """Draw the share of every class in truth and prediction, on a logarithmic axis.

    Parameters
    ----------
    truth, predicted : int [K]
        Pixels per class: row and column sums of a confusion matrix.
    """
    used = np.flatnonzero(truth + predicted)
    order = used[np.argsort(truth[used], kind="stable")]
    total = max(int(truth.sum()), 1)
    figure = Figure(figsize=(6.4, 1.2 + 0.27 * len(order)))
    axes = figure.add_subplot()
    for place, index in enumerate(order):
        pair = [value / total for value in (truth[index], predicted[index]) if value]
        axes.plot(pair, [place] * len(pair), color=legend.colours[index], linewidth=2, zorder=1)
    for values, face, name in ((truth, True, "truth"), (predicted, False, "predicted")):
        seen = [(values[i] / total, place, i) for place, i in enumerate(order) if values[i]]
        if seen:
            x, y, colours = zip(*[(s, p, legend.colours[i]) for s, p, i in seen], strict=True)
            inside = colours if face else "white"
            axes.scatter(x, y, s=34, c=inside, edgecolors=colours, linewidths=1.5, zorder=2)
        axes.scatter([], [], s=34, c=_GREY if face else "white", edgecolors=_GREY, label=name)
    _log_axis(axes, np.concatenate([truth[order], predicted[order]]) / total)
    axes.set_yticks(range(len(order)), [legend.classes[i] for i in order])
    axes.set_xlabel("share of the labelled pixels")
    axes.grid(axis="x", color="#e5e5e5", zorder=0)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    _bare(axes)
    return _save(figure, path)


def reliability(bins: pd.DataFrame, path: Path) -> Path:
    """Draw how often a model was right against how sure it was.

    Parameters
    ----------
    bins : DataFrame
        ``confidence``, ``accuracy`` and ``pixels``, as `model.metrics.reliability` gives them. Bins
        with less than a thousandth of the pixels are left out: chance alone moves them.
    """
    bins = bins[bins["pixels"] >= bins["pixels"].sum() / 1000]
    figure = Figure(figsize=(4.2, 4.6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    axes.plot(bins["confidence"], bins["accuracy"], "o-", color="#1f6fb2", markersize=5)
    axes.set_title(
        "above the line: more often right than sure", color=_GREY, fontsize=8, loc="left"
    )
    axes.set_ylabel("share that is right")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    share = bins["pixels"] / bins["pixels"].sum()
    below.bar(bins["confidence"], share, width=0.04, color="#1f6fb2")
    below.yaxis.set_major_formatter(_percent)
    below.yaxis.set_major_locator(MaxNLocator(3, prune="lower"))
    below.set_ylabel("pixels")
    below.set_xlabel("probability of the answer")
    for panel in (axes, below):
        panel.grid(color="#eeeeee")
        panel.set_axisbelow(True)
        _bare(panel)
    return _save(figure, path)


@dataclass(frozen=True)
class Profiles:
    """NDVI over the year: quartiles float [K, 3, T] (NaN without pixels), pixels int [K]."""

    quartiles: np.ndarray
    pixels: np.ndarray


def ndvi_profiles(
    parts: Iterable[Pixels], red: int, nir: int, n_classes: int, most: int = 2000
) -> Profiles:
    """Return quartiles of NDVI per class and month.

    Parameters
    ----------
    parts : iterable of Pixels
        Labelled pixels, tile by tile.
    red, nir : int
        Positions of the two bands.
    n_classes : int
        K.
    most : int
        Pixels per class and tile that are looked at, evenly spread.
    """
    seen: list[list[np.ndarray]] = [[] for _ in range(n_classes)]
    pixels = np.zeros(n_classes, dtype=np.int64)
    for part in parts:
        for k in np.unique(part.y[part.y != IGNORE]):
            rows = np.flatnonzero(part.y == k)
            pixels[k] += rows.size
            chosen = rows[:: max(1, rows.size // most)]
            seen[k].append(ndvi(part.reflectance[chosen, red], part.reflectance[chosen, nir]))
    months = next((p[0].shape[1] for p in seen if p), 0)
    quartiles = np.full((n_classes, 3, months), np.nan)
    for k, series in enumerate(seen):
        if series:
            quartiles[k] = _quartiles(np.concatenate(series))
    return Profiles(quartiles, pixels)


def ndvi(red: np.ndarray, nir: np.ndarray) -> np.ndarray:
    """Return (nir - red) / (nir + red) as float64; NaN where either is 0 (no data)."""
    r, n = red.astype(np.float64), nir.astype(np.float64)
    valid = (red > 0) & (nir > 0)
    return np.divide(n - r, n + r, out=np.full(r.shape, np.nan), where=valid)


def ndvi_picture(profiles: Profiles, months: Sequence[Any], legend: Legend, path: Path) -> Path:
    """Draw median and quartiles of NDVI by month, one small panel per class."""
    order = [int(k) for k in np.argsort(-profiles.pixels, kind="stable") if profiles.pixels[k]]
    columns = min(4, max(1, len(order)))
    rows = -(-max(1, len(order)) // columns)
    figure = Figure(figsize=(2.4 * columns, 0.6 + 1.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    x = np.arange(len(months))
    for axes, k in zip(panels, order, strict=False):
        low, middle, high = profiles.quartiles[k]
        colour = legend.colours[k]
        axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(x, middle, color=colour, linewidth=1.8)
        axes.set_title(legend.classes[k], fontsize=9)
        axes.set_xticks(x, [month.strftime("%b")[0] for month in months], fontsize=8)
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(axis="y", color="#e5e5e5")
        _bare(axes)
    for axes in panels[len(order) :]:
        axes.set_visible(False)
    panels[0].set_ylim(-0.1, 1.0)
    figure.supylabel("NDVI: median and quartiles", fontsize=9)
    return _save(figure, path)


def map_picture(panels: dict[str, np.ndarray], legend: Legend, path: Path) -> Path:
    """Draw maps side by side, with one legend of the classes that occur.

    Parameters
    ----------
    panels : dict of str to array
        Title to picture: classes uint8 [y, x] (255 white), or colour uint8 [y, x, 3], or
        confidence float [y, x] in 0 to 1 (NaN white).
    """
    shown = {title: _thin(values) for title, values in panels.items()}
    height, width = next(iter(shown.values())).shape[:2]
    tall = 3.2 * min(max(height / width, 0.4), 2.0)
    figure = Figure(figsize=(3.3 * len(shown), tall + 1.0), layout="compressed")
    axes = figure.subplots(1, len(shown), squeeze=False).ravel()
    for axis, (title, values) in zip(axes, shown.items(), strict=True):
        if values.dtype.kind == "f":
            image = axis.imshow(values, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
            # An inset keeps the panel as large as the others.
            place = axis.inset_axes((0.1, -0.09, 0.8, 0.04))
            bar = figure.colorbar(image, cax=place, orientation="horizontal", ticks=[0, 0.5, 1])
            bar.outline.set_visible(False)
            place.tick_params(labelsize=8, length=0)
        else:
            colours = values if values.ndim == 3 else coloured(values, legend)
            axis.imshow(colours, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    classes = [v for v in shown.values() if v.dtype.kind != "f" and v.ndim == 2]
    _class_legend(figure, classes, legend, "outside lower center", "no label, no decision")
    return _save(figure, path)


def preview(classes: np.ndarray, legend: Legend, path: Path) -> Path:
    """Draw one map, classes uint8 [y, x] with 255 white, with its legend."""
    shown = _thin(classes)
    height, width = shown.shape
    long = 6.0 / max(height, width)
    wide = width > 1.5 * height
    beside, below = (0.0, 1.4) if wide else (1.8, 0.0)
    size = (max(long * width, 1.0) + beside, max(long * height, 1.0) + below)
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.add_subplot()
    axes.imshow(coloured(shown, legend), interpolation="nearest")
    axes.set_axis_off()
    place: Place = "outside lower center" if wide else "outside right upper"
    _class_legend(figure, [shown], legend, place, "no decision", columns=4 if wide else 1)
    return _save(figure, path)


def season_picture(curve: pd.DataFrame, path: Path) -> Path:
    """Draw accuracy and macro-F1 after each month; see `model.early.accuracy_by_month`."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    names = [_MONTHS[(month - 1) % 12] for month in curve["month"]]
    for column, label, colour in (
        ("accuracy", "accuracy", "#1f6f50"),
        ("macro_f1", "macro-F1", "#c0722b"),
    ):
        axes.plot(range(len(names)), curve[column], "o-", color=colour, label=label, ms=4)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("imagery until the end of")
    _scores_axis(axes)
    return _save(figure, path)


def sweep_picture(table: pd.DataFrame, path: Path) -> Path:
    """Draw accuracy against the share of the season read; see `model.early.sweep`."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    table = table.sort_values("season")
    axes.plot(table["season"], table["accuracy"], "o-", color="#1f6f50", label="at the decision")
    axes.plot(table["season"], table["accuracy_all"], ":", color=_GREY, label="reading every date")
    for row in table.itertuples():
        axes.annotate(
            f"{row.alpha:g}",
            (row.season, row.accuracy),
            xytext=(4, -10),
            fontsize=8,
            textcoords="offset points",
            color=_GREY,
        )
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(_percent)
    axes.set_xlabel("share of the season before the decision (label: alpha)")
    _scores_axis(axes)
    axes.set_ylabel("accuracy")
    return _save(figure, path)


def _scores_axis(axes: Axes) -> None:
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(_percent)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.legend(frameon=False, loc="lower right")
    _bare(axes)


def coloured(classes: np.ndarray, legend: Legend) -> np.ndarray:
    """Return the colours of a class raster, uint8 [y, x, 3]; 255 is white."""
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[: len(legend.colours)] = np.rint(255 * np.array([to_rgb(c) for c in legend.colours]))
    return table[classes]


def natural_colours(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Return uint8 [y, x, 3] from reflectance uint16 [y, x], stretched; no data is white."""
    bands = np.stack([red, green, blue], axis=-1).astype(np.float32)
    valid = (bands > 0).all(axis=-1)
    if not valid.any():
        return np.full(bands.shape, 255, dtype=np.uint8)
    low, high = np.percentile(bands[valid], [1, 99])
    stretched = np.clip((bands - low) / max(float(high - low), 1.0), 0, 1) ** 0.8
    stretched[~valid] = 1
    return np.rint(255 * stretched).astype(np.uint8)


def _class_legend(
    figure: Figure,
    rasters: Sequence[np.ndarray],
    legend: Legend,
    place: Place,
    white: str,
    columns: int = 6,
) -> None:
    counts = np.bincount(np.concatenate([raster.ravel() for raster in rasters]), minlength=256)
    order = np.argsort(-counts[: len(legend.classes)], kind="stable")
    used = [int(k) for k in order if counts[k]]
    handles = [Patch(facecolor=legend.colours[k], label=legend.classes[k]) for k in used]
    handles.append(Patch(facecolor="white", edgecolor="#bbbbbb", label=white))
    figure.legend(handles=handles, loc=place, ncols=columns, frameon=False, fontsize=8)


def _log_axis(axes: Any, shares: np.ndarray) -> None:
    """Label decades, and 2 and 5 between them where there are few."""
    found = shares[shares > 0]
    low, high = (found.min(), found.max()) if found.size else (0.01, 1.0)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.6, min(high * 1.6, 1.2))
    few = high / low < 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.xaxis.set_major_formatter(_percent)
    axes.xaxis.set_minor_locator(NullLocator())


def _quartiles(values: np.ndarray) -> np.ndarray:
    # A month without any data has no quartiles; nanpercentile would warn about it.
    found = np.full((3, values.shape[1]), np.nan)
    known = ~np.isnan(values).all(axis=0)
    found[:, known] = np.nanpercentile(values[:, known], [25, 50, 75], axis=0)
    return found


def _thin(values: np.ndarray) -> np.ndarray:
    step = max(1, -(-max(values.shape[:2]) // _SIDE))
    return values[::step, ::step]


def _percent(value: float, _position: object) -> str:
    return f"{100 * value:g} %"


def _bare(axes: Any) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, **_STYLE)
    return path
