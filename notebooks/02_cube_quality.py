# %% [markdown]
# # 2 · What does the cube rest on?
#
# **Background.** A monthly composite has a value for every pixel and month. Not every value was
# seen: under clouds there is no clear observation, and the value was filled from other months. Who
# trains on a cube should know where, when and how often.
#
# **Description.** This notebook
#
# 1. builds the cube of all zones on a cluster,
# 2. counts the clear observations of every pixel,
# 3. finds the months that are missing, tile by tile,
# 4. looks at a zone month by month,
# 5. follows one pixel from its single looks to its filled series,
# 6. checks the cube against an independent way to compute it.
#
# It needs no network: the archive is simulated, eight zones in two regions. For real imagery name
# a catalogue as `provider`, and an area of your own.

# %% [markdown]
# ## Getting started
#
# `cache` is where archive, cube and models of all notebooks go; what is there is not made again.

# %% tags=["parameters"]
cache = "cache"
workers = 2
granule, zone = "31UER", "saint-quentin-1"  # what is looked at closely

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from shared import offline_archive, show

import cube
import model
from deploy import open_cluster

cache = Path(cache)
archive = offline_archive(cache)
cluster = open_cluster("local", workers=workers)

# %% [markdown]
# ## 1 · Build the cube
#
# The recipe is everything that decides a pixel's value. The plan freezes what was found; each tile
# of it is one task.

# %%
recipe = cube.Recipe(bands=["blue", "green", "red", "nir"], start="2023-01", end="2023-12")
zones = model.read_zones(archive / "zones.gpkg")
scenes = cube.search(zones, recipe, provider=archive / "items.json")
plan = cube.plan(zones, scenes, recipe)
store = cube.store.write(plan, cache / "zones.zarr", client=cluster.client)
cubes = cube.store.open(store)
pd.DataFrame(
    {
        "scenes": [len(grid.scenes) for grid in plan.grids],
        "tiles": [len(grid.tiles) for grid in plan.grids],
        "EPSG": [grid.grid.epsg for grid in plan.grids],
    },
    index=pd.Index([grid.grid.granule for grid in plan.grids], name="granule"),
)

# %%
cubes[granule].to_dataset()

# %% [markdown]
# ## 2 · How often was each pixel seen?
#
# `cube.quality` reads every chunk once, on the cluster, and keeps sums only. The chunks it is given
# are the tiles of its tables; these zones are small, so they are cut finer here.

# %%
fine = cubes.chunk(y=161, x=128)
found = cube.quality(fine)
found.save(cache / "quality")
print(found.text())

# %%
show(
    cache / "quality" / f"observations-{granule}.png",
    alt=f"Map of granule {granule}: number of clear observations of each pixel over the year.",
    width=620,
)

# %% [markdown]
# *Figure 1. Clear observations per pixel over the year. The steps are edges of orbits: every third
# pass sees half of the area.*

# %%
figure, axes = plt.subplots(figsize=(7, 2.8))
shares = {one.granule: np.bincount(one.counts.ravel()) / one.counts.size for one in found.maps}
for name, share in shares.items():
    axes.step(range(len(share)), share, where="mid", linewidth=1.8, label=name)
axes.set_xlabel("clear observations of a pixel over the year")
axes.set_ylabel("share of the pixels")
axes.legend(title="granule", frameon=False)
axes.spines[["top", "right"]].set_visible(False)
show(figure, alt="Histogram of the number of clear observations per pixel, a line per granule.")

# %% [markdown]
# *Figure 2. The same as a histogram, for all granules. A second bump is the land
# that a second orbit sees too.*

# %%
# The sums are those of the cube itself.
total = sum(int(node.observations.sum()) for node in cubes.children.values())
assert total == sum(int(one.counts.sum()) for one in found.maps)
assert np.allclose(found.periods[["observed", "filled_both", "filled_one", "empty"]].sum(axis=1), 1)
assert found.recipe_hash == recipe.hash
print(f"{total:,} clear observations of {found.pixels:,} pixels")

# %% [markdown]
# ## 3 · Which months are missing where?

# %%
show(
    cache / "quality" / "gaps.png",
    alt="Heat map of tiles by months: share of pixels without an observation, in percent.",
    width=760,
)

# %% [markdown]
# *Figure 3. Share of the pixels without a clear observation, per tile and month. A row of high
# numbers is a place to distrust, a column a month to distrust.*

# %%
gaps = 1 - found.periods["observed"]
worst = gaps.idxmax()
# The same from the cube: pixels without an observation among those that were ever seen.
missing = seen_once = 0
for node in cubes.children.values():
    observed = (node.observations > 0).compute()
    ever = observed.any("time")
    missing += int((ever & ~observed.sel(time=worst)).sum())
    seen_once += int(ever.sum())
assert np.isclose(gaps[worst], missing / seen_once)
print(f"{worst:%B} is seen worst: {gaps[worst]:.0%} of the pixels have no clear observation")

# %% [markdown]
# ## 4 · One zone, month by month

# %%
from odc.geo.geom import Geometry

ds = cubes[granule].to_dataset()
outline = zones.set_index("zone").to_crs(ds.odc.crs.epsg).geometry[zone]
here = ds.odc.crop(Geometry(outline, ds.odc.crs), apply_mask=False).compute()
ndvi = cube.indices(here, ["NDVI"]).NDVI
months = pd.DatetimeIndex(here.time.values)

