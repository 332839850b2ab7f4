"""Segments: how months or years are added to a store without touching what it holds.

The first plan written to a store fills the store's own folder. Every later one fills a segment: a
folder named after its period that is a store of its own, arrays, plan and markers. Once all its
tiles are done, one object, ``.cropcube/added/<period>``, makes it part of the store. So a reader
sees a segment whole or not at all, and an append that was interrupted leaves what was there before
as it was. Nothing is moved: a bucket could only copy it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any

from cube.errors import StoreError
from cube.markers import STATE, done_tiles, half_minute, tile_name
from cube.objects import Folder
from cube.planning import GridPlan, Plan, Tile, parse_plan
from cube.recipe import Recipe
from cube.tally import Tally

PLAN = f"{STATE}/plan.json"
ADDED = f"{STATE}/added"
_PLAIN_NAME = re.compile(r"\w[\w-]*", re.ASCII)
_PERIOD = re.compile(r"\d{4}-[\d-]+_\d{4}-[\d-]+")


@dataclass(frozen=True)
class Segment:
    """One written plan and the folder that holds its arrays and markers."""

    root: Folder
    plan: Plan

    @property
    def period(self) -> str:
        """First and last month or day, as in the recipe."""
        return _period(self.plan.recipe)

    def grid(self, granule: str) -> GridPlan:
        """Return the part of the plan for a granule.

        Raises
        ------
        StoreError
            If the plan has no such granule.
        """
        for grid in self.plan.grids:
            if grid.grid.granule == granule:
                return grid
        known = ", ".join(grid.grid.granule for grid in self.plan.grids)
        raise StoreError(f"{self.root} has no granule {granule}; it has {known}")

    def done(self) -> dict[str, Tally]:
        """Return what was counted for each tile that is done, by the tile's name."""
        return done_tiles(self.root, self.plan)

    def missing(self, max_missing: float = 1.0) -> list[tuple[GridPlan, Tile]]:
        """Return the tiles that are not done, or lack more than that share of their scenes."""
        done = self.done()
        return [
            (grid, tile)
            for grid in self.plan.grids
            for tile in grid.tiles
            if (tally := done.get(tile_name(grid, tile))) is None
            or tally.failed > math.floor(max_missing * len(grid.scenes))
        ]


def segments(root: Folder) -> tuple[Segment, ...]:
    """Return what a store holds, in order of time; unfinished additions are not in it.

    Raises
    ------
    StoreError
        If `root` is not a cropcube store.
    """
    added = (name.removeprefix(f"{ADDED}/") for name in root.listing(ADDED))
    found = (segment_at(root), *(segment_at(root / period) for period in added))
    return tuple(sorted(found, key=lambda part: part.plan.recipe.start))


def recent_segments(root: Folder) -> tuple[Segment, ...]:
    """Return `segments`; of a bucket, as they were at most half a minute ago."""
    return _segments_then(root, half_minute()) if root.is_url else segments(root)


def segment_at(folder: Folder) -> Segment:
    """Return the one segment whose plan lies in `folder`.

    Raises
    ------
    StoreError
        If `folder` holds no plan.
    """
    version = folder.version(PLAN)
    if version is None:
        raise StoreError(f"{folder} is not a cropcube store (no {PLAN})")
    return _segment(folder, version)


def join_plans(parts: tuple[Segment, ...]) -> Plan:
    """Return the plan whose period is that of all segments together.

    Raises
    ------
    StoreError
        If months between the segments are missing: no recipe has such a period.
    """
    first, last = parts[0].plan, parts[-1].plan
    if len(parts) == 1:
        return first
    if has_gap(parts):
        raise StoreError(
            f"{parts[0].root} holds {' and '.join(part.period for part in parts)}: no one recipe "
            "has a period with a gap. Add what lies between, or give each period a store of its own"
        )
    recipe = first.recipe.model_copy(update={"end": last.recipe.end})
    removed = tuple(chain.from_iterable(part.plan.removed for part in parts))
    grids = tuple(_join_grids(grid, recipe, parts) for grid in first.grids)
    return first.model_copy(update={"recipe": recipe, "grids": grids, "removed": removed})


def has_gap(parts: tuple[Segment, ...]) -> bool:
    """Return whether time is missing between two segments."""
    return any(
        before.plan.recipe.stop != after.plan.recipe.periods[0] for before, after in pairwise(parts)
    )


def place(root: Folder, plan: Plan) -> Folder:
    """Return the folder where a plan's tiles belong; a new store gets the plan.

    Raises
    ------
    StoreError
        If `root` holds something else, or a cube of another plan.
    """
    _check_names(plan)
    if not root.exists(PLAN):
        # The plan is the first object of a store: another process may just have written it.
        if not root.is_empty() and not root.exists(PLAN):
            raise StoreError(f"{root} exists and is not a cropcube store; choose another path")
        _begin(root, plan)
    known = _known(root)
    if (folder := _find(known, plan)) is None:
        _check_extends(root, known, plan)
        raise StoreError(
            f"{root} holds {' and '.join(part.period for part in known)}; choose another path for "
            f"{_period(plan.recipe)}, or add it with cube.store.append"
        )
    return folder


