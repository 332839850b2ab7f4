# %% [markdown]
# # 1 · A cluster, and a first cube
#
# **Background.** A year of Sentinel-2 over a region is more than one machine wants to read. Dask
# spreads the work over workers, which may be processes of this machine, pods behind a Dask Gateway
# or jobs of SLURM. The code of a study should not have to know which.
#
# **Description.** This notebook
#
# 1. opens a cluster and looks whether it is fit for work,
# 2. draws the area of interest,
# 3. searches the scenes of a year,
# 4. plans a cube, lazily, and counts its tasks,
# 5. computes one tile on the cluster,
# 6. looks at what the mask and the monthly median did to it.
#
# It needs no network: the archive is simulated, eight zones in two regions. For real imagery name
# a catalogue as `provider`, and an area of your own.

# %% [markdown]
# ## Getting started
#
# The backend is the gateway that Dask's configuration names (`gateway.yaml`, or the variables
# `DASK_GATEWAY__ADDRESS` and `DASK_GATEWAY__AUTH__…`), and without one this machine. Write
# `"local"`, `"gateway"`, `"slurm"` or an address such as `"tls://host:8786"` to choose.

# %% tags=["parameters"]
import dask

backend = "gateway" if dask.config.get("gateway.address", None) else "local"
workers = 2
cache = "cache"
granule, month = "31UER", "2023-05"  # what is looked at closely

# %%
import json
from urllib.parse import urlsplit

import geopandas as gpd
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from shared import offline_archive, show

import cube
import model
from deploy import open_cluster

archive = offline_archive(cache)

# %% [markdown]
# ## 1 · Open a cluster
#
# The same call for every backend. Options have one vocabulary: `worker_memory`, `worker_threads`,
# `env`, on a gateway also `image` and `idle_timeout`; `options={…}` hands over what only one
# backend knows, such as a SLURM `queue`. A cluster of a gateway costs money while nobody looks: it
# gets a limit of idle time.

# %%
wishes = {"worker_memory": "2GiB", "worker_threads": 1}
if backend == "gateway":
    wishes["idle_timeout"] = "20min"
cluster = open_cluster(backend, workers=workers, **wishes)
cluster.wait_for_workers(workers)
now = cluster.status()
pd.Series(
    {
        "backend": now.backend,
        "state": now.state,
        "workers": now.workers,
        "threads": now.threads,
        "memory, GiB": now.memory / 2**30,
    },
    name="cluster",
).to_frame()

# %%
assert (now.backend, now.state) == (backend, "running")
assert (now.workers, now.threads, now.memory) == (workers, workers, workers * 2 * 2**30)

# %% [markdown]
# `cluster.dashboard_link` is what to open in a browser: tasks as they run, memory of each worker.
# Only its path is shown here, because the address is that of one machine.

# %%
print(urlsplit(cluster.dashboard_link).path.replace(cluster.name, "NAME"))

# %% [markdown]
# A wish that a backend cannot grant is an error before anything starts, not an option that is
# silently dropped:

# %%
try:
    open_cluster("local", image="ghcr.io/org/cropcube:1.0")
except cube.errors.ClusterError as error:
    print(error)

# %% [markdown]
# `check` tries on every worker what a build needs: the same software as here, kernels that give
# right values, a block read from a file, room on disk, memory, clocks.

# %%
found = cluster.check()
assert found.ok, found.text()
assert cluster.versions().differences == []
print("tried and found well:", ", ".join(finding.what for finding in found.findings))

# %% [markdown]
# ## 2 · The area of interest
#
# An area is a file of polygons, a GeoDataFrame, a geometry or a bounding box. The items of the
# archive are a plain STAC file, so geopandas reads their footprints as they are.

# %%
zones = model.read_zones(archive / "zones.gpkg")
features = json.loads((archive / "items.json").read_text())["features"]
items = gpd.GeoDataFrame.from_features(features, crs="EPSG:4326").assign(
    id=[feature["id"] for feature in features],
    day=lambda frame: pd.to_datetime(frame.datetime).dt.tz_localize(None).dt.normalize(),
    tile=lambda frame: frame["grid:code"].str.removeprefix("MGRS-"),
)
colours = {"31TBJ": "#1b7837", "31TCJ": "#762a83", "31UER": "#b35806"}

figure, axes = plt.subplots(1, 2, figsize=(7.5, 5.2), layout="constrained")
degrees = zones.to_crs("EPSG:4326")
for axis, (region, squares) in zip(axes, degrees.groupby("region"), strict=True):
    west, south, east, north = squares.total_bounds
    near = items.cx[west:east, south:north]
    for name, footprints in near.groupby("tile"):
        # Every look is one thin outline: what all passes share adds up to a strong line.
        footprints.boundary.plot(ax=axis, color=colours[name], alpha=0.25, linewidth=1.2)
        axis.plot([], [], color=colours[name], label=f"granule {name}")
    squares.plot(ax=axis, facecolor="#fee391", edgecolor="#333333", linewidth=0.8)
    for zone in squares.itertuples():
        middle = zone.geometry.centroid
        number = zone.zone.removeprefix(f"{region}-")
        axis.annotate(number, (middle.x, middle.y), ha="center", va="center")
    axis.set_title(region.title())
    axis.set_xlabel("longitude, degrees")
    axis.set_ylabel("latitude, degrees")
    axis.ticklabel_format(useOffset=False)
    axis.locator_params(nbins=4)
    axis.legend(
        frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, columnspacing=1
    )
