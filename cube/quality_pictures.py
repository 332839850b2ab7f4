"""Pictures of what a cube's values rest on (PNG)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from odc.geo.geobox import GeoBox

if TYPE_CHECKING:
    from cube.quality import ObservationMap, Quality, Series

_STYLE: dict[str, Any] = {"dpi": 150, "bbox_inches": "tight", "facecolor": "white"}
_GREY = "#666666"
_NEVER = "#d9d9d9"
_INK = "#1b7837"
#: How a filled value is drawn: `source` flag → marker, colour, name.
_FILLED = {2: ("o", "#e08214", "filled from both sides"), 3: ("s", "#b2182b", "from one side")}
#: Rows of the heat map that still carry a name.
_NAMES = 40


def observations(one: ObservationMap, found: Quality, path: Path) -> Path:
    """Draw how often each pixel was seen clearly, over all periods.

    Parameters
    ----------
    one : ObservationMap
    found : Quality
        Names recipe and periods.
    path : Path
        PNG to write.
    """
    height, width = one.counts.shape
    figure = Figure(
        figsize=(7.5, 1 + 5.3 * min(max(height / width, 0.4), 1.5)), layout="constrained"
    )
    axes = figure.add_subplot()
    seen = np.ma.masked_equal(one.counts, 0)
    levels = _levels(seen.compressed())
    left, bottom, right, top = (edge / 1000 for edge in one.box.boundingbox.bbox)
    image = axes.imshow(
        seen,
        cmap=colormaps["viridis"].resampled(len(levels) - 1),
        norm=BoundaryNorm(levels - 0.5, len(levels) - 1),
        extent=(left, right, bottom, top),
        interpolation="nearest",
    )
    axes.set_facecolor(_NEVER)
    axes.set_xlabel(f"easting, km (EPSG:{one.box.crs.epsg})")
    axes.set_ylabel("northing, km")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(useOffset=False)
    bar = figure.colorbar(image, ax=axes, ticks=(levels[:-1] + levels[1:] - 1) / 2)
    bar.ax.set_yticklabels(_classes(levels))
    bar.ax.tick_params(length=0)
    bar.set_label(f"clear observations per pixel, {_span(found.periods.index)}")
    never = float((one.counts == 0).mean())
    _title(axes, _place(one), found, f"grey: never seen ({never:.1%})" if never else "")
    return _save(figure, path)


def gaps(found: Quality, path: Path) -> Path:
    """Draw the share of pixels without an observation: tiles by periods.

    Parameters
    ----------
    found : Quality
    path : Path
        PNG to write.
    """
    table = found.gaps.dropna(how="all")
    rows, columns = table.shape
    named = rows <= _NAMES
    height = 0.26 * (rows if named else _NAMES)
    size = (2.4 + 0.34 * min(max(columns, 12), 48), 2.4 + height)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(table, cmap="OrRd", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_facecolor(_NEVER)
    shown = range(0, columns, -(-columns // 48))
    axes.set_xticks(shown, [_labels(table.columns)[n] for n in shown], rotation=90)
    axes.set_xlabel("period")
    if named:
        axes.set_yticks(range(rows), [" ".join(name) for name in table.index])
        if columns <= 24:
            _write_shares(axes, table.to_numpy())
    else:
        granules = table.index.get_level_values(0)
        first = np.flatnonzero(granules != np.roll(granules, 1))
        axes.set_yticks(first, granules[first])
    axes.set_ylabel("tile" if named else "tiles, from the first of each granule")
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1), ticks=(0, 0.5, 1))
    bar.set_label("pixels without\nan observation")
    unseen = len(found.gaps) - rows
    note = f"{unseen} tiles never seen are left out" if unseen else ""
    _title(axes, f"{_granules(found)}: gaps", found, note)
    _bare(axes)
    return _save(figure, path)


def series(found: Quality, path: Path) -> Path:
    """Draw example pixels through time: observed values, and what the fill made of the gaps.

    Parameters
    ----------
    found : Quality
        NDVI is drawn where red and nir are there, else the reflectance of the first band.
    path : Path
        PNG to write.
    """
    number = len(found.series)
    figure = Figure(figsize=(8, 0.9 + 2 * number))
    panels = figure.subplots(number, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, one in zip(panels, found.series, strict=True):
        quantity, values = _quantity(one)
        axes.plot(one.time, values, color=_INK, linewidth=1, alpha=0.5, zorder=1)
        seen = one.source == 1
        axes.plot(one.time[seen], values[seen], "o", color=_INK, label="observed", zorder=3)
        for kind, (marker, colour, name) in _FILLED.items():
            here = one.source == kind
            axes.plot(
                one.time[here],
                values[here],
                marker,
                color=colour,
                markerfacecolor="white",
                label=name,
                zorder=2,
            )
        for start, end in _gap_spans(one):
            axes.axvspan(start, end, color="#f0f0f0", zorder=0, linewidth=0)
        axes.set_ylabel(quantity)
        axes.set_title(
            f"{one.granule}, pixel at easting {one.x:.0f} m, northing {one.y:.0f} m: "
            f"observed in {seen.sum()} of {len(seen)} periods",
            fontsize=8,
            loc="left",
            color=_GREY,
        )
        axes.grid(axis="y", color="#e5e5e5")
        axes.set_axisbelow(True)
        _bare(axes)
    panels[-1].set_xlabel("start of the period (shaded: without an observation)")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="upper right",
        bbox_to_anchor=(0.9, 1 - 0.25 / figure.get_figheight()),
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    head = f"{found.series[0].granule}: observed against filled"
    figure.suptitle(f"{head}\n{_recipe(found)}", x=0.125, ha="left", fontsize=10)
    figure.subplots_adjust(hspace=0.28, top=1 - 0.75 / figure.get_figheight())
    return _save(figure, path)


def _quantity(one: Series) -> tuple[str, np.ndarray]:
    values = np.where(one.reflectance > 0, one.reflectance / 1e4, np.nan)
    if {"red", "nir"} <= set(one.bands):
        red, nir = (values[:, one.bands.index(band)] for band in ("red", "nir"))
        return "NDVI", (nir - red) / (nir + red)
    return f"reflectance, {one.bands[0]}", values[:, 0]


def _gap_spans(one: Series) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    # A period's value stands at its first day: it is shaded from half-way before to half-way after.
    times = one.time
    if len(times) < 2:
        return []
    middles = times[:-1] + (times[1:] - times[:-1]) / 2
    starts = [times[0] - (times[1] - times[0]) / 2, *middles]
    ends = [*middles, times[-1] + (times[-1] - times[-2]) / 2]
    return [(starts[n], ends[n]) for n in np.flatnonzero(one.source != 1)]


def _levels(counts: np.ndarray) -> np.ndarray:
    """Return the first counts of at most 12 equal classes that hold all, and one beyond."""
    least, most = (int(counts.min()), int(counts.max())) if counts.size else (1, 1)
    step = -(-(most - least + 1) // 12)
    return np.arange(least, most + step + 1, step)


def _classes(levels: np.ndarray) -> list[str]:
    pairs = zip(levels[:-1], levels[1:] - 1, strict=True)
    return [f"{first}" if first == last else f"{first}–{last}" for first, last in pairs]


def _write_shares(axes: Axes, shares: np.ndarray) -> None:
    for row, column in np.argwhere(shares >= 0.005):
        value = shares[row, column]
        ink = "white" if value > 0.5 else "black"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", size=7, color=ink)


def _place(one: ObservationMap) -> str:
    box: GeoBox = one.box
    lon, lat = box.extent.to_crs("EPSG:4326").centroid.coords[0]
    wide, high = (side / 1000 for side in (box.boundingbox.span_x, box.boundingbox.span_y))
    ns, ew = "N" if lat >= 0 else "S", "E" if lon >= 0 else "W"
    return (
        f"{one.granule}, {wide:.3g} × {high:.3g} km at {abs(lat):.2f}° {ns}, {abs(lon):.2f}° {ew}"
    )


def _granules(found: Quality) -> str:
    names = [one.granule for one in found.maps]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _labels(times: pd.Index) -> list[str]:
    from cube.quality import labels

    return labels(times)


def _span(times: pd.Index) -> str:
    names = _labels(times)
    return names[0] if len(names) == 1 else f"{names[0]} – {names[-1]}"


def _recipe(found: Quality) -> str:
    return f"recipe {found.recipe_hash}" if found.recipe_hash else "recipe not stated"


def _title(axes: Axes, head: str, found: Quality, note: str) -> None:
    axes.set_title(f"{head}\n", fontsize=10, loc="left")
    for text, x, side in ((_recipe(found), 0, "left"), (note, 1, "right")):
        axes.annotate(
            text,
            (x, 1),
            xycoords="axes fraction",
            xytext=(0, 3),
            textcoords="offset points",
            ha=side,
            size=8,
            color=_GREY,
        )


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, **_STYLE)
    return path
