"""ONNX files give what the predictor gives, and say what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cube.errors import ArtefactError
from model import artefact
from model.export import EXPORTABLE, export_onnx
from model.legend import flat_legend
from model.networks import create, options
from model.samples import Normalisation
from tests.model import zoo
from tests.model.fixture_store import RECIPE

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def model(folder: Path, name: str, **given: object) -> artefact.Artefact:
    """An untrained network on disk, with norms as after a training."""
    given = zoo.SMALL.get(name, {}) | given
    torch.manual_seed(0)
    network = create(name, c_in=4, n_classes=4, months=3, **given)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    artefact.save_network(
        folder,
        network,
        architecture=name,
        options=options(name, **given),
        recipe=RECIPE,
        legend=flat_legend("crops", ["Wheat", "Maïs", "Meadow"]),
        normalisation=Normalisation((900, 1000, 1100, 1200), (600, 500, 400, 700)),
        metrics={},
    )
    return artefact.load(folder)


def run(path: Path, reflectance: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"reflectance": reflectance})[0]


def windows(*shape: int) -> np.ndarray:
    """Noise; the first sample lacks a band in two months."""
    values = np.random.default_rng(0).integers(1, 5000, (shape[0], 3, 4, *shape[1:]))
    values[0, 1:, 2] = 0
    return values.astype(np.uint16)


@pytest.mark.slow
def test_the_hybrid_on_windows_of_any_size(tmp_path: Path) -> None:
    trained = model(tmp_path / "model", "hybrid")
    path = export_onnx(trained, tmp_path / "hybrid.onnx")
    predictor = trained.predictor()
    for shape in ((1, 24, 40), (2, 64, 32)):
        reflectance = windows(*shape)
        found = run(path, reflectance)
        expected = np.stack([predictor.probabilities(one) for one in reflectance])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def check_pixels(name: str, folder: Path) -> Path:
    """Export a network of pixels, compare it, and return the file."""
    trained = model(folder / "model", name)
    path = export_onnx(trained, folder / "made" / "model.onnx")
    reflectance = windows(7)
    found = run(path, reflectance)
    expected = trained.predictor().probabilities(reflectance.transpose(1, 2, 0)[..., None])
    np.testing.assert_allclose(found, expected[:, :, 0].T, atol=1e-4)
    return path


def test_a_temporal_cnn_and_what_its_file_says(tmp_path: Path) -> None:
    path = check_pixels("tempcnn", tmp_path)
    props = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert json.loads(props["classes"]) == ["background", "Wheat", "Maïs", "Meadow"]
    assert json.loads(props["bands"]) == ["blue", "green", "red", "nir"]
    assert props["recipe_hash"] == RECIPE.hash
    assert props["method_hash"] == RECIPE.method_hash
    assert (props["architecture"], props["halo"], props["stride"]) == ("tempcnn", "0", "1")


def test_an_attention_network(tmp_path: Path) -> None:
    check_pixels("ltae", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*EXPORTABLE} - {"hybrid", "tempcnn", "ltae"}))
def test_the_other_pixel_networks(name: str, tmp_path: Path) -> None:
    check_pixels(name, tmp_path)


def test_networks_that_look_at_the_mask_are_refused(tmp_path: Path) -> None:
    trained = model(tmp_path / "model", "lstm")
    with pytest.raises(ArtefactError, match="lstm cannot be written as ONNX.*hybrid, tempcnn"):
        export_onnx(trained, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
