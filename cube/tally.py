"""What a tile was made from, beside its pixels: kept in the tile's marker, summed for reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, ConfigDict


class Tally(BaseModel):
    """Counts of one tile, or of many.

    Attributes
    ----------
    seen : list of int
        Per time of the cube, looks at pixels of the scene classification (20 m) that hold data.
    clear : list of int
        Those of them that count as clear.
    underflow : dict of str to int
        Item id → DN above 60 000: traces of an unsigned subtraction, taken as no data.
    missing : list of str
        ``item, asset: kind`` of failed reads that `max_missing` allowed.
    """

    model_config = ConfigDict(extra="forbid")

    seen: list[int]
    clear: list[int]
    underflow: dict[str, int] = {}
    missing: list[str] = []

    @property
    def masked(self) -> list[float]:
        """Share of looks that the mask took, per time; NaN where nothing was seen."""
        pairs = zip(self.seen, self.clear, strict=True)
        return [1 - clear / seen if seen else float("nan") for seen, clear in pairs]

    @property
    def failed(self) -> int:
        """Number of items that could not be read and were excused."""
        return len({text.split(",")[0] for text in self.missing})

    @classmethod
    def total(cls, tallies: Iterable[Self]) -> Self:
        """Add tallies of tiles that share their times."""
        many = list(tallies)
        return cls(
            seen=[sum(counts) for counts in zip(*(one.seen for one in many), strict=True)],
            clear=[sum(counts) for counts in zip(*(one.clear for one in many), strict=True)],
            underflow=dict(sum((Counter(one.underflow) for one in many), Counter())),
            missing=sorted({text for one in many for text in one.missing}),
        )
