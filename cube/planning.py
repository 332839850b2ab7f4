"""Plan: which scenes, which native grids and which tiles make the cube of an area.

A plan is a file; rerunning it gives the same cube. Nothing is fetched to make one, but for pixels
of scenes whose catalogue does not tell whether ESA's offset is in them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import shapely
from pydantic import BaseModel, ConfigDict, ValidationError

from cube.area import read_area
from cube.errors import PlanError
from cube.grid import NativeGrid, Window
from cube.ownership import owned
from cube.recipe import Recipe
from cube.scenes import Removed, Scene, Scenes
from cube.settle import settle, state_by_hand
from cube.tiling import Share, share_out, share_outside

logger = logging.getLogger(__name__)

FORMAT = "cropcube-plan-1"
#: Less than this share of an area outside all granules is rounding.
_WORTH_A_WARNING = 0.001


class Tile(BaseModel):
    """The unit of work and of storage: one cell of a grid's 1024-pixel lattice.

    `window` holds the pixels to build: the cell, cut to the grid, to the bounding box of the area
    in it and, where granules overlap, to what the granule owns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int
    col: int
    window: Window


class GridPlan(BaseModel):
    """Everything one tile needs: recipe, grid, scenes of this grid, and the tiles.

    `others` are the plan's grids that overlap with this one where the area needs several: pixels
    that one of them owns are 0 here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    grid: NativeGrid
    scenes: tuple[Scene, ...]
    tiles: tuple[Tile, ...]
    others: tuple[NativeGrid, ...] = ()

    @property
    def window(self) -> Window:
        """Smallest window that holds all tiles."""
        windows = [tile.window for tile in self.tiles]
        row, col = min(w.row for w in windows), min(w.col for w in windows)
        bottom = max(w.row + w.height for w in windows)
        right = max(w.col + w.width for w in windows)
        return Window(row=row, col=col, height=bottom - row, width=right - col)

    def owned(self, window: Window) -> np.ndarray:
        """Return which pixels of a window are this grid's to give; bool [y, x]."""
        return owned(self.grid, self.others, window)

    @property
    def times(self) -> pd.DatetimeIndex:
        """The cube's time axis: the recipe's periods, or the passes of a dated series (UTC)."""
        if self.recipe.composite == "series":
            return pd.DatetimeIndex(sorted(set(_instants(self.scenes))))
        return self.recipe.periods

    @property
    def places(self) -> np.ndarray:
        """Place on `times` of each scene; int64 [scene]. Parts of one pass have the same place."""
        instants = _instants(self.scenes)
        if self.recipe.composite == "series":
            return self.times.searchsorted(instants)
        return self.recipe.period_of(instants)

    @cached_property
    def hash(self) -> str:
        """Identity of what a tile of this grid is made from, without the list of tiles."""
        fields = self.model_dump(mode="json", exclude={"tiles"})
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy; another plan has another `hash`."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("hash", None)
        return copied

    def task_hash(self, tile: Tile) -> str:
        """Identity of one task: same hash, same bytes."""
        return hashlib.sha256(f"{self.hash}:{tile.model_dump_json()}".encode()).hexdigest()[:16]


class Plan(BaseModel):
    """A frozen plan; `grids` has one entry per native grid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    area: dict[str, Any]
    recipe: Recipe
    source: str
    grids: tuple[GridPlan, ...]
    removed: tuple[Removed, ...] = ()

    @property
    def n_tiles(self) -> int:
        """Number of tasks."""
        return sum(len(grid.tiles) for grid in self.grids)

    def save(self, path: str | Path) -> Path:
        """Write to one JSON file; returns its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        return path


