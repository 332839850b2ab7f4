from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cube.errors import ArtefactError
from model import networks
from model.networks.cpu import TemporalConv, relu_dropout
from model.networks.hybrid import HybridTemporalUNet, TemporalEncoder
from model.networks.unet import SHAPES, UNet, halo

PRESETS = ("lite", "reference")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Arrays are too small for more, and other processes may be at work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(preset: str = "lite", **options: Any) -> HybridTemporalUNet:
    torch.manual_seed(0)
    given = {"c_in": 4, "n_classes": 7, "months": 12} | options
    network = networks.create("hybrid", preset=preset, **given)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after some training
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()  # type: ignore[return-value]


# Published counts: reference/k/K for the study's network; lite from its description.
COUNTS = [
    ("reference", 5, 51, 13_455_859),
    ("reference", 3, 51, 13_447_155),
    ("reference", 5, 50, 13_455_794),
    ("reference", 3, 50, 13_447_090),
    ("lite", 5, 51, 513_555),
    ("lite", 3, 51, 504_851),
    ("lite", 5, 50, 513_522),
    ("lite", 3, 50, 504_818),
]


@pytest.mark.parametrize(("preset", "k", "n_classes", "count"), COUNTS)
def test_parameter_counts(preset: str, k: int, n_classes: int, count: int) -> None:
    network = networks.create("hybrid", c_in=4, n_classes=n_classes, months=12, preset=preset, k=k)
    assert sum(p.numel() for p in network.parameters()) == count


