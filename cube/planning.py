"""Plan: which scenes, which native grids and which tiles make the cube of an area.

A plan is a file. Nothing is computed or fetched to make one; rerunning it gives the same cube.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import shapely
from pydantic import BaseModel, ConfigDict, ValidationError
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from cube.area import read_area
from cube.errors import PlanError
from cube.grid import NativeGrid, Window, cell, cells
from cube.recipe import Recipe
from cube.scenes import Removed, Scene, Scenes

logger = logging.getLogger(__name__)

FORMAT = "cropcube-plan-1"


class Tile(BaseModel):
    """The unit of work and of storage: one cell of a grid's 1024-pixel lattice.

    `window` holds the pixels to build: the cell, cut to the grid, to the bounding box of the area
    in it and, where granules overlap, to the granule's own MGRS square.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int
    col: int
    window: Window


class GridPlan(BaseModel):
    """Everything one tile needs: recipe, grid, scenes of this grid, and the tiles.

    `cut_at_zone` is set where the area spans UTM zones: pixels of the neighbouring zone become 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    grid: NativeGrid
    scenes: tuple[Scene, ...]
    tiles: tuple[Tile, ...]
    cut_at_zone: bool = False

    @property
    def window(self) -> Window:
        """Smallest window that holds all tiles."""
        windows = [tile.window for tile in self.tiles]
        row, col = min(w.row for w in windows), min(w.col for w in windows)
        bottom = max(w.row + w.height for w in windows)
        right = max(w.col + w.width for w in windows)
        return Window(row=row, col=col, height=bottom - row, width=right - col)

    @cached_property
    def hash(self) -> str:
        """Identity of what a tile of this grid is made from, without the list of tiles."""
        fields = self.model_dump(mode="json", exclude={"tiles"})
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

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
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: not readable as a plan ({error})") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise PlanError(f"{path}: not a file written by `cropcube plan` ({FORMAT})")
    try:
        return Plan.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PlanError(f"{path}: damaged plan, {where}: {first['msg']}; plan again") from error


def plan(area: Any, scenes: Scenes, recipe: Recipe) -> Plan:
    """Decide which tiles of which native grids make the cube of an area.

    An area inside one granule's footprint uses that granule alone (of several, the one whose MGRS
    square holds most of it). Otherwise every granule contributes the part of the area inside its
    own MGRS 100 km square, so that no pixel is missing or twice.

    Parameters
    ----------
    area
        Anything `cube.area.read_area` takes: bbox (west, south, east, north), geometry in
        EPSG:4326, GeoJSON, GeoDataFrame, or a path.
    scenes : Scenes
        From `cube.search`.
    recipe : Recipe
        Bands, period, mask and fill.

    Returns
    -------
    Plan

    Raises
    ------
    PlanError
        If no scene's granule meets the area, a scene lacks a band, or scenes of one granule
        disagree about its grid.
    """
    shape = read_area(area)
    by_grid = _scenes_by_grid(scenes, recipe)
    footprints = {grid: _project(shape, grid) for grid in by_grid}
    footprints = {grid: part for grid, part in footprints.items() if _meets(part, grid)}
    if not footprints:
        names = ", ".join(sorted(grid.granule for grid in by_grid)) or "none"
        raise PlanError(f"no scene covers the area (granules searched: {names}); search it again")
    chosen = _choose(footprints)
    several_zones = len({grid.epsg for grid in chosen}) > 1
    grids = []
    for grid, allowed in sorted(chosen.items(), key=lambda entry: entry[0].granule):
        tiles = _tiles(footprints[grid], grid, allowed)
        if tiles:
            grids.append(
                GridPlan(
                    recipe=recipe,
                    grid=grid,
                    scenes=tuple(by_grid[grid]),
                    tiles=tiles,
                    cut_at_zone=several_zones,
                )
            )
    if not grids:
        raise PlanError("no granule's own square meets the area; search with a larger area")
    made = Plan(
        area=json.loads(shapely.to_geojson(shape)),
        recipe=recipe,
        source=scenes.source,
        grids=tuple(grids),
        removed=scenes.removed,
    )
    _report_cover(made, footprints)
    return made


def _choose(footprints: dict[NativeGrid, BaseGeometry]) -> dict[NativeGrid, Window]:
    """Return the grids that make the cube, each with the pixels it may give."""
    covering = [grid for grid, part in footprints.items() if _rectangle(grid).covers(part)]
    if covering or len(footprints) == 1:
        best = max(covering or footprints, key=partial(_owned_share, footprints))
        return {best: best.window}
    return {grid: grid.owned for grid in footprints}


def _scenes_by_grid(scenes: Scenes, recipe: Recipe) -> dict[NativeGrid, list[Scene]]:
    months = set(recipe.months)
    by_grid: dict[NativeGrid, list[Scene]] = defaultdict(list)
    first: dict[str, Scene] = {}
    for scene in scenes:
        if scene.month not in months:
            continue
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


def _project(shape: BaseGeometry, grid: NativeGrid) -> BaseGeometry:
    # Straight edges in longitude and latitude are curved in UTM: 0.005° keeps the error below 1 m.
    to_utm = Transformer.from_crs(4326, grid.epsg, always_xy=True).transform
    part = shapely.transform(shapely.segmentize(shape, 0.005), to_utm, interleaved=False)
    return part if part.is_valid else shapely.make_valid(part)


def _rectangle(grid: NativeGrid, window: Window | None = None) -> BaseGeometry:
    box = grid.geobox(window or grid.window).boundingbox
    return shapely.box(box.left, box.bottom, box.right, box.top)


def _meets(part: BaseGeometry, grid: NativeGrid) -> bool:
    common = part.intersection(_rectangle(grid))
    return not common.is_empty and (common.area > 0 or part.area == 0)


def _owned_share(parts: dict[NativeGrid, BaseGeometry], grid: NativeGrid) -> tuple[float, str]:
    if grid.owned.empty:
        return 0.0, grid.granule
    return parts[grid].intersection(_rectangle(grid, grid.owned)).area, grid.granule


def _tiles(part: BaseGeometry, grid: NativeGrid, allowed: Window) -> tuple[Tile, ...]:
    tiles = []
    for row, col in cells(allowed):
        possible = cell(row, col).intersect(allowed)
        inside = part.intersection(_rectangle(grid, possible))
        if inside.is_empty or (inside.area == 0 and part.area > 0):
            continue
        window = grid.window_of(*inside.bounds).even().intersect(possible)
        if not window.empty:
            tiles.append(Tile(row=row, col=col, window=window))
    return tuple(tiles)


def _report_cover(made: Plan, parts: dict[NativeGrid, BaseGeometry]) -> None:
    reference = made.grids[0].grid
    whole = parts[reference]
    if whole.area == 0:
        return
    covered = 0.0
    for grid in made.grids:
        windows = [_rectangle(grid.grid, tile.window) for tile in grid.tiles]
        covered += parts[grid.grid].intersection(shapely.union_all(windows)).area
    share = covered / whole.area
    if share < 0.999:
        logger.warning("%.1f %% of the area lies outside all scenes' granules", 100 * (1 - share))
