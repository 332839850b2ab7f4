"""From a STAC search to an analysis-ready cube."""

from cube import errors, mask, store
from cube.area import read_area
from cube.build import build, build_tile
from cube.census import census
from cube.composite import composite, fill_gaps, mask_scl, monthly_median
from cube.errors import (
    AccessError,
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
    SpectralIndexError,
    SplitError,
    StoreError,
    StudyError,
)
from cube.indices import indices
from cube.load import load
from cube.planning import GridPlan, Plan, Tile, load_plan, plan
from cube.quality import quality
from cube.recipe import Mask, Recipe
from cube.scenes import Scene, Scenes
from cube.search import search
from cube.source import source

__all__ = [
    "AccessError",
    "AreaError",
    "ArtefactError",
    "ClusterLostError",
    "CropcubeError",
    "GridPlan",
    "LabelError",
    "Mask",
    "Plan",
    "PlanError",
    "ReadError",
    "Recipe",
    "RecipeError",
    "Scene",
    "SceneError",
    "Scenes",
    "SearchError",
    "SpectralIndexError",
    "SplitError",
    "StoreError",
    "StudyError",
    "Tile",
    "build",
    "build_tile",
    "census",
    "composite",
    "errors",
    "fill_gaps",
    "indices",
    "load",
    "load_plan",
    "mask",
    "mask_scl",
    "monthly_median",
    "plan",
    "quality",
    "read_area",
    "search",
    "source",
    "store",
]
