"""Pixels per second of a training step on one core, beside the naive formulation.

A step is forward, loss, backward and AdamW. Ours runs as `model.train` runs it. The naive hybrid
reshapes to [B·H·W, C, T] for its Conv1d; of the other networks the naive side is the same module
in PyTorch's usual surroundings, without `steady_memory`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.naive import NaiveHybrid
from benchmarks.rates import (
    BANDS,
    CLASSES,
    MONTHS,
    Row,
    affordable,
    arguments,
    compare,
    create,
    show,
)
from model.losses import CrossEntropy
from model.networks.base import Network, SeriesNetwork, example_days
from model.networks.early import Elects
from model.networks.hybrid import HybridTemporalUNet
from model.runtime import steady_memory

#: Side of a sample in pixels, and samples per step at most.
SIDE, BATCH = 64, 16
#: Steps per round: `steady_memory` is entered once per training, not per step.
STEPS = 2


def batch(network: Network) -> tuple[dict[str, Tensor], Tensor, int]:
    """Random samples, labels of all pixels, and how many those are."""
    torch.manual_seed(1)
    series = isinstance(network, SeriesNetwork)
    sizes = (512, 1024, 2048, 4096) if series else tuple(SIDE**2 * n for n in (1, 2, 4, 8, BATCH))
    pixels = affordable(network, sizes, 30_000)
    samples = pixels if series else pixels // SIDE**2
    place = () if series else (SIDE, SIDE)
    x = torch.randn(samples, BANDS, MONTHS, *place)
    valid = torch.ones(samples, MONTHS, *place, dtype=torch.bool)
    y = torch.randint(0, CLASSES, (samples, *place))
    return {"x": x, "valid": valid, "doy": example_days(samples, MONTHS)}, y, pixels


def stepper(network: nn.Module, inputs: dict[str, Tensor], y: Tensor) -> Callable[[], None]:
    """One training step, to be called again and again."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    criterion = CrossEntropy()

    def step() -> None:
        optimiser.zero_grad()
        criterion(network(**inputs), y).backward()
        optimiser.step()

    return step


def measure(name: str, rounds: int) -> Row:
    network, other = create(name), create(name)
    if isinstance(other, HybridTemporalUNet):
        other = NaiveHybrid(other)
    inputs, y, pixels = batch(network)
    step, naive = stepper(network, inputs, y), stepper(other, inputs, y)

    def ours() -> None:
        with steady_memory():
            for _ in range(STEPS):
                step()

    def theirs() -> None:
        for _ in range(STEPS):
            naive()

    return compare(name, STEPS * pixels, ours, theirs, rounds)


def main() -> None:
    given = arguments("train")
    torch.set_num_threads(1)
    names = [name for name in given.models if not isinstance(create(name), Elects)]
    rows = [measure(name, given.rounds) for name in names]
    note = f"Steps of up to {BATCH} samples of {SIDE} × {SIDE} px, {MONTHS} months × {BANDS} bands."
    show("train", rows, note, given.json)
