"""What the fork server of `jobs_kit` imports, so that no runner has to."""

import tempfile
from pathlib import Path

import dask

import deploy.cli
import deploy.jobs
from cube.build import build_tile
from cube.planning import plan
from cube.recipe import Recipe
from tests.archive import GRID, write_archive
from tests.cube.test_build import whole

# Kernels are loaded at their first call. One computing thread here and two in the runners: they
# make threads of their own.
with tempfile.TemporaryDirectory() as folder, dask.config.set(num_workers=1):
    archive = write_archive(Path(folder), ["2023-01-05", "2023-02-03"], ("blue",))
    recipe = Recipe(bands=("blue",), start="2023-01", end="2023-02")
    made = plan(whole(GRID), archive.scenes, recipe)
    build_tile(made.grids[0], made.grids[0].tiles[0])

__all__ = ["deploy"]
