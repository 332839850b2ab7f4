"""Segments: how months or years are added to a store without touching what it holds.

The first plan written to a store fills the store's own folder. Every later one fills a segment: a
folder named after its period that is a store of its own, arrays, plan and markers. While its tiles
are being written it lies in ``.cropcube/appending``; once all are done it is moved beside the
granules in one step. So a reader sees a segment whole or not at all, and an append that was
interrupted leaves what was there before as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from cube.errors import StoreError
from cube.markers import STATE, is_done, replace_text
from cube.planning import GridPlan, Plan, Tile, load_plan
from cube.recipe import Recipe

PLAN = f"{STATE}/plan.json"
APPENDING = f"{STATE}/appending"
_PLAIN_NAME = re.compile(r"\w[\w-]*", re.ASCII)


@dataclass(frozen=True)
class Segment:
    """One written plan and the folder that holds its arrays and markers."""

    root: Path
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

    def missing(self) -> list[tuple[GridPlan, Tile]]:
        """Return the tiles that are not done."""
        return [
            (grid, tile)
            for grid in self.plan.grids
            for tile in grid.tiles
            if not is_done(self.root, grid, tile)
        ]


def segments(root: Path) -> tuple[Segment, ...]:
    """Return what a store holds, in order of time; unfinished additions are not in it.

    Raises
    ------
    StoreError
        If `root` is not a cropcube store.
    """
    first = segment_at(root)
    # Moving a segment in changes the folder's own time.
    added = _added(root, root.stat().st_mtime_ns)
    return tuple(sorted((first, *added), key=lambda part: part.plan.recipe.start))


def segment_at(folder: Path) -> Segment:
    """Return the one segment whose plan lies in `folder`.

    Raises
    ------
    StoreError
        If `folder` holds no plan.
    """
    try:
        changed = (folder / PLAN).stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"{folder} is not a cropcube store (no {PLAN})") from error
    return _segment(folder, changed)


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


def place(root: Path, plan: Plan) -> Path:
    """Return the folder where a plan's tiles belong; a new store gets the plan.

    Raises
    ------
    StoreError
        If `root` holds something else, or a cube of another plan.
    """
    _check_names(plan)
    if not (root / PLAN).exists():
        if root.exists() and any(root.iterdir()):
            raise StoreError(f"{root} exists and is not a cropcube store; choose another path")
        return _begin(root, plan)
    known = _known(root)
    if (folder := _find(known, plan)) is None:
        _check_extends(root, known, plan)
        raise StoreError(
            f"{root} holds {' and '.join(part.period for part in known)}; choose another path for "
            f"{_period(plan.recipe)}, or add it with cube.store.append"
        )
    return folder


def place_beside(root: Path, plan: Plan) -> Path:
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
        folder = _begin(root / APPENDING / _period(plan.recipe), plan)
    return folder


def join(root: Path, folder: Path) -> None:
    """Make a finished segment part of its store; nothing to do for the first and for a known one.

    Raises
    ------
    StoreError
        If a tile of the segment is not done.
    """
    if folder.parent != root / APPENDING:
        return
    missing = segment_at(folder).missing()
    if missing:
        raise StoreError(
            f"{folder}: {len(missing)} tiles are not done; run the build again, it resumes"
        )
    with writing(f"{root}, period {folder.name}"):
        folder.rename(root / folder.name)


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


def _known(root: Path) -> list[Segment]:
    return [*segments(root), *_below(root / APPENDING)]


def _find(known: list[Segment], plan: Plan) -> Path | None:
    return next((segment.root for segment in known if segment.plan == plan), None)


def _join_grids(grid: GridPlan, recipe: Recipe, parts: tuple[Segment, ...]) -> GridPlan:
    scenes = chain.from_iterable(part.grid(grid.grid.granule).scenes for part in parts)
    fields = {name: getattr(grid, name) for name in GridPlan.model_fields}
    # Not model_copy: it would copy the hash of the first period's plan too.
    return GridPlan(**fields | {"recipe": recipe, "scenes": tuple(scenes)})


def _begin(folder: Path, plan: Plan) -> Path:
    with writing(str(folder)):
        (folder / STATE).mkdir(parents=True, exist_ok=True)
        replace_text(folder / PLAN, plan.model_dump_json(indent=1))
    return folder


def _check_names(plan: Plan) -> None:
    # A granule's name comes from a catalogue and becomes a folder.
    for grid in plan.grids:
        if not _PLAIN_NAME.fullmatch(grid.grid.granule):
            raise StoreError(
                f"granule {grid.grid.granule!r} cannot name a folder (letters, digits, '-', '_'); "
                "correct the items and plan again"
            )


def _check_extends(root: Path, known: list[Segment], plan: Plan) -> None:
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


def _below(folder: Path) -> list[Segment]:
    return [segment_at(plan.parents[1]) for plan in sorted(folder.glob(f"*/{PLAN}"))]


@lru_cache(maxsize=64)
def _segment(folder: Path, _changed: int) -> Segment:
    return Segment(folder, load_plan(folder / PLAN))


@lru_cache(maxsize=64)
def _added(root: Path, _changed: int) -> list[Segment]:
    return _below(root)
