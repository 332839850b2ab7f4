"""Figures that are not known: a low, an expected and a high one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """A figure of zero or more: no less than `low`, no more than `high`, likely `mid`."""

    low: float
    mid: float
    high: float

    def __add__(self, other: Band) -> Band:
        """Add figures that are high together."""
        return Band(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def __mul__(self, other: Band | float) -> Band:
        """Multiply figures that are high together."""
        by = other if isinstance(other, Band) else exactly(other)
        return Band(self.low * by.low, self.mid * by.mid, self.high * by.high)

    def no_less_than(self, other: Band) -> Band:
        """Return the greater one of two figures that are high together."""
        return Band(max(self.low, other.low), max(self.mid, other.mid), max(self.high, other.high))

    def __str__(self) -> str:
        """Return the expected figure and the span."""
        return f"{self.mid:.3g} ({self.low:.3g} to {self.high:.3g})"


def exactly(value: float) -> Band:
    """Return a figure that is known."""
    return Band(value, value, value)
