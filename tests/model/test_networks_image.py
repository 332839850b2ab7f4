"""Networks for series of images, against plain twins and hand-worked values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from model.networks.convrnn import ConvGRU, ConvLSTM, SequentialEncoder
from model.networks.convstar import ConvSTARCell, MultiStageConvSTAR
from model.networks.reach import conv, down4, halo, pool, up3, up4
from model.networks.tsvit import TSViT, cut, join
from model.networks.unet3d import UNet3D, coarser, halve
from model.networks.utae import UTAE, DateNorm, weigh


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.fixture(autouse=True)
def _seed_and_one_thread() -> Iterator[None]:
    """Arrays are too small for more threads, and other processes may be at work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def layer_norm(x: Tensor) -> Tensor:
    mean, variance = x.mean(dim=(1, 2, 3), keepdim=True), x.var(dim=(1, 2, 3), correction=0)
    return (x - mean) / (variance[:, None, None, None] + 1e-5).sqrt()


def test_conv_gru_by_its_formula() -> None:
    cell, x, h = ConvGRU(2, 3), torch.randn(2, 2, 6, 6), torch.randn(2, 3, 6, 6)
    gates = cell.gates(torch.cat([x, h], dim=1))
    r, u = layer_norm(gates[:, :3]).sigmoid(), layer_norm(gates[:, 3:]).sigmoid()
    n = layer_norm(cell.update(torch.cat([x, r * h], dim=1))).tanh()
    close(cell.step(x, (h,))[0], u * h + (1 - u) * n)


def test_conv_lstm_by_its_formula() -> None:
    cell, x = ConvLSTM(2, 3), torch.randn(2, 2, 6, 6)
    h, c = torch.randn(2, 3, 6, 6), torch.randn(2, 3, 6, 6)
    gates = cell.gates(torch.cat([x, h], dim=1))
    j, i, f, o = (layer_norm(part) for part in gates.split(3, dim=1))
    c = layer_norm((f + 1).sigmoid() * c + i.sigmoid() * j.tanh())
    found = cell.step(x, (h, torch.zeros_like(h)))
    assert len(found) == 2
    found = cell.step(x, (h, h))
    again = layer_norm((f + 1).sigmoid() * h + i.sigmoid() * j.tanh())
    close(found[1], again)
    close(found[0], o.sigmoid() * again.tanh())


def test_directions_have_weights_of_their_own_and_read_the_series_both_ways() -> None:
    network = SequentialEncoder(2, 3, 4, hidden=4).eval()
    network.back.load_state_dict(network.ahead.state_dict())
    x, valid = torch.randn(1, 3, 4, 6, 6), torch.ones(1, 4, 6, 6, dtype=torch.bool)
    assert not torch.allclose(network.ahead(x, valid), network.ahead(x.flip(2), valid), atol=1e-4)
    assert network.ahead.gates.weight is not network.back.gates.weight


def test_pixels_hold_their_state_where_they_are_not_seen() -> None:
    cell = ConvGRU(2, 3)
    x, valid = torch.randn(1, 2, 2, 6, 6), torch.ones(1, 2, 6, 6, dtype=torch.bool)
    valid[0, 1, :, 3:] = False
    one = cell(x[:, :, :1], valid[:, :1])
    two = cell(x, valid)
    close(two[..., 3:], one[..., 3:])
    assert not torch.allclose(two[..., :3], one[..., :3], atol=1e-4)


def test_conv_star_by_its_formula() -> None:
    cell, x, h = ConvSTARCell(2, 3), torch.randn(1, 2, 6, 6), torch.randn(1, 3, 6, 6)
    g = cell.gate(torch.cat([x, h], dim=1)).sigmoid()
    close(cell(x, h), g * h + (1 - g) * cell.update(x).tanh())  # no tanh on the state
    assert cell.gate.bias.tolist() == [1] * 3


def test_levels_come_from_the_second_fourth_and_sixth_layer() -> None:
    network = MultiStageConvSTAR(2, 7, 3, coarse=(2, 4), hidden=4).eval()
    x = torch.randn(1, 2, 3, 8, 8)
    levels = network.levels(x)
    assert [level.shape[1] for level in levels] == [2, 4, 7, 7]
    close(network(x), levels[-1])
    close(levels[3] - levels[2], network.refine(torch.cat(levels[:3], dim=1)))
    with torch.no_grad():
        for cell in network.layers[2:]:  # what is above the second layer
            cell.update.weight.zero_()
    muted = network.levels(x)
    close(muted[0], levels[0])
    assert not torch.allclose(muted[1], levels[1], atol=1e-5)


def test_utae_runs_every_layer_once() -> None:
    network = UTAE(3, 4).eval()
    calls: Counter[str] = Counter()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    given = network.example(2, 3, 4)
    network(**given)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert set(calls.values()) == {1}
    assert len(calls) == len(layers) + 3  # and the three linear ones of the attention


