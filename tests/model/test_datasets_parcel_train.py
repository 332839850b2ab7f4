"""The networks for parcels learn from parcels of a cube, and their folder loads again."""

import pytest
import torch

from model import artefact
from model.datasets.parcel import parcel_images, parcel_means, parcel_pixels
from model.samples import inputs
from model.setdata import SetData
from model.splits import Split
from model.train import train

SPLIT = Split("zone", frozenset({1, 3}), frozenset({2}), frozenset({4}))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("garnot-cnn", parcel_images),
        ("garnot-cnn-gru", parcel_images),
        ("garnot-gru", parcel_images),
        ("garnot-convlstm", parcel_images),
        ("pse-ltae", parcel_pixels),
        ("gru", parcel_means),
    ],
)
def test_parcel_networks_train(farm, tmp_path, name, make):
    data = SetData(make(farm.store, farm.labels, per_class=8), SPLIT, batch_size=8)
    run = train(name, data, tmp_path, epochs=1, precision="32-true")
    batch = data.batch(data.stage_rows["test"][:4])
    network = artefact.load(run.folder).network()
    with torch.inference_mode():
        logits = network(**inputs(batch))
    assert logits.shape == (4, data.n_classes)
    assert bool(logits.isfinite().all())
