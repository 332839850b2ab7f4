# %% [markdown]
# # 3 · Training tiles
#
# **Background.** A network learns from windows of a cube with a label on each pixel. Three things
# decide what its scores are worth: which classes there are and how many pixels each has, that no
# ground is shared between training and test, and that labels and imagery lie on each other.
#
# **Description.** This notebook
#
# 1. turns declared parcels into labels on the cube's grid,
# 2. counts the classes,
# 3. splits by zone and checks the split for leaks,
# 4. looks at samples and at the NDVI of each crop,
# 5. reads batches from the store, and live from a cluster.
#
# It needs the cube of notebook 2, in the same `cache`.

# %% [markdown]
# ## Getting started

# %% tags=["parameters"]
cache = "cache"
workers = 2
level = "level2"  # of the crop legend; level3_fr_ext tells more crops apart
sample = 64  # pixels per side

# %%
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from shared import offline_archive, show

import cube
import model
from deploy import open_cluster
from model import report

cache = Path(cache)
archive = offline_archive(cache)
cluster = open_cluster("local", workers=workers)

# %% [markdown]
# ## 1 · Parcels become labels
#
# The legend maps the register's crop codes to classes; only classes that occur are kept. Parcels
# are shrunk by 5 m: pixels on an edge are mixed. They become 255, which no loss and no score
# counts.

# %%
store = cache / "zones.zarr"
plan = cube.store.read_plan(store)
zones = model.read_zones(archive / "zones.gpkg")
known = model.load_legend("turkoglu", level, year=2023)
parcels = model.read_parcels(archive / "parcels.gpkg", zones, known)
legend = known.compact(parcels)
labels = cache / "labels.zarr"
told = model.write_labels(parcels, plan, legend, zones, labels, erosion=5)
print(told)

# %%
# Labels cover the zones, and nothing else: 8 zones of 128 × 128 pixels.
assert sum(told.pixels.values()) + told.ignored == 8 * 128 * 128
assert told.dropped == 0

# %% [markdown]
# ## 2 · Split by zone
#
# Zones flagged in the file test, one of the others per region validates. `model.audit` raises where
# two sets share ground, and says how far apart they are.

# %%
split = model.split_zones(labels, seed=7)
split.save(cache / "split.json")
distances = model.audit(split, labels)
assert min(distances.train_test, distances.train_val) > 639, "zones are 640 m apart"

stage_of = split.stage_of()
placed = zones.assign(
    stage=[("–", "train", "val", "test")[stage_of[n + 1]] for n in range(len(zones))]
)
stage_colours = {"train": "#92c5de", "val": "#fdb863", "test": "#ef6548"}

figure, panels = plt.subplots(1, zones.region.nunique(), figsize=(8, 4), layout="constrained")
for axes, (region, members) in zip(panels, placed.groupby("region"), strict=True):
    near = members.to_crs(members.estimate_utm_crs())
    left, bottom, *_ = near.total_bounds
    local = near.translate(-left, -bottom).scale(1e-3, 1e-3, origin=(0, 0))
    local.plot(ax=axes, color=near.stage.map(stage_colours), edgecolor="black")
    for shape, name, stage in zip(local, near.zone, near.stage, strict=True):
        text = f"{name.rsplit('-', 1)[1]}\n{stage}"
        axes.annotate(text, shape.centroid.coords[0], ha="center", va="center")
    axes.set_title(region, fontsize=10)
    axes.set(xlabel="km", ylabel="")
panels[0].set_ylabel("km")
show(figure, alt="Map of the zones of each region, coloured by training, validation and test.")

# %% [markdown]
# *Figure 1. Who trains, validates and tests. Whole zones, with a gap between them: neighbouring
# pixels look alike, and a split by pixel or by parcel would flatter every model.*

# %%
distances

# %% [markdown]
# ## 3 · How many pixels has each class?

# %%
data = model.TileData(store, labels, None, split, sample=sample, batch_size=4, seed=7, augment=True)
counts = pd.DataFrame(data.index.class_counts, index=list(legend.classes))
order = counts.sum(axis=1).sort_values().index

figure, axes = plt.subplots(figsize=(7, 3))
for stage, colour in stage_colours.items():
    axes.plot(counts[stage][order], range(len(order)), "o", color=colour, label=stage)
axes.set_yticks(range(len(order)), order)
axes.set_xscale("log")
axes.set_xlabel("labelled pixels (log scale)")
axes.grid(axis="x", color="#e5e5e5")
axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
axes.spines[["top", "right"]].set_visible(False)
show(figure, alt="Labelled pixels per class in training, validation and test, logarithmic axis.")

# %% [markdown]
# *Figure 2. Pixels per class. Rare classes decide a macro-F1 as much as common ones do; a class
# that a set lacks cannot be scored there.*

