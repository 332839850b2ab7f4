"""Make a model as sure as it is right: a temperature per level of the class tree, from validation.

A temperature changes no class; it moves the confidence of every pixel. Maps, back-off and scores
use what is stored in the artefact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import cube.store
from cube.errors import SplitError
from model.artefact import Artefact, load, set_temperature
from model.backoff import level_probabilities
from model.evaluate import stage_tiles
from model.evaluate_set import predict_set
from model.hierarchy import tree_of
from model.legend import IGNORE
from model.metrics import calibration_error, log_loss, reliability
from model.predict import check_recipe, predict_window
from model.setdata import SetData
from model.tally import BINS
from model.temperature import fit_temperature, tempered

if TYPE_CHECKING:
    from model.tiles import TileData

#: Labelled pixels of a tile that a temperature is fitted on: it is one number.
PER_TILE = 20_000


@dataclass(frozen=True)
class Calibration:
    """What calibration found.

    Attributes
    ----------
    temperature : tuple of float
        Of each level, the classes' own last.
    table : DataFrame
        A row per ``level``: ``temperature``, and expected calibration error and log loss of the
        pixels it was fitted on, before and after.
    """

    temperature: tuple[float, ...]
    table: pd.DataFrame


def calibrate(
    folder: str | Path, data: TileData | SetData, stage: str = "val", *, seed: int = 0
) -> Calibration:
    """Fit the temperatures of a model and store them in its artefact.

    Parameters
    ----------
    folder : path
        The artefact; an earlier calibration is replaced.
    data : TileData or SetData
        With the legend of the model.
    stage : str
        Whose groups decide: not those that the model is scored on.
    seed : int
        Draws the pixels.

    Raises
    ------
    SplitError
        If the stage is ``test``, or has no labelled pixels.

    Notes
    -----
    Guo et al. (2017), arXiv 1706.04599. Different here: coarser levels, whose probabilities are
    sums over children, have temperatures of their own, as sums of calibrated ones need not be
    calibrated.
    """
    if stage == "test":
        raise SplitError("a model is calibrated on validation groups, never on those that score it")
    model = replace(load(folder), temperature=(1.0,))
    pairs = list(_labelled(model, data, stage, seed))
    if not pairs:
        raise SplitError(f"no labelled pixel in the groups of '{stage}' to calibrate on")
    truth = np.concatenate([pair[0] for pair in pairs])
    found = np.concatenate([pair[1] for pair in pairs])
    temperature, table = fit_levels(found, truth, model)
    set_temperature(folder, temperature)
    return Calibration(temperature, table)


def fit_levels(
    probabilities: np.ndarray, truth: np.ndarray, model: Artefact
) -> tuple[tuple[float, ...], pd.DataFrame]:
    """Return the temperatures and the table of a `Calibration`; float [N, K], int [N]."""
    legend, tree = model.legend, tree_of(model.legend)
    finest = fit_temperature(probabilities, truth)
    fine = tempered(probabilities, finest)
    rows = [_row(legend.level, finest, probabilities, fine, truth)]
    for number in range(len(tree.levels) - 1 if tree else -1, -1, -1):
        assert tree is not None  # noqa: S101  (for mypy: the range is empty without a tree)
        parents = np.asarray(tree.parents[number])
        coarse = level_probabilities(fine, parents)
        above = tree.table(number)[truth]
        found = fit_temperature(coarse, above)
        rows.insert(0, _row(tree.levels[number], found, coarse, tempered(coarse, found), above))
    table = pd.DataFrame(rows)
    return tuple(table["temperature"]), table


def _row(
    level: str, temperature: float, before: np.ndarray, after: np.ndarray, truth: np.ndarray
) -> dict[str, str | float]:
    row: dict[str, str | float] = {"level": level, "temperature": temperature}
    for name, found in (("before", before), ("after", after)):
        total, pixels = log_loss(truth, found)
        row[f"error_{name}"] = calibration_error(reliability(truth, found, BINS))
        row[f"loss_{name}"] = total / max(pixels, 1)
    return row


def _labelled(
    model: Artefact, data: TileData | SetData, stage: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield truth uint8 [N] and probabilities float32 [N, K] of labelled pixels."""
    if isinstance(data, SetData):
        found = predict_set(model.network(), data.with_normalisation(model.normalisation), stage)
        truth = data.set.y[data.stage_rows[stage]].ravel()
        known = truth != IGNORE
        if known.any():
            yield truth[known], np.moveaxis(found, 1, -1).reshape(-1, found.shape[1])[known]
        return
    check_recipe(model, data.store)
    predictor, random = model.predictor(), np.random.default_rng(seed)
    for tile in stage_tiles(data, stage):
        places = np.flatnonzero(tile.truth != IGNORE)
        if len(places) > PER_TILE:
            places = np.sort(random.choice(places, PER_TILE, replace=False))
        wanted = np.zeros(tile.truth.size, bool)
        wanted[places] = True
        read = partial(cube.store.read_window, data.store, tile.granule)
        window = predict_window(
            predictor, read, tile.window, wanted=wanted.reshape(tile.truth.shape)
        )
        yield tile.truth.ravel()[places], window.reshape(len(window), -1)[:, places].T
