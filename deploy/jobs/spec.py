"""A job is a file: which cube or map, of which area, and how the run may behave.

It speaks the language of study files: area, provider and recipe mean the same in both. What decides
pixels and what only decides how the work is done are kept apart: `run` and `store` may change
between two runs of a job, the rest may not.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from cube.errors import JobError
from cube.recipe import Recipe
from cube.yamlfile import read_yaml
from deploy.jobs.prices import PriceTable

Box = tuple[float, float, float, float]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Retries(_Part):
    """How often a task is tried again within one run, by class of failure.

    Parameters
    ----------
    transient : int
        Tries again after 429, 5xx, time-outs and resets that reading did not get over.
    oom : int
        Tries again after the memory ran out, when nothing else runs beside.
    backoff_s : float
        Seconds before the first try again; doubled each time.
    """

    transient: int = Field(default=4, ge=0, le=100)
    oom: int = Field(default=1, ge=0, le=10)
    backoff_s: float = Field(default=15.0, ge=0)


class ClusterChoice(_Part):
    """The Dask cluster that a run opens; see `deploy.open_cluster`."""

    backend: str = "local"
    workers: int | None = Field(default=None, ge=1)
    memory: str | None = None


class Budget(_Part):
    """What a job may cost; a run stops once that is spent.

    Parameters
    ----------
    limit : float
        In the currency of `prices`.
    prices : PriceTable
        What things cost.
    """

    limit: float = Field(gt=0)
    prices: PriceTable


class Running(_Part):
    """How a run behaves; nothing here changes a pixel.

    Parameters
    ----------
    at_once : int, optional
        Tasks that a runner without a cluster works on at once; default one per core.
    task_timeout_s : float
        A task that takes longer has failed.
    stall_timeout_s : float
        A run in which no task ends for so long stops.
    lease_s : float
        A runner that has given no sign of life for so long has lost its tasks to the others.
    retries : Retries
        What is tried again.
    max_failed_fraction : float
        Share of the tasks, 0…1, that may fail before the run stops taking new ones.
    budget : Budget, optional
        Default none.
    cluster : ClusterChoice, optional
        Default the runner's own process.
    """

    at_once: int | None = Field(default=None, ge=1)
    task_timeout_s: float = Field(default=3600.0, gt=0)
    stall_timeout_s: float = Field(default=7200.0, gt=0)
    lease_s: float = Field(default=120.0, gt=0)
    retries: Retries = Retries()
    max_failed_fraction: float = Field(default=0.02, ge=0, le=1)
    budget: Budget | None = None
    cluster: ClusterChoice | None = None


class Output(_Part):
    """Where the cube or the maps go: a folder or a URL; default ``data`` in the run's folder."""

    uri: str | None = None


class _Job(_Part):
    """What both kinds have in common.

    Parameters
    ----------
    name : str
        For events and reports.
    area : str or (west, south, east, north)
        File beside the spec, or degrees.
    provider : str
        Catalogue, as in study files.
    scenes : str, optional
        File written by `cropcube search`; then nothing is searched.
    offsets : dict of str to int
        Item → DN to subtract, where the catalogue does not tell.
    max_missing : float
        Share of a tile's scenes, 0…1, that may fail to be read.
    """

    apiVersion: Literal["cropcube/v1"]  # noqa: N815 - the spelling of such files everywhere
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    area: str | Box
    provider: str = "earth-search"
    scenes: str | None = None
    offsets: dict[str, Literal[0, 1000]] = {}
    max_missing: float = Field(default=0.0, ge=0, le=1)
    output: Output = Output()
    run: Running = Running()


class StoreChoice(_Part):
    """Whether the cube is committed to an Icechunk repository too; see `deploy.jobs.icechunk`.

    Parameters
    ----------
    kind : {"zarr", "icechunk"}
        Default the plain store alone.
    uri : str, optional
        Folder or s3://bucket/prefix of the repository; default ``data/cube.icechunk`` in the run's
        folder.
    """

    kind: Literal["zarr", "icechunk"] = "zarr"
    uri: str | None = None


class CubeBuild(_Job):
    """Build the cube of an area."""

    kind: Literal["CubeBuild"]
    recipe: Recipe
    store: StoreChoice = StoreChoice()


class CropMap(_Job):
    """Map an area with a trained model; the cube is built with the model's recipe.

    Parameters
    ----------
    model : str
        Folder of the model; it is copied into the run's folder.
    year : int, optional
        Year in which the period starts; default the training's.
    keep_cube : bool
        Whether a granule's cube stays once the granule is mapped.
    """

    kind: Literal["CropMap"]
    model: str
    year: int | None = None
    keep_cube: bool = False

    @field_validator("model")
    @classmethod
    def _named(cls, model: str) -> str:
        if not model:
            raise ValueError("name the folder of a trained model")
        return model


Spec = Annotated[CubeBuild | CropMap, Field(discriminator="kind")]
_SPEC: TypeAdapter[CubeBuild | CropMap] = TypeAdapter(Spec)


class _Head(BaseModel):
    """What tells which kind of file this is, before the rest is looked at."""

    apiVersion: Literal["cropcube/v1"]  # noqa: N815
    kind: Literal["CubeBuild", "CropMap"]


def read_spec(path: str | Path) -> CubeBuild | CropMap:
    """Read a job file.

    Raises
    ------
    JobError
        Naming file and line of the first mistake.
    """
    head = read_yaml(path, _Head, JobError)
    kind: type[CubeBuild | CropMap] = CubeBuild if head.kind == "CubeBuild" else CropMap
    return read_yaml(path, kind, JobError)


def parse_spec(fields: dict[str, Any]) -> CubeBuild | CropMap:
    """Return the spec that `model_dump` wrote."""
    return _SPEC.validate_python(fields)


def spec_hash(spec: CubeBuild | CropMap, area: dict[str, Any], model_sha256: str | None) -> str:
    """Return the identity of what a job makes: first 16 hexadecimal digits of a SHA-256.

    Parameters
    ----------
    spec : CubeBuild or CropMap
        `name`, `run` and `store` do not enter: they change no pixel.
    area : dict
        The area's geometry, so that another content of the same file is another job.
    model_sha256 : str, optional
        Of the weights, for the same reason.
    """
    fields = spec.model_dump(mode="json", exclude={"name", "run", "store", "area", "model"})
    canonical = json.dumps([fields, area, model_sha256], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of job files, for editors."""
    schema = _SPEC.json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "job"} | schema
