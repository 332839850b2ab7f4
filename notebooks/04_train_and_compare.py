# %% [markdown]
# # 4 · Train and compare
#
# **Background.** Before a network is believed it must beat two things: answering the most frequent
# class everywhere, and gradient-boosted trees on the plain monthly values, which know nothing of a
# pixel's neighbours and train in seconds.
#
# **Description.** This notebook
#
# 1. trains XGBoost on a Dask cluster and a small network in this process,
# 2. scores both on zones that neither has seen,
# 3. compares them: confusion, F1 of each class, how far their confidence can be trusted,
# 4. asks the trees which band of which month they used.
#
# It needs the cube of notebook 2 and the labels and split of notebook 3, in the same `cache`.
#
# **Read the scores with care.** The archive is simulated, has four training zones, and the network
# is the small preset, trained for a few epochs so that this page runs in a minute. The figures show
# how to compare; about agriculture, or about which model is better, they say nothing.

# %% [markdown]
# ## Getting started

# %% tags=["parameters"]
cache = "cache"
workers = 2
network, preset = "hybrid", "lite"  # `cropcube models` lists others
epochs, lr, batch_size = 10, 2e-3, 2
options = {"dropout": 0.1, "temporal_pool": "attention"}  # of the network
rounds = 100
seed = 7

# %%
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from shared import show

import cube
import model
from deploy import open_cluster
from model import metrics, report
from model.evaluate import stage_tiles
from model.predict import predict_window

cache = Path(cache)
cluster = open_cluster("local", workers=workers)
split = model.Split.load(cache / "split.json")
data = model.TileData(
    cache / "zones.zarr",
    cache / "labels.zarr",
    None,
    split,
    batch_size=batch_size,
    seed=seed,
    augment=True,
)
legend = data.legend
pd.Series(
    {stage: data.samples(stage) for stage in ("train", "val", "test")}, name="samples"
).to_frame()

# %% [markdown]
# ## 1 · Train
#
# Both stop when the validation zones say so, both leave a folder that holds recipe, legend and
# normalisation beside the weights. A training that is there already is returned at once.

# %%
trees = model.boost(
    data, cache / "runs" / "xgboost", client=cluster.client, rounds=rounds, seed=seed
)
pd.Series(trees.metrics, name="XGBoost").to_frame()

# %%
run = model.train(
    network,
    data,
    cache / "runs" / network,
    preset=preset,
    epochs=epochs,
    patience=epochs,
    lr=lr,
    class_weights="sqrt",
    seed=seed,
    **options,
)
history = pd.DataFrame(run.history).set_index("epoch")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained")
left.plot(history.train_loss, color="#999999", label="training")
left.plot(history.val_loss, color="#2166ac", label="validation")
left.set_ylabel("loss")
left.legend(frameon=False)
right.plot(history.val_macro_f1, color="#2166ac")
right.plot(run.metrics["epoch"], run.metrics["val_macro_f1"], "o", color="#b2182b", label="kept")
right.set_ylabel("macro-F1, validation")
right.set_ylim(0, 1)
right.legend(frameon=False)
for axes in (left, right):
    axes.set_xlabel("epoch")
    axes.spines[["top", "right"]].set_visible(False)
show(
    figure, alt="Learning curves: training and validation loss, and validation macro-F1, by epoch."
)

# %% [markdown]
# *Figure 1. Learning curves. The epoch with the best macro-F1 of the validation zones is kept. The
# training loss is weighted by class and taken with dropout, so the two losses are not to be
# compared in height.*

# %%
assert history.train_loss.iloc[-1] < history.train_loss.iloc[0], "nothing was learned"
assert run.metrics["val_macro_f1"] == history.val_macro_f1.max()

# %% [markdown]
# ## 2 · Score zones that neither has seen
#
# `model.evaluate` predicts whole tiles with the function that makes maps, checks recipe, legend and
# split, and counts pixels and parcels, with and without background.

# %%
names = ("xgboost", network)
scores = {name: model.evaluate(cache / "runs" / name, data) for name in names}
comparison = model.compare(scores)
Markdown(comparison.markdown())

# %%
always = next(figures for name, figures in comparison.rows.items() if name.startswith("always"))
for name in names:
    assert comparison.rows[name]["F1"] > 3 * always["F1"], f"{name} is hardly better than one class"
    assert scores[name].audit["train_test"] > 639
support = {name: sum(map(sum, scores[name].confusion)) for name in names}
assert len(set(support.values())) == 1, "scored on the same pixels"
print(f"{support[network]:,} labelled test pixels")

# %% [markdown]
# ## 3 · Where do they differ?

# %%
figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="compressed")
for axes, name in zip(panels, names, strict=True):
    report.draw_confusion(axes, np.array(scores[name].confusion), legend)
    axes.set_title(name, fontsize=10)
panels[1].set_yticklabels([])
panels[1].set_ylabel("")
show(figure, alt="Confusion matrices of XGBoost and the network side by side, percent of each row.")

