"""Scores of samples in memory, with the figures that maps are scored by."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch

from cube.errors import SplitError
from model.leakage import audit_set
from model.legend import IGNORE
from model.samples import inputs
from model.scores import Place, Scores, score
from model.tally import Tally

if TYPE_CHECKING:
    from torch import nn

    from model.setdata import SetData


def predict_set(network: nn.Module, data: SetData, stage: str, device: str = "cpu") -> np.ndarray:
    """Return class probabilities of the samples of a stage.

    Parameters
    ----------
    network : nn.Module
        Gives logits from x, valid and doy; put into evaluation mode.
    data : SetData
        Samples, with the normalisation that the network was trained with.
    stage : {"train", "val", "test"}
    device : str
        As in PyTorch; the network is moved there.

    Returns
    -------
    float32 [N, K], or [N, K, H, W] for images
        In the order of ``data.stage_rows[stage]``; NaN where no date is valid: no decision.
    """
    rows = data.stage_rows[stage]
    network = network.eval().to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), data.batch_size):
            batch = data.batch(rows[start : start + data.batch_size])
            given = {name: value.to(device) for name, value in inputs(batch).items()}
            parts.append(network(**given).float().softmax(dim=1).cpu().numpy())
    if not parts:
        return np.zeros((0, data.n_classes, *data.set.y.shape[1:]), np.float32)
    found = np.concatenate(parts)
    seen = data.set.valid[rows].any(axis=1)
    if found.ndim == 2 and seen.ndim > 1:
        seen = seen.reshape(len(seen), -1).any(axis=1)
    np.moveaxis(found, 1, -1)[~seen] = np.nan
    return found


def score_set(
    probabilities: np.ndarray,
    data: SetData,
    stage: str,
    *,
    buffer: float = 0,
    model: dict[str, str] | None = None,
) -> Scores:
    """Score class probabilities of the samples of a stage.

    Parameters
    ----------
    probabilities : float [N, K], or [N, K, H, W]
        As `predict_set` gives them, of whatever model; NaN = no decision.
    data : SetData
        Truth, groups and parcels.
    stage : {"train", "val", "test"}
    buffer : float
        Metres that the stages must lie apart, see `model.leakage.audit_set`.
    model : dict, optional
        Name and kind, to be noted.

    Returns
    -------
    Scores
        A pixel is a sample (or a pixel of an image); ``zones`` are the groups of the samples.

    Raises
    ------
    SplitError
        If the split leaks, or the stage has no labelled samples.
    ValueError
        If the shape of the probabilities does not fit.
    """
    samples, rows = data.set, data.stage_rows[stage]
    leakage = audit_set(data.split, samples, buffer)
    wanted = (len(rows), data.n_classes, *samples.y.shape[1:])
    if probabilities.shape != wanted:
        raise ValueError(f"probabilities of {probabilities.shape} for stage {stage}: give {wanted}")
    truth = samples.y[rows]
    if not (truth != IGNORE).any():
        raise SplitError(f"{samples.name}: no labelled sample in '{stage}'; look at the split")
    flat = np.moveaxis(probabilities, 1, -1)
    parcel = np.zeros_like(truth, np.int32) if samples.parcel is None else samples.parcel[rows]
    group = samples.group[rows]
    tallies = {}
    for number in np.unique(group):
        here = group == number
        labelled = truth[here] != IGNORE
        if labelled.any():
            tally = tallies[int(number)] = Tally(data.n_classes)
            tally.add(truth[here][labelled], flat[here][labelled], parcel[here][labelled])
    return score(
        tallies,
        {number: Place(str(number)) for number in tallies},
        legend=data.legend,
        training_counts=data.class_counts,
        stage=stage,
        audit=asdict(leakage),
        model=model,
    )
