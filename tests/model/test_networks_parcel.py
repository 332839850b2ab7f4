"""Networks for parcels, against plain twins and hand-worked values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from model import networks
from model.networks.garnot import GarnotCNNGRU, GarnotConvLSTM, date_cnn, mean_and_deviation
from model.networks.pse import PSELTAE


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


def test_a_date_of_32_px_becomes_2_by_2_cells() -> None:
    cnn = date_cnn(3, (4, 5, 6)).eval()
    sides = []
    for layer in cnn:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            layer.register_forward_hook(lambda *args: sides.append(args[2].shape[-1]))
    assert cnn(torch.randn(7, 3, 32, 32)).shape == (7, 24)
    assert sides == [30, 15, 13, 6, 4, 2]


def test_every_date_goes_through_the_cnn_once() -> None:
    network = GarnotCNNGRU(3, 4).eval()
    seen: list[int] = []
    network.cnn.register_forward_hook(lambda *args: seen.append(len(args[1][0])))
    valid = torch.ones(2, 5, 32, 32, dtype=torch.bool)
    valid[0, 3] = False
    network(torch.randn(2, 3, 5, 32, 32), valid)
    assert seen == [9]  # and the missing one not at all


def test_mean_and_deviation_by_hand() -> None:
    x = torch.tensor([[[[1.0, 3.0, 99.0]], [[5.0, 5.0, 99.0]]]])
    valid = torch.tensor([[[True, True, False]]])
    close(mean_and_deviation(x, valid)[0, :, 0], torch.tensor([2.0, 5.0, 1.0, 1e-4]))


def test_conv_lstm_by_its_formula() -> None:
    network = GarnotConvLSTM(2, 3, inner=4, hidden=5).eval()
    x = torch.randn(1, 2, 3, 32, 32)
    h = c = torch.zeros(1, 5, 32, 32)
    for date in range(3):
        gates = network.gates(torch.cat([x[:, :, date], h], dim=1))
        i, f, o, g = gates[:, :5], gates[:, 5:10], gates[:, 10:15], gates[:, 15:]
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    close(network(x), network.head(h.mean(dim=(2, 3))))


def test_a_parcel_is_a_set_of_pixels() -> None:
    network = PSELTAE(3, 4, 5).eval()
    given = network.example(2, 3, 5)
    wanted = network(**given)
    order = torch.randperm(64)
    close(network(**given | {"x": given["x"][..., order]}), wanted)
    # As an image with pixels outside of the parcel, it is the same parcel.
    x = torch.full((2, 3, 5, 10, 10), float("nan"))
    valid = torch.zeros(2, 5, 10, 10, dtype=torch.bool)
    x[..., 1:9, 1:9], valid[..., 1:9, 1:9] = given["x"].unflatten(3, (8, 8)), True
    close(network(**given | {"x": x, "valid": valid}), wanted)


def test_the_shape_of_a_parcel_matters_and_is_needed() -> None:
    network = PSELTAE(3, 4, 5).eval()
    given = network.example(2, 3, 5)
    other = network(**given | {"geometry": given["geometry"] + 1})
    assert not torch.allclose(other, network(**given), atol=1e-4)
    with pytest.raises(ValueError, match="needs geometry"):
        network(**given | {"geometry": None})


def test_the_published_normalisation_counts_dates() -> None:
    loose, tied = (
        networks.create("pse-ltae", c_in=3, n_classes=4, months=6, norm=norm)
        for norm in ("channels", "dates")
    )
    assert tuple(loose.encoder.norm.normalized_shape) == (256,)
    assert tuple(tied.encoder.norm.normalized_shape) == (6, 256)
