"""Memory that a virtual machine already has: else the first program to touch a page pays for it."""

from __future__ import annotations

import numpy as np

PAGE = 4096
#: Somewhat more than any path of a benchmark holds at once.
GIB = 8


def touch_memory() -> None:
    """Write to as much memory as a benchmark needs, where there is as much, and give it back.

    A virtual machine gets its memory from the host page by page, when it is first written to. That
    can take thirty times as long as a page the machine has given out before, and it is charged to
    whoever comes first. Afterwards every path is served alike.
    """
    size = min(GIB * 2**30, _available() // 2)
    np.empty(size, np.uint8)[::PAGE] = 1


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, value = line.split(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    raise OSError("/proc/meminfo names no MemAvailable; benchmarks run on Linux")
