"""Which pixels of a scene are clear: the recipe's mask, on the 20 m scene classification (SCL).

Pixels without data (SCL 0) are never clear, and they are no evidence either way: the edge of the
data neither widens a mask nor eats a neighbour, and pixels beyond an array's border count the same.
So a tile may be masked alone, read with `Recipe.margin` pixels around it where the scene has them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np

from cube.errors import RecipeError, SceneError
from cube.kernels import clear_of
from cube.recipe import SCL_PIXEL, Mask

MaskFunction = Callable[[np.ndarray], np.ndarray]

_registered: dict[str, MaskFunction] = {}


def register(name: str, function: MaskFunction) -> None:
    """Give a mask of one's own the name by which recipes ask for it.

    Parameters
    ----------
    name : str
        For ``Mask(custom=name)``. The recipe's hash knows the name alone: give a function that
        masks otherwise another name.
    function : callable
        From the scene classification, uint8 [y, x] at 20 m, to bool [y, x], true where clear.
        Each pixel for itself: tiles are masked alone, so that a function that looks at neighbours
        leaves seams; the recipe's `erode` and `dilate` do that without.
    """
    _registered[name] = function


def clear_mask(scl: np.ndarray, mask: Mask) -> np.ndarray:
    """Return where a scene is clear.

    Masked is what the keep set, or the custom function, does not take as clear. Masked areas
    shrink by `erode` metres, then grow by `dilate` metres, both measured between pixel centres.

    Parameters
    ----------
    scl : ndarray of uint8 [y, x]
        Scene classification at 20 m.
    mask : Mask
        The recipe's.

    Returns
    -------
    ndarray of bool [y, x]

    Raises
    ------
    SceneError
        If `scl` holds a class above 11, the last of ESA's.
    RecipeError
        If the custom function is not registered or returns something else than its contract.
    """
    if scl.size and scl.max() > 11:
        raise SceneError(
            f"the scene classification holds class {scl.max()}, but ends at 11 (snow): a damaged "
            "or resampled file; exclude the item or fetch it again"
        )
    data = scl != 0
    clear = data & (_custom(mask.custom, scl) if mask.custom else clear_of(scl, mask.keep))
    if mask.dilate == 0:
        return clear
    masked = data & ~clear & ~_near(clear, mask.erode)
    return data & ~_near(masked, mask.dilate)


def _custom(name: str, scl: np.ndarray) -> np.ndarray:
    if name not in _registered:
        raise RecipeError(
            f"the recipe's mask '{name}' is not registered; call "
            f"cube.mask.register('{name}', function) in every process that builds, on Dask "
            "workers through client.register_plugin or --preload"
        )
    clear = _registered[name](scl)
    if not isinstance(clear, np.ndarray) or clear.dtype != bool or clear.shape != scl.shape:
        found = f"{getattr(clear, 'dtype', type(clear).__name__)} {list(np.shape(clear))}"
        raise RecipeError(f"mask '{name}' returned {found}; it must return bool {list(scl.shape)}")
    return clear


def _near(places: np.ndarray, metres: int) -> np.ndarray:
    """Return where the centre of a true pixel lies within `metres`, its own included."""
    # A disc is a stack of lines: widen every row by the line's half length, then move it up and
    # down. A running sum tells in one step whether a line holds a true pixel.
    height, width = places.shape
    radius = metres // SCL_PIXEL
    sums = np.zeros((height, width + 2 * radius + 1), np.int32)
    np.cumsum(np.pad(places, ((0, 0), (radius, radius))), axis=1, out=sums[:, 1:])
    near = places.copy()
    for up in range(min(radius, height - 1) + 1):
        half = isqrt(metres**2 - (up * SCL_PIXEL) ** 2) // SCL_PIXEL
        first, last = radius - half, radius + half + 1
        wide = sums[:, last : last + width] > sums[:, first : first + width]
        near[up:] |= wide[: height - up]
        near[: height - up] |= wide[up:]
    return near
