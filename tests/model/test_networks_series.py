"""Networks for the series of a pixel, against plain twins and hand-worked values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.attention import Attention, PostNormBlock, sinusoid
from model.networks.base import BatchNorm, compact, masked_max, masked_mean
from model.networks.inceptiontime import Inception
from model.networks.ltae import LTAE, MasterQuery
from model.networks.msresnet import Residual, stretch
from model.networks.omniscale import OmniScaleCNN, Stage, primes
from model.networks.recurrent import RecurrentClassifier, StackedLSTM
from model.networks.starrnn import StarLayer
from model.networks.tempcnn import TempCNN


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


def test_compact_moves_valid_dates_to_the_front() -> None:
    x = torch.tensor([[[1.0, 0, 3, 4], [5, 0, 7, 8]], [[0.0, 0, 0, 0], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, False, True, True], [False] * 4])
    found, lengths, order = compact(x, valid)
    assert found[0].tolist() == [[1, 3, 4, 0], [5, 7, 8, 0]]
    assert lengths.tolist() == [3, 1]
    assert order[0].tolist() == [0, 2, 3, 1]


def test_masked_statistics_by_hand() -> None:
    x = torch.tensor([[-3.0, 100.0, -1.0], [5.0, 6.0, 7.0]])
    valid = torch.tensor([[True, False, True], [False, False, False]])
    assert masked_mean(x, valid, dim=1).tolist() == [-2, 0]
    assert masked_max(x, valid, dim=1).tolist() == [-1, 0]  # negative maxima survive


def test_batch_norm_leaves_invalid_dates_out_of_its_statistics() -> None:
    x, valid = torch.randn(6, 3, 5), torch.rand(6, 5) > 0.4
    ours, twin = BatchNorm(3).train(), nn.BatchNorm1d(3).train()
    found = ours(x.masked_fill(~valid[:, None], 1e6), valid)
    close(found.transpose(1, 2)[valid], twin(x.transpose(1, 2)[valid]))
    close(ours.running_var, twin.running_var)
    assert not found.transpose(1, 2)[~valid].any()


def test_lstm_states_are_the_cells_of_all_layers_and_directions() -> None:
    network = RecurrentClassifier(3, 4, hidden=5, layers=2).eval()
    x = torch.randn(2, 3, 7)
    _, (_, cells) = network.rnn(network.norm(x.transpose(1, 2)))
    assert [tuple(state.shape) for state in cells] == [(2, 5)] * 4
    close(network(x), network.head(torch.cat(list(cells), dim=1)))


def test_gru_states_are_the_hidden_ones() -> None:
    network = RecurrentClassifier(3, 4, cell="gru", hidden=5, layers=1, bidirectional=False).eval()
    x = torch.randn(2, 3, 7)
    outputs, _ = network.rnn(network.norm(x.transpose(1, 2)))
    close(network(x), network.head(outputs[:, -1]))


def test_stacked_lstm_classifies_the_last_date() -> None:
    network = StackedLSTM(3, 4, widths=(6, 5)).eval()
    x = torch.randn(2, 3, 7)
    series = x.transpose(1, 2)
    for layer in network.layers:
        series, _ = layer(series)
    close(network(x), network.head(series[:, -1]))


def test_star_cell_by_its_formula() -> None:
    layer = StarLayer(3, 5)
    x, h = torch.randn(2, 3, 4), torch.zeros(2, 5)
    for date in range(4):
        frame = x[:, :, date]
        g = torch.sigmoid(layer.gate(frame) + layer.recurrent(h))
        h = torch.tanh(g * h + (1 - g) * torch.tanh(layer.update(frame)))
    close(layer(x)[:, :, -1], h)
    assert layer.gate.bias.tolist() == [1] * 5
    square = layer.recurrent.weight
    close(square @ square.T, torch.eye(5))


def test_stretching_is_pytorchs_nearest() -> None:
    x = torch.randn(3, 2, 12)
    lengths = torch.tensor([12, 12, 5])
    found = stretch(x, lengths)
    close(found[:2], F.interpolate(x[:2], size=512, mode="nearest"))
    close(found[2:], F.interpolate(x[2:, :, :5], size=512, mode="nearest"))


@pytest.mark.parametrize(("k", "lengths"), [(3, (64, 32, 16)), (5, (61, 28, 11)), (7, (58, 23, 6))])
def test_residual_branches_shrink_as_published(k: int, lengths: tuple[int, ...]) -> None:
    x = torch.randn(2, 4, 128)
    for length in lengths:
        x = Residual(4, 4, k).eval()(x)
        assert x.shape == (2, 4, length)


def test_tempcnn_is_plain_convolutions_where_all_is_valid() -> None:
    network = TempCNN(3, 4, 6, filters=5, k=3, hidden=7).eval()
    x = y = torch.randn(2, 3, 6)
    for conv, norm in zip(network.convs, network.norms, strict=True):
        y = norm(conv(y)).relu()
    close(network(x), network.head(network.dense_norm(network.dense(y.flatten(1))).relu()))


def test_inception_maximum_ignores_invalid_dates() -> None:
    block = Inception(1, 1).eval()
    nn.init.ones_(block.pooled.weight)
    x = torch.tensor([[[-5.0, 0.0, -3.0, -4.0]]])  # the second is invalid, and 0 is not its value
    valid = torch.tensor([[True, False, True, True]])
    block.norm.bias.data += 10
    block.norm.eps = 0.0
    # Maxima -5, -3, -3 of the valid dates around; the invalid one stays out.
    close(block(x, valid)[0, 3], torch.tensor([5.0, 0.0, 7.0, 7.0]))


def test_omniscale_kernels_and_padding() -> None:
    assert primes(11) == [2, 3, 5, 7, 11]
    assert primes(1) == []
    assert [stage.kernels for stage in OmniScaleCNN(10, 3, 45).stages] == [
        (1, 2, 3, 5, 7, 11),
        (1, 2, 3, 5, 7, 11),
        (1, 2),
    ]
    stage = Stage(2, 3, [1, 2, 5]).eval()
    x, valid = torch.randn(4, 2, 9), torch.ones(4, 9, dtype=torch.bool)
    # An even kernel looks one date farther ahead than back.
    ends = ((0, 0), (0, 1), (2, 2))
    twins = [
        F.conv1d(F.pad(x, end), c.weight, c.bias) for c, end in zip(stage.convs, ends, strict=True)
    ]
    close(stage(x, valid), stage.norm(torch.cat(twins, dim=1)).relu())


def test_attention_is_pytorchs() -> None:
    ours, twin = Attention(8, 2, 4), nn.MultiheadAttention(8, 2, batch_first=True)
    twin.in_proj_weight.data, twin.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    twin.out_proj.weight.data, twin.out_proj.bias.data = ours.out.weight.data, ours.out.bias.data
    x, valid = torch.randn(3, 6, 8), torch.rand(3, 6) > 0.3
    close(ours(x, valid), twin(x, x, x, key_padding_mask=~valid, need_weights=False)[0])


def test_post_norm_block_is_pytorchs() -> None:
    ours = PostNormBlock(8, 2, 4, 16, 0.1, 0.1).eval()
    twin = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    attention = ours.attention
    twin.load_state_dict(
        {
            "self_attn.in_proj_weight": attention.qkv.weight,
            "self_attn.in_proj_bias": attention.qkv.bias,
            "self_attn.out_proj.weight": attention.out.weight,
            "self_attn.out_proj.bias": attention.out.bias,
            "linear1.weight": ours.mlp[0].weight,
            "linear1.bias": ours.mlp[0].bias,
            "linear2.weight": ours.mlp[2].weight,
            "linear2.bias": ours.mlp[2].bias,
            **{
                f"norm{i}.{p}": getattr(ours.get_submodule(f"norm{i}"), p)
                for i in (1, 2)
                for p in ("weight", "bias")
            },
        }
    )
    x, valid = torch.randn(3, 6, 8), torch.ones(3, 6, dtype=torch.bool)
    valid[:, 4:] = False
    close(ours(x, valid)[valid], twin(x, src_key_padding_mask=~valid)[valid])


def test_sinusoid_by_hand() -> None:
    code = sinusoid(torch.tensor([[0, 3]]), 4, base=100.0)[0]
    assert code[0].tolist() == [0, 1, 0, 1]
    wanted = torch.tensor([3.0, 3.0 + torch.pi / 2, 0.3, 0.3 + torch.pi / 2]).sin()
    close(code[1], wanted)  # waves of 2π and of 20π


def test_each_head_weighs_its_own_channels() -> None:
    query = MasterQuery(6, 2, 3).eval()
    x, valid = torch.randn(4, 5, 6), torch.rand(4, 5) > 0.3
    valid[:, 0] = True
    found, weights = query(x, valid)
    close(weights.sum(dim=2), torch.ones(4, 2))
    assert not weights.transpose(1, 2)[~valid].any()
    close(found[:, :3], (weights[:, 0, :, None] * x[..., :3]).sum(dim=1))
    close(found[:, 3:], (weights[:, 1, :, None] * x[..., 3:]).sum(dim=1))
    keys = query.key(x).unflatten(-1, (2, 3))
    score = (keys * query.query).sum(dim=-1) / 3**0.5
    close(weights[0, 1, valid[0]], score[0, valid[0], 1].softmax(dim=0))


def test_ltae_sees_days_and_not_places_in_the_series() -> None:
    encoder = LTAE(3).eval()
    x, valid = torch.randn(2, 4, 3), torch.ones(2, 4, dtype=torch.bool)
    doy = torch.tensor([[10, 90, 180, 270]] * 2)
    order = torch.tensor([2, 0, 3, 1])
    close(encoder(x[:, order], valid, doy[:, order]), encoder(x, valid, doy))
    assert not torch.allclose(encoder(x, valid, doy + 30), encoder(x, valid, doy), atol=1e-4)
