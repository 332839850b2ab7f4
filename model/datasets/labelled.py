"""A cube store and the label store of the same grids, read together."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from pyproj import Transformer

from cube.errors import StoreError
from cube.grid import PIXEL, NativeGrid, Window
from cube.objects import Place, at
from cube.recipe import Recipe
from cube.store import StoredTile, read_plan, read_window, tiles
from model.labelstore import LabelBlock
from model.samples import days_of_year, open_labels
from model.tiles import require_same_grids


class LabelledCube:
    """Pixels of a cube with their labels, in windows.

    Parameters
    ----------
    store : path
        Cube store, of composites or a dated series (``composite="series"``).
    labels : path
        Label store of the same cube.

    Attributes
    ----------
    tiles : list of StoredTile
    recipe : Recipe
    dates : int
        T: of a dated series, that of the granule with most dates.

    Raises
    ------
    LabelError
        If the labels are of another cube.
    StoreError
        If a tile of the cube is not built.
    """

    def __init__(self, store: Place, labels: str | Path) -> None:
        self.store = at(store).place
        self.labels = open_labels(labels)
        self.legend = self.labels.legend
        plan = read_plan(self.store)
        self.recipe: Recipe = plan.recipe
        self.tiles: list[StoredTile] = tiles(self.store)
        if len(self.tiles) < plan.n_tiles:
            raise StoreError(
                f"{self.store}: {len(self.tiles)} of {plan.n_tiles} tiles are built; run the "
                "build again (it resumes)"
            )
        require_same_grids(self.store, self.labels, self.tiles)
        self._times = {grid.grid.granule: grid.times for grid in plan.grids}
        self.dates = max(map(len, self._times.values()))

    @property
    def dated(self) -> bool:
        """Whether each granule has dates of its own."""
        return self.recipe.composite == "series"

    def doy(self, granule: str) -> np.ndarray:
        """Return the days of the year of a granule's dates, filled up with 0; int16 [T].

        Composites have the day that maps are drawn with; the days of a dated series are counted on
        from the first of January before its first date.
        """
        times = self._times[granule]
        if self.dated:
            days = (times - pd.Timestamp(self.recipe.periods[0].year, 1, 1)).days.to_numpy() + 1
        else:
            days = days_of_year(times)
        return np.pad(days, (0, self.dates - len(times))).astype(np.int16)

    def read(self, granule: str, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read a window.

        Returns
        -------
        x : ndarray of uint16 [C, T, y, x]
            DN, 0 where not valid.
        valid : ndarray of bool [T, y, x]
            Where every band has a value.
        """
        reflectance, _ = read_window(self.store, granule, window)
        valid = (reflectance != 0).all(axis=1)
        reflectance *= valid[:, None]
        missing = self.dates - len(reflectance)
        x = np.pad(reflectance, ((0, missing), (0, 0), (0, 0), (0, 0)))
        return x.swapaxes(0, 1), np.pad(valid, ((0, missing), (0, 0), (0, 0)))

    def read_labels(self, granule: str, window: Window) -> LabelBlock:
        """Read the labels of a window; outside of every zone they are 255."""
        block = self.labels.read(granule, window)
        label = np.where(block.zone > 0, block.label, np.uint8(255))
        return LabelBlock(label, block.parcel, block.zone)


def lonlat(grid: NativeGrid, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Return degrees of places in a grid's pixels (.5 is a pixel's centre); float64 [N, 2]."""
    x, y = grid.left + PIXEL * np.asarray(col), grid.top - PIXEL * np.asarray(row)
    return np.column_stack(_degrees(grid.epsg).transform(x, y))


@cache
def _degrees(epsg: int) -> Transformer:
    return Transformer.from_crs(epsg, 4326, always_xy=True)