def test_weights_of_dates_are_interpolated_per_head() -> None:
    maps, weights = torch.randn(2, 3, 4, 8, 8), torch.rand(2, 2, 3, 2, 2)
    weights = weights / weights.sum(dim=2, keepdim=True)
    found = weigh(maps, weights)
    fine = nn.functional.interpolate(weights[:, 1], size=(8, 8), mode="bilinear")
    close(found[:, 3], (fine * maps[:, :, 3]).sum(dim=1))
    even = torch.full((2, 2, 3, 2, 2), 1 / 3)
    close(weigh(maps, even), maps.mean(dim=1))


def test_date_norm_is_group_norm_over_the_valid_dates() -> None:
    norm = DateNorm(2, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, valid = torch.randn(3, 5, 6), torch.ones(3, 5, dtype=torch.bool)
    valid[:, 3:] = False
    twin = nn.functional.group_norm(x[:, :3].transpose(1, 2), 2, norm.weight, norm.bias).transpose(
        1, 2
    )
    close(norm(x, valid)[:, :3], twin)


def test_cut_and_join_are_inverse_and_keep_places() -> None:
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    squares = cut(x, 2)
    assert squares.shape == (2, 2, 3, 3, 2, 2)
    assert squares[1, 1, 2, 0].tolist() == x[1, 0, 2:4, 4:6].tolist()
    assert torch.equal(join(squares), x)


def test_pixels_leave_tsvit_where_they_came_in() -> None:
    network = TSViT(3, 4, d=8, head_size=2, depth=1, size=8).double().eval()
    network.space = nn.ModuleList()  # without it, patches see nothing but themselves
    x = torch.randn(1, 3, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    logits = network(x, None, torch.tensor([[50, 200]]))
    for row, col in ((0, 2), (5, 11), (15, 8)):
        gradient = torch.autograd.grad(logits[0, :, row, col].sum(), x, retain_graph=True)[0]
        rows, cols = gradient.abs().sum(dim=(0, 1, 2)).nonzero().unbind(1)
        assert set((rows // 2).tolist()) == {row // 2}
        assert set((cols // 2).tolist()) == {col // 2}


def test_tsvit_keeps_cells_apart() -> None:
    network = TSViT(3, 4, d=8, head_size=2, depth=1, size=8).eval()
    x, doy = torch.randn(1, 3, 2, 16, 24), torch.tensor([[50, 200]])
    close(network(x, None, doy)[..., 8:, 16:], network(x[..., 8:, 16:], None, doy))


def test_tsvit_knows_the_day_of_a_leap_year() -> None:
    network = TSViT(3, 4, d=8, head_size=2, depth=1, size=8).eval()
    x = torch.randn(1, 3, 1, 8, 8)
    found = [network(x, None, torch.tensor([[day]])) for day in (1, 365, 366, 367)]
    close(found[3], found[0])  # the day after New Year's Eve
    assert not torch.allclose(found[2], found[1], atol=1e-6)


def test_pooling_dates_takes_the_valid_ones() -> None:
    x = torch.tensor([-3.0, 100.0, -1.0, -2.0, 5.0, 6.0, 7.0, 8.0])
    dates = torch.tensor([[True, False, True, True, False, False, False, True]])
    found = halve(x[None, None, :, None, None].expand(1, 1, 8, 2, 2), dates)
    assert found.flatten().tolist() == [-3, -1, 0, 8]
    assert coarser(dates).tolist() == [[True, True, False, True]]


def test_unet3d_takes_odd_numbers_of_dates_without_losing_the_last() -> None:
    network = UNet3D(3, 4, width=8).eval()
    x = torch.randn(1, 3, 5, 8, 8)
    other = x.clone()
    other[:, :, 4] += 1
    assert not torch.allclose(network(x), network(other), atol=1e-5)


def test_reach_by_hand() -> None:
    # Output 1 of a pooling cell of two: conv → [0, 2], cells [0, 1], pixels [0, 3], conv [-1, 4].
    assert halo([conv(1), lambda a, b: (a // 2, b // 2), pool, conv(1)], 2) == 3
    # Transposed convolutions against what PyTorch does.
    for kernel, step, extra in ((3, up3, 1), (4, up4, 0)):
        layer = nn.ConvTranspose1d(1, 1, kernel, 2, 1, output_padding=extra, bias=False)
        nn.init.ones_(layer.weight)
        x = torch.zeros(1, 1, 10, requires_grad=True)
        for place in (8, 9):
            (gradient,) = torch.autograd.grad(layer(x)[0, 0, place], x)
            inputs = gradient[0, 0].nonzero().flatten().tolist()
            assert step(place, place) == (inputs[0], inputs[-1])
    assert down4(3, 3) == (5, 8)  # kernel 4, stride 2, padding 1: 2·3 - 1 to 2·3 + 2
