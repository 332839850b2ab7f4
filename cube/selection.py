"""Composites that choose one real observation per pixel: greatest NDVI, and the medoid.

The chosen observation keeps its bands together, which a median of each band does not. Work goes in
strips of pixels, row by row as in `cube.kernels`, so that the compiler vectorises it.
"""

from __future__ import annotations

import numba
import numpy as np

from cube.kernels import observed

_STRIP = 512


def max_ndvi(
    values: np.ndarray,
    clear: np.ndarray,
    subtract: np.ndarray,
    out: np.ndarray,
    count: np.ndarray,
    *,
    red: int,
    nir: int,
) -> None:
    """Write the observation of greatest NDVI; among equals the first along the scene axis.

    Maximum-value compositing after Holben (1986), Characteristics of maximum-value composite
    images from temporal AVHRR data, https://doi.org/10.1080/01431168608948945. NDVI grows with
    nir / red, so fractions are compared by their cross products: exact integers.

    Parameters
    ----------
    values, clear, subtract, out, count
        As in `cube.kernels.masked_median`.
    red, nir : int
        Places of the two bands on the band axis.
    """
    usable = observed(values, clear, count)
    _max_ndvi_strips(values, usable, subtract, red, nir, out)


@numba.njit(nogil=True, cache=True)
def _max_ndvi_strips(values, usable, subtract, red, nir, out):  # type: ignore[no-untyped-def]
    scenes, _, pixels = values.shape
    best = np.empty(_STRIP, np.int32)
    best_red = np.empty(_STRIP, np.uint32)
    best_nir = np.empty(_STRIP, np.uint32)
    for start in range(0, pixels, _STRIP):
        size = min(_STRIP, pixels - start)
        best[:size] = -1
        best_red[:size] = 1
        best_nir[:size] = 0
        for n in range(scenes):
            reds, nirs = values[n, red, start:], values[n, nir, start:]
            seen = usable[n, start:]
            less, least_dn = np.int32(subtract[n]), np.int32(1)
            for p in range(size):
                r = np.uint32(max(np.int32(reds[p]) - less, least_dn))
                i = np.uint32(max(np.int32(nirs[p]) - less, least_dn))
                # At most 60000², which 32 bits hold.
                better = seen[p] & (np.uint32(i * best_red[p]) > np.uint32(best_nir[p] * r))
                best[p] = n if better else best[p]
                best_red[p] = r if better else best_red[p]
                best_nir[p] = i if better else best_nir[p]
        _take(values, subtract, best[:size], start, out)


@numba.njit(nogil=True, cache=True)
def _take(values, subtract, best, start, out):  # type: ignore[no-untyped-def]
    # All scenes pass by and each pixel keeps its own: cheaper than a gather.
    scenes, bands, _ = values.shape
    for b in range(bands):
        taken = out[b, start : start + len(best)]
        taken[:] = 0
        for n in range(scenes):
            value, less = values[n, b, start:], np.int32(subtract[n])
            for p in range(len(best)):
                here = np.uint16(max(np.int32(value[p]) - less, np.int32(1)))
                taken[p] = here if best[p] == n else taken[p]


def medoid(
    values: np.ndarray,
    clear: np.ndarray,
    subtract: np.ndarray,
    out: np.ndarray,
    count: np.ndarray,
) -> None:
    """Write the observation with the least sum of distances to all others.

    Distances are Euclidean over the bands; among equals the first along the scene axis. Flood
    (2013), Seasonal composite Landsat TM/ETM+ images using the medoid (a multi-dimensional
    median), https://doi.org/10.3390/rs5126481.

    Parameters
    ----------
    values, clear, subtract, out, count
        As in `cube.kernels.masked_median`.
    """
    usable = observed(values, clear, count)
    _medoid_strips(values, usable, subtract, out)


@numba.njit(nogil=True, cache=True)
def _medoid_strips(values, usable, subtract, out):  # type: ignore[no-untyped-def]
    scenes, bands, pixels = values.shape
    block = np.empty((scenes, bands, _STRIP), np.float64)
    total = np.empty((scenes, _STRIP), np.float64)
    squares = np.empty(_STRIP, np.float64)
    best = np.empty(_STRIP, np.int32)
    least = np.empty(_STRIP, np.float64)
    for start in range(0, pixels, _STRIP):
        size = min(_STRIP, pixels - start)
        for n in range(scenes):
            total[n, :size] = 0
            less = np.int32(subtract[n])
            for b in range(bands):
                value, row = values[n, b, start:], block[n, b]
                for p in range(size):
                    row[p] = max(np.int32(value[p]) - less, np.int32(1))
        for n in range(scenes):
            for m in range(n):
                squares[:size] = 0
                for b in range(bands):
                    one, other = block[n, b], block[m, b]
                    for p in range(size):
                        squares[p] += (one[p] - other[p]) ** 2
                both_n, both_m = usable[n, start:], usable[m, start:]
                total_n, total_m = total[n], total[m]
                for p in range(size):
                    distance = np.sqrt(squares[p]) if both_n[p] & both_m[p] else 0.0
                    total_n[p] += distance
                    total_m[p] += distance
        best[:size] = -1
        least[:size] = np.inf
        for n in range(scenes):
            seen, sums = usable[n, start:], total[n]
            for p in range(size):
                better = seen[p] & (sums[p] < least[p])
                best[p] = n if better else best[p]
                least[p] = sums[p] if better else least[p]
        _take(values, subtract, best[:size], start, out)