# %%
assert counts.to_numpy().sum() == sum(told.pixels.values())
assert (counts > 0).all(axis=None), "every set has every class"
counts

# %% [markdown]
# ## 4 · Look at samples

# %%
month, bands = 5, list(data.recipe.bands)
entries = data.index.entries["train"]
chosen = entries[np.linspace(0, len(entries) - 1, 6).astype(int)]
figure, axes = plt.subplots(2, len(chosen), figsize=(11, 3.9), layout="compressed")
for column, (number, row, col) in enumerate(chosen):
    tile = data.index.tiles[number]
    window = cube.grid.Window(row=int(row), col=int(col), height=sample, width=sample)
    reflectance, _ = cube.store.read_window(store, tile.granule, window)
    rgb = (reflectance[month, bands.index(name)] for name in ("red", "green", "blue"))
    axes[0, column].imshow(report.natural_colours(*rgb))
    block = data.label_store.read(tile.granule, window)
    axes[1, column].imshow(report.coloured(block.label, legend), interpolation="nearest")
    axes[0, column].set_title(f"{tile.granule}\nrow {row}, col {col}", fontsize=8)
for axis in axes.flat:
    axis.set_axis_off()
handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in legend.colours]
figure.legend(handles, legend.classes, loc="outside lower center", ncols=6, frameon=False)
show(
    figure,
    alt="Six training samples: imagery of June above, labels below, in the legend's colours.",
)

# %% [markdown]
# *Figure 3. Six training samples, June imagery above their labels; white is 255. Where outlines of
# fields and labels do not lie on each other, look at the register's year and at the grid.*

# %%
months = data.recipe.periods
profiles = report.ndvi_profiles(
    data.pixels("train"), bands.index("red"), bands.index("nir"), len(legend.classes)
)
path = report.ndvi_picture(profiles, months, legend, cache / "tiles" / "ndvi.png")
show(path, alt="NDVI of each class by month: median and quartiles.", width=720)

# %% [markdown]
# *Figure 4. NDVI of the training pixels: median and quartiles. Cereals are green in spring and bare
# in July, summer crops the other way round: this is what a model can learn from.*

# %%
# Summer crops peak after winter cereals.
peak = {
    name: months[int(profiles.quartiles[k, 1].argmax())] for k, name in enumerate(legend.classes)
}
assert peak["SmallGrainCereal"] < peak["LargeGrainCereal"]
assert profiles.pixels.sum() == counts["train"].sum()
pd.Series(peak, name="greenest month").dt.strftime("%B").to_frame()

# %% [markdown]
# ## 5 · Read batches
#
# From the finished store, and live from a cluster that builds tiles as they are needed. Both give
# the same samples. The first pass reads, later ones find a small data set in
# memory. Live, every pass reads the imagery and builds the tiles again; the first one waits for the
# workers to start, too.


# %%
def a_pass(batches):
    """Return the batches of one pass and the samples per second."""
    started = time.perf_counter()
    held = list(batches)
    return held, sum(len(batch["y"]) for batch in held) / (time.perf_counter() - started)


plain = model.TileData(store, labels, None, split, sample=sample, batch_size=4, seed=7)
loader = plain.train_dataloader()
live = model.LiveTiles(
    plan,
    labels,
    cluster.client,
    split,
    sample=sample,
    batch_size=4,
    normalisation=plain.normalisation,
)
passes = {
    "store, first pass": a_pass(loader),
    "store, second pass": a_pass(loader),
    "live, first pass": a_pass(live),
    "live, second pass": a_pass(live),
}
pd.DataFrame({"samples per second": {name: round(rate, 1) for name, (_, rate) in passes.items()}})

# %%
# Every labelled training pixel comes once in a pass, and none of another set.
for name, (batches, _) in passes.items():
    seen = np.zeros(len(legend.classes), int)
    for batch in batches:
        y = batch["y"].numpy()
        seen += np.bincount(y[y != 255], minlength=len(seen))
        assert set(np.unique(batch["zone"].numpy()[y != 255])) <= split.train
    assert np.array_equal(seen, counts["train"]), name


def contents(batches):
    """Return the samples as bytes, whatever their order."""
    return {x.numpy().tobytes() for batch in batches for x in batch["x"]}


assert contents(passes["store, first pass"][0]) == contents(passes["live, second pass"][0])
first = passes["store, first pass"][0][0]
{name: (tuple(values.shape), str(values.dtype)) for name, values in first.items()}

# %% [markdown]
# ## Tear down

# %%
cluster.close()

# %% [markdown]
# ## Next steps
#
# - `model.split_parcels`: for one small area where zones are not possible; its scores are kinder.
# - `model.folds`: cross-validation over the zones.
# - Notebook 4 trains two models on these tiles.
