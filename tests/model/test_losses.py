from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model.losses import CrossEntropy, Focal, LogitAdjusted, class_weights


def test_cross_entropy_by_hand() -> None:
    # Two labelled pixels with logits (0, ln 3): p = (1/4, 3/4).
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    y = torch.tensor([[[0, 1, 255]]])
    expected = (math.log(4) + math.log(4 / 3)) / 2
    assert CrossEntropy()(logits, y).item() == pytest.approx(expected, rel=1e-6)
    # With weights 1 and 3 the pixel of class 1 counts three times.
    weighted = (1 * math.log(4) + 3 * math.log(4 / 3)) / 4
    loss = CrossEntropy(np.array([1.0, 3.0]))
    assert loss(logits, y).item() == pytest.approx(weighted, rel=1e-6)


def test_ignored_pixels_change_nothing() -> None:
    torch.manual_seed(0)
    logits, y = torch.randn(2, 4, 5, 5), torch.randint(0, 4, (2, 5, 5))
    y[:, :2] = 255
    changed = logits.clone()
    changed[:, :, :2] = 100 * torch.randn(2, 4, 2, 5)
    loss = CrossEntropy(np.array([1.0, 2.0, 0.5, 1.0]))
    assert torch.equal(loss(logits, y), loss(changed, y))


def test_no_labelled_pixel_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = CrossEntropy()(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_sums_add_up_over_batches() -> None:
    torch.manual_seed(1)
    logits, y = torch.randn(5, 3, 4, 4), torch.randint(0, 3, (5, 4, 4))
    y[0] = 255
    loss = CrossEntropy(np.array([0.2, 1.0, 4.0]))
    parts = [loss.sums(logits[i:j], y[i:j]) for i, j in ((0, 1), (1, 3), (3, 5))]
    total, weight = (sum(part[i].item() for part in parts) for i in (0, 1))
    assert total / weight == pytest.approx(loss(logits, y).item(), rel=1e-6)


def test_sqrt_weights_by_hand() -> None:
    # 1/sqrt: 1/10, 1/1, absent. Mean over the 101 pixels: (100 × 0.1 + 1 × 1) / 101 = 11/101.
    weights = class_weights(np.array([100, 1, 0]), "sqrt")
    assert weights == pytest.approx([0.1 * 101 / 11, 101 / 11, 0])


def test_effective_weights_by_hand() -> None:
    # Effective numbers with beta = 1/2: n = 1 → 1, n = 2 → 1.5, n = 3 → 1.75.
    raw = np.array([1, 1 / 1.5, 1 / 1.75])
    mean = (1 * raw[0] + 2 * raw[1] + 3 * raw[2]) / 6
    weights = class_weights(np.array([1, 2, 3]), "effective", beta=0.5)
    assert weights == pytest.approx(raw / mean)


def test_effective_weights_tell_classes_apart_at_any_size() -> None:
    small = class_weights(np.array([10, 100, 1000]), "effective")
    large = class_weights(1_000_000 * np.array([10, 100, 1000]), "effective")
    assert small == pytest.approx(large, rel=0.01)
    assert large[0] > 5 * large[1] > 5 * large[2]


def test_inverse_weights_stand_to_each_other_as_published() -> None:
    weights = class_weights(np.array([50, 10, 0, 200]), "inverse")
    # n_max / n_u is 4, 20 and 1.
    assert weights / weights[3] == pytest.approx([4, 20, 0, 1])


def test_focal_loss_by_hand() -> None:
    # Probabilities of the true class 1/4 and 3/4, gamma 2, weights 1 and 3.
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    y = torch.tensor([[[0, 1, 255]]])
    wrong, right = 0.75**2 * math.log(4), 0.25**2 * math.log(4 / 3)
    assert Focal(2.0)(logits, y).item() == pytest.approx((wrong + right) / 2, rel=1e-5)
    weighted = Focal(2.0, np.array([1.0, 3.0]))(logits, y).item()
    assert weighted == pytest.approx((wrong + 3 * right) / 4, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_certain_pixel_has_a_gradient(gamma: float) -> None:
    logits = torch.tensor([[60.0, -60.0], [0.0, 1.0]], requires_grad=True)
    Focal(gamma)(logits, torch.tensor([0, 255])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1].any()


def test_losses_without_their_figure_are_cross_entropy() -> None:
    torch.manual_seed(2)
    logits, y = torch.randn(3, 4, 5, 5), torch.randint(0, 4, (3, 5, 5))
    y[0, 0] = 255
    weights = np.array([1.0, 0.3, 2.0, 1.0])
    wanted = CrossEntropy(weights)(logits, y).item()
    assert Focal(0.0, weights)(logits, y).item() == pytest.approx(wanted, rel=1e-5)
    counts = np.array([5, 9, 0, 1])
    assert LogitAdjusted(counts, 0.0, weights)(logits, y).item() == pytest.approx(wanted, rel=1e-5)


def test_logit_adjustment_by_its_formula() -> None:
    random = np.random.default_rng(0)
    logits, y = random.normal(size=(20, 3)), random.integers(0, 3, 20)
    counts = np.array([700, 250, 50])
    shifted = logits + 1.5 * np.log(counts / 1000)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    wanted = -np.log(p[np.arange(20), y]).mean()
    loss = LogitAdjusted(counts, 1.5)
    found = loss(torch.tensor(logits), torch.tensor(y)).item()
    assert found == pytest.approx(wanted, rel=1e-5)
    maps = loss(torch.tensor(logits.T[None, :, :, None]), torch.tensor(y[None, :, None])).item()
    assert maps == pytest.approx(wanted, rel=1e-5)


def test_logit_adjustment_makes_bare_logits_blind_to_frequency() -> None:
    # Nothing tells the classes apart: plain training answers the priors, adjusted all the same.
    y = torch.tensor([0] * 90 + [1] * 10)
    logits = torch.zeros(3, requires_grad=True)  # the third class never occurs
    optimiser = torch.optim.Adam([logits], lr=0.1)
    loss = LogitAdjusted(np.array([90, 10, 0]))
    for _ in range(300):
        optimiser.zero_grad()
        loss(logits.expand(100, 3), y).backward()
        optimiser.step()
    answer = logits.detach().softmax(0)
    assert answer[0].item() == pytest.approx(answer[1].item(), rel=0.05)
    assert answer[2] < 0.02


@pytest.mark.parametrize("scheme", ["none", "sqrt", "effective", "inverse"])
def test_weights_have_mean_one_over_pixels(scheme: str) -> None:
    counts = np.array([5, 0, 700, 31])
    weights = class_weights(counts, scheme)  # type: ignore[arg-type]
    assert np.average(weights, weights=counts) == pytest.approx(1)
    assert weights[1] == 0


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="choose one of none, sqrt, effective, inverse"):
        class_weights(np.array([1, 2]), "root")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not all 0"):
        class_weights(np.array([0, 0]), "sqrt")
    with pytest.raises(ValueError, match="gamma = -1"):
        Focal(-1)
    with pytest.raises(ValueError, match="tau = -1"):
        LogitAdjusted(np.array([1, 2]), -1)
    with pytest.raises(ValueError, match="below 1"):
        class_weights(np.array([1, 2]), "effective", beta=1.0)
