"""Job files to start from: every key with its default and what it means."""

from __future__ import annotations

from typing import Literal

_HEAD = """\
# A job for `cropcube job plan`. Keys that are commented out show their default.
apiVersion: cropcube/v1
kind: {kind}
name: {name}

# A GeoJSON or GeoPackage file beside this one, or [west, south, east, north] in degrees.
area: area.geojson
# Catalogue name, STAC API URL, provider file (.yaml) or a file of items.
provider: earth-search
# A file written by `cropcube search`; then nothing is searched.
# scenes: scenes.json
"""

_RECIPE = """
recipe:
  bands: [blue, green, red, nir]
  start: 2024-01
  end: 2024-12
  # period: month
  # composite: median
  # fill: neighbour-mean
"""

_STORE = """
# Commit the tiles of each run to an Icechunk repository too (pip install 'cropcube[icechunk]').
# store: {kind: icechunk, uri: "s3://bucket/cubes/example.icechunk"}
"""

_MODEL = """
# Folder of a trained model; the cube is built with its recipe.
model: runs/hybrid
# Year in which the period starts; the default is the training's.
# year: 2024
# Whether a granule's cube stays once the granule is mapped.
# keep_cube: false
"""

_TAIL = """
# Share of a tile's scenes, 0 to 1, that may fail to be read.
# max_missing: 0.0
# DN to subtract from an item, where the catalogue does not tell: 0 or 1000.
# offsets: {}

# A folder or s3://bucket/prefix; the default is `data` in the run's folder.
# output: {uri: "s3://bucket/cubes/example"}

# How the run behaves; nothing here changes a pixel.
run:
  # Tasks at once without a cluster; the default is one per core.
  # at_once: 2
  task_timeout_s: 3600
  stall_timeout_s: 7200
  # A runner silent for so long loses its tasks to the others.
  lease_s: 120
  retries: {transient: 4, oom: 1, backoff_s: 15}
  # Share of the tasks that may fail before no new ones are begun.
  max_failed_fraction: 0.02
  # No task is begun once all runners together have spent so much.
  # budget: {limit: 100, prices: {currency: EUR, core_hour: 0.05}}
  # cluster: {backend: local, workers: 2, memory: 8GiB}
"""


def template(kind: Literal["CubeBuild", "CropMap"]) -> str:
    """Return a commented job file (YAML)."""
    if kind == "CubeBuild":
        return _HEAD.format(kind=kind, name="my-cube") + _RECIPE + _STORE + _TAIL
    return _HEAD.format(kind=kind, name="my-map") + _MODEL + _TAIL
