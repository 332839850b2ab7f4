"""Early classification: stopping, its loss, and that nobody looks ahead."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.losses import IGNORE
from model.networks.causal import causal_encoder
from model.networks.early import (
    Decisions,
    EarlyClassifier,
    Elects,
    earliness,
    early_reward_loss,
    early_reward_sums,
    season_read,
    stop_probabilities,
)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Arrays are too small for more, and other processes may be at work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def undecided(**options: float) -> Elects:
    """Return a network that stops somewhere in the middle."""
    torch.manual_seed(0)
    network = Elects(3, 4, **options).eval()  # type: ignore[arg-type]
    nn.init.constant_(network.stop.bias, -1.0)
    return network


def test_stop_probabilities_by_hand() -> None:
    chance = torch.tensor([[0.5, 0.5, 0.9, 0.1], [0.25, 0.5, 0.9, 0.5]])
    valid = torch.tensor([[True] * 4, [True, False, True, False]])
    found = stop_probabilities(chance, valid)
    close(found[0], torch.tensor([0.5, 0.25, 0.225, 0.025]))  # the last takes what remains
    close(found[1], torch.tensor([0.25, 0.0, 0.75, 0.0]))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=12))
def test_stopping_is_certain_and_never_at_invalid_dates(dates: list[tuple[float, bool]]) -> None:
    chance = torch.tensor([[c for c, _ in dates]])
    valid = torch.tensor([[v for _, v in dates]])
    found = stop_probabilities(chance, valid)
    assert (found >= 0).all()
    assert not found[~valid].any()
    assert float(found.sum()) == pytest.approx(float(valid.any()), abs=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_no_date_knows_a_later_one(cell: str) -> None:
    torch.manual_seed(0)
    network = Elects(3, 4, encoder=cell).eval()  # type: ignore[arg-type]
    x = torch.randn(2, 3, 8)
    other = x.clone()
    other[:, :, 5:] = torch.randn(2, 3, 3)
    found, changed = network.decisions(x), network.decisions(other)
    close(changed.logits[:, :5], found.logits[:, :5])
    close(changed.stop[:, :5], found.stop[:, :5])
    assert not torch.allclose(changed.logits[:, 5:], found.logits[:, 5:], atol=1e-4)


def test_the_first_date_can_decide() -> None:
    network = undecided()
    nn.init.constant_(network.stop.bias, 5.0)
    x = torch.randn(2, 3, 6)
    found = network.decisions(x)
    assert network.date(found).tolist() == [0, 0]
    close(network(x), found.logits[:, 0])


def test_stops_late_before_training() -> None:
    network = Elects(3, 4).eval()
    assert network.date(network.decisions(torch.randn(5, 3, 9))).tolist() == [8] * 5


def test_a_higher_threshold_decides_later_and_never_at_a_gap() -> None:
    torch.manual_seed(1)
    x, valid = torch.randn(20, 3, 9), torch.rand(20, 9) > 0.4
    valid[:, 0] = True
    dates = []
    for threshold in (0.2, 0.5, 0.9):
        network = undecided(threshold=threshold)
        found = network.date(network.decisions(x, valid))
        assert valid.gather(1, found[:, None]).all()
        dates.append(found)
    assert (dates[0] <= dates[1]).all()
    assert (dates[1] <= dates[2]).all()
    assert (dates[0] < dates[2]).any()


def test_loss_by_hand() -> None:
    # One series of two dates, two classes: p(y) is 1/2, then 3/4.
    logits = torch.tensor([[[0.0, 0.0], [math.log(3.0), 0.0]]])
    stop, valid = torch.tensor([[0.25, 0.75]]), torch.ones(1, 2, dtype=torch.bool)
    found = early_reward_loss(Decisions(logits, stop), valid, torch.tensor([0]), 0.25, epsilon=1.0)
    p = torch.tensor([0.375, 0.625])  # (P + 1/2) / 2
    wrong = p[0] * math.log(2) + p[1] * math.log(4 / 3)
    reward = p[0] * 0.5 * 1 + p[1] * 0.75 * 0.5
    close(found, 0.25 * wrong - 0.75 * reward)


def test_padded_and_ignored_series_teach_nothing() -> None:
    torch.manual_seed(2)
    network = undecided()
    x, valid = torch.randn(4, 3, 7), torch.ones(4, 7, dtype=torch.bool)
    y = torch.tensor([0, 3, IGNORE, 1])
    wanted = early_reward_loss(network.decisions(x, valid), valid, y)
    noise = x.clone()
    noise[2] = torch.randn(3, 7)
    close(early_reward_loss(network.decisions(noise, valid), valid, y), wanted)
    more = torch.ones(4, 10, dtype=torch.bool)
    more[:, 7:] = False
    longer = network.decisions(F.pad(x, (0, 3), value=9.0), more)
    close(early_reward_loss(longer, more, y), wanted)
    none = early_reward_loss(network.decisions(x, valid), valid, torch.full((4,), IGNORE))
    assert none == 0


def test_earliness_by_hand() -> None:
    valid = torch.ones(2, 5, dtype=torch.bool)
    assert earliness(torch.tensor([0, 2]), valid) == pytest.approx(0.75)
    valid[1, 1] = False  # the third date is then the second of four
    assert earliness(torch.tensor([0, 2]), valid) == pytest.approx(1 - (0 + 1 / 3) / 2)


def test_any_causal_encoder_can_be_wrapped() -> None:
    class Running(nn.Module):
        """The sum so far."""

        width = 3

        def forward(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
            return x.cumsum(dim=2).transpose(1, 2)

    network = EarlyClassifier(Running(), n_classes=2)
    assert network(torch.randn(4, 3, 6)).shape == (4, 2)


def test_learns_to_stop_early_when_early_is_enough() -> None:
    torch.manual_seed(3)
    y = torch.arange(32) % 2
    valid = torch.ones(32, 6, dtype=torch.bool)
    network = Elects(2, 2).train()
    nn.init.constant_(network.stop.bias, -3.0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.02)
    for _ in range(40):
        x = torch.randn(32, 2, 6) * 0.1 + torch.stack([2.0 * y - 1, 1 - 2.0 * y], dim=1)[..., None]
        loss = early_reward_loss(network.decisions(x, valid), valid, y, epsilon=1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    found = network.decisions(x, valid)
    assert (network(x).argmax(dim=1) == y).float().mean() > 0.95
    assert earliness(network.date(found), valid) > 0.5


ENCODERS = ["lstm", "gru", "tempcnn", "transformer"]


def inputs() -> dict[str, Tensor]:
    torch.manual_seed(5)
    valid = torch.rand(3, 9) > 0.3
    valid[:, [0, 8]] = True
    doy = torch.linspace(10, 350, 9).long().expand(3, -1)
    return {"x": torch.randn(3, 3, 9), "valid": valid, "doy": doy}


def stepping(name: str) -> nn.Module:
    torch.manual_seed(0)
    return causal_encoder(name, 3).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ENCODERS)
def test_gradients_of_a_date_go_back_and_never_ahead(name: str) -> None:
    encoder, given = stepping(name), inputs()
    valid = given["valid"][0]
    for date in valid.nonzero().flatten().tolist():
        x = given["x"].clone().requires_grad_()
        # A square, not a sum: layer norm makes sums constant.
        encoder(x, given["valid"], given["doy"])[0, date].square().sum().backward()
        reached = x.grad[0].abs().sum(dim=0) > 0
        assert not reached[date + 1 :].any()
        assert not x.grad[1:].any()
        assert reached[date]
        past = valid & (torch.arange(9) <= date)
        if name == "tempcnn":  # three convolutions of five dates see the last thirteen
            past &= past.flip(0).cumsum(0).flip(0) <= 13
        assert torch.equal(reached, past)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_skip_invalid_dates_and_padding(name: str) -> None:
    encoder, given = stepping(name), inputs()
    found = encoder(**given)
    noise = given["x"].masked_fill(~given["valid"][:, None], 7.0)
    close(encoder(noise, given["valid"], given["doy"])[given["valid"]], found[given["valid"]])
    longer = {
        "x": F.pad(given["x"], (0, 4), value=3.0),
        "valid": F.pad(given["valid"], (0, 4)),
        "doy": F.pad(given["doy"], (0, 4), value=9),
    }
    close(encoder(**longer)[:, :9][given["valid"]], found[given["valid"]])
    one = given["valid"][1]  # a series of its valid dates alone
    rest = encoder(given["x"][1:2, :, one], one[None, one], given["doy"][1:2, one])
    close(rest[0], found[1, one])


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_decides_and_learns(name: str) -> None:
    torch.manual_seed(0)
    network = Elects(3, 4, encoder=name).train()  # type: ignore[arg-type]
    given = inputs()
    found = network.decisions(**given)
    close(found.stop.sum(dim=1), torch.ones(3))
    early_reward_loss(found, given["valid"], torch.tensor([0, 3, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    silent = [n for n, p in network.named_parameters() if not p.grad.any()]
    assert [n for n in silent if not n.endswith("bias")] == []


def test_unknown_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="encoder 'rnn' is unknown; use lstm, gru"):
        Elects(3, 4, encoder="rnn")  # type: ignore[arg-type]


def test_sums_with_weights_by_hand() -> None:
    torch.manual_seed(2)
    network, y = undecided(), torch.tensor([0, 3, IGNORE, 1])
    valid = torch.ones(4, 7, dtype=torch.bool)
    found = network.decisions(torch.randn(4, 3, 7), valid)
    each = [
        early_reward_loss(Decisions(found.logits[[i]], found.stop[[i]]), valid[[i]], y[[i]]).item()
        for i in (0, 1, 3)
    ]
    weights = torch.tensor([1.0, 2.0, 9.0, 4.0])
    total, weight = early_reward_sums(found, valid, y, weights=weights)
    assert weight == 1 + 4 + 2
    assert total.item() == pytest.approx(1 * each[0] + 4 * each[1] + 2 * each[2], rel=1e-5)


def test_season_read_by_hand() -> None:
    valid = torch.tensor([[True, False, True, True, True], [True, False, False, False, False]])
    read = season_read(torch.tensor([2, 0]), valid)
    close(read, torch.tensor([1 / 3, 0.0]))