def place_beside(root: Folder, plan: Plan) -> Folder:
    """Return the folder where the tiles of a plan that extends a store belong.

    Raises
    ------
    StoreError
        If `root` is not a store, or holds a cube that the plan cannot extend.
    """
    _check_names(plan)
    known = _known(root)
    if (folder := _find(known, plan)) is None:
        _check_extends(root, known, plan)
        folder = root / _period(plan.recipe)
        if not _begin(folder, plan):
            raise StoreError(f"{folder}: another process just began it from other scenes")
    return folder


def join(root: Folder, folder: Folder) -> None:
    """Make a finished segment part of its store; nothing to do for the first one.

    Raises
    ------
    StoreError
        If a tile of the segment is not done.
    """
    if folder == root:
        return
    segment = segment_at(folder)
    if missing := segment.missing():
        raise StoreError(
            f"{folder}: {len(missing)} tiles are not done; run the build again, it resumes"
        )
    with writing(f"{root}, period {segment.period}"):
        root.create(f"{ADDED}/{segment.period}", b"")
    _segments_then.cache_clear()


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn a failed write, such as on a full disk, into one sentence.

    Raises
    ------
    StoreError
        Instead of any other OSError.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"{what}: cannot be written ({error.strerror or error}); free space or choose another "
            "disk, then run the build again: it resumes"
        ) from error


def _known(root: Folder) -> list[Segment]:
    folders = [root / name for name in root.children() if _PERIOD.fullmatch(name)]
    # A folder of that name without a plan is none of ours, or has just been begun.
    return [segment_at(root), *(segment_at(one) for one in folders if one.exists(PLAN))]


def _find(known: list[Segment], plan: Plan) -> Folder | None:
    return next((segment.root for segment in known if segment.plan == plan), None)


def _join_grids(grid: GridPlan, recipe: Recipe, parts: tuple[Segment, ...]) -> GridPlan:
    scenes = chain.from_iterable(part.grid(grid.grid.granule).scenes for part in parts)
    fields = {name: getattr(grid, name) for name in GridPlan.model_fields}
    # Not model_copy: it would copy the hash of the first period's plan too.
    return GridPlan(**fields | {"recipe": recipe, "scenes": tuple(scenes)})


def _begin(folder: Folder, plan: Plan) -> bool:
    with writing(str(folder)):
        return folder.create(PLAN, plan.model_dump_json(indent=1).encode())


def _check_names(plan: Plan) -> None:
    # A granule's name comes from a catalogue and becomes a folder.
    for grid in plan.grids:
        if not _PLAIN_NAME.fullmatch(grid.grid.granule):
            raise StoreError(
                f"granule {grid.grid.granule!r} cannot name a folder (letters, digits, '-', '_'); "
                "correct the items and plan again"
            )


def _check_extends(root: Folder, known: list[Segment], plan: Plan) -> None:
    held = known[0].plan
    differ = _method_differences(held.recipe, plan.recipe)
    if differ:
        raise StoreError(
            f"{root} holds a cube of another recipe ({differ}); choose another path, or delete it "
            "to build anew"
        )
    if _space(held) != _space(plan):
        raise StoreError(
            f"{root} holds a cube of another area or of other grids and tiles; choose another "
            "path, or delete it to build anew"
        )
    for segment in known:
        recipe = segment.plan.recipe
        if recipe.periods[0] < plan.recipe.stop and plan.recipe.periods[0] < recipe.stop:
            raise StoreError(
                f"{segment.root} holds {segment.period}, from other scenes or in part the same "
                f"time as {_period(plan.recipe)}; give a period that does not overlap, choose "
                "another path, or delete it to build anew"
            )


def _method_differences(held: Recipe, wanted: Recipe) -> str:
    theirs, ours = held.model_dump(mode="json"), wanted.model_dump(mode="json")
    return "; ".join(
        f"{name} {theirs[name]} instead of {ours[name]}"
        for name in ours
        if name not in ("start", "end") and theirs[name] != ours[name]
    )


def _space(plan: Plan) -> dict[str, Any]:
    grids = [grid.model_dump(mode="json", exclude={"recipe", "scenes"}) for grid in plan.grids]
    return {"area": plan.area, "grids": grids}


def _period(recipe: Recipe) -> str:
    return f"{recipe.start}_{recipe.end}"


@lru_cache(maxsize=64)
def _segment(folder: Folder, _version: str) -> Segment:
    return Segment(folder, parse_plan(folder.get(PLAN), f"{folder}/{PLAN}"))


@lru_cache(maxsize=64)
def _segments_then(root: Folder, _half_minute: int) -> tuple[Segment, ...]:
    return segments(root)