show(figure, alt="Maps of the two regions: numbered zones, and outlines of all looks at them.")

# %% [markdown]
# *Figure 1. The area: eight zones in two regions, and the footprint of every look of the year.
# Slanted lines are edges of an orbit, a little elsewhere at each pass. Auch lies across the border
# of two granules.*

# %% [markdown]
# ## 3 · Search
#
# A search freezes what was found. Duplicates are removed by rule, and the reason is kept.

# %%
recipe = cube.Recipe(bands=["blue", "green", "red", "nir"], start="2023-01", end="2023-12")
scenes = cube.search(zones, recipe, provider=archive / "items.json")
pd.DataFrame([one.model_dump() for one in scenes.removed])[["id", "reason", "detail", "kept"]]

# %%
assert len(scenes.scenes) + len(scenes.removed) == len(items)
assert {one.id for one in scenes.scenes} | {one.id for one in scenes.removed} == set(items.id)
print(f"{len(items)} items: {len(scenes.scenes)} scenes kept, {len(scenes.removed)} removed")

# %%
kept = items[items.id.isin([one.id for one in scenes.scenes])]
whole = kept.to_crs("EPSG:6933").area  # an equal-area projection
share = whole / whole.groupby(kept.tile).transform("max")

figure, axes = plt.subplots(figsize=(10, 2.6), layout="constrained")
rows = {name: row for row, name in enumerate(reversed(sorted(colours)))}
looks = axes.scatter(
    kept.day,
    kept.tile.map(rows),
    s=20 + 140 * share**2,
    c=kept["eo:cloud_cover"],
    cmap="Blues",
    vmin=0,
    vmax=100,
    edgecolor="#333333",
    linewidth=0.6,
)
axes.set_yticks(list(rows.values()), list(rows))
axes.set_ylim(-0.6, len(rows) - 0.4)
axes.set_ylabel("granule")
axes.set_xlim(pd.Timestamp("2022-12-27"), pd.Timestamp("2024-01-05"))
axes.xaxis.set_major_locator(mdates.MonthLocator())
axes.xaxis.set_major_formatter(mdates.DateFormatter("%b"))
axes.spines[["top", "right"]].set_visible(False)
figure.colorbar(looks, ax=axes, label="cloud cover, %", pad=0.01)
show(figure, alt="Time line of the scenes of each granule: size of footprint, colour of clouds.")

# %% [markdown]
# *Figure 2. Footprints by date. A small disc is a pass whose orbit ends inside the granule; the
# darker, the cloudier. No scene is dropped for its clouds: a mostly clouded one may hold the only
# clear look at a field.*

# %% [markdown]
# ## 4 · A lazy cube
#
# The plan fixes grids, tiles and scenes. The cube of it is a Dataset per granule in which nothing
# has been computed.

# %%
plan = cube.plan(zones, scenes, recipe)
cubes = cube.build(plan)
ds = cubes[granule].to_dataset()
ds

# %% [markdown]
# A tile is one task that sees all its dates: one for the tile, one for each of the two
# variables. The usual graph has a task for every scene, band and step; `cube.load` builds that one,
# for comparison.

# %%
counts = []
for step in (8, 4, 2, 1):
    fewer = scenes.model_copy(update={"scenes": scenes.scenes[::step]})
    thin = cube.plan(zones, fewer, recipe)
    grid = next(one for one in thin.grids if one.grid.granule == granule)
    singly = cube.load(grid.scenes, recipe.bands)
    median = cube.monthly_median(cube.mask_scl(singly.reflectance, singly.scl))
    counts.append(
        {
            "scenes": len(grid.scenes),
            "a task per tile": len(cube.build(thin)[granule].to_dataset().__dask_graph__()),
            "a task per scene and band": len(median.__dask_graph__()),
        }
    )
tasks = pd.DataFrame(counts).set_index("scenes")
tasks

# %%
figure, axes = plt.subplots(figsize=(6.5, 3))
for name, colour in zip(tasks.columns, ("#1b7837", "#999999"), strict=True):
    axes.plot(tasks.index, tasks[name], "o-", color=colour, label=name)
axes.set_yscale("log")
axes.set_xlabel("scenes of the granule")
axes.set_ylabel("tasks of the graph")
axes.legend(frameon=False, loc="center right")
axes.spines[["top", "right"]].set_visible(False)
show(figure, alt="Tasks against scenes: constant for the build, growing for the usual graph.")

# %% [markdown]
# *Figure 3. Size of the Dask graph of one tile. With a task per tile it does not depend on the
# number of scenes; schedulers have little to do.*

# %%
grid = next(one for one in plan.grids if one.grid.granule == granule)
assert tasks["a task per tile"].nunique() == 1
assert len(ds.__dask_graph__()) == 3 * len(grid.tiles)
assert tasks["a task per scene and band"].is_monotonic_increasing
assert tasks.index.is_monotonic_increasing
assert tasks.index[-1] == len(grid.scenes)

