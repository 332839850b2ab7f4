"""Which kernel a recipe's composite is: the observations of one period to one value per pixel.

Every reducer has the arguments and the counting rule of `cube.kernels.masked_median`: an
observation counts when it is clear and every band's DN lies in 1…`cube.kernels.MAX_DN`; DN are
harmonised with a floor of 1; a pixel without an observation becomes 0; the number of observations
is written beside, at most 255.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np

from cube.averages import geometric_median, masked_mean
from cube.errors import CropcubeError, RecipeError
from cube.kernels import NODATA, masked_median, masked_percentile
from cube.recipe import Recipe
from cube.selection import max_ndvi, medoid

#: ``(values, clear, subtract, out, count) -> None``, as in `cube.kernels.masked_median`.
Reducer = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]

_PLAIN: dict[str, Reducer] = {
    "median": masked_median,
    "mean": masked_mean,
    "medoid": medoid,
    "geomedian": geometric_median,
}


def reducer_of(recipe: Recipe) -> Reducer:
    """Return the kernel of a recipe's composite, tried once on this machine.

    For a dated series that is the median: of one pass, whose parts overlap at most.

    Raises
    ------
    CropcubeError
        If the kernel answers wrongly here.
    """
    name = "median" if recipe.composite == "series" else recipe.composite
    return _tried(name, recipe.bands, recipe.percentile)


@cache
def _tried(composite: str, bands: tuple[str, ...], percentile: int | None) -> Reducer:
    # What every reducer must give: two equal observations beside a cloud, an all-cloud pixel, one
    # observation beside traces of underflow. All-cloud pixels have come back as plausible numbers
    # elsewhere (flox 0.11.1, issue 494).
    reduce = reducer(composite, bands, percentile)
    ramp = np.arange(100, 100 + len(bands), dtype=np.uint16)
    values = np.full((3, len(bands), 3), 9000, np.uint16)
    values[:2, :, 0] = [ramp, ramp + 1000]
    values[:, :, 2] = [[65000], [7], [0]]
    clear = np.array([[True, False, True], [True, False, True], [False, False, True]])
    out, count = np.empty((len(bands), 3), np.uint16), np.empty(3, np.uint8)
    reduce(values, clear, np.array([0, 1000, 0], np.uint16), out, count)
    expected = np.stack([ramp, np.full_like(ramp, NODATA), np.ones_like(ramp)], axis=1)
    if not (np.array_equal(out, expected) and count.tolist() == [2, 0, 1]):
        raise CropcubeError(
            f"the composite '{composite}' gives wrong values on this machine: {out.tolist()} with "
            f"counts {count.tolist()}; reinstall numba with the versions of constraints.txt"
        )
    return reduce


def reducer(composite: str, bands: Sequence[str], percentile: int | None = None) -> Reducer:
    """Return the kernel of a composite by its name.

    Parameters
    ----------
    composite : str
        ``median``, ``mean``, ``percentile``, ``medoid``, ``max-ndvi`` or ``geomedian``.
    bands : sequence of str
        Common names in the order of the band axis; ``max-ndvi`` looks for red and nir.
    percentile : int, optional
        From 1 to 99, for ``percentile`` alone.

    Raises
    ------
    RecipeError
        For an unknown composite, ``max-ndvi`` without red or nir, or a percentile that is missing
        or out of range.
    """
    if composite == "percentile":
        if percentile is None or not 1 <= percentile <= 99:
            raise RecipeError(
                f"composite 'percentile' needs percentile=1…99, got {percentile}; "
                "25, for example, is the lower quartile"
            )
        return partial(masked_percentile, percentile=percentile)
    if composite == "max-ndvi":
        missing = [band for band in ("red", "nir") if band not in bands]
        if missing:
            raise RecipeError(
                f"composite 'max-ndvi' needs the bands red and nir; {' and '.join(missing)} "
                f"is not among {', '.join(bands) or 'no named bands'}"
            )
        places = list(bands)
        return partial(max_ndvi, red=places.index("red"), nir=places.index("nir"))
    if composite not in _PLAIN:
        known = ", ".join(sorted({*_PLAIN, "percentile", "max-ndvi"}))
        raise RecipeError(f"unknown composite '{composite}'; choose one of {known}")
    return _PLAIN[composite]
