"""One processing per pass over a granule; the parts of a pass stay, as one observation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pandas as pd

from cube.items import Acquisition
from cube.scenes import Removed

#: Items of one pass over one granule lie closer together than this; two passes never do.
SAME_PASS = pd.Timedelta(60, "s")


def drop_duplicates(
    acquisitions: Iterable[Acquisition],
) -> tuple[list[Acquisition], list[Removed]]:
    """Keep one processing of each pass over a granule.

    Of several processings the one with the higher baseline is kept, then the one generated
    later, then the greater id. Two datastrips of one pass are not processings of each other but
    its two parts: both stay, with one `acquisition`, and are one observation. The order of
    `acquisitions` does not matter.

    Returns
    -------
    kept : list of Acquisition
        In order of time; parts of one pass stand together, in order of id.
    removed : list of Removed
        Duplicates, with the id that was kept instead and why; and a note on every part but the
        first of its pass.
    """
    passes: list[list[Acquisition]] = []
    removed: list[Removed] = []
    for group in _passes(acquisitions):
        chosen: list[Acquisition] = []
        for found in sorted(group, key=_rank, reverse=True):
            better = next((other for other in chosen if _reprocessed(found, other)), None)
            if better is None:
                chosen.append(found)
            else:
                removed.append(_duplicate(found, better))
        # A pass is named after its datatake, if any of its parts states it.
        name = min(chosen, key=lambda found: (not found.datatake, found.acquisition)).acquisition
        parts = [replace(found, acquisition=name) for found in sorted(chosen, key=_by_id)]
        removed.extend(_part(part, parts[0]) for part in parts[1:])
        passes.append(parts)
    passes.sort(key=lambda parts: (min(part.datetime for part in parts), parts[0].id))
    return [part for parts in passes for part in parts], removed


def _by_id(found: Acquisition) -> str:
    return found.id


def _rank(found: Acquisition) -> tuple[str, ...]:
    # What follows the id is for a catalogue that lists one id twice.
    text = found.strip, found.product, found.datatake, *found.hrefs.values()
    return found.facts.baseline or "", found.generated, found.id, *text


def _passes(acquisitions: Iterable[Acquisition]) -> Iterator[list[Acquisition]]:
    def order(found: Acquisition) -> tuple[str, ...]:
        return found.grid.granule, found.satellite, found.datetime, *_rank(found)

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
    return pd.Timestamp(right.datetime) - pd.Timestamp(left.datetime) <= SAME_PASS


def _reprocessed(found: Acquisition, other: Acquisition) -> bool:
    if found.id == other.id:
        return True
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
    elif found.id == better.id:
        why = "the catalogue lists this id twice"
    else:
        why = "the same product under two ids"
    return _note(found, "duplicate", f"same acquisition: {why}", better)


def _part(part: Acquisition, first: Acquisition) -> Removed:
    return _note(part, "part", "another part of one pass: used where the first is not clear", first)


def _note(found: Acquisition, reason: str, detail: str, kept: Acquisition) -> Removed:
    return Removed(
        id=found.id,
        reason=reason,
        detail=detail,
        kept=kept.id,
        granule=found.grid.granule,
        datetime=found.datetime,
        satellite=found.satellite,
    )
