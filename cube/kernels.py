"""Masked median with count, and gap fill, over time: integers in, integers out.

How the median is fast. Scenes of one month are rows, pixels are columns. A row is contiguous, so
every step is the same cheap integer operation on a whole row and the compiler vectorises it:

1. an observation that is not clear becomes the sentinel 65535, which sorts last; a clear one
   becomes value − 1, so that the whole range 1…65535 stays below or at the sentinel;
2. a sorting network (Batcher's odd-even merge sort: a fixed list of row pairs) orders each column
   by taking minimum and maximum of two rows, without one branch per pixel;
3. the middle of the first `count` rows is the median.

Work goes in strips of columns that fit the first-level cache. The slow twins are plain NumPy and
xarray expressions in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numba
import numpy as np

from cube.errors import CropcubeError

#: Largest DN taken as reflectance. ESA's valid range ends at 32767; values above 60000 are traces
#: of an unsigned underflow (0 − 1000 = 64536) and count as no data.
MAX_DN = 60_000
NODATA = 0
_SENTINEL = np.uint16(65535)
_ZERO, _ONE, _MAX_DN = np.uint16(0), np.uint16(1), np.uint16(MAX_DN)
_STRIP = 4096


@cache
def sorting_network(n: int) -> np.ndarray:
    """Return the comparators that sort `n` rows; int32 [number of comparators, 2].

    Batcher's odd-even merge sort (Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M),
    which also works when `n` is no power of two.
    """
    pairs = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return np.array(pairs, dtype=np.int32).reshape(-1, 2)


@numba.njit(nogil=True, cache=True)
def _median_strips(values, clear, subtract, network, median, count):  # type: ignore[no-untyped-def]
    scenes, bands, pixels = values.shape
    # 65535 where an observation does not count, else 0: or-ing it in gives the sentinel.
    unusable = np.empty((scenes, _STRIP), np.uint16)
    rows = np.empty((scenes, _STRIP), np.uint16)
    seen = np.empty(_STRIP, np.uint16)
    for start in range(0, pixels, _STRIP):
        size = min(_STRIP, pixels - start)
        seen[:size] = 0
        for n in range(scenes):
            out_of = unusable[n]
            kept = clear[n, start : start + size]
            for p in range(size):
                out_of[p] = _ZERO if kept[p] else _SENTINEL
            for b in range(bands):
                value = values[n, b, start : start + size]
                for p in range(size):
                    # 0 wraps to 65535: one comparison refuses no data and underflow alike.
                    wrapped = np.uint16(value[p] - _ONE)
                    out_of[p] |= _SENTINEL if wrapped >= _MAX_DN else _ZERO
            for p in range(size):
                seen[p] += np.uint16(_ONE - (out_of[p] & _ONE))
        least, most = seen[0], seen[0]
        for p in range(size):
            least = min(least, seen[p])
            most = max(most, seen[p])
            count[start + p] = np.uint8(min(seen[p], np.uint16(255)))
        if most == 0:
            median[:, start : start + size] = 0
            continue
        for b in range(bands):
            for n in range(scenes):
                value = values[n, b, start : start + size]
                row, out_of = rows[n], unusable[n]
                least_dn = np.uint16(subtract[n] + _ONE)
                for p in range(size):
                    row[p] = np.uint16(max(value[p], least_dn) - least_dn) | out_of[p]
            for k in range(network.shape[0]):
                low, high = rows[network[k, 0]], rows[network[k, 1]]
                for p in range(size):
                    a, c = low[p], high[p]
                    low[p] = min(a, c)
                    high[p] = max(a, c)
            out = median[b, start : start + size]
            if least == most:
                low, high = rows[(least - 1) // 2], rows[least // 2]
                for p in range(size):
                    out[p] = np.uint16((np.uint32(low[p]) + np.uint32(high[p]) + 1) // 2 + 1)
            else:
                _pick_middle(rows, seen, most, size, out)


@numba.njit(nogil=True, cache=True, inline="always")
def _pick_middle(rows, seen, most, size, out):  # type: ignore[no-untyped-def]
    # One pass over the rows instead of a gather per pixel: the two middle rows of a pixel are
    # recognised when they come by.
    total = np.zeros(_STRIP, np.uint32)
    for n in range(most):
        row = rows[n]
        for p in range(size):
            here = np.uint32(row[p])
            lower = 2 * n == seen[p] - 1 or 2 * n == seen[p] - 2
            upper = 2 * n == seen[p] or 2 * n == seen[p] - 1
            total[p] += here * np.uint32(lower) + here * np.uint32(upper)
    for p in range(size):
        out[p] = np.uint16((total[p] + 1) // 2 + 1) if seen[p] > 0 else np.uint16(0)


def clear_of(scl: np.ndarray, keep: Sequence[int], clear: np.ndarray | None = None) -> np.ndarray:
    """Return where the scene classification is in the keep set; bool, the shape of `scl`.

    Parameters
    ----------
    scl : ndarray of uint8
        Scene classification, 0…11 by specification; anything above 30 is never kept.
    keep : sequence of int
        Classes from 0 to 30.
    clear : ndarray of bool, C-contiguous, optional
        Receives the result; default a new array.
    """
    # A bit per class: shifting vectorises, a table look-up does not.
    bits = np.uint32(sum(1 << value for value in set(keep)))
    clear = np.empty(scl.shape, np.bool_) if clear is None else clear
    _test_bits(scl.reshape(-1), bits, clear.reshape(-1))
    return clear


@numba.njit(nogil=True, cache=True)
def _test_bits(scl, bits, clear):  # type: ignore[no-untyped-def]
    for p in range(scl.size):
        clear[p] = (bits >> np.uint32(min(scl[p], np.uint8(31)))) & np.uint32(1)


def masked_median(
    values: np.ndarray,
    clear: np.ndarray,
    subtract: np.ndarray,
    median: np.ndarray,
    count: np.ndarray,
) -> None:
    """Write the median and the number of clear observations of one month.

    An observation counts when `clear` is true and every band's DN lies in 1…`MAX_DN`. An even
    count takes the mean of the two middle values, rounded half up. No observation gives 0.

    Parameters
    ----------
    values : ndarray of uint16 [scene, band, pixel], C-contiguous
        Stored DN, 0 = no data.
    clear : ndarray of bool [scene, pixel]
        Mask of the scene classification.
    subtract : ndarray of uint16 [scene]
        DN to subtract (0 or 1000); a valid result below 1 becomes 1, so that 0 stays no data.
    median : ndarray of uint16 [band, pixel], C-contiguous
        Receives the medians.
    count : ndarray of uint8 [pixel]
        Receives the counts, at most 255.
    """
    if len(values) == 0:
        median[:] = NODATA
        count[:] = 0
        return
    network = sorting_network(len(values))
    _median_strips(values, clear, subtract, network, median, count)


@numba.njit(nogil=True, cache=True)
def _fill_strips(values, days, linear):  # type: ignore[no-untyped-def]
    times, pixels = values.shape
    before = np.empty((times, _STRIP), np.uint16)
    before_day = np.empty((times, _STRIP), np.int32)
    after = np.empty(_STRIP, np.uint16)
    after_day = np.empty(_STRIP, np.int32)
    for start in range(0, pixels, _STRIP):
        size = min(_STRIP, pixels - start)
        gaps = 0
        for t in range(times):
            here = values[t, start : start + size]
            for p in range(size):
                gaps += 1 if here[p] == 0 else 0
        if gaps == 0:
            continue
        for t in range(times):
            here, last = values[t, start : start + size], before[t]
            previous = before[max(t - 1, 0)]
            for p in range(size):
                last[p] = here[p] if here[p] > 0 or t == 0 else previous[p]
            if linear:
                for p in range(size):
                    same = here[p] > 0 or t == 0
                    before_day[t, p] = days[t] if same else before_day[max(t - 1, 0), p]
        after[:size] = 0
        after_day[:size] = 0
        for t in range(times - 1, -1, -1):
            here, last = values[t, start : start + size], before[t]
            if linear:
                for p in range(size):
                    if here[p] > 0:
                        after_day[p] = days[t]
            for p in range(size):
                v, left, right = here[p], last[p], after[p]
                after[p] = v if v > 0 else right
                one_side = max(left, right)
                both = np.uint16((np.uint32(left) + np.uint32(right) + 1) // 2)
                middle = both if (left > 0) & (right > 0) else one_side
                here[p] = v if v > 0 else middle
                if linear and v == 0 and left > 0 and right > 0:
                    span = np.int64(after_day[p] - before_day[t, p])
                    done = np.int64(days[t] - before_day[t, p])
                    weighted = np.int64(left) * (span - done) + np.int64(right) * done
                    here[p] = np.uint16((2 * weighted + span) // (2 * span))


def fill_gaps_inplace(values: np.ndarray, days: np.ndarray, method: str) -> None:
    """Fill the zeros of each pixel's series in place.

    Parameters
    ----------
    values : ndarray of uint16 [time, pixel], C-contiguous
        Composites, 0 = gap. A pixel that is 0 at all times stays 0.
    days : ndarray of int32 [time]
        Day number of each time, ascending; the weights of ``linear``.
    method : {"neighbour-mean", "linear", "none"}
        ``neighbour-mean``: mean of the nearest observed value before and after, rounded half up;
        ``linear``: weighted by time; both take the nearest observed value at the ends.

    Raises
    ------
    ValueError
        For another method.
    """
    if method == "none":
        return
    if method not in ("neighbour-mean", "linear"):
        raise ValueError(f"unknown fill '{method}'; choose neighbour-mean, linear or none")
    _fill_strips(values, days, method == "linear")


@cache
def self_test() -> None:
    """Refuse to run on a machine where the kernels answer wrongly; also compiles them.

    Checks one hand-worked pixel series with an all-cloud month, which other implementations have
    returned as plausible numbers (flox 0.11.1, issue 494).

    Raises
    ------
    CropcubeError
        If a value differs.
    """
    values = np.array([[[900, 0]], [[1200, 7]], [[1401, 65000]]], np.uint16)
    clear = np.array([[True, True], [False, True], [True, True]])
    median, count = np.empty((1, 2), np.uint16), np.empty(2, np.uint8)
    masked_median(values, clear, np.array([0, 0, 1000], np.uint16), median, count)
    series = np.array([[0, 0], [100, 0], [0, 0], [0, 0], [201, 0]], np.uint16)
    fill_gaps_inplace(series, np.arange(5, dtype=np.int32), "neighbour-mean")
    good = (
        median.tolist() == [[651, 7]]  # (900 + 401) / 2 = 650.5, half up
        and count.tolist() == [2, 1]
        and series[:, 0].tolist() == [100, 100, 151, 151, 201]
        and not series[:, 1].any()
    )
    if not good:
        raise CropcubeError(
            "the median kernel gives wrong values on this machine: "
            f"{median.tolist()}, {count.tolist()}, {series[:, 0].tolist()}; "
            "reinstall numba with the versions of constraints.txt"
        )
