"""Planning: search once, freeze what was found, and prepare the stores for many writers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

import shapely

import cube.store
from cube.area import read_area, surroundings
from cube.errors import JobError
from cube.grid import PIXEL
from cube.markers import tile_name
from cube.objects import Folder, Place, at
from cube.planning import plan as plan_cube
from cube.recipe import Recipe
from cube.scenes import Scenes
from cube.search import search
from deploy.jobs import job as names
from deploy.jobs import tasks as kinds
from deploy.jobs.icechunk import require_icechunk
from deploy.jobs.job import Job, Lock, open_job, put_json, read_lock
from deploy.jobs.spec import CropMap, CubeBuild, read_spec, spec_hash

if TYPE_CHECKING:
    from model.artefact import Artefact

Progress = Callable[[int, int, str], None]

#: What a run leaves in its folder; --new-run deletes it.
_OURS = ("claims", "attempts", "runners", "events", "control", "data", "cubes", "model")
_VERSIONS = ("cropcube", "dask", "numpy", "obstore", "rasterio", "xarray", "zarr")


def plan_job(
    spec_file: str | Path, root: Place, *, new_run: bool = False, progress: Progress | None = None
) -> Job:
    """Plan a job: the same spec again gives the plan that is there, with new `run` settings.

    Parameters
    ----------
    spec_file : path
        The job file.
    root : path or URL
        The run's folder.
    new_run : bool
        Whether what another job left in the folder may be deleted.
    progress : callable, optional
        Called with (done, total, what) during the search.

    Raises
    ------
    JobError
        For a mistake in the spec, or a folder that holds another job's run.
    """
    file, folder = Path(spec_file), at(root).absolute()
    spec = read_spec(file)
    shape = read_area(_path(spec.area, file))
    area = json.loads(shapely.to_geojson(shape))
    recipe, model = _recipe_and_model(spec, file)
    weights = None if model is None else at(model.folder).sha256(model.weights.name)
    if isinstance(spec, CubeBuild) and spec.store.kind == "icechunk":
        require_icechunk()
    identity = spec_hash(spec, area, weights)
    known = read_lock(folder)
    if known is not None and not new_run:
        _require_same(folder, known, identity)
        _freeze(folder, file, known.model_copy(update={"spec": spec}))
        return open_job(folder.place)
    if new_run:
        _clear(folder)
    # A map's cube reaches beyond the area as far as the model looks.
    halo = 0 if model is None else model.predictor().halo
    if spec.scenes is not None:
        scenes = Scenes.load(_path(spec.scenes, file))
    else:
        provider = _path(spec.provider, file)
        around = surroundings(shape, halo * PIXEL)
        scenes = search(around, recipe, provider=provider, progress=progress)
    made = plan_cube(shape, scenes, recipe, offsets=spec.offsets, margin=halo)
    folder.put(names.PLAN, made.model_dump_json(indent=1).encode())
    lock = Lock(
        spec=spec,
        spec_hash=identity,
        model_sha256=weights,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: version(name) for name in _VERSIONS} | {"python": python_version()},
        image=os.environ.get("CROPCUBE_IMAGE"),
    )
    job = Job(folder, lock, made)
    _prepare(job, file)
    put_json(folder, names.TASKS, _geojson(job))
    _freeze(folder, file, lock)
    return job


def _recipe_and_model(spec: CubeBuild | CropMap, file: Path) -> tuple[Recipe, Artefact | None]:
    if isinstance(spec, CubeBuild):
        return spec.recipe, None
    from model.artefact import load
    from model.samples import require_periods

    model = load(_path(spec.model, file))
    recipe = model.recipe if spec.year is None else model.recipe.for_year(spec.year)
    require_periods(recipe)
    return recipe, model


def _require_same(folder: Folder, known: Lock, identity: str) -> None:
    if known.spec_hash != identity:
        raise JobError(
            f"{folder} holds the run of another spec (planned {known.created}, '{known.spec.name}',"
            f" {known.spec_hash} instead of {identity}); choose another folder, or add --new-run "
            "to delete that run"
        )


def _prepare(job: Job, file: Path) -> None:
    """Make the empty stores, before any runner could; copy the model."""
    for store, made in job.stores():
        cube.store.create(made, str(store))
    if isinstance(job.spec, CropMap):
        target = job.folder / kinds.MODEL
        for part in sorted(Path(_path(job.spec.model, file)).iterdir()):
            if part.name == "model.json" or part.suffix in (".safetensors", ".ubj"):
                target.put(part.name, part.read_bytes())


def _freeze(folder: Folder, file: Path, lock: Lock) -> None:
    folder.put(names.SPEC, file.read_bytes())
    folder.put(names.LOCK, lock.model_dump_json(indent=1).encode())


def _clear(folder: Folder) -> None:
    # The lock first: what is left of an interrupted deletion is no job.
    folder.delete(names.LOCK)
    for part in _OURS:
        if folder.is_url:
            for name in folder.listing(part):
                folder.delete(name)
        else:
            shutil.rmtree(Path(folder.address, part), ignore_errors=True)
    for name in (names.SPEC, names.PLAN, names.TASKS, names.ESTIMATE, names.REPORT):
        folder.delete(name)


def _path(value: Any, file: Path) -> Any:
    """Return a path beside the spec as such; boxes, URLs and names of catalogues unchanged."""
    if not isinstance(value, str) or "://" in value:
        return value
    beside = file.parent / value
    return str(beside) if beside.exists() else value


def _geojson(job: Job) -> dict[str, Any]:
    """Return the tasks as polygons in degrees, for people."""
    grids = {grid.grid.granule: grid for grid in job.plan.grids}
    windows = {tile_name(grid, tile): tile.window for grid in job.plan.grids for tile in grid.tiles}
    features = []
    for task in job.tasks:
        grid = grids[task.granule]
        box = grid.grid.geobox(windows.get(task.id, grid.window)).extent.to_crs("EPSG:4326")
        facts = {
            "task": task.id,
            "hash": task.hash,
            "granule": task.granule,
            "epsg": grid.grid.epsg,
            "scenes": len(grid.scenes),
        }
        features.append({"type": "Feature", "geometry": box.json, "properties": facts})
    return {"type": "FeatureCollection", "features": features}
