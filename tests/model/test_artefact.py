from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cube.errors import ArtefactError
from model import artefact, networks
from model.networks.predictor import CORE, WIDE_CORE, NetworkPredictor
from tests.model.seasons import LEGEND, Seasons, labels_of, reflectance_of

OPTIONS = {"k": 3, "d": 8}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Arrays are too small for more, and other processes may be at work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(folder: Path, preset: str = "lite") -> torch.nn.Module:
    data = Seasons()
    torch.manual_seed(0)
    options = networks.options("hybrid", preset=preset, **OPTIONS)
    network = networks.create("hybrid", c_in=2, n_classes=5, months=12, **options)
    artefact.save_network(
        folder,
        network,
        architecture="hybrid",
        options=options,
        recipe=data.recipe,
        legend=data.legend,
        normalisation=data.normalisation,
        metrics={"val_loss": 0.5},
        training={"seed": 0},
    )
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(folder: Path) -> None:
    data, loaded = Seasons(), artefact.load(folder)
    assert (loaded.kind, loaded.architecture, loaded.recipe) == ("network", "hybrid", data.recipe)
    assert loaded.legend == LEGEND
    assert loaded.normalisation == data.normalisation
    assert loaded.options == networks.options("hybrid", preset="lite", **OPTIONS)
    assert (loaded.metrics, loaded.training) == ({"val_loss": 0.5}, {"seed": 0})
    assert set(loaded.versions) == {"python", "cropcube", "numpy", "torch"}
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]


def test_a_moved_folder_still_works(folder: Path, tmp_path: Path) -> None:
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert artefact.load(moved).folder == tmp_path / "elsewhere"


def test_weights_survive_whatever_happens_to_the_network_later(tmp_path: Path) -> None:
    network = write(tmp_path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    restored = artefact.load(tmp_path).network().state_dict()
    assert all(torch.equal(restored[name], before[name]) for name in before)


def test_probabilities_equal_the_network(tmp_path: Path) -> None:
    network, data = write(tmp_path), Seasons()
    reflectance, _ = data.sample(3)
    predictor = artefact.load(tmp_path).predictor()
    # Standardised by hand: [T, B, y, x] → [1, C, T, y, x].
    mean, std = (
        np.array(v).reshape(1, 2, 1, 1) for v in (data.normalisation.mean, data.normalisation.std)
    )
    x = torch.tensor((reflectance - mean) / std, dtype=torch.float32).transpose(0, 1)[None]
    with torch.no_grad():
        expected = network(x).softmax(dim=1)[0].numpy()
    found = predictor.probabilities(reflectance)
    assert (found.dtype, found.shape) == (np.float32, (5, 16, 16))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found, predictor.probabilities(reflectance))
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_no_decision_where_no_month_has_a_value(folder: Path) -> None:
    reflectance = reflectance_of(labels_of(16, 1), 2, 12, 1)
    reflectance[:, :, 2:5, 7] = 0
    reflectance[:11, 1, 9, 9] = 0  # one month is left
    found = artefact.load(folder).predictor().probabilities(reflectance)
    nothing = np.zeros((16, 16), bool)
    nothing[2:5, 7] = True
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(nothing, found.shape))


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (37, 21), (64, 64)])
def test_windows_of_any_size(folder: Path, shape: tuple[int, int]) -> None:
    predictor = artefact.load(folder).predictor()
    whole = reflectance_of(labels_of(64, 2), 2, 12, 2)
    found = predictor.probabilities(whole[..., : shape[0], : shape[1]])
    assert found.shape == (5, *shape)
    assert np.isfinite(found).all()


def test_aligned_windows_of_lite_agree_within_the_halo(folder: Path) -> None:
    predictor = artefact.load(folder).predictor()
    assert (predictor.halo, predictor.stride) == (23, 4)
    reflectance = reflectance_of(labels_of(128, 4), 2, 12, 4)
    whole = predictor.probabilities(reflectance)
    part = predictor.probabilities(reflectance[..., 24:110, 40:120])
    np.testing.assert_allclose(
        part[:, 23:-23, 23:-23], whole[:, 24 + 23 : 110 - 23, 40 + 23 : 120 - 23], atol=1e-5
    )


class Place(torch.nn.Module):
    """Answers with what a fixed window shows: its size, and where in the window a pixel lies."""

    halo, stride, window_sensitive = 30, 16, True

    def forward(self, x: torch.Tensor, valid: torch.Tensor, doy: torch.Tensor) -> torch.Tensor:
        b, _, _, h, w = x.shape
        assert h == w == CORE + 2 * 32
        assert doy.tolist() == [[15, 46, 74, 105, 135, 166, 196, 227, 258, 288, 319, 349]]
        row = torch.arange(h).view(1, 1, h, 1).expand(b, 1, h, w).float() / 1000
        return torch.cat([row, row.transpose(2, 3), torch.zeros_like(row)], dim=1)