# %% [markdown]
# ## 5 · One tile, computed on the cluster

# %%
window = {axis: slice(ds.chunksizes[axis][0]) for axis in ("y", "x")}
future = cluster.client.compute(ds.isel(window))
tile = cluster.gather([future])[0]
holders = {worker for at in cluster.client.who_has([future]).values() for worker in at}
# The same function in this process: a cluster changes where, not what.
here = cube.build_tile(grid, grid.tiles[0])
assert len(holders) == 1
assert holders <= set(cluster.client.scheduler_info(n_workers=-1)["workers"])
assert np.array_equal(tile.reflectance, here.reflectance)
assert np.array_equal(tile.observations, here.observations)
print(
    f"{len(holders)} of {workers} workers built {tile.reflectance.size:,} values "
    f"from {len(grid.scenes)} scenes; {int(tile.observations.sum()):,} clear observations"
)

# %% [markdown]
# ## 6 · Before and after the mask
#
# `cube.load` gives the scenes one by one. The mask keeps the classes of the scene classification
# that are land or water seen clearly: vegetation, bare soil, water, unclassified.

# %%
singly = cube.load(grid.scenes, recipe.bands).sel(time=month, y=tile.y, x=tile.x)
masked = cube.mask_scl(singly.reflectance, singly.scl)
raw, clear, scl = cluster.gather(cluster.client.compute([singly.reflectance, masked, singly.scl]))
monthly = tile.sel(time=month).isel(time=0)
seen = monthly.observations > 0


def picture(values):
    """Return a natural colour picture of values [band, y, x]; what has no data is grey."""
    rgb = values.sel(band=["red", "green", "blue"]).transpose("y", "x", "band").values
    stretched = np.clip(rgb / 2500, 0, 1) ** 0.7  # one stretch for all, so that they compare
    return np.where((rgb > 0).all(axis=-1, keepdims=True), stretched, 0.75)


days = pd.DatetimeIndex(raw.time.values)
figure, axes = plt.subplots(2, len(days) + 1, figsize=(12, 5.2), layout="constrained")
for column, day in enumerate(days):
    axes[0, column].imshow(picture(raw[column]))
    axes[1, column].imshow(picture(clear[column]))
    kept_share = float((clear[column] > 0).all("band").mean())
    axes[0, column].set_title(f"{day:%d %b}")
    axes[1, column].set_xlabel(f"{kept_share:.0%} clear")
axes[0, -1].imshow(picture(monthly.reflectance))
axes[0, -1].set_title("median, gaps filled")
axes[1, -1].imshow(picture(monthly.reflectance.where(seen, 0)))
axes[1, -1].set_xlabel(f"median: {float(seen.mean()):.0%} seen")
axes[0, 0].set_ylabel("as delivered")
axes[1, 0].set_ylabel("after the mask")
for axis in axes.flat:
    axis.set_xticks([])
    axis.set_yticks([])
show(figure, alt="Looks of a month before and after the mask, and the monthly median beside them.")

# %% [markdown]
# *Figure 4. The looks of May 2023 in natural colours, above as delivered, below what the mask
# leaves; grey is no data. Whitish rims are thin cloud that the classification misses: a median of
# more looks, or a wider mask (`cube.Mask(dilate=60)`), leaves fewer. On the right the monthly
# median of these looks (below), and the same with its gaps filled from other months (above).*

# %%
# The tile's median is that of the masked looks: counted and computed again, in floating point.
valid = clear.where((clear > 0).all("band"))
number = valid.isel(band=0).notnull().sum("time")
expected = np.floor(valid.median("time") + 0.5).fillna(0)
assert np.array_equal(number, monthly.observations)
assert np.array_equal(expected.where(seen, 0), monthly.reflectance.where(seen, 0))
# The mask only takes away, and what it left is of the classes 4 to 7.
left = (clear > 0).all("band")
assert np.array_equal(clear.where(left, 0), raw.where(left, 0))
assert scl.where(left).isin([4, 5, 6, 7]).sum() == left.sum() > 0
# A fill gives every pixel that was ever clear a value.
ever = (tile.observations > 0).any("time")
assert ((monthly.reflectance > 0).all("band") == ever).all()
print(f"{int(number.sum()):,} clear looks agree; {int((ever & ~seen).sum()):,} pixels were filled")

# %% [markdown]
# ## Tear down
#
# A cluster that this notebook started ends here. With `keep_alive=True` one of a gateway goes on,
# and `open_cluster("gateway", name=…)` comes back to it; in a script, write `with open_cluster(…)`.

# %%
cluster.close()

# %% [markdown]
# ## Next steps
#
# - `cube.store.write(plan, "cubes.zarr", client=cluster.client)` builds all tiles; notebook 2
#   does, and asks how good the cube is.
# - `cluster.adapt(1, 8)` lets the number of workers follow the work; `cluster.logs()` shows what
#   they wrote.
# - A region of thousands of tiles is a job: `cropcube job`, notebook 6.
