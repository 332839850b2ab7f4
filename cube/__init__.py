"""From a STAC search to an analysis-ready cube."""

from cube import errors, store
from cube.area import read_area
from cube.build import build, build_tile
from cube.composite import fill_gaps, mask_scl, monthly_median
from cube.errors import (
    AreaError,
    ArtefactError,
    ClusterLostError,
    CropcubeError,
    LabelError,
    PlanError,
    ReadError,
    RecipeError,
    SceneError,
    SearchError,
    SplitError,
    StoreError,
    StudyError,
)
from cube.planning import GridPlan, Plan, Tile, load_plan, plan
from cube.recipe import Recipe
from cube.scenes import Scene, Scenes
from cube.search import search

__all__ = [
    "AreaError",
    "ArtefactError",
    "ClusterLostError",
    "CropcubeError",
    "GridPlan",
    "LabelError",
    "Plan",
    "PlanError",
    "ReadError",
    "Recipe",
    "RecipeError",
    "Scene",
    "SceneError",
    "Scenes",
    "SearchError",
    "SplitError",
    "StoreError",
    "StudyError",
    "Tile",
    "build",
    "build_tile",
    "errors",
    "fill_gaps",
    "load_plan",
    "mask_scl",
    "monthly_median",
    "plan",
    "read_area",
    "search",
    "store",
]
