# %% [markdown]
# # 5 · Map a new area
#
# **Background.** A trained model will give a class to every pixel of any area. Whether the map can
# be used depends on what the model was shown: other crops, another climate, months without a look.
# And counting a map's pixels is no estimate of an area: its errors are counted with it.
#
# **Description.** This notebook
#
# 1. maps an area outside of all zones with the recipe that the model was trained on,
# 2. shows how sure the map is, and where it should not be believed,
# 3. looks for seams,
# 4. estimates the area of each class with a confidence interval.
#
# It needs the models of notebook 4, in the same `cache`.

# %% [markdown]
# ## Getting started

# %% tags=["parameters"]
cache = "cache"
workers = 2
name = "hybrid"  # or xgboost: folder in cache/runs
few_months = 8  # fewer observed months than this are marked
unsure = 0.5  # confidence below this is marked
reference_points = 60  # per mapped class, for the areas
seed = 11

# %%
from functools import partial
from pathlib import Path

import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rasterio
from matplotlib.patches import Patch
from rasterio.features import rasterize
from shared import offline_archive, show

import cube
import model
from cube.grid import Window
from deploy import open_cluster
from model import report
from model.metrics import confusion_matrix
from model.predict import decide, predict_window

cache = Path(cache)
archive = offline_archive(cache)
cluster = open_cluster("local", workers=workers)

# %% [markdown]
# ## 1 · From the model to the map
#
# `predict` searches, builds the cube with the model's own recipe, and classifies tile by tile on
# the cluster. It writes COGs of class and confidence with a STAC item for each granule; this area
# lies in one.

# %%
made = model.predict(
    cache / "runs" / name,
    archive / "new_area.geojson",
    cache / "map",
    provider=archive / "items.json",
    year=2023,
    client=cluster.client,
)
artefact = model.load(cache / "runs" / name)
legend = artefact.legend
(files,) = made.grids
made.table.round(3)

# %%
with rasterio.open(files.classes) as first, rasterio.open(files.confidence) as second:
    classes, percent = first.read(1), second.read(1)
    transform, crs = first.transform, first.crs
mapped = classes != 255
confidence = np.where(mapped, percent / 100, np.nan)
assert mapped.sum() == made.table.pixels[:-1].sum()
assert np.isclose(made.table.share.sum(), 1)

