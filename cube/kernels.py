"""Masked median and percentiles with count, and gap fill, over time: integers in and out.

How the median is fast. Scenes of one month are rows, pixels are columns. A row is contiguous, so
every step is the same cheap integer operation on a whole row and the compiler vectorises it:

1. an observation that is not clear becomes the sentinel 65535, which sorts last; a clear one
   becomes value − 1, so that the whole range 1…65535 stays below or at the sentinel;
2. a sorting network (Batcher's odd-even merge sort: a fixed list of row pairs) orders each column
   by taking minimum and maximum of two rows, without one branch per pixel;
3. the middle of the first `count` rows is the median; any percentile lies between two rows.

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
def _mark(values, clear, start, size, unusable, seen):  # type: ignore[no-untyped-def]
    # 65535 where an observation does not count, else 0: or-ing it in gives the sentinel.
    scenes, bands, _ = values.shape
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


@numba.njit(nogil=True, cache=True)
def _percentile_strips(  # type: ignore[no-untyped-def]
    values, clear, subtract, network, percentile, out, count
):
    scenes, bands, pixels = values.shape
    unusable = np.empty((scenes, _STRIP), np.uint16)
    rows = np.empty((scenes, _STRIP), np.uint16)
    weights = np.empty((scenes, _STRIP), np.uint16)
    seen = np.empty(_STRIP, np.uint16)
    for start in range(0, pixels, _STRIP):
        size = min(_STRIP, pixels - start)
        _mark(values, clear, start, size, unusable, seen)
        least, most = seen[0], seen[0]
        for p in range(size):
            least = min(least, seen[p])
            most = max(most, seen[p])
            count[start + p] = np.uint8(min(seen[p], np.uint16(255)))
        if most == 0:
            out[:, start : start + size] = 0
            continue
        if least != most:
            _weigh(seen[:size], most, percentile, weights)
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
            if least == most:
                _pick_same(rows, least, percentile, out[b, start : start + size])
            else:
                _pick(rows, weights, seen, most, out[b, start : start + size])


@numba.njit(nogil=True, cache=True, inline="always")
def _weigh(seen, most, percentile, weights):  # type: ignore[no-untyped-def]
    # A percentile lies between two neighbouring ranks: weights in hundredths, 0 for all others.
    for n in range(most):
        weight = weights[n]
        for p in range(len(seen)):
            away = abs(np.int32(100 * n) - np.int32(seen[p] - 1) * np.int32(percentile))
            weight[p] = np.uint16(max(np.int32(100) - away, np.int32(0)))


@numba.njit(nogil=True, cache=True, inline="always")
def _pick(rows, weights, seen, most, out):  # type: ignore[no-untyped-def]
    # All rows times their weights, instead of a gather per pixel. Rows hold value − 1.
    size = len(out)
    total = np.zeros(_STRIP, np.uint32)
    for n in range(most):
        row, weight = rows[n], weights[n]
        for p in range(size):
            total[p] += np.uint32(row[p]) * np.uint32(weight[p])
    for p in range(size):
        value = np.uint16((total[p] + np.uint32(50)) // np.uint32(100) + _ONE)
        out[p] = value if seen[p] > 0 else _ZERO


@numba.njit(nogil=True, cache=True, inline="always")
def _pick_same(rows, seen, percentile, out):  # type: ignore[no-untyped-def]
    # The same where all pixels of the strip have equally many observations: two rows only.
    place = (seen - 1) * percentile
    low, high = rows[place // 100], rows[min(place // 100 + 1, seen - 1)]
    upper = np.uint32(place % 100)
    lower = np.uint32(100) - upper
    for p in range(len(out)):
        total = np.uint32(low[p]) * lower + np.uint32(high[p]) * upper
        out[p] = np.uint16((total + np.uint32(50)) // np.uint32(100) + _ONE)


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
    masked_percentile(values, clear, subtract, median, count, percentile=50)


def masked_percentile(
    values: np.ndarray,
    clear: np.ndarray,
    subtract: np.ndarray,
    out: np.ndarray,
    count: np.ndarray,
    *,
    percentile: int,
) -> None:
    """Write a percentile and the number of clear observations of one period.

    Arguments and counting are those of `masked_median`. The percentile is interpolated linearly
    between the two nearest ranks (NumPy's ``method="linear"``, type 7 of Hyndman and Fan 1996),
    in integers, and rounded half up; the 50th is the median.

    Parameters
    ----------
    percentile : int
        From 1 to 99.
    """
    if len(values) == 0:
        out[:] = NODATA
        count[:] = 0
        return
    network = sorting_network(len(values))
    _percentile_strips(values, clear, subtract, network, percentile, out, count)


def observed(values: np.ndarray, clear: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return where an observation counts and write how many do, as in `masked_median`.

    Parameters
    ----------
    values : ndarray of uint16 [scene, band, pixel]
        Stored DN, 0 = no data.
    clear : ndarray of bool [scene, pixel]
        Mask of the scene classification.
    count : ndarray of uint8 [pixel]
        Receives the counts, at most 255.

    Returns
    -------
    ndarray of bool [scene, pixel]
        True where `clear` is and every band's DN lies in 1…`MAX_DN`.
    """
    usable = np.empty(clear.shape, np.bool_)
    _observe(values, clear, usable, count)
    return usable


@numba.njit(nogil=True, cache=True)
def _observe(values, clear, usable, count):  # type: ignore[no-untyped-def]
    scenes, _, pixels = values.shape
    unusable = np.empty((scenes, _STRIP), np.uint16)
    seen = np.empty(_STRIP, np.uint16)
    for start in range(0, pixels, _STRIP):
        size = min(_STRIP, pixels - start)
        _mark(values, clear, start, size, unusable, seen)
        for n in range(scenes):
            for p in range(size):
                usable[n, start + p] = unusable[n, p] == _ZERO
        for p in range(size):
            count[start + p] = np.uint8(min(seen[p], np.uint16(255)))


@numba.njit(nogil=True, cache=True)
def _fill_strips(values, days, linear):  # type: ignore[no-untyped-def]
    times, pixels = values.shape
    before = np.empty((times, _STRIP), np.uint16)
    before_day = np.empty((times, _STRIP), np.int32)
    nearest, nearest_day = np.empty(_STRIP, np.uint16), np.empty(_STRIP, np.int32)
    for start in range(0, pixels, _STRIP):
        stop = min(start + _STRIP, pixels)
        least = _SENTINEL
        for t in range(times):
            least = min(least, values[t, start:stop].min())
        if least > _ZERO:
            continue
        nearest[:] = 0
        nearest_day[:] = 0
        for t in range(times):
            here = values[t, start:stop]
            _carry(here, nearest, before[t])
            if linear:
                _carry_day(here, days[t], nearest_day, before_day[t])
        nearest[:] = 0
        for t in range(times - 1, -1, -1):
            here = values[t, start:stop]
            if linear:
                _weigh_by_time(here, days[t], before[t], before_day[t], nearest, nearest_day)
            else:
                _meet(here, before[t], nearest)


# A function per row step, and every load before its condition: otherwise LLVM does not vectorise.
@numba.njit(nogil=True, cache=True)
def _carry(here, nearest, before):  # type: ignore[no-untyped-def]
    for p in range(len(here)):
        v, left = here[p], nearest[p]
        left = v if v > _ZERO else left
        nearest[p] = left
        before[p] = left


@numba.njit(nogil=True, cache=True)
def _carry_day(here, day, nearest_day, before_day):  # type: ignore[no-untyped-def]
    for p in range(len(here)):
        left = nearest_day[p]
        left = day if here[p] > _ZERO else left
        nearest_day[p] = left
        before_day[p] = left


@numba.njit(nogil=True, cache=True)
def _meet(here, before, after):  # type: ignore[no-untyped-def]
    for p in range(len(here)):
        v, left, right = here[p], before[p], after[p]
        after[p] = v if v > _ZERO else right
        # An open end takes the other side for both.
        low = left if left > _ZERO else right
        high = right if right > _ZERO else left
        # The mean, rounded half up, within 16 bits.
        middle = np.uint16((low | high) - ((low ^ high) >> _ONE))
        here[p] = v if v > _ZERO else middle


@numba.njit(nogil=True, cache=True)
def _weigh_by_time(here, day, before, before_day, after, after_day):  # type: ignore[no-untyped-def]
    for p in range(len(here)):
        v, left, right = here[p], before[p], after[p]
        if v > 0:
            after[p], after_day[p] = v, day
        elif left > 0 and right > 0:
            span = np.int64(after_day[p] - before_day[p])
            done = np.int64(day - before_day[p])
            weighted = np.int64(left) * (span - done) + np.int64(right) * done
            here[p] = np.uint16((2 * weighted + span) // (2 * span))
        else:
            here[p] = max(left, right)


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
