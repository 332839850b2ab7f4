"""One scene per acquisition: reprocessed products are dropped, parts of a granule are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from cube.items import Acquisition
from cube.scenes import Removed

#: Items of one pass over one granule lie closer together than this; two passes never do.
_SAME_PASS = pd.Timedelta(60, "s")


def drop_duplicates(
    acquisitions: Iterable[Acquisition],
) -> tuple[list[Acquisition], list[Removed]]:
    """Keep one processing of each acquisition.

    Of several processings the one with the higher baseline is kept, then the one generated
    later, then the greater id. Two datastrips of one pass over a granule are not processings of
    each other but its two parts: both stay.

    Returns
    -------
    kept : list of Acquisition
        In order of time, then id.
    removed : list of Removed
        With the id that was kept instead, and why.
    """
    kept: list[Acquisition] = []
    removed: list[Removed] = []
    for group in _passes(acquisitions):
        chosen: list[Acquisition] = []
        for found in sorted(group, key=_rank, reverse=True):
            better = next((other for other in chosen if _reprocessed(found, other)), None)
            if better is None:
                chosen.append(found)
            else:
                removed.append(_duplicate(found, better))
        kept.extend(chosen)
    return sorted(kept, key=lambda found: (found.datetime, found.id)), removed


def _rank(found: Acquisition) -> tuple[str, str, str]:
    return found.facts.baseline or "", found.generated, found.id


def _passes(acquisitions: Iterable[Acquisition]) -> Iterator[list[Acquisition]]:
    def order(found: Acquisition) -> tuple[str, str, str, str]:
        return found.grid.granule, found.satellite, found.datetime, found.id

    group: list[Acquisition] = []
    for found in sorted(acquisitions, key=order):
        if group and not _same_pass(group[-1], found):
            yield group
            group = []
        group.append(found)
    if group:
        yield group


def _same_pass(left: Acquisition, right: Acquisition) -> bool:
    if (left.grid.granule, left.satellite) != (right.grid.granule, right.satellite):
        return False
    if left.datatake and right.datatake:
        return left.datatake == right.datatake
    return abs(pd.Timestamp(left.datetime) - pd.Timestamp(right.datetime)) <= _SAME_PASS


def _reprocessed(found: Acquisition, other: Acquisition) -> bool:
    if found.strip and other.strip:
        return found.strip == other.strip
    if found.facts.baseline != other.facts.baseline:
        return True
    # One processor, two products: parts. Only a copy of the same product is a duplicate.
    return found.product == other.product


def _duplicate(found: Acquisition, better: Acquisition) -> Removed:
    if found.facts.baseline != better.facts.baseline:
        why = f"baseline {found.facts.baseline}, kept {better.facts.baseline}"
    elif found.generated != better.generated:
        why = f"generated {found.generated}, kept {better.generated}"
    else:
        why = "the same product under two ids"
    return Removed(
        id=found.id, reason="duplicate", detail=f"same acquisition: {why}", kept=better.id
    )
