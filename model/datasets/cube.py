"""Samples from a cube with labels: single pixels, and windows for small studies.

Large studies stream windows from the store instead (`model.tiles`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cube.errors import LabelError
from cube.grid import TILE, Window
from cube.objects import Place
from cube.store import StoredTile
from model.datasets.choose import compacted
from model.datasets.labelled import LabelledCube, lonlat
from model.legend import IGNORE
from model.sampleset import SampleSet

#: Side of what is read at once, in pixels: 90 MB of a year's dated series of ten bands.
_CELL = 256


def pixel_set(
    store: Place, labels: str | Path, *, per_class: int = 200, seed: int = 0, name: str = "cube"
) -> SampleSet:
    """Draw labelled pixels of a cube as series.

    Parameters
    ----------
    store : path
        Cube store; its composites come as they are, of a dated series each pixel's clear dates.
    labels : path
        Label store of the same cube.
    per_class : int
        Pixels of each class drawn in each zone, at random; all where there are fewer.
    seed : int
        Same seed, same pixels.
    name : str
        Of the data set.

    Returns
    -------
    SampleSet
        Kind ``pixel``, x uint16 [N, C, T]; group = zone, parcel = parcel. Only dated series have
        no recipe: a map of them would need dates of its own.

    Raises
    ------
    LabelError, StoreError
        As for `LabelledCube`, or if no labelled pixel lies in a zone.
    """
    cube = LabelledCube(store, labels)
    drawn = _draw(cube, per_class, np.random.default_rng(seed))
    if drawn.empty:
        raise LabelError(f"{labels}: no labelled pixel lies in a zone; write labels with zones")
    x = np.zeros((len(drawn), len(cube.recipe.bands), cube.dates), np.uint16)
    valid = np.zeros((len(drawn), cube.dates), bool)
    doy = np.zeros((len(drawn), cube.dates), np.int16)
    where = np.zeros((len(drawn), 2))
    cells = [drawn.tile, drawn.row // _CELL, drawn.col // _CELL]
    for _, picks in drawn.groupby(cells):
        tile = cube.tiles[int(picks.tile.iloc[0])]
        rows, row, col = picks.index.to_numpy(), picks.row.to_numpy(), picks.col.to_numpy()
        near = _box(row, col)
        pixels, seen = cube.read(tile.granule, near)
        x[rows] = np.moveaxis(pixels[:, :, row - near.row, col - near.col], 2, 0)
        valid[rows] = seen[:, row - near.row, col - near.col].T
        doy[rows] = cube.doy(tile.granule)
        where[rows] = lonlat(tile.grid, row + 0.5, col + 0.5)
    samples = SampleSet(
        name=name,
        kind="pixel",
        bands=cube.recipe.bands,
        legend=cube.legend,
        x=x,
        valid=valid,
        doy=doy,
        y=drawn.label.to_numpy(np.uint8),
        group=drawn.zone.to_numpy(np.int32),
        parcel=drawn.parcel.to_numpy(np.int32),
        lonlat=where,
        recipe=cube.recipe,
    )
    return compacted(samples) if cube.dated else samples


def window_set(
    store: Place,
    labels: str | Path,
    size: int = 32,
    *,
    limit: int | None = None,
    seed: int = 0,
    name: str = "cube",
) -> SampleSet:
    """Cut labelled windows from a cube.

    A window that several zones share serves the one with most labelled pixels in it; the labels of
    the others are 255.

    Parameters
    ----------
    store, labels : path
        As for `pixel_set`.
    size : int
        Side in pixels; divides 1024.
    limit : int, optional
        Windows drawn at random; default all that hold a label. A window of 32 pixels, four bands
        and twelve months takes 98 kB.
    seed : int
        Draws the windows.
    name : str
        Of the data set.

    Returns
    -------
    SampleSet
        Kind ``image``, x uint16 [N, C, T, size, size]; group = zone.

    Raises
    ------
    LabelError, StoreError
        As for `pixel_set`.
    ValueError
        If windows of this size do not fill a tile.
    """
    if size < 1 or TILE % size:
        raise ValueError(f"size is {size} pixels; it must divide {TILE}: 32, 64, 128, …")
    cube = LabelledCube(store, labels)
    places = [place for tile in cube.tiles for place in _lattice(cube, tile, size)]
    if not places:
        raise LabelError(f"{labels}: no labelled pixel lies in a zone; write labels with zones")
    if limit is not None and limit < len(places):
        chosen = np.random.default_rng(seed).choice(len(places), limit, replace=False)
        places = [places[number] for number in np.sort(chosen)]
    read = [cube.read(tile.granule, window) for tile, window, _ in places]
    blocks = [cube.read_labels(tile.granule, window) for tile, window, _ in places]
    zone = np.array([number for *_, number in places], np.int32)
    mine = np.stack([block.zone for block in blocks]) == zone[:, None, None]
    middles = [
        lonlat(tile.grid, np.array([w.row + w.height / 2]), np.array([w.col + w.width / 2]))
        for tile, w, _ in places
    ]
    samples = SampleSet(
        name=name,
        kind="image",
        bands=cube.recipe.bands,
        legend=cube.legend,
        x=np.stack([x for x, _ in read]),
        valid=np.stack([valid for _, valid in read]),
        doy=np.stack([cube.doy(tile.granule) for tile, _, _ in places]),
        y=np.where(mine, np.stack([block.label for block in blocks]), np.uint8(IGNORE)),
        group=zone,
        parcel=np.stack([block.parcel for block in blocks]),
        lonlat=np.concatenate(middles),
        recipe=cube.recipe,
    )
    return compacted(samples) if cube.dated else samples


def _draw(cube: LabelledCube, per_class: int, random: np.random.Generator) -> pd.DataFrame:
    """Draw pixels: columns tile, row, col, label, zone, parcel, in order of tile, row and col.

    Every labelled pixel gets a random key, and the smallest keys of each class and zone win, so
    that one pass over the tiles draws evenly however many there are.
    """
    kept: list[pd.DataFrame] = []
    for number, tile in enumerate(cube.tiles):
        block = cube.read_labels(tile.granule, tile.window)
        row, col = np.nonzero(block.label != IGNORE)
        table = pd.DataFrame(
            {
                "tile": number,
                "row": row + tile.window.row,
                "col": col + tile.window.col,
                "label": block.label[row, col],
                "zone": block.zone[row, col],
                "parcel": block.parcel[row, col],
                "key": random.random(len(row)),
            }
        )
        kept = [_winners(pd.concat([*kept, table]), per_class)]
    drawn = pd.concat(kept) if kept else pd.DataFrame()
    return drawn.sort_values(["tile", "row", "col"]).reset_index(drop=True)


def _winners(table: pd.DataFrame, count: int) -> pd.DataFrame:
    return table.sort_values("key").groupby(["zone", "label"]).head(count)


def _lattice(
    cube: LabelledCube, tile: StoredTile, size: int
) -> list[tuple[StoredTile, Window, int]]:
    """Return the windows of a tile that hold labels, each with the zone it serves."""
    block = cube.read_labels(tile.granule, tile.window)
    row, col = np.nonzero(block.label != IGNORE)
    table = pd.DataFrame(
        {
            "row": (row + tile.window.row) // size,
            "col": (col + tile.window.col) // size,
            "zone": block.zone[row, col],
        }
    )
    most = table.value_counts().reset_index().drop_duplicates(["row", "col"])
    return [
        (tile, Window(row=r * size, col=c * size, height=size, width=size), z)
        for r, c, z in sorted(most[["row", "col", "zone"]].itertuples(index=False, name=None))
    ]


def _box(row: np.ndarray, col: np.ndarray) -> Window:
    """Return the smallest window around some pixels."""
    return Window(
        row=int(row.min()),
        col=int(col.min()),
        height=int(np.ptp(row)) + 1,
        width=int(np.ptp(col)) + 1,
    )