most = int(here.observations.max())
figure, axes = plt.subplots(3, len(months), figsize=(12, 3.5), layout="constrained")
for column, month in enumerate(months):
    colours = (
        here.reflectance[column].sel(band=["red", "green", "blue"]).transpose("y", "x", "band")
    )
    # One stretch for all months, so that they can be compared.
    axes[0, column].imshow(np.clip(colours / 2500, 0, 1) ** 0.7)
    green = axes[1, column].imshow(ndvi[column], cmap="YlGn", vmin=0, vmax=1)
    looks = axes[2, column].imshow(here.observations[column], cmap="viridis", vmin=0, vmax=most)
    axes[0, column].set_title(f"{month:%b}", fontsize=10)
for axis in axes.flat:
    axis.set_xticks([])
    axis.set_yticks([])
for row, name in enumerate(("colour", "NDVI", "clear looks")):
    axes[row, 0].set_ylabel(name)
figure.colorbar(green, ax=axes[1], aspect=8, pad=0.01)
figure.colorbar(looks, ax=axes[2], aspect=8, pad=0.01, ticks=range(most + 1))
show(
    figure,
    alt=f"Film strip of zone {zone}: twelve months in natural colour, NDVI and number of looks.",
)

# %% [markdown]
# *Figure 4. Zone saint-quentin-1 through the year. Where the lowest row is dark purple nothing was
# seen: the value above it was filled.*

# %% [markdown]
# ## 5 · One pixel: single looks, composite, fill
#
# `cube.load` gives the same scenes one by one, through odc-stac, without a composite. The pixel is
# the one of the zone with most months that were filled from both sides.

# %%
source = cube.source(here)
filled = (source == 2).sum("time")
row, col = np.unravel_index(np.argmax(filled.data), filled.shape)
grid = next(grid for grid in plan.grids if grid.grid.granule == granule)
looks = cube.load(grid.scenes, recipe.bands, area=zones[zones.zone == zone])
looks = looks.sel(y=here.y, x=here.x).compute()
clear = cube.mask_scl(looks.reflectance, looks.scl)

one = {
    "all": cube.indices(looks.isel(y=row, x=col), ["NDVI"]).NDVI,
    "clear": cube.indices(clear.isel(y=row, x=col).to_dataset(name="reflectance"), ["NDVI"]).NDVI,
}
monthly, kinds = ndvi[:, row, col], source[:, row, col].values
middles = months + pd.Timedelta(14, "D")

figure, axes = plt.subplots(figsize=(9, 3.2))
for start in months[kinds != 1]:
    axes.axvspan(start, start + pd.offsets.MonthBegin(1), color="#f0f0f0", linewidth=0, zorder=0)
unclear = one["all"].where(one["clear"].isnull())
axes.plot(unclear.time, unclear, "x", color="#aaaaaa", label="look, not clear")
axes.plot(one["clear"].time, one["clear"], ".", color="#1b7837", label="look, clear")
axes.plot(middles, monthly, color="#762a83", linewidth=1)
seen = kinds == 1
axes.plot(middles[seen], monthly[seen], "o", color="#762a83", label="monthly median")
axes.plot(middles[~seen], monthly[~seen], "o", color="#762a83", mfc="white", label="filled")
axes.set_ylabel("NDVI")
axes.set_ylim(-0.1, 1.0)
axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
axes.spines[["top", "right"]].set_visible(False)
show(figure, alt="NDVI of one pixel: single looks, monthly medians, and filled months shaded.")

# %% [markdown]
# *Figure 5. One pixel. Grey crosses were looks at clouds, shadows or snow; the grey months had no
# clear look, and their value is the mean of the nearest months that had one.*

# %% [markdown]
# ## 6 · Is the cube right?
#
# The build reads blocks of files with its own reader and works on integers. Here the same months
# are computed another way: odc-stac loads, xarray masks, groups and takes medians in floating
# point. The two must agree in every pixel, and the filled values must be what the recipe says.

# %%
seen_values = clear.where((clear != 0).all("band"))
median = seen_values.resample(time="MS").median()
expected = np.floor(median + 0.5).fillna(0).astype(np.uint16).transpose(*here.reflectance.dims)
count = seen_values.isel(band=0).notnull().resample(time="MS").sum()

observed = here.observations > 0
assert np.array_equal(count, here.observations)
assert np.array_equal(expected.where(observed, 0), here.reflectance.where(observed, 0))

# Gaps between two observed months: the mean of the nearest on either side, rounded half up.
months_seen = observed.values
checked = 0
for t, y, x in np.argwhere((source == 2).values)[::97]:
    before = np.flatnonzero(months_seen[:t, y, x])[-1]
    after = t + 1 + np.flatnonzero(months_seen[t + 1 :, y, x])[0]
    pair = here.reflectance[[before, after], :, y, x].values.astype(int)
    assert np.array_equal(here.reflectance[t, :, y, x], (pair.sum(axis=0) + 1) // 2)
    checked += 1
assert checked >= 10
print(f"{int(observed.sum()):,} observed values agree; {checked} filled ones checked by hand")

# %% [markdown]
# ## Tear down

# %%
cluster.close()

# %% [markdown]
# ## Next steps
#
# - `cube.Recipe(composite="medoid")`, `period="dekad"`, `mask=cube.Mask(dilate=60)`: other ways to
#   a composite; run the notebook again and compare.
# - `cube.census(plan)`: passes that the catalogue lacks.
# - Notebook 3 makes training tiles from this cube.
