"""Memory that a virtual machine already has: else the first program to touch a page pays for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

PAGE = 4096
#: About what the hungriest path of a benchmark holds.
GIB = 3


def touch_memory() -> None:
    """Have a process write to as much memory as a benchmark needs, where there is as much.

    A virtual machine gets its memory from the host page by page, when it is first written to, and
    may give back what lies idle for seconds. Such a page can cost many times as much as one that
    the machine holds, and whoever comes first pays. Done right before the clock starts, every path
    is served alike.
    """
    # A process of its own: the peak of this one is measured.
    subprocess.run([sys.executable, "-m", "benchmarks.settled"], check=True)


def _available() -> int:
    with Path("/proc/meminfo").open(encoding="ascii") as file:
        for line in file:
            name, value = line.split(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    raise OSError("/proc/meminfo names no MemAvailable; benchmarks run on Linux")


if __name__ == "__main__":
    np.empty(min(GIB * 2**30, _available() // 2), np.uint8)[::PAGE] = 1