def test_sensitive_networks_get_one_window_size_on_a_lattice() -> None:
    data = Seasons()
    predictor = NetworkPredictor(Place(), data.recipe, data.normalisation)
    size = (700, 300)
    reflectance = np.full((12, 2, *size), 1000, np.uint16)
    found = predictor.probabilities(reflectance)
    assert found.shape == (3, *size)
    logits = np.log(found[:2] / found[2])
    # A pixel is decided by the window in whose core it lies; the first and last take the rest.
    row = np.arange(700)
    core = np.clip((row - 32) // CORE, 0, 2)
    np.testing.assert_allclose(logits[0][:, 5], (row - core * CORE) / 1000, atol=1e-4)
    np.testing.assert_allclose(logits[1][5], np.arange(300) / 1000, atol=1e-4)


def test_reference_agrees_in_windows_whole_cells_apart(tmp_path: Path) -> None:
    write(tmp_path, "reference")
    predictor = artefact.load(tmp_path).predictor()
    assert (predictor.halo, predictor.stride) == (122, 16)
    reflectance = reflectance_of(labels_of(WIDE_CORE + 260, 4), 2, 12, 4)[..., :64]
    whole = predictor.probabilities(reflectance)
    part = predictor.probabilities(reflectance[..., WIDE_CORE:, :])
    np.testing.assert_array_equal(part[:, 128:], whole[:, WIDE_CORE + 128 :])


def test_a_booster_is_an_artefact_too(tmp_path: Path) -> None:
    import xgboost

    from model.boost import features

    data = Seasons()
    reflectance, label = data.sample(1)
    table = features(reflectance.reshape(12, 2, -1).transpose(2, 1, 0))
    code = np.searchsorted([0, 2], label.reshape(-1) % 2 * 2)
    parameters = {"objective": "multi:softprob", "num_class": 2, "nthread": 1}
    booster = xgboost.train(parameters, xgboost.DMatrix(table, code), 2)
    artefact.save(
        tmp_path,
        kind="xgboost",
        architecture="xgboost",
        options={"classes": [0, 2]},
        recipe=data.recipe,
        legend=data.legend,
        normalisation=data.normalisation,
        metrics={},
        weights_writer=booster.save_model,
    )
    loaded = artefact.load(tmp_path)
    assert loaded.weights.name == "model.ubj"
    found = loaded.predictor().probabilities(reflectance)
    expected = booster.predict(xgboost.DMatrix(table)).T.reshape(2, 16, 16)
    np.testing.assert_allclose(found[[0, 2]], expected, atol=1e-6)
    assert not found[[1, 3, 4]].any()
    with pytest.raises(ArtefactError, match="not a network"):
        loaded.network()


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "recipe": (lambda c: c["recipe"].update(fill="none"), "edited after the training"),
    "recipe field": (lambda c: c["recipe"].update(bands=["read"]), "did you mean 'red'"),
    "architecture": (lambda c: c.update(architecture="hybird"), "did you mean 'hybrid'"),
    "format": (lambda c: c.update(format="cropcube-model-9"), "this version reads"),
    "missing": (lambda c: c.pop("legend"), "legend: Field required"),
    "unknown": (lambda c: c.update(pickle="x"), "pickle: Extra inputs"),
    "legend": (lambda c: c["legend"].pop("classes"), "classes: Field required"),
    "normalisation": (lambda c: c["normalisation"]["mean"].pop(), "for 2 bands"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_edited_card_is_refused(folder: Path, name: str) -> None:
    change, message = MISTAKES[name]
    edit(folder, change)
    with pytest.raises(ArtefactError, match=message) as caught:
        artefact.load(folder)
    assert name == "architecture" or str(folder) in str(caught.value)


def test_damaged_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"model\.json is missing.*train one"):
        artefact.load(tmp_path / "nothing")
    weights = folder / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtefactError, match="differs from the one"):
        artefact.load(folder)
    weights.unlink()
    with pytest.raises(ArtefactError, match="is gone"):
        artefact.load(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(ArtefactError, match="is not JSON"):
        artefact.load(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    state = load_file(path)
    state.pop("unet.head.bias")
    save_file(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder, lambda card: card.update(sha256=digest))
    with pytest.raises(ArtefactError, match=r"do not fit hybrid[^$]*unet\.head\.bias"):
        artefact.load(folder).network()


def test_other_cubes_are_refused(folder: Path) -> None:
    predictor = artefact.load(folder).predictor()
    with pytest.raises(ArtefactError, match="12 months, 2 bands"):
        predictor.probabilities(np.ones((12, 3, 16, 16), np.uint16))
    with pytest.raises(ArtefactError, match="12 months, 2 bands"):
        predictor.probabilities(np.ones((11, 2, 16, 16), np.uint16))
    with pytest.raises(ArtefactError, match="uint16"):
        predictor.probabilities(np.ones((12, 2, 16, 16), np.float32))
