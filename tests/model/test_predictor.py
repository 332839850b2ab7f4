"""The fast path of predictions: the same numbers as the plain network, and no needless work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.naive import CONTEXT, NaiveHybrid, naive_map
from model.losses import CrossEntropy
from model.networks import create
from model.networks.folding import folded
from model.networks.predictor import CORE, NetworkPredictor
from model.objectives import LogitObjective
from model.samples import Normalisation, days_of_year
from tests.model import zoo
from tests.model.fixture_store import RECIPE

NORMALISATION = Normalisation((900, 1000, 1100, 1200), (600, 500, 400, 700))


@pytest.mark.parametrize("name", zoo.ALL)
def test_folding_norms_changes_no_logits(name: str) -> None:
    network = zoo.build(name)
    inputs = zoo.padded(zoo.inputs(network))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(
            folded(network)(**inputs), network(**inputs), atol=1e-5, rtol=1e-5
        )
    after = network.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_the_hybrid_has_no_norm_left() -> None:
    left = [m for m in folded(trained()).modules() if isinstance(m, nn.BatchNorm2d)]
    assert left == []


def trained(pool: str = "max") -> nn.Module:
    torch.manual_seed(0)
    network = create("hybrid", c_in=4, n_classes=4, months=3, d=8, temporal_pool=pool)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def imagery(height: int, width: int) -> np.ndarray:
    """Noise; a hole without data, and one in which a month is missing."""
    values = np.random.default_rng(5).integers(1, 5000, (3, 4, height, width)).astype(np.uint16)
    values[..., 5:25, 10:50] = 0
    values[1, :, 30:34, 8:20] = 0
    return values


def plainly(network: nn.Module, reflectance: np.ndarray) -> np.ndarray:
    """The network in one pass over the whole window."""
    x, valid = NORMALISATION.apply(reflectance)
    doy = torch.as_tensor(days_of_year(RECIPE.periods))[None]
    with torch.no_grad():
        logits = network(torch.as_tensor(x)[None], torch.as_tensor(valid)[None], doy)
    return logits[0].softmax(dim=0).numpy()


@pytest.mark.parametrize("pool", ["max", "mean", "attention"])
def test_the_hybrid_by_cells_equals_one_pass(pool: str) -> None:
    network = trained(pool)
    # Three cells in a row, the last of them cut short.
    reflectance = imagery(64, 2 * CORE + 100)
    found = NetworkPredictor(network, RECIPE, NORMALISATION).probabilities(reflectance)
    expected = plainly(network, reflectance)
    expected[:, (reflectance == 0).all(axis=(0, 1))] = np.nan
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["tempcnn", "transformer", "hybrid"])
def test_wanted_pixels_get_the_same_and_others_nothing(name: str) -> None:
    torch.manual_seed(0)
    network = create(name, c_in=4, n_classes=4, months=3).eval()
    predictor = NetworkPredictor(network, RECIPE, NORMALISATION)
    reflectance = imagery(72, 92)
    wanted = np.random.default_rng(1).random((72, 92)) < 0.02
    seen = wanted & (reflectance != 0).any(axis=(0, 1))
    assert 10 < seen.sum() < wanted.sum()
    found = predictor.probabilities(reflectance, wanted)
    np.testing.assert_array_equal(np.isfinite(found), np.broadcast_to(seen, found.shape))
    np.testing.assert_allclose(found[:, seen], plainly(network, reflectance)[:, seen], atol=1e-5)


def test_nothing_wanted_is_no_decision_anywhere() -> None:
    for name in ("tempcnn", "hybrid"):
        network = create(name, c_in=4, n_classes=4, months=3)
        predictor = NetworkPredictor(network, RECIPE, NORMALISATION)
        found = predictor.probabilities(imagery(8, 12), np.zeros((8, 12), bool))
        assert found.shape == (4, 8, 12)
        assert np.isnan(found).all()


def test_pixels_are_encoded_once_and_only_where_they_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = NetworkPredictor(trained(), RECIPE, NORMALISATION)
    encoder = predictor.network.get_submodule("temporal")
    encode, counted = encoder.encode, []

    def counting(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        counted.append(int((x != 0).any(dim=(0, 1, 2)).sum()))  # the last call is filled up
        return encode(x, valid)

    monkeypatch.setattr(encoder, "encode", counting)
    # Two cells whose windows overlap by twice the context; a hole of 20 × 40 pixels.
    reflectance = imagery(64, CORE + 150)
    predictor.probabilities(reflectance)
    assert sum(counted) == 64 * (CORE + 150) - 20 * 40
    counted.clear()
    wanted = np.zeros((64, CORE + 150), bool)
    wanted[40, 200] = True
    predictor.probabilities(reflectance, wanted)
    # 23 pixels to each side: rows 17 to 63, none of them in the hole.
    assert sum(counted) == 47 * 47


def test_tsvit_cells_stay_on_its_lattice() -> None:
    """Cells of 24 px do not divide 256: the lattice of windows follows the network's stride."""
    network = zoo.build("tsvit", months=3, size=24, patch=3)
    predictor = NetworkPredictor(network, RECIPE, NORMALISATION)
    reflectance = imagery(48, 384)
    expected = plainly(network, reflectance)
    found = predictor.probabilities(reflectance)
    seen = np.isfinite(found)
    np.testing.assert_allclose(found[seen], expected[seen], atol=1e-5)


def test_training_on_windows_encodes_labelled_pixels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create("tempcnn", c_in=4, n_classes=4, months=3).eval()
    random = np.random.default_rng(2)
    x, valid = NORMALISATION.apply(imagery(16, 24))
    y = np.where(random.random((16, 24)) < 0.3, random.integers(0, 4, (16, 24)), 255)
    doy = days_of_year(RECIPE.periods)
    arrays = {"x": x, "valid": valid, "y": y.astype(np.int64), "doy": doy}
    batch = {name: torch.as_tensor(array)[None] for name, array in arrays.items()}
    classify, seen = network.classify, []

    def counting(series: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(len(series))
        return classify(series, *rest)

    monkeypatch.setattr(network, "classify", counting)
    criterion = CrossEntropy()
    with torch.no_grad():
        judged = LogitObjective(criterion)(network, batch)
        assert seen == [(y != 255).sum()]
        logits = network(batch["x"], batch["valid"], batch["doy"])
        total, weight = criterion.sums(logits, batch["y"])
    torch.testing.assert_close(judged.total[0], total)
    torch.testing.assert_close(judged.weight[0], weight)


def test_the_benchmarks_peer_computes_the_same() -> None:
    network = trained()
    reflectance = imagery(64, 48)
    reflectance[1, :, 30:34, 8:20] = 1000  # all months or none
    with torch.no_grad():
        found = plainly(NaiveHybrid(network).eval(), reflectance)
    np.testing.assert_allclose(found, plainly(network, reflectance), atol=1e-5)
    days = days_of_year(RECIPE.periods)
    # Overlapping windows of 128 px: what they throw away is all the context that is needed.
    wide = imagery(64, 300)
    wide[1, :, 30:34, 8:20] = 1000
    mapped = naive_map(NaiveHybrid(network).eval(), NORMALISATION, wide, days, CONTEXT)
    np.testing.assert_allclose(mapped, plainly(network, wide), atol=1e-5)
