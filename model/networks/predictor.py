"""A trained network as a predictor: windows of integers in, class probabilities out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from cube.errors import ArtefactError
from model.samples import days_of_year

if TYPE_CHECKING:
    from cube.recipe import Recipe
    from model.samples import Normalisation

#: Side of what one fixed window decides in networks that are sensitive to the window's size.
CORE = 256


class NetworkPredictor:
    """Class probabilities from a network.

    Parameters
    ----------
    network : nn.Module
        From `model.networks.create`, with its weights.
    recipe : Recipe
        Names the bands and months that windows must have.
    normalisation : Normalisation
        Of the training groups.
    device : str
        Where it runs, as in PyTorch.

    Attributes
    ----------
    halo, stride : int
        See `model.networks.unet.UNet`.

    Notes
    -----
    A network that is sensitive to the size of its window (`reference`) is given windows of one
    fixed size on a lattice that starts at the window's corner, filled up with no data. Calls whose
    corners lie whole lattice cells (256 px) apart agree exactly; others differ a little.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, normalisation: Normalisation, device: str = "cpu"
    ) -> None:
        self.network = network.eval().to(device)
        self.normalisation = normalisation
        self.device = device
        self.halo: int = network.halo  # type: ignore[assignment]
        self.stride: int = network.stride  # type: ignore[assignment]
        self.window_sensitive = bool(network.window_sensitive)
        self.months, self.bands = len(recipe.periods), len(recipe.bands)
        self._doy = torch.as_tensor(days_of_year(recipe.periods)).to(device)[None]

    def probabilities(self, reflectance: np.ndarray) -> np.ndarray:
        """Return float32 [K, y, x] from uint16 [T, B, y, x]; NaN where no month has a value.

        Raises
        ------
        ArtefactError
            If the window has other months, bands or numbers than the model was trained on.
        """
        self._check(reflectance)
        x, valid = self.normalisation.apply(reflectance)
        height, width = valid.shape[1:]
        if self.window_sensitive:
            found = self._by_lattice(x, valid)
        else:
            rows, cols = (-(-side // self.stride) * self.stride for side in (height, width))
            found = self._window(_fill_up(x, rows, cols), _fill_up(valid, rows, cols))
            found = found[:, :height, :width]
        found[:, ~valid.any(axis=0)] = np.nan
        return found

    def _by_lattice(self, x: np.ndarray, valid: np.ndarray) -> np.ndarray:
        context = -(-self.halo // self.stride) * self.stride
        side = CORE + 2 * context
        rows, cols = (list(_spans(size, context)) for size in valid.shape[1:])
        size = (rows[-1][0] + side, cols[-1][0] + side)
        x, valid = _fill_up(x, *size), _fill_up(valid, *size)
        parts = []
        for top, first, last in rows:
            band = []
            for left, begin, end in cols:
                yx = (slice(top, top + side), slice(left, left + side))
                found = self._window(x[..., *yx], valid[..., *yx])
                band.append(found[:, first - top : last - top, begin - left : end - left])
            parts.append(np.concatenate(band, axis=2))
        return np.concatenate(parts, axis=1)

    def _window(self, x: np.ndarray, valid: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = self.network(self._batch(x), self._batch(valid), self._doy)
            return logits[0].float().softmax(dim=0).cpu().numpy()

    def _batch(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array).to(self.device)[None]

    def _check(self, reflectance: np.ndarray) -> None:
        wanted = (self.months, self.bands)
        if reflectance.ndim != 4 or reflectance.shape[:2] != wanted:
            raise ArtefactError(
                f"a window has shape {reflectance.shape}, the model needs [{self.months} months, "
                f"{self.bands} bands, y, x]; build the cube with the model's recipe"
            )
        if reflectance.dtype != np.uint16:
            raise ArtefactError(
                f"a window holds {reflectance.dtype}, the model needs uint16 (reflectance × 10 000)"
            )


def _spans(size: int, context: int) -> Iterator[tuple[int, int, int]]:
    """Yield start of each fixed window along one axis, and the pixels it decides (first, last).

    The outermost windows also decide their outer context, for which there is nothing better.
    """
    count = max(1, -(-(size - 2 * context) // CORE))
    for number in range(count):
        start = number * CORE
        first = start + context if number else 0
        yield start, first, (start + context + CORE if number < count - 1 else size)


def _fill_up(values: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Append no data (0, False) below and to the right up to `rows` × `cols`."""
    height, width = values.shape[-2:]
    if (height, width) == (rows, cols):
        return values
    none = [(0, 0)] * (values.ndim - 2)
    return np.pad(values, (*none, (0, rows - height), (0, cols - width)))
