"""How far a network looks: intervals of pixels followed back from an output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: From the first and last place of an interval to those of what it was computed from.
Step = Callable[[int, int], tuple[int, int]]


def conv(radius: int) -> Step:
    """Follow back convolutions that look `radius` places to each side, all in all."""
    return lambda first, last: (first - radius, last + radius)


def pool(first: int, last: int) -> tuple[int, int]:
    """Follow back a pooling of pairs."""
    return 2 * first, 2 * last + 1


def down4(first: int, last: int) -> tuple[int, int]:
    """Follow back a convolution of kernel 4 and stride 2, padded by 1."""
    return 2 * first - 1, 2 * last + 2


def up3(first: int, last: int) -> tuple[int, int]:
    """Follow back a transposed convolution of kernel 3 and stride 2, padded by 1 and 1 more."""
    return first // 2, -(-last // 2)


def up4(first: int, last: int) -> tuple[int, int]:
    """Follow back a transposed convolution of kernel 4 and stride 2, padded by 1."""
    return -(-(first - 2) // 2), (last + 1) // 2


def halo(steps: Sequence[Step], stride: int) -> int:
    """Return the farthest place, over all positions of an output within a stride.

    Parameters
    ----------
    steps : sequence of callable
        The way back from the output to the input that leads farthest.
    stride : int
        Product of the poolings on it.
    """
    farthest = 0
    for position in range(stride):
        first = last = position
        for step in steps:
            first, last = step(first, last)
        farthest = max(farthest, position - first, last - position)
    return farthest
