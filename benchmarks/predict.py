"""Pixels per second of a map on one core, beside the naive formulation.

Part of the pixels hold no data, in patches: as many as in the tiles of the reference study. Ours is
`predict_window` with an artefact's predictor. The naive map takes overlapping windows, each
predicted whole: all pixels, norms not folded, and in the hybrid Conv1d on [B·H·W, C, T], whose
encoder is repeated where windows overlap. Both give the same probabilities, and the largest
difference is a figure of the output. Not so the hybrid's `reference`: it would need far larger
naive windows, and these answer with less context and are the cheaper for it.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.naive import CONTEXT, NaiveHybrid, naive_map
from benchmarks.rates import BANDS, MONTHS, Row, affordable, arguments, compare, create, show
from cube.grid import Window
from cube.recipe import Recipe
from model.networks.hybrid import HybridTemporalUNet
from model.networks.predictor import NetworkPredictor
from model.predict import predict_window
from model.samples import Normalisation, cut, days_of_year

RECIPE = Recipe(bands=("blue", "green", "red", "nir"), start="2023-01", end="2023-12")
NORMALISATION = Normalisation((1500.0,) * BANDS, (900.0,) * BANDS)
#: Share of the pixels without data.
EMPTY = 0.27
SIDES = (64, 128, 256, 512)


def imagery(side: int) -> np.ndarray:
    """Noise as DN, uint16 [T, C, y, x]; 0 in patches."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 5000, (MONTHS, BANDS, side, side)).astype(np.uint16)
    patches = gaussian_filter(rng.normal(size=(side, side)), side / 20)
    values[..., patches < np.quantile(patches, EMPTY)] = 0
    return values


def measure(name: str, rounds: int) -> Row:
    network = create(name).eval()
    side = SIDES[-1]
    if not network.halo:
        side = int(affordable(network, tuple(side**2 for side in SIDES), 20_000) ** 0.5)
    reflectance, whole = imagery(side), Window(row=0, col=0, height=side, width=side)
    predictor = NetworkPredictor(network, RECIPE, NORMALISATION)
    plain = NaiveHybrid(network).eval() if isinstance(network, HybridTemporalUNet) else network
    doy = days_of_year(RECIPE.periods)

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        part = cut(reflectance, whole, window)
        return part, (part[:, 0] > 0).astype(np.uint8)

    def ours() -> np.ndarray:
        return predict_window(predictor, read, whole)

    def naive() -> np.ndarray:
        return naive_map(plain, NORMALISATION, reflectance, doy, CONTEXT if network.halo else 0)

    apart = None if network.window_sensitive else _apart
    return compare(name, side * side, ours, naive, rounds, apart)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference where ours decides; the outer context is padded in two ways."""
    inside = (slice(None), *(slice(CONTEXT, -CONTEXT),) * 2)
    return float(np.nanmax(np.abs(one[inside] - other[inside])))


def main() -> None:
    given = arguments("predict")
    torch.set_num_threads(1)
    rows = [measure(name, given.rounds) for name in given.models]
    note = f"{MONTHS} months × {BANDS} bands, {EMPTY:.0%} of the pixels without data."
    show("predict", rows, note, given.json)
