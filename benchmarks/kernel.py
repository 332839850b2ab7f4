"""The fused kernel against its peers: monthly medians of 72 dates × 4 bands × 512², one core.

Four paths over the same noise and clouds, in turn, in one process:

- ours: masks by SCL, takes medians and counts, fills gaps; uint16 throughout;
- plain xarray with its default options: ``where``, ``resample("MS").median()``, fill;
- bottleneck: ``nanmedian`` of each month along axis 0, of float32 already masked (the masking and
  the count, which ours does, are not timed);
- a copy of the input bytes: the physical limit, since every byte must be read once.

Peers are compared within a round and the median of the rounds' ratios is printed. CPU time of one
thread.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise

import bottleneck
import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import gaussian_filter

from cube.kernels import clear_of, fill_gaps_inplace, masked_median, self_test

DATES, BANDS, SIZE = 72, 4, 512
KEEP = (4, 5, 6, 7)
ROUNDS = 3
#: Runs of a path in a round, of which the median counts.
RUNS = {"ours": 9, "median": 9, "copy": 9, "bottleneck": 3, "xarray": 1}


def data() -> tuple[xr.DataArray, xr.DataArray]:
    """Noise as DN, so that the median cannot profit from order; clouds in patches, as they are."""
    rng = np.random.default_rng(0)
    time_ = pd.date_range("2023-01-01", "2023-12-31", periods=DATES).normalize()
    dn = rng.integers(1, 9000, (DATES, BANDS, SIZE, SIZE)).astype(np.uint16)
    cloud = gaussian_filter(rng.normal(size=(DATES, SIZE, SIZE)), (0, 40, 40))
    scl = np.where(cloud < np.quantile(cloud, 0.45), 9, 4).astype(np.uint8)
    return (
        xr.DataArray(dn, dims=("time", "band", "y", "x"), coords={"time": time_}),
        xr.DataArray(scl, dims=("time", "y", "x"), coords={"time": time_}),
    )


def months(dn: xr.DataArray) -> list[slice]:
    """Dates are in order, so a month is a slice and nothing is copied."""
    of_date = pd.DatetimeIndex(dn.time.values).month.to_numpy()
    edges = np.searchsorted(of_date, np.arange(1, 14))
    return [slice(first, last) for first, last in pairwise(edges)]


def medians(dn: xr.DataArray, scl: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    values, classes = dn.values.reshape(DATES, BANDS, -1), scl.values.reshape(DATES, -1)
    nothing = np.zeros(DATES, np.uint16)
    median = np.empty((12, BANDS, SIZE * SIZE), np.uint16)
    count = np.empty((12, SIZE * SIZE), np.uint8)
    for month, dates in enumerate(months(dn)):
        clear = clear_of(classes[dates], KEEP)
        masked_median(values[dates], clear, nothing[dates], median[month], count[month])
    return median, count


def ours(dn: xr.DataArray, scl: xr.DataArray) -> np.ndarray:
    median, _ = medians(dn, scl)
    days = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30]).astype(np.int32)
    fill_gaps_inplace(median.reshape(12, -1), days, "neighbour-mean")
    return median.reshape(12, BANDS, SIZE, SIZE)


def plain_median(dn: xr.DataArray, scl: xr.DataArray) -> xr.DataArray:
    return dn.where(scl.isin(KEEP)).resample(time="MS").median()


def plain_xarray(dn: xr.DataArray, scl: xr.DataArray) -> np.ndarray:
    median = plain_median(dn, scl)
    before, after = median.ffill("time"), median.bfill("time")
    filled = median.fillna((before + after) / 2).fillna(before).fillna(after)
    return np.floor(filled.transpose("time", "band", "y", "x").fillna(0).values + 0.5)


def seconds(work: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure() -> dict[str, float]:
    """Run all paths in turn; the figures by name."""
    dn, scl = data()
    self_test()
    plain = np.floor(plain_median(dn, scl).transpose("time", "band", "y", "x").fillna(0) + 0.5)
    difference = np.abs(medians(dn, scl)[0].reshape(plain.shape) - plain.values).max()
    masked = dn.where(scl.isin(KEEP)).values.astype(np.float32)
    there, scl_there = np.zeros_like(dn.values), np.zeros_like(scl.values)

    def by_month() -> None:
        for dates in months(dn):
            bottleneck.nanmedian(masked[dates], axis=0)

    def copy() -> None:
        np.copyto(there, dn.values)
        np.copyto(scl_there, scl.values)

    paths: dict[str, Callable[[], object]] = {
        "median": lambda: medians(dn, scl),
        "copy": copy,
        "bottleneck": by_month,
        "ours": lambda: ours(dn, scl),
        "xarray": lambda: plain_xarray(dn, scl),
    }
    rounds = [{name: seconds(paths[name], RUNS[name]) for name in paths} for _ in range(ROUNDS)]

    def middle(figure: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(figure(times) for times in rounds)

    return {
        "observations_per_second": middle(lambda times: dn.size / times["median"]),
        "times_faster_than_xarray": middle(lambda times: times["xarray"] / times["ours"]),
        "times_faster_than_bottleneck": middle(lambda times: times["bottleneck"] / times["median"]),
        "times_slower_than_copy": middle(lambda times: times["median"] / times["copy"]),
        "observations_per_second_of_copy": middle(lambda times: dn.size / times["copy"]),
        "bytes_per_second_of_copy": middle(
            lambda times: (dn.nbytes + scl.nbytes) / times["copy"],
        ),
        "largest_difference_dn": float(difference),
    }


def main() -> None:
    found = measure()
    peers = {name: version(name) for name in ("numba", "numpy", "xarray", "flox", "bottleneck")}
    if "--json" in sys.argv:
        print(json.dumps({"benchmark": "kernel", **found, "versions": peers}))
        return
    rate = found["observations_per_second"] / 1e9
    limit = found["observations_per_second_of_copy"] / 1e9
    copied = found["bytes_per_second_of_copy"] / 1e9
    print(f"masked monthly median + count   {rate:6.2f} G observations/s (at least 1.0)")
    print(f"physical limit, a bare copy     {limit:6.2f} G observations/s ({copied:.1f} GB/s)")
    rows = (
        ("time over that of the copy", found["times_slower_than_copy"], "at most 4"),
        ("plain xarray over ours, filled", found["times_faster_than_xarray"], "at least 200"),
        ("bottleneck over ours", found["times_faster_than_bottleneck"], "at least 6"),
    )
    for label, times, target in rows:
        print(f"{label:<30}  {times:6.1f} × ({target})")
    print(f"largest difference to xarray {found['largest_difference_dn']:.0f} DN;", end=" ")
    print(", ".join(f"{name} {number}" for name, number in peers.items()))