def load_plan(path: str | Path) -> Plan:
    """Read a plan written by `Plan.save`.

    Raises
    ------
    PlanError
        If the file is missing or is not a plan of this format.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise PlanError(f"{path}: not readable as a plan ({error})") from error
    return parse_plan(content, str(path))


def parse_plan(content: bytes, name: str) -> Plan:
    """Return the plan in the content of a file; `name` is for messages.

    Raises
    ------
    PlanError
        If it is not a plan of this format.
    """
    try:
        raw = json.loads(content)
    except ValueError as error:
        raise PlanError(f"{name}: not readable as a plan ({error})") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise PlanError(f"{name}: not a file written by `cropcube plan` ({FORMAT})")
    try:
        return Plan.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PlanError(f"{name}: damaged plan, {where}: {first['msg']}; plan again") from error


def plan(
    area: Any,
    scenes: Scenes,
    recipe: Recipe,
    *,
    offsets: Mapping[str, int] | None = None,
    margin: int = 0,
) -> Plan:
    """Decide which tiles of which native grids make the cube of an area.

    An area inside one granule's footprint uses that granule alone. Otherwise every granule
    contributes what it owns of the area (`cube.ownership`), so that no pixel is missing or twice.

    Parameters
    ----------
    area
        Anything `cube.area.read_area` takes: bbox (west, south, east, north), geometry in
        EPSG:4326, GeoJSON, GeoDataFrame, or a path.
    scenes : Scenes
        From `cube.search`.
    recipe : Recipe
        Bands, period, mask and fill.
    offsets : mapping of str to int
        Item id → DN to subtract (0 or 1000), stated by hand; overrides the catalogue.
    margin : int
        Pixels around the area that are built as well, such as a network's halo.

    Returns
    -------
    Plan

    Raises
    ------
    PlanError
        If no scene's granule meets the area, a scene lacks a band, or scenes of one granule
        disagree about its grid.
    SceneError
        If neither a scene's catalogue nor its pixels tell whether ESA's offset is in them.
    """
    shape = read_area(area)
    by_grid = _scenes_by_grid(state_by_hand(scenes.scenes, offsets or {}), recipe)
    shares = share_out(shape, by_grid, margin)
    if not shares:
        names = ", ".join(sorted(grid.granule for grid in by_grid))
        raise PlanError(f"no scene covers the area (granules searched: {names}); search it again")
    settled, unclear = settle(
        {share.grid: by_grid[share.grid] for share in shares},
        {share.grid: list(share.windows.values()) for share in shares},
        recipe.mask.keep,
    )
    if not any(settled.values()):
        raise PlanError(f"no scene shows the area clearly: {unclear[0].id}: {unclear[0].detail}")
    grids = [_grid_plan(share, settled[share.grid], recipe) for share in shares]
    made = Plan(
        area=json.loads(shapely.to_geojson(shape)),
        recipe=recipe,
        source=scenes.source,
        grids=tuple(grids),
        removed=(*scenes.removed, *unclear),
    )
    lost = share_outside(shape, [share.grid for share in shares])
    if lost > _WORTH_A_WARNING:
        logger.warning("%.1f %% of the area lies outside all scenes' granules", 100 * lost)
    return made


def _grid_plan(share: Share, scenes: Iterable[Scene], recipe: Recipe) -> GridPlan:
    return GridPlan(
        recipe=recipe,
        grid=share.grid,
        scenes=tuple(scenes),
        tiles=tuple(
            Tile(row=row, col=col, window=window) for (row, col), window in share.windows.items()
        ),
        others=share.others,
    )


def _scenes_by_grid(scenes: Iterable[Scene], recipe: Recipe) -> dict[NativeGrid, list[Scene]]:
    scenes = list(scenes)
    inside = recipe.period_of(_instants(scenes)) >= 0
    by_grid: dict[NativeGrid, list[Scene]] = defaultdict(list)
    first: dict[str, Scene] = {}
    for scene in compress(scenes, inside):
        missing = {*recipe.bands, "scl"} - scene.hrefs.keys()
        if missing:
            raise PlanError(f"{scene.id}: no asset for {', '.join(sorted(missing))}; search again")
        known = first.setdefault(scene.grid.granule, scene)
        if known.grid != scene.grid:
            raise PlanError(
                f"{scene.id} and {known.id} are both of granule {scene.grid.granule} but on "
                f"different grids ({scene.grid} / {known.grid}); exclude one of the two kinds"
            )
        by_grid[scene.grid].append(scene)
    if not by_grid:
        raise PlanError(f"no scene between {recipe.start} and {recipe.end}; search that period")
    return dict(by_grid)


def _instants(scenes: Sequence[Scene]) -> pd.DatetimeIndex:
    """Return when each scene's pass began to see its granule: UTC, whole seconds."""
    sensed = pd.to_datetime([scene.datetime for scene in scenes], utc=True, format="ISO8601")
    passes = pd.DataFrame(
        {
            "granule": [scene.grid.granule for scene in scenes],
            "acquisition": [scene.acquisition for scene in scenes],
            "sensed": sensed.tz_localize(None).floor("s"),
        }
    )
    first = passes.groupby(["granule", "acquisition"])["sensed"].transform("min")
    return pd.DatetimeIndex(first)