# %% [markdown]
# *Figure 2. Percent of each true class that was called what, in the test zones; at the right the
# pixels behind a row.*

# %%
f1 = pd.DataFrame({n: {row["class"]: row["f1"] for row in scores[n].classes} for n in names})
order = f1.max(axis=1).sort_values().index
figure, axes = plt.subplots(figsize=(7, 3))
for shift, name, colour in ((0.2, names[0], "#f4a582"), (-0.2, names[1], "#2166ac")):
    axes.barh(np.arange(len(order)) + shift, f1[name][order], height=0.38, color=colour, label=name)
axes.set_yticks(range(len(order)), order)
axes.set_xlim(0, 1)
axes.set_xlabel("F1 in the test zones")
axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
axes.spines[["top", "right"]].set_visible(False)
show(figure, alt="Bars of F1 by class for XGBoost and the network.")

# %% [markdown]
# *Figure 3. F1 of each class.*

# %%
# The same from scratch: F1 = 2 TP / (2 TP + FP + FN).
for name in names:
    matrix = np.array(scores[name].confusion)
    by_hand = 2 * np.diag(matrix) / (matrix.sum(axis=0) + matrix.sum(axis=1))
    assert np.allclose(by_hand, f1[name])
    assert np.isclose(by_hand.mean(), comparison.rows[name]["F1"])

# %% [markdown]
# ## 4 · Can their confidence be trusted?
#
# Of the pixels that a model is 80 % sure of, 80 % should be right.


# %%
def probabilities(name):
    """Return truth [N] and probabilities [N, K] of the labelled test pixels."""
    predictor = model.load(cache / "runs" / name).predictor()
    truth, found = [], []
    for tile in stage_tiles(data, "test"):
        labelled = tile.truth != 255
        read = partial(cube.store.read_window, data.store, tile.granule)
        block = predict_window(predictor, read, tile.window, wanted=labelled)
        truth.append(tile.truth[labelled])
        found.append(block[:, labelled].T)
    return np.concatenate(truth), np.concatenate(found)


figure, (curve, bars) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
error = {}
for name, colour in zip(names, ("#f4a582", "#2166ac"), strict=True):
    table = metrics.reliability(*probabilities(name))
    share = table.pixels / table.pixels.sum()
    error[name] = float(((table.confidence - table.accuracy).abs() * share).sum())
    curve.plot(table.confidence, table.accuracy, "o-", color=colour, label=name)
    bars.plot(table.confidence, share, "o-", color=colour)
    assert table.pixels.sum() == support[name]
    assert np.isclose((table.accuracy * share).sum(), comparison.rows[name]["OA"])
curve.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
curve.set_ylabel("share that is right")
bars.set_ylabel("share of the pixels")
curve.legend(frameon=False)
for axes in (curve, bars):
    axes.set_xlabel("confidence")
    axes.set_xlim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
show(
    figure, alt="Reliability: share of right answers against confidence, and pixels by confidence."
)
pd.Series(error, name="expected calibration error").round(3).to_frame()

# %% [markdown]
# *Figure 4. Reliability in the test zones. Below the dashed line a model is surer than it should
# be, above it less sure. Where few pixels are (right), a point says little.*

# %% [markdown]
# ## 5 · What did the trees look at?

# %%
booster = model.load(cache / "runs" / "xgboost").predictor().booster
gain = booster.get_score(importance_type="total_gain")
bands, months = list(data.recipe.bands), data.recipe.periods
# Features are in time-major order: January's bands, February's, …
grid = np.array([gain.get(f"f{n}", 0.0) for n in range(len(months) * len(bands))])
grid = grid.reshape(len(months), len(bands)).T / grid.sum()
assert np.isclose(grid.sum(), 1)

figure, axes = plt.subplots(figsize=(8, 2.4), layout="constrained")
image = axes.imshow(100 * grid, cmap="Greens", vmin=0, aspect="auto")
axes.set_xticks(range(len(months)), [f"{month:%b}" for month in months])
axes.set_yticks(range(len(bands)), bands)
for row, column in np.ndindex(grid.shape):
    ink = "white" if grid[row, column] > 0.6 * grid.max() else "black"
    axes.text(
        column, row, f"{100 * grid[row, column]:.0f}", ha="center", va="center", size=8, color=ink
    )
axes.spines[:].set_visible(False)
figure.colorbar(image, ax=axes, label="percent of the gain")
show(figure, alt="Heat map of bands by months: share of the total gain of XGBoost's splits.")

# %% [markdown]
# *Figure 5. Which band of which month the trees gained from, in percent. Neighbouring months are
# alike: importance moves between them from seed to seed.*

# %%
greenest = grid.sum(axis=0)
assert greenest[2:8].sum() > 0.5, "crops are told apart between March and August"

# %% [markdown]
# ## Tear down

# %%
cluster.close()

# %% [markdown]
# ## Next steps
#
# - More zones and epochs, another `network`, another `seed`: a difference smaller than the one
#   between two seeds is none.
# - `model.cross_validate`: the same over folds of zones.
# - Notebook 5 maps an area that neither model has seen.
