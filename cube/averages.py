"""Composites that average all observations of a pixel: the mean and the geometric median.

Both give a value that need not have been observed. Work goes in strips of pixels, row by row as in
`cube.kernels`, so that the compiler vectorises it.
"""

from __future__ import annotations

import numba
import numpy as np

from cube.kernels import observed

_STRIP = 512
#: Stop rule of the geometric median: no band moves farther than this (in DN) …
TOLERANCE = 0.01
#: … or so many iterations are done.
ITERATIONS = 200


def masked_mean(
    values: np.ndarray,
    clear: np.ndarray,
    subtract: np.ndarray,
    out: np.ndarray,
    count: np.ndarray,
) -> None:
    """Write the mean, rounded half up, in exact integers.

    Parameters
    ----------
    values, clear, subtract, out, count
        As in `cube.kernels.masked_median`.
    """
    usable = observed(values, clear, count)
    _mean_strips(values, usable, subtract, out)


@numba.njit(nogil=True, cache=True)
def _mean_strips(values, usable, subtract, out):  # type: ignore[no-untyped-def]
    scenes, bands, pixels = values.shape
    total = np.empty(_STRIP, np.uint32)
    seen = np.empty(_STRIP, np.uint32)
    for start in range(0, pixels, _STRIP):
        size = min(_STRIP, pixels - start)
        seen[:size] = 0
        for n in range(scenes):
            kept = usable[n, start:]
            for p in range(size):
                seen[p] += np.uint32(kept[p])
        for b in range(bands):
            total[:size] = 0
            for n in range(scenes):
                value, kept, less = values[n, b, start:], usable[n, start:], np.int32(subtract[n])
                for p in range(size):
                    here = np.uint32(max(np.int32(value[p]) - less, np.int32(1)))
                    total[p] += here if kept[p] else np.uint32(0)
            mean = out[b, start:]
            for p in range(size):
                # A quotient below 2¹⁶ of integers below 2³³ is exact enough in float64 to floor.
                half_up = (2.0 * total[p] + seen[p]) / (2.0 * max(seen[p], np.uint32(1)))
                mean[p] = np.uint16(half_up)


def geometric_median(
    values: np.ndarray,
    clear: np.ndarray,
    subtract: np.ndarray,
    out: np.ndarray,
    count: np.ndarray,
) -> None:
    """Write the point with the least sum of distances to the observations, rounded half up.

    Distances are Euclidean over the bands. Roberts, Mueller and McIntyre (2017), High-dimensional
    pixel composites from Earth observation time series,
    https://doi.org/10.1109/TGRS.2017.2723896. Found with Weiszfeld's iteration from the mean, with
    the step of Vardi and Zhang (2000), https://doi.org/10.1073/pnas.97.4.1423, where an iterate
    meets an observation. A pixel is done once no band moves by more than `TOLERANCE` DN, or after
    `ITERATIONS` steps; its value does not depend on the pixels beside it.

    Parameters
    ----------
    values, clear, subtract, out, count
        As in `cube.kernels.masked_median`.
    """
    usable = observed(values, clear, count)
    _geometric_medians(values, usable, subtract, out)


@numba.njit(nogil=True, cache=True)
def _geometric_medians(values, usable, subtract, out):  # type: ignore[no-untyped-def]
    scenes, bands, pixels = values.shape
    block = np.empty((_STRIP, scenes, bands), np.float64)
    seen = np.empty(_STRIP, np.int32)
    place, pull = np.empty(bands, np.float64), np.empty(bands, np.float64)
    for start in range(0, pixels, _STRIP):
        size = min(_STRIP, pixels - start)
        # Pixels need a different number of iterations each, so they come one by one: their
        # observations are gathered first, without gaps.
        seen[:size] = 0
        for n in range(scenes):
            less = np.int32(subtract[n])
            for p in range(size):
                if usable[n, start + p]:
                    for b in range(bands):
                        value = np.int32(values[n, b, start + p])
                        block[p, seen[p], b] = max(value - less, np.int32(1))
                    seen[p] += 1
        for p in range(size):
            _weiszfeld(block[p, : seen[p]], place, pull)
            for b in range(bands):
                out[b, start + p] = np.uint16(place[b] + 0.5)


@numba.njit(nogil=True, cache=True)
def _weiszfeld(points, place, pull):  # type: ignore[no-untyped-def]
    number, bands = points.shape
    place[:] = 0
    for n in range(number):
        for b in range(bands):
            place[b] += points[n, b] / number
    # Of two, every point between is a median; the mean is the one that treats them alike.
    if number <= 2:
        return
    for _ in range(ITERATIONS):
        weights, met = 0.0, 0
        pull[:] = 0
        for n in range(number):
            square = 0.0
            for b in range(bands):
                square += (points[n, b] - place[b]) ** 2
            if square == 0.0:
                met += 1
                continue
            weight = 1.0 / np.sqrt(square)
            weights += weight
            for b in range(bands):
                pull[b] += weight * (points[n, b] - place[b])
        # `pull` is a sum of unit vectors. Observations that were met hold back with force 1 each.
        force = 0.0
        for b in range(bands):
            force += pull[b] ** 2
        force = np.sqrt(force)
        if force <= met:
            return
        farthest = 0.0
        for b in range(bands):
            move = (1.0 - met / force) * pull[b] / weights
            place[b] += move
            farthest = max(farthest, abs(move))
        if farthest <= TOLERANCE:
            return
