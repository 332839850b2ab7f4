"""A trained network as a predictor: windows of integers in, class probabilities out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import maximum_filter1d
from torch import Tensor, nn

from cube.errors import ArtefactError
from model.networks.base import SERIES, SeriesNetwork
from model.networks.folding import folded
from model.networks.hybrid import HybridTemporalUNet, TemporalEncoder
from model.samples import days_of_year

if TYPE_CHECKING:
    from cube.recipe import Recipe
    from model.samples import Normalisation

#: Side of what a network with a halo decides at once, pixels.
CORE = 256
#: The same of a hybrid whose halo is wide beside that. Its U-Net sees one image of features, where
#: others see one for every date: it can afford the memory.
WIDE_CORE = 512
#: Pixels that are encoded at once on a device with memory of its own.
DEVICE_SERIES = 2**18


class NetworkPredictor:
    """Class probabilities from a network.

    Parameters
    ----------
    network : nn.Module
        From `model.networks.create`, with its weights. Predictions come from a copy whose batch
        normalisations are folded into its convolutions.
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
    block : int
        See `model.artefact.Predictor`.

    Notes
    -----
    Networks of single pixels see the pixels that are wanted and hold data, and no others. The
    hybrid's temporal encoder sees each such pixel once, and those within the halo around them; only
    its U-Net is repeated where windows overlap.

    A network with a halo is given windows on a lattice that starts at the corner of what is asked
    for: 256 px (`reference` 512 px) and the halo around them. One that is sensitive to the size of
    its window (`reference`) gets windows of that one size everywhere, filled up with no data. Calls
    whose corners lie whole lattice cells apart agree exactly; others differ a little.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, normalisation: Normalisation, device: str = "cpu"
    ) -> None:
        self.network = folded(network).to(device)
        self.normalisation = normalisation
        self.device = torch.device(device)
        self._at_once = SERIES if self.device.type == "cpu" else DEVICE_SERIES
        self.halo: int = network.halo  # type: ignore[assignment]
        self.stride: int = network.stride  # type: ignore[assignment]
        self.window_sensitive = bool(network.window_sensitive)
        wide = isinstance(network, HybridTemporalUNet) and 4 * self.halo > CORE
        self._core = WIDE_CORE if wide else CORE
        self.block = self._core if self.halo else 1
        self.months, self.bands = len(recipe.periods), len(recipe.bands)
        self._doy = torch.as_tensor(days_of_year(recipe.periods)).to(device)[None]

    def probabilities(
        self, reflectance: np.ndarray, wanted: np.ndarray | None = None
    ) -> np.ndarray:
        """Return class probabilities of a window.

        Parameters
        ----------
        reflectance : uint16 [T, B, y, x]
            DN, 0 = no data.
        wanted : bool [y, x], optional
            Pixels to decide; default all.

        Returns
        -------
        float32 [K, y, x]
            NaN where no month has a value, and where nothing is wanted.

        Raises
        ------
        ArtefactError
            If the window has other months, bands or numbers than the model was trained on.
        """
        self._check(reflectance)
        seen = (reflectance != 0).all(axis=1).any(axis=0)
        wanted = seen if wanted is None else seen & wanted
        with torch.inference_mode():
            if of_pixels(self.network):
                found = self._by_pixel(reflectance, wanted)
            else:
                found = self._by_window(reflectance, seen, wanted)
        found[:, ~wanted] = np.nan
        return found

    def _by_pixel(self, reflectance: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        # Only the network knows how many classes there are, so it always sees a pixel.
        places = np.flatnonzero(wanted) if wanted.any() else np.zeros(1, np.int64)
        found = np.empty((0, 0), np.float32)
        for some, x, valid in self._gathered(reflectance, places):
            logits = self.network(x.permute(2, 0, 1), valid.T, self._doy.expand(len(some), -1))
            if not found.size:
                found = np.empty((logits.shape[1], wanted.size), np.float32)
            found[:, some] = _probabilities(logits).T
        return found.reshape(-1, *wanted.shape)

    def _by_window(
        self, reflectance: np.ndarray, seen: np.ndarray, wanted: np.ndarray
    ) -> np.ndarray:
        encoded = None
        if isinstance(self.network, HybridTemporalUNet):
            encoded = self._encode(reflectance, seen & _near(wanted, self.halo))
        cells = list(_lattice(wanted.shape, self._core, self.halo, self.stride))
        # As above: if nothing is wanted, the first window tells the number of classes.
        cells = [cell for cell in cells if wanted[cell.core].any()] or cells[:1]
        found = np.empty((0, 0, 0), np.float32)
        for cell in cells:
            rows, cols = self._size(cell, wanted.shape)
            if encoded is None:
                x, valid = self.normalisation.apply(reflectance[:, :, *cell.window])
                x, valid = _fill_up(x, rows, cols), _fill_up(valid, rows, cols)
                logits = self.network(self._batch(x), self._batch(valid), self._doy)
            else:
                logits = self._decode(encoded[cell.window], rows, cols)
            if not found.size:
                found = np.empty((logits.shape[1], *wanted.shape), np.float32)
            found[:, *cell.core] = _probabilities(logits[..., *cell.inside])[0]
        return found

    def _size(self, cell: Cell, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return rows and columns of the window that the network is given."""
        if self.window_sensitive:
            return cell.side, cell.side
        held = (min(cell.side, size - w.start) for size, w in zip(shape, cell.window, strict=True))
        rows, cols = (-(-size // self.stride) * self.stride for size in held)
        return rows, cols

    def _encode(self, reflectance: np.ndarray, pixels: np.ndarray) -> Tensor:
        """Return features [y, x, d] of the pixels, as the hybrid finds them; zeros elsewhere."""
        encoder = self.network.get_submodule("temporal")
        assert isinstance(encoder, TemporalEncoder)  # noqa: S101  (for mypy)
        places = np.flatnonzero(pixels)
        found = torch.zeros(pixels.size, encoder.d, device=self.device)
        for some, x, valid in self._gathered(reflectance, places):
            # Kernels round differently at the end of an array of another length: without this, a
            # pixel's numbers would depend on what else was asked for.
            missing = self._at_once - len(some)
            x = nn.functional.pad(x, (0, missing))
            valid = nn.functional.pad(valid, (0, missing), value=True)
            rows = torch.as_tensor(some, device=self.device)
            found[rows] = encoder.encode(x[None], valid[None])[0, : len(some)]
        return found.reshape(*pixels.shape, -1)

    def _decode(self, features: Tensor, rows: int, cols: int) -> Tensor:
        """Return logits [1, K, rows, cols] from a window of features [y, x, d]."""
        height, width, _ = features.shape
        filled = nn.functional.pad(features, (0, 0, 0, cols - width, 0, rows - height))
        return self.network.get_submodule("unet")(filled.permute(2, 0, 1)[None])

    def _gathered(
        self, reflectance: np.ndarray, places: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """Yield the pixels at flat places, some at a time: places, x [C, T, n], valid [T, n]."""
        series = reflectance.reshape(*reflectance.shape[:2], -1)
        for first in range(0, len(places), self._at_once):
            some = places[first : first + self._at_once]
            x, valid = self.normalisation.apply(series[:, :, some])
            yield some, self._batch(x)[0], self._batch(valid)[0]

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


def of_pixels(network: nn.Module) -> bool:
    """Return whether a network, or the one that its heads stand on, takes series of pixels."""
    return isinstance(getattr(network, "backbone", network), SeriesNetwork)


@dataclass(frozen=True)
class Cell:
    """One place of the lattice.

    Attributes
    ----------
    window : tuple of slice
        Rows and columns that the network sees; at most `side` of each.
    core : tuple of slice
        Those that it decides.
    side : int
        Pixels per side of a whole window.
    """

    window: tuple[slice, slice]
    core: tuple[slice, slice]
    side: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """The core's place in the window."""
        rows, cols = (
            slice(core.start - window.start, core.stop - window.start)
            for core, window in zip(self.core, self.window, strict=True)
        )
        return rows, cols


def _lattice(shape: tuple[int, ...], core: int, halo: int, stride: int) -> Iterator[Cell]:
    """Yield the cells that make up a window of `shape`; their corners are multiples of `stride`."""
    height, width = shape
    core, context = core // stride * stride, -(-halo // stride) * stride
    side = core + 2 * context
    for top, first, last in _spans(height, core, context):
        for left, begin, end in _spans(width, core, context):
            window = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            yield Cell(window, (slice(first, last), slice(begin, end)), side)


def _spans(size: int, core: int, context: int) -> Iterator[tuple[int, int, int]]:
    """Yield start of each window along one axis, and the pixels it decides (first, last).

    The outermost windows also decide their outer context, for which there is nothing better.
    """
    count = max(1, -(-(size - 2 * context) // core))
    for number in range(count):
        start = number * core
        first = start + context if number else 0
        yield start, first, (start + context + core if number < count - 1 else size)


def _near(wanted: np.ndarray, halo: int) -> np.ndarray:
    """Return the pixels within `halo` rows and columns of a wanted one; bool [y, x]."""
    near = wanted.view(np.uint8)
    for axis in (0, 1):
        near = maximum_filter1d(near, 2 * halo + 1, axis=axis, mode="constant")
    return near.view(bool)


def _probabilities(logits: Tensor) -> np.ndarray:
    """Return float32 [N, K, …] from logits [N, K, …]."""
    return logits.float().softmax(dim=1).cpu().numpy()


def _fill_up(values: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Append no data (0, False) below and to the right up to `rows` × `cols`."""
    height, width = values.shape[-2:]
    if (height, width) == (rows, cols):
        return values
    none = [(0, 0)] * (values.ndim - 2)
    return np.pad(values, (*none, (0, rows - height), (0, cols - width)))
