"""What `train` and `predict` share: models, fair rounds on one core, and the table."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.alone import say
from model import networks
from model.networks.base import Network
from model.networks.catalogue import ARCHITECTURES
from model.networks.cost import measure

BANDS, MONTHS, CLASSES = 4, 12, 51
#: After so many CPU seconds a model gets no more rounds.
SECONDS = 20


@dataclass(frozen=True)
class Row:
    """Figures of a model; `times_faster` is the median of the rounds' ratios.

    `largest_difference` is that of the two sides' probabilities, where they are to be the same.
    """

    model: str
    pixels_per_second: float
    naive_pixels_per_second: float
    times_faster: float
    largest_difference: float | None = None


def arguments(what: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {what}")
    fast = [n for n in networks.names() if n == "hybrid" or ARCHITECTURES[n].input == "pixel"]
    known = [f"{n}/{p}" for n in networks.names() for p in networks.presets(n)]
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME[/PRESET]",
        help="default: the hybrid and the pixel networks; networks of image series take minutes",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(sys.argv[2:])
    if given.models is None:
        given.models = ["hybrid/lite", "hybrid/reference", *(n for n in fast if n != "hybrid")]
    for name in given.models:
        if name not in known and name not in networks.names():
            parser.error(f"unknown model '{name}'; known: {', '.join(known)}")
        if ARCHITECTURES[name.partition("/")[0]].input.startswith("parcel"):
            parser.error(f"'{name}' takes parcels and makes no map")
    return given


def create(name: str) -> Network:
    """A network with norms as after a training, so that none of them does nothing."""
    torch.manual_seed(0)
    name, _, preset = name.partition("/")
    network = networks.create(
        name, c_in=BANDS, n_classes=CLASSES, months=MONTHS, preset=preset or None
    )
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def affordable(network: Network, sizes: tuple[int, ...], mflop: int) -> int:
    """The largest of some numbers of pixels whose forward pass takes at most so much arithmetic."""
    cost = measure(network, BANDS, MONTHS).mflop_per_pixel
    return max((size for size in sizes if size * cost <= mflop), default=min(sizes))


def compare(
    name: str,
    pixels: int,
    ours: Callable[[], Any],
    naive: Callable[[], Any],
    rounds: int,
    apart: Callable[[Any, Any], float] | None = None,
) -> Row:
    """Run both in turn, in CPU seconds of one thread; `apart` compares what they return.

    The first round warms up and counts only if there is no other: a model that has had its time
    gets no more rounds.
    """
    say(f"{name} …")
    pairs: list[tuple[float, float]] = []
    while len(pairs) <= rounds and sum(map(sum, pairs)) < SECONDS:
        mine, one = _timed(ours)
        theirs, other = _timed(naive)
        pairs.append((mine, theirs))
    pairs = pairs[1:] or pairs
    rates = (statistics.median(pixels / pair[side] for pair in pairs) for side in (0, 1))
    faster = statistics.median(theirs / mine for mine, theirs in pairs)
    return Row(name, *rates, faster, apart(one, other) if apart else None)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def show(what: str, rows: list[Row], note: str, as_json: bool) -> None:
    if as_json:
        facts = {"benchmark": what, "torch": torch.__version__, "note": note}
        print(json.dumps(facts | {"models": [asdict(row) for row in rows]}, indent=1))
        return
    print(f"{'model':<22} {'× naive':>8} {'px/s':>9} {'naive px/s':>11}  difference")
    for row in rows:
        rates = f"{row.pixels_per_second:>9,.0f} {row.naive_pixels_per_second:>11,.0f}"
        differs = "" if row.largest_difference is None else f"{row.largest_difference:>10.0e}"
        print(f"{row.model:<22} {row.times_faster:>8.2f} {rates}  {differs}".rstrip())
    print(f"{note} torch {torch.__version__}, one thread, CPU seconds.")
