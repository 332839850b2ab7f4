"""What of a store is no longer as it was written, and how it is given back to the next build."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from dask.system import CPU_COUNT

from cube.markers import problems_of, unmark
from cube.objects import Folder, Place, at
from cube.planning import GridPlan, Tile
from cube.segments import segments, writing


def verify(path: Place) -> list[str]:
    """Hash every shard again and return what is wrong, one sentence per problem."""
    return [problem for one in _tiles(path) for problem in one.problems]


def repair(path: Place) -> list[str]:
    """Take the marker from every tile that is damaged: the next build makes those and no others.

    Returns
    -------
    list of str
        What `verify` found before.

    Raises
    ------
    StoreError
        If a marker cannot be deleted.
    """
    damaged = [one for one in _tiles(path) if one.problems]
    for one in damaged:
        with writing(str(one.root)):
            unmark(one.root, one.grid, one.tile)
    return [problem for one in damaged for problem in one.problems]


class _Looked(NamedTuple):
    """A tile of the plan, and what is wrong with it."""

    root: Folder
    grid: GridPlan
    tile: Tile
    problems: list[str]


def _tiles(path: Place) -> list[_Looked]:
    tiles = [
        (part.root, grid, tile)
        for part in segments(at(path))
        for grid in part.plan.grids
        for tile in grid.tiles
    ]

    def look(place: tuple[Folder, GridPlan, Tile]) -> _Looked:
        root, grid, tile = place
        return _Looked(root, grid, tile, problems_of(root, grid, tile))

    with ThreadPoolExecutor(CPU_COUNT) as pool:
        return list(pool.map(look, tiles))