class Conv1dTwin(nn.Module):
    """The temporal encoder as the source describes it: Conv1d on [B·H·W, C, T]."""

    def __init__(self, c_in: int, k: int, d: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(c_in, d, k, padding=k // 2), nn.BatchNorm1d(d)
        self.conv2, self.bn2 = nn.Conv1d(d, d, k, padding=k // 2), nn.BatchNorm1d(d)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        series = x.permute(0, 3, 4, 1, 2).reshape(b * h * w, c, t)
        series = F.relu(self.bn1(self.conv1(series)))
        series = F.relu(self.bn2(self.conv2(series)))
        return series.max(dim=2).values.reshape(b, h, w, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("training", [True, False])
def test_temporal_convolutions_equal_conv1d(k: int, training: bool) -> None:
    torch.manual_seed(k)
    # In training, statistics of few pixels magnify the rounding of float32.
    dtype = torch.float64 if training else torch.float32
    twin = Conv1dTwin(4, k, 64).train(training).to(dtype)
    encoder = TemporalEncoder(4, k, 64, "max", dropout=0.0).train(training).to(dtype)
    encoder.load_state_dict(twin.state_dict())  # a Conv1d checkpoint loads as it is
    x = torch.randn(2, 4, 12, 6, 5, dtype=dtype)
    torch.testing.assert_close(encoder(x), twin(x), atol=1e-6, rtol=1e-6)


def test_large_windows_are_encoded_in_parts_with_equal_numbers() -> None:
    encoder = TemporalEncoder(2, 3, 8, "max", 0.3).eval()
    x = torch.randn(1, 2, 4, 130, 100)  # more pixels than one part holds
    valid = torch.rand(1, 4, 130, 100) > 0.3
    whole, row = encoder(x, valid), encoder(x[..., 90:91, :], valid[..., 90:91, :])
    torch.testing.assert_close(whole[..., 90:91, :], row, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [24, 64])
def test_patches_of_the_source_work(preset: str, size: int) -> None:
    network = build(preset).train()
    for batch in (2, 1):  # a last batch of one leaves a single cell at the bottleneck
        logits = network(torch.randn(batch, 4, 12, size, size))
        assert logits.shape == (batch, 7, size, size)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("months", [1, 3, 24])
def test_any_number_of_months(months: int) -> None:
    assert torch.isfinite(build()(torch.randn(1, 4, months, 8, 8))).all()


def test_windows_below_the_stride_are_refused() -> None:
    with pytest.raises(ValueError, match="smaller than the network's stride"):
        build("reference")(torch.randn(1, 4, 12, 8, 24))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_layer_is_registered_used_once_and_learns(preset: str) -> None:
    network = build(preset).train()
    calls: Counter[str] = Counter()
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    network(torch.randn(2, 4, 12, 32, 32)).square().mean().backward()
    assert set(calls.values()) == {1}
    used = {name for name, module in network.named_modules() if not list(module.children())}
    assert used == set(calls)
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias in front of batch normalisation cancels out: its gradient is rounding, or none.
    assert [name for name in silent if not name.endswith("bias")] == []


def test_eval_reaches_every_batch_norm() -> None:
    network = build("reference")
    before = {n: b.clone() for n, b in network.named_buffers()}
    x = torch.randn(1, 4, 12, 32, 32)
    assert torch.equal(network(x), network(x))  # no dropout, no sampling
    assert all(torch.equal(before[n], b) for n, b in network.named_buffers())


def test_logits_are_raw() -> None:
    logits = build()(3 * torch.randn(2, 4, 12, 16, 16))
    assert logits.min() < 0 < logits.max()
    assert not torch.allclose(logits.exp().sum(dim=1), torch.ones(2, 16, 16))
    assert isinstance(build().unet.head, nn.Conv2d)


@pytest.mark.parametrize("pool", ["max", "mean", "attention"])
def test_invalid_dates_do_not_matter(pool: str) -> None:
    network = build(temporal_pool=pool)
    x, valid = torch.randn(1, 4, 12, 16, 16), torch.rand(1, 12, 16, 16) > 0.4
    expected = network(x, valid)
    garbage = torch.where(valid[:, None], x, torch.full_like(x, float("nan")))
    torch.testing.assert_close(network(garbage, valid), expected, atol=1e-5, rtol=1e-5)
    longer = torch.cat([x, torch.randn(1, 4, 5, 16, 16)], dim=2)
    padded = torch.cat([valid, torch.zeros(1, 5, 16, 16, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(network(longer, padded), expected, atol=1e-5, rtol=1e-5)
    # What is valid is data, whatever its value.
    zero = x.clone()
    zero[:, :, 3] = 0
    everywhere = torch.ones_like(valid)
    without = everywhere.clone()
    without[:, 3] = False
    assert not torch.allclose(network(zero, everywhere), network(zero, without), atol=1e-4)


@pytest.mark.parametrize("pool", ["max", "mean", "attention"])
def test_a_pixel_without_any_valid_date_is_finite(pool: str) -> None:
    network = build(temporal_pool=pool)
    valid = torch.ones(1, 12, 16, 16, dtype=torch.bool)
    valid[:, :, 4:9, 4:9] = False
    x = torch.randn(1, 4, 12, 16, 16)
    assert torch.isfinite(network(x, valid)).all()
    features = network.temporal(x, valid)
    assert not features[..., 4:9, 4:9].any()
    assert features[..., :4, :].any()


def test_the_order_of_months_matters() -> None:
    network, x = build(), torch.randn(1, 4, 12, 16, 16)
    assert not torch.allclose(network(x), network(x.flip(2)), atol=1e-3)


def test_mean_pooling_counts_valid_dates_only() -> None:
    encoder = TemporalEncoder(1, 1, 4, "mean", 0.0).eval()
    x, valid = torch.randn(1, 1, 6, 1, 2), torch.ones(1, 6, 1, 2, dtype=torch.bool)
    valid[:, 2:, :, 0] = False
    torch.testing.assert_close(encoder(x, valid)[..., 0], encoder(x[:, :, :2])[..., 0])


def footprint(preset: str, monkeypatch: pytest.MonkeyPatch) -> UNet:
    """Return a U-Net of one channel in which no change is lost: averages only, in float64."""
    shape = SHAPES[preset]
    down, up = (1,) * len(shape.down), (1,) * len(shape.up)
    monkeypatch.setitem(SHAPES, preset, replace(shape, down=down, up=up))
    network = UNet(1, 1, preset).double().eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
                if module.bias is not None:
                    module.bias.zero_()
    return network


def reach(network: UNet, size: int, place: int) -> int:
    """Return how far a change at (place, place) is seen in a window of `size`."""
    x = torch.ones(1, 1, size, size, dtype=torch.float64)
    with torch.inference_mode():
        quiet = network(x)
        x[..., place, place] += 1e6
        changed = (network(x) != quiet)[0, 0].any(dim=1).nonzero()
    return max(place - int(changed.min()), int(changed.max()) - place)


def test_halo_of_lite_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    network = footprint("lite", monkeypatch)
    assert max(reach(network, 96, 48 + phase) for phase in range(4)) == network.halo == 23


def test_halo_of_reference_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    network = footprint("reference", monkeypatch)
    # The stretched grid moves against the pixels: 125 and 146 are the worst places of this window.
    assert [reach(network, 288, place) for place in (125, 131, 146)] == [122, 121, 122]
    assert network.halo == 122


def test_halo_by_hand() -> None:
    # No pooling: two 3 × 3 convolutions. One: output 1 → [-1, 3] → cells [-1, 1] → [-3, 3] →
    # pixels [-6, 7] → [-8, 9]; 1 - (-8) = 9.
    assert halo(0, bilinear=False) == 2
    assert halo(1, bilinear=False) == 9


@pytest.mark.parametrize("preset", PRESETS)
def test_gradient_footprint_is_centred(preset: str) -> None:
    network = build(preset)
    size = 96
    total = torch.zeros(size, size, dtype=torch.float64)
    for seed in range(2):
        torch.manual_seed(seed)
        x = torch.randn(1, 4, 2, size, size, requires_grad=True)
        network(x)[0, :, 40, 56].square().sum().backward()
        total += x.grad.double().abs().sum(dim=(0, 1, 2))
    row, col = divmod(int(total.argmax()), size)
    assert (abs(row - 40) <= 2, abs(col - 56) <= 2) == (True, True)


def test_lite_is_the_same_in_every_aligned_window() -> None:
    network = build("lite")
    context = -(-network.halo // network.stride) * network.stride
    x = torch.randn(1, 4, 12, 112, 120)
    whole = network(x)
    inner = (slice(context, -context), slice(context, -context))
    for row, col in product((0, 4, 20), (0, 8, 32)):
        part = network(x[..., row : row + 80, col : col + 84])[..., *inner]
        there = whole[..., row : row + 80, col : col + 84][..., *inner]
        torch.testing.assert_close(part, there, atol=1e-5, rtol=1e-5)


def test_reference_says_that_windows_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (build("reference").window_sensitive, build("lite").window_sensitive) == (True, False)
    network = footprint("reference", monkeypatch)
    wave = torch.sin(torch.arange(400, dtype=torch.float64) / 15)
    x = (2 + wave[:, None] * wave)[None, None]
    inner = (slice(128, -128), slice(128, -128))
    whole, part = network(x)[..., 16:, 16:][..., *inner], network(x[..., 16:, 16:])[..., *inner]
    assert (part - whole).abs().max() > 1e-3 * whole.std()


def test_dropout_keeps_the_mean_and_the_gradient() -> None:
    torch.manual_seed(3)
    x = torch.randn(1_000_003, requires_grad=True)
    y = relu_dropout(x, 0.3, training=True)
    y.sum().backward()
    rate = 77 / 256
    positive = (x > 0).sum().item()
    dropped = ((y == 0) & (x > 0)).sum().item()
    # Binomial: five standard deviations.
    assert abs(dropped - rate * positive) < 5 * (positive * rate * (1 - rate)) ** 0.5
    kept = y > 0
    torch.testing.assert_close(y[kept], x[kept] / (1 - rate))
    torch.testing.assert_close(x.grad, kept / (1 - rate))
    assert not torch.equal(kept, relu_dropout(x, 0.3, training=True) > 0)


def test_dropout_drops_neighbours_independently() -> None:
    torch.manual_seed(4)
    x = torch.ones(64, 4096).t()  # not in row-major order
    kept = (relu_dropout(x, 0.5, training=True) > 0).float()
    assert abs(torch.corrcoef(kept.t())[~torch.eye(64, dtype=torch.bool)]).max() < 0.1


def test_registry_describes_and_suggests() -> None:
    assert networks.presets("hybrid") == ["lite", "reference"]
    assert networks.describe("hybrid", "reference").cost.parameters == 13_455_859
    described = networks.describe("hybrid")
    assert (described.preset, described.stride, described.options["k"]) == ("lite", 4, 5)
    assert networks.options("hybrid", preset="reference", k=3)["widths"] == "reference"
    with pytest.raises(ArtefactError, match="did you mean 'hybrid'"):
        networks.options("hybird")
    with pytest.raises(ArtefactError, match="did you mean 'dropout'"):
        networks.options("hybrid", dropuot=0.1)
    with pytest.raises(ArtefactError, match="did you mean 'lite'"):
        networks.options("hybrid", preset="light")
    with pytest.raises(ArtefactError, match="odd number"):
        networks.create("hybrid", c_in=4, n_classes=3, months=12, k=4)
    with pytest.raises(ArtefactError, match="max, mean or attention"):
        networks.create("hybrid", c_in=4, n_classes=3, months=12, temporal_pool="last")
    assert set(SHAPES) == set(PRESETS)


@pytest.mark.parametrize(("dates", "k"), [(12, 5), (12, 1), (3, 7), (1, 3)])
def test_temporal_convolution_has_the_gradients_of_pytorchs_own(dates: int, k: int) -> None:
    torch.manual_seed(3)
    conv = TemporalConv(3, 6, k)
    x = torch.randn(2, 3, dates, 10, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    weight = torch.randn(2, 6, dates, 10)
    (conv(x) * weight).sum().backward()
    ours = [x.grad, conv.weight.grad, conv.bias.grad]
    conv.weight.grad = conv.bias.grad = None
    y = torch.nn.functional.conv2d(twin, conv.weight, conv.bias, padding=(k // 2, 0))
    (y * weight).sum().backward()
    for mine, theirs in zip(ours, [twin.grad, conv.weight.grad, conv.bias.grad], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert torch.equal(conv(x), y)
