"""Networks of the catalogue in the trainer, the artefact and the predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model import artefact
from model.train import train
from tests.model.seasons import Seasons
from tests.model.zoo import SMALL

# One that counts dates, one that needs days, one with cells, one with a list among its options.
NAMES = ["tempcnn", "ltae", "tsvit", "convstar"]


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_trained_kept_and_used(name: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = {"epochs": 1, "precision": "32-true", "accelerator": "cpu", **SMALL.get(name, {})}
    data = Seasons(train=2, val=1)
    run = train(name, data, tmp_path, **settings)
    loaded = artefact.load(tmp_path)
    assert loaded.architecture == name
    reflectance, label = data.sample(data.val_seeds[0])
    found = loaded.predictor().probabilities(reflectance)
    assert found.shape == (data.n_classes, *label.shape)
    # The artefact's own figure comes out again.
    y = label[label != 255]
    loss = -np.log(found[:, label != 255][y, np.arange(y.size)]).mean()
    assert loss == pytest.approx(run.metrics["val_loss"], rel=1e-3)
    # The same settings again are recognised, tuples that became lists included.
    assert train(name, data, tmp_path, **settings).history == run.history
    torch.set_num_threads(threads)