# %%
figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 6.4), layout="compressed")
upper.imshow(report.coloured(classes, legend), interpolation="nearest")
image = lower.imshow(confidence, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
figure.colorbar(image, ax=lower, label="probability of the class", shrink=0.7)
for axes, title in ((upper, "class"), (lower, "confidence")):
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_axis_off()
handles = [Patch(color=c, label=n) for c, n in zip(legend.colours, legend.classes, strict=True)]
upper.legend(handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
show(figure, alt="Map of crop classes of the new area, and below it the confidence of each pixel.")

# %% [markdown]
# *Figure 1. The map and its confidence. Low confidence follows the edges of fields, where pixels
# are mixed, and whole fields of classes that look alike.*

# %% [markdown]
# ## 2 · Where should it not be believed?
#
# Three signs, all from what the model was given: few months with a clear look, low confidence, and
# values outside of what the training zones ever showed. The last is counted against the 0.5 % and
# 99.5 % quantiles of each band and month over the training pixels.

# %%
split = model.Split.load(cache / "split.json")
data = model.TileData(cache / "zones.zarr", cache / "labels.zarr", None, split)
training = np.concatenate([part.reflectance for part in data.pixels("train")]).astype(float)
training[training == 0] = np.nan
low, high = np.nanquantile(training, [0.005, 0.995], axis=0)  # [band, month] each

# The cube reaches as far beyond the map as the network looks: only the map's pixels are asked for.
height, width = classes.shape
x, y = transform.c + 10 * np.arange(width) + 5, transform.f - 10 * np.arange(height) - 5
new = cube.store.open(cache / "map" / "cube.zarr").sel(x=x, y=y).compute()
months_seen = (new.observations.values > 0).sum(axis=0)
values = new.reflectance.transpose("y", "x", "band", "time").values
outside = ((values < low) | (values > high)).mean(axis=(2, 3))
assert classes.shape == months_seen.shape == outside.shape

marks = {
    f"fewer than {few_months} months seen": mapped & (months_seen < few_months),
    f"confidence below {unsure:.0%}": mapped & (np.nan_to_num(confidence) < unsure),
    "values unlike the training zones": mapped & (outside > 0.1),
}
pd.Series(
    {k: f"{v.sum() / mapped.sum():.1%}" for k, v in marks.items()}, name="of the map"
).to_frame()

# %%
figure, axes = plt.subplots(figsize=(9, 4.4), layout="compressed")
pale = 255 - (255 - report.coloured(classes, legend).astype(int)) * 2 // 5
axes.imshow(pale, interpolation="nearest")
styles = [("....", "#b2182b"), ("////", "#2166ac"), ("xxxx", "#000000")]
handles = []
for (title, mark), (hatch, colour) in zip(marks.items(), styles, strict=True):
    drawn = axes.contourf(mark, levels=[0.5, 1.5], colors="none", hatches=[hatch])
    drawn.set_edgecolor(colour)
    drawn.set_linewidth(0)
    handles.append(Patch(facecolor="white", edgecolor=colour, hatch=hatch, label=title))
axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False)
axes.set_axis_off()
show(
    figure, alt="The map in pale colours, hatched where months are few, confidence low, values new."
)

# %% [markdown]
# *Figure 2. Where the map should not be believed without a look at the imagery.*

# %%
# What the simulator knows to grow in each pixel; with real imagery this takes a field campaign.
# Fields that leave the imagery are in no register: nothing is known nearer than 150 m to the rim.
fields = gpd.read_file(archive / "truth.gpkg").to_crs(crs)
fields["class"] = fields.TRUE_CULTU.map(legend.codes).fillna(255).astype(int)
shapes = list(zip(fields.geometry, fields["class"], strict=True))
truth = rasterize(shapes, classes.shape, transform=transform, dtype="uint8")
inner_part = np.zeros(mapped.shape, bool)
inner_part[15:-15, 15:-15] = True
truth[~(mapped & inner_part)] = 255

right = truth == classes
accuracy = {"whole map": right[mapped & (truth != 255)].mean()}
for title, mark in marks.items():
    if (where := mark & (truth != 255)).any():
        accuracy[title] = right[where].mean()
# A warning that does not tell better from worse would be no warning.
assert accuracy[f"confidence below {unsure:.0%}"] < accuracy["whole map"] - 0.1
pd.Series(accuracy, name="accuracy").map("{:.1%}".format).to_frame()

# %% [markdown]
# Low confidence tells where errors are. The other two marks need not: they say where the model was
# not tested, and this area has the crops and the climate of the training zones.

# %% [markdown]
# ## 3 · Are there seams?
#
# A network sees a pixel's neighbours; where it is fed block by block, a map can break at the
# blocks' edges. Two tests: across each column, how often do left and right neighbours differ in
# class? A seam would stand out. And: is a piece that is classified alone, cut elsewhere, the
# same?

# %%
left_right = mapped[:, 1:] & mapped[:, :-1]
differ = (classes[:, 1:] != classes[:, :-1]) & left_right
pairs = left_right.sum(axis=0)
share = pd.Series(differ.sum(axis=0) / np.maximum(pairs, 1))[pairs > 0]

(grid,) = cube.store.read_plan(cache / "map" / "cube.zarr").grids
row, col = round((grid.grid.top - transform.f) / 10), round((transform.c - grid.grid.left) / 10)
window = Window(row=row, col=col, height=height, width=width)
# Between column n and n + 1 of the map; blocks lie on a lattice of the granule.
predictor = artefact.predictor()
columns = np.arange(window.col + 1, window.col + window.width)
seams = [int(c - window.col - 1) for c in columns if c % predictor.block == 0]

figure, axes = plt.subplots(figsize=(9, 2.4))
axes.plot(share.index, share, color="#666666", linewidth=1)
for seam in seams:
    axes.axvline(seam, color="#b2182b", linestyle="--")
    place = (seam, share.max())
    axes.annotate("edge of blocks", place, xytext=(4, -4), textcoords="offset points")
axes.set_xlabel("column of the map")
axes.set_ylabel("neighbours that differ")
axes.spines[["top", "right"]].set_visible(False)
show(
    figure,
    alt="Share of differing neighbours by column; the edge of the blocks does not stand out.",
)

# %% [markdown]
# *Figure 3. How often neighbours differ, column by column. The edges of fields make the noise; the
# edge between two blocks is a column like others, and so is the last one: the cube was built a
# little larger than the map.*

# %%
assert seams, "the area is too small to have an edge between blocks"
assert (share[seams] <= share.quantile(0.99)).all(), "a seam at the edge of blocks"

# A window across the edge, classified alone, gives the same values.
read = partial(cube.store.read_window, cache / "map" / "cube.zarr", grid.grid.granule)
inner = Window(row=window.row + 21, col=window.col + seams[0] - 30, height=50, width=64)
alone = predict_window(predictor, read, inner)
here = inner.relative_to(window).yx
inside = mapped[here]
assert inside.any()
for layer, again in zip((classes, percent), decide(alone), strict=True):
    assert np.array_equal(layer[here][inside], again[inside])
print(
    f"{alone[0].size:,} pixels across the edge, classified alone: the same classes and confidence"
)

# %% [markdown]
# ## 4 · How much grows there?
#
# The map's pixels are not the answer. A stratified random sample of the map, looked up in the
# field (here: in what the simulator knows), corrects the areas and says how far they can be
# trusted: the estimator of Olofsson et al. (2014).

# %%
random = np.random.default_rng(seed)
known_here = mapped & (truth != 255)
sampled = []
for k in range(len(legend.classes)):
    pixels = np.flatnonzero(known_here & (classes == k))
    sampled.append(random.choice(pixels, min(reference_points, pixels.size), replace=False))
sampled = np.concatenate(sampled)
matrix = confusion_matrix(truth.ravel()[sampled], classes.ravel()[sampled], len(legend.classes))
hectares = np.bincount(classes[known_here], minlength=len(legend.classes)) / 100
areas = model.estimate_areas(hectares, matrix).set_axis(legend.classes)
areas["true"] = np.bincount(truth[known_here], minlength=len(legend.classes)) / 100
areas.round(1)

# %%
order = areas.estimated.sort_values().index
table = areas.loc[order]
figure, axes = plt.subplots(figsize=(7.5, 3))
place = np.arange(len(order))
axes.hlines(place, table.low, table.high, color="#2166ac", linewidth=2)
axes.plot(table.estimated, place, "o", color="#2166ac", label="estimate, 95 % interval")
axes.plot(table.mapped, place, "|", color="black", markersize=14, label="pixels of the map")
axes.plot(table.true, place, "x", color="#b2182b", label="truth")
axes.set_yticks(place, order)
axes.set_xlabel("hectares")
axes.set_xlim(left=0)
axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1))
axes.spines[["top", "right"]].set_visible(False)
show(figure, alt="Area of each class: the map's pixels, the estimate with its interval, the truth.")

# %% [markdown]
# *Figure 4. Areas by counting pixels (bars), by the estimator (dots with 95 % intervals), and the
# truth (crosses).*

# %%
assert np.isclose(areas.estimated.sum(), areas.mapped.sum())
held = (areas.low <= areas.true) & (areas.true <= areas.high)
# Of 95 % intervals one may miss.
assert held.sum() >= len(areas) - 1
off = {name_: (areas[name_] - areas.true).abs().sum() for name_ in ("mapped", "estimated")}
print(
    f"{held.sum()} of {len(areas)} intervals hold the truth; hectares off in sum: "
    f"{off['mapped']:.0f} counted, {off['estimated']:.0f} estimated"
)

# %% [markdown]
# ## Is the imagery like that of the training?

# %%
pd.DataFrame(made.drift).round(2)

# %% [markdown]
# ## Tear down

# %%
cluster.close()

# %% [markdown]
# ## Next steps
#
# - The COGs and STAC items in `cache/map` open in QGIS and any STAC viewer.
# - `name = "xgboost"`: the other model on the same area.
# - A whole region is a batch job: `cropcube job`, with the kind `CropMap`.
