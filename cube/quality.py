"""Evidence: what a cube saw, what it filled, and what it does not know.

`cube.source.source` says for every value whether it was observed or filled; `quality` sums that up
in one pass over the chunks.

Shares are of the pixels that were observed at least once. A pixel that never was is either always
cloudy or outside of the area within the cube's bounding box; it is counted as `never`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import odc.geo.xr  # noqa: F401 - registers .odc
import pandas as pd
import xarray as xr
from dask.delayed import Delayed
from odc.geo.geobox import GeoBox

from cube.errors import CropcubeError
from cube.objects import Place
from cube.source import BOTH_SIDES, EMPTY, MEANINGS, OBSERVED, ONE_SIDE, kinds_of, require_cube
from cube.store import looks
from cube.store import open as open_store

#: Longest side of a map of observations, in pixels.
_MAP_SIDE = 1000
#: Side of the chunks of a cube in memory.
_CHUNK = 1024
_QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}


@dataclass(frozen=True)
class Series:
    """One pixel through time, as an example.

    Attributes
    ----------
    granule : str
    x, y : float
        Pixel centre in metres of the granule's grid.
    time : DatetimeIndex [T]
    bands : tuple of str
    reflectance : ndarray of uint16 [T, band]
        × 10 000, 0 = no data.
    source : ndarray of uint8 [T]
        As `source` has it.
    """

    granule: str
    x: float
    y: float
    time: pd.DatetimeIndex
    bands: tuple[str, ...]
    reflectance: np.ndarray
    source: np.ndarray


@dataclass(frozen=True)
class ObservationMap:
    """Number of clear observations of each pixel, over all periods.

    Attributes
    ----------
    granule : str
    counts : ndarray of uint32 [y, x]
        Every `step`-th pixel of the cube; 0 = never observed.
    step : int
    box : GeoBox
        Grid of the whole cube.
    """

    granule: str
    counts: np.ndarray
    step: int
    box: GeoBox


@dataclass(frozen=True)
class Quality:
    """What a cube's values rest on.

    Attributes
    ----------
    periods : DataFrame, one row per time
        Shares (0…1) of the pixels that were observed at least once: ``observed``,
        ``filled_both``, ``filled_one``, ``empty``; ``mean``, ``q10``, ``median`` and ``q90`` of
        the number of clear observations. Of a store also ``masked``, the share of all looks at
        the ground that the mask took.
    gaps : DataFrame, one row per granule and chunk, one column per time
        Share (0…1) of pixels without an observation; NaN where no pixel ever had one.
    tiles : DataFrame, one row per granule and chunk
        ``pixels`` and, of these, ``never`` observed.
    maps : tuple of ObservationMap
        One per native grid.
    series : tuple of Series
        Examples, from few gaps to many.
    recipe_hash : str
        Of the recipe the cube was built with; empty where the cube does not say.
    """

    periods: pd.DataFrame
    gaps: pd.DataFrame
    tiles: pd.DataFrame
    maps: tuple[ObservationMap, ...]
    series: tuple[Series, ...]
    recipe_hash: str

    @property
    def pixels(self) -> int:
        """Number of pixels of all grids."""
        return int(self.tiles.pixels.sum())

    @property
    def never(self) -> int:
        """Number of pixels without any observation."""
        return int(self.tiles.never.sum())

    def text(self) -> str:
        """Return the table of periods for people to read."""
        shown = self.periods.copy()
        shown.index = pd.Index(labels(shown.index), name="period")
        shown[_SHARES] = shown[_SHARES].map(lambda share: f"{100 * share:.1f} %")
        if "masked" in shown:
            shown["masked"] = shown["masked"].map("{:.1%}".format, na_action="ignore")
        shown["mean"] = shown["mean"].map("{:.2f}".format)
        never = f"{self.never:,} ({self.never / max(self.pixels, 1):.1%})"
        return (
            f"{shown.to_string()}\n"
            f"Of {self.pixels:,} pixels {never} were never observed: always cloudy, or outside of "
            "the area. Shares are of the others."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return totals and the table of periods as plain values, for JSON."""
        rows = self.periods.astype(object).where(self.periods.notna(), None)
        rows.insert(0, "time", [f"{time:%Y-%m-%d}" for time in rows.index])
        return {
            "recipe_hash": self.recipe_hash,
            "granules": [one.granule for one in self.maps],
            "pixels": self.pixels,
            "never_observed": self.never,
            "periods": rows.to_dict("records"),
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write tables (CSV, JSON) and pictures (PNG) to a folder; returns their paths.

        ``periods.csv``, ``gaps.csv`` (tile × period) and ``quality.json``; for each granule
        ``observations-GRANULE.png`` (map of the number of clear observations), ``gaps.png``
        (heat map of `gaps`) and ``series.png`` (example pixels, observed against filled).
        """
        from cube import quality_pictures as pictures

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = [folder / name for name in ("periods.csv", "gaps.csv", "quality.json")]
        self.periods.to_csv(tables[0], float_format="%.6g", date_format="%Y-%m-%d")
        days = self.gaps.set_axis([f"{time:%Y-%m-%d}" for time in self.gaps.columns], axis=1)
        self.tiles.join(days).to_csv(tables[1], float_format="%.6g")
        tables[2].write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")
        maps = [
            pictures.observations(one, self, folder / f"observations-{one.granule}.png")
            for one in self.maps
        ]
        heat = pictures.gaps(self, folder / "gaps.png")
        return [*tables, *maps, heat, pictures.series(self, folder / "series.png")]


_SHARES = ["observed", "filled_both", "filled_one", "empty"]


def quality(ds: xr.Dataset | xr.DataTree | Place) -> Quality:
    """Sum up what a cube saw and what it filled, in one pass.

    Parameters
    ----------
    ds : Dataset, DataTree or path
        From `cube.build` or `cube.store.open` (a tree has one node per native grid), or the store
        itself, which also knows what was masked. Every chunk is read once and reduced where it
        is; the cube is never in memory as a whole.

    Returns
    -------
    Quality

    Raises
    ------
    CropcubeError
        If `ds` is not a cube, or nothing in it was ever observed.
    """
    if not isinstance(ds, xr.Dataset | xr.DataTree):
        looked = looks(ds)
        found = quality(open_store(ds))
        return replace(found, periods=found.periods.assign(masked=1 - looked.clear / looked.seen))
    cubes = _cubes(ds)
    work = [(number, name, lazy) for number, one in enumerate(cubes) for name, lazy in _chunks(one)]
    results: tuple[_Part, ...] = dask.compute(*[lazy for *_, lazy in work])
    parts = [(number, name, part) for (number, name, _), part in zip(work, results, strict=True)]
    if all(part.never == part.pixels for *_, part in parts):
        raise CropcubeError("no pixel of this cube was ever observed; check its area and period")
    of_grid = [[part for n, _, part in parts if n == number] for number in range(len(cubes))]
    index = pd.MultiIndex.from_tuples(
        [(cubes[number].granule, name) for number, name, _ in parts], names=["granule", "tile"]
    )
    gaps = [pd.Series(p.gaps, cubes[number].time) for number, _, p in parts]
    return Quality(
        periods=_periods(cubes, of_grid),
        gaps=pd.DataFrame(gaps, index).sort_index(axis=1),
        tiles=pd.DataFrame(
            {"pixels": [p.pixels for *_, p in parts], "never": [p.never for *_, p in parts]}, index
        ),
        maps=tuple(one.map_of(some) for one, some in zip(cubes, of_grid, strict=True)),
        series=tuple(_examples(cubes, of_grid)),
        recipe_hash=str(cubes[0].ds.attrs.get("recipe_hash", "")),
    )


def labels(times: pd.Index) -> list[str]:
    """Return a short name for each time: months by name, other dates in full."""
    stamps = pd.DatetimeIndex(times)
    months = bool((stamps.day == 1).all()) and not stamps.to_period("M").has_duplicates
    return list(stamps.strftime("%b %Y" if months else "%Y-%m-%d"))


# --- one chunk ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """What stays of a chunk; counts are of pixels that were observed at least once.

    `kinds` [T, 4] and `histogram` [T, 256] of the number of observations; `counts` [y, x] of every
    step-th pixel at `place`; `pixels_shown` are (row, col, reflectance [T, band], source [T]).
    """

    pixels: int
    never: int
    kinds: np.ndarray
    histogram: np.ndarray
    place: tuple[int, int]
    counts: np.ndarray
    pixels_shown: list[tuple[int, int, np.ndarray, np.ndarray]]

    @property
    def gaps(self) -> np.ndarray:
        """Share of pixels without an observation [T]; NaN where none ever had one."""
        if self.never == self.pixels:
            return np.full(len(self.kinds), np.nan)
        return 1 - self.kinds[:, OBSERVED] / (self.pixels - self.never)


def _reduce(
    reflectance: np.ndarray, observations: np.ndarray, row: int, col: int, step: int
) -> _Part:
    observed = np.asarray(observations > 0)
    kinds = kinds_of(observed, np.asarray(reflectance.any(axis=1)), axis=0)
    seen = np.asarray(observed.any(axis=0))
    down, across = -row % step, -col % step
    return _Part(
        pixels=seen.size,
        never=int((~seen).sum()),
        kinds=np.stack([np.bincount(k[seen], minlength=len(MEANINGS)) for k in kinds]),
        histogram=np.stack([np.bincount(n[seen], minlength=256) for n in observations]),
        place=((row + down) // step, (col + across) // step),
        counts=observations[:, down::step, across::step].sum(axis=0, dtype=np.uint32),
        pixels_shown=[
            (row + y, col + x, reflectance[:, :, y, x].copy(), kinds[:, y, x].copy())
            for y, x in _typical(observed.sum(axis=0), seen)
        ],
    )


def _typical(periods_seen: np.ndarray, seen: np.ndarray) -> list[tuple[int, int]]:
    """Return three pixels: with the middle number of gaps, with many, and with almost the most."""
    places = np.argwhere(seen)
    order = np.argsort(-periods_seen[seen], kind="stable")
    chosen = [int(share * (len(order) - 1)) for share in (0.5, 0.9, 0.99)] if len(order) else []
    return [(int(y), int(x)) for y, x in places[order[chosen]]]


# --- one grid ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cube:
    """A cube of one native grid, chunked in space only."""

    ds: xr.Dataset
    granule: str

    @property
    def time(self) -> pd.DatetimeIndex:
        return pd.DatetimeIndex(self.ds.time.values)

    @property
    def step(self) -> int:
        return max(1, -(-max(self.ds.sizes["y"], self.ds.sizes["x"]) // _MAP_SIDE))

    def map_of(self, parts: list[_Part]) -> ObservationMap:
        size = [-(-self.ds.sizes[axis] // self.step) for axis in ("y", "x")]
        counts = np.zeros(size, np.uint32)
        for part in parts:
            (row, col), (height, width) = part.place, part.counts.shape
            counts[row : row + height, col : col + width] = part.counts
        return ObservationMap(self.granule, counts, self.step, self.ds.odc.geobox)


def _cubes(ds: xr.Dataset | xr.DataTree) -> list[_Cube]:
    if isinstance(ds, xr.DataTree):
        nodes = {name: node.to_dataset() for name, node in ds.children.items()}
    else:
        nodes = {str(ds.attrs.get("granule", "cube")): ds}
    for node in nodes.values():
        require_cube(node)
    if not nodes:
        require_cube(ds)
    return [_Cube(_chunked(node), str(name)) for name, node in nodes.items()]


def _chunked(ds: xr.Dataset) -> xr.Dataset:
    only = ds[["reflectance", "observations"]]
    if not only.chunks:
        only = only.chunk(y=_CHUNK, x=_CHUNK)
    return only.chunk(time=-1, band=-1).unify_chunks()


def _chunks(one: _Cube) -> Iterator[tuple[str, Delayed]]:
    ds, lazy_reduce = one.ds, dask.delayed(_reduce, pure=True)
    # Not optimised apart: a tile that both variables come from stays one task.
    reflectance = ds.reflectance.data.to_delayed(optimize_graph=False)[0, 0]
    observations = ds.observations.data.to_delayed(optimize_graph=False)[0]
    rows, cols = (np.cumsum((0, *ds.chunks[axis])) for axis in ("y", "x"))
    for (i, j), values in np.ndenumerate(reflectance):
        place = int(rows[i]), int(cols[j])
        yield f"y{i:02d}-x{j:02d}", lazy_reduce(values, observations[i, j], *place, one.step)


# --- all grids ---------------------------------------------------------------------------------


def _periods(cubes: list[_Cube], of_grid: list[list[_Part]]) -> pd.DataFrame:
    # Dated series have other times on each grid: sums are by time, not by place.
    kinds = _sum_by_time(cubes, [[part.kinds for part in parts] for parts in of_grid])
    counts = _sum_by_time(cubes, [[part.histogram for part in parts] for parts in of_grid])
    pixels = kinds.sum(axis=1)
    table = pd.DataFrame(
        {
            name: kinds[kind] / pixels
            for name, kind in zip(_SHARES, (OBSERVED, BOTH_SIDES, ONE_SIDE, EMPTY), strict=True)
        }
    )
    histogram = counts.to_numpy()
    table["mean"] = histogram @ np.arange(256) / pixels
    below = histogram.cumsum(axis=1)
    for name, share in _QUANTILES.items():
        # The least number that so many pixels do not exceed (inverted distribution function).
        table[name] = (below < share * pixels.to_numpy()[:, None]).sum(axis=1)
    return table


def _sum_by_time(cubes: list[_Cube], counts: list[list[np.ndarray]]) -> pd.DataFrame:
    frames = [
        pd.DataFrame(np.sum(arrays, axis=0), index=one.time)
        for one, arrays in zip(cubes, counts, strict=True)
    ]
    return pd.concat(frames).groupby(level=0).sum().rename_axis("time")


def _examples(cubes: list[_Cube], of_grid: list[list[_Part]]) -> Iterator[Series]:
    """Yield the pixels shown of one chunk, from the middle of all."""
    able = [(one, part) for one, parts in zip(cubes, of_grid, strict=True) for part in parts]
    able = [(one, part) for one, part in able if part.pixels_shown]
    one, part = able[len(able) // 2]
    for row, col, reflectance, kinds in part.pixels_shown:
        yield Series(
            granule=one.granule,
            x=float(one.ds.x[col]),
            y=float(one.ds.y[row]),
            time=one.time,
            bands=tuple(map(str, one.ds.band.values)),
            reflectance=reflectance,
            source=kinds,
        )
