"""Is the +1000 of processing baseline 04.00 still in the pixels? A pure function of facts.

ESA adds 1000 to every DN of products from baseline 04.00 on (January 2022, and older dates where
they were reprocessed). Catalogues differ in whether they subtract it, and in what they say about
it, so the rule belongs to the catalogue. The acquisition date never decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

#: DN that ESA adds from processing baseline 04.00 on (`BOA_ADD_OFFSET` = -1000).
BOA_OFFSET = 1000

#: The same as catalogues declare it: -1000 DN × 0.0001.
DECLARED_OFFSET = -0.1

Rule = Literal["flag", "flag-or-old", "declared", "baseline", "declared-and-baseline", "pixels"]


@dataclass(frozen=True)
class Facts:
    """What an item says about its offset.

    Attributes
    ----------
    baseline : str or None
        Processing baseline as two-digit text, ``04.00``.
    offset : float or None
        Offset declared for the reflectance assets, in reflectance: 0 or `DECLARED_OFFSET`.
    flag : bool or None
        ``boa_offset_applied`` of Earth Search.
    conflict : str
        Why the item's own facts contradict each other; empty when they do not.
    """

    baseline: str | None
    offset: float | None = None
    flag: bool | None = None
    conflict: str = ""

    @property
    def shifted_by_esa(self) -> bool | None:
        """Whether ESA's product carries the offset; None without a baseline."""
        return None if self.baseline is None else self.baseline >= "04.00"

    def __str__(self) -> str:
        return (
            f"baseline {self.baseline or 'not stated'}, "
            f"declared offset {'none' if self.offset is None else f'{self.offset:g}'}, "
            f"boa_offset_applied {'none' if self.flag is None else self.flag}"
        )


@dataclass(frozen=True)
class Decision:
    """DN to subtract (0 or 1000); None where the facts cannot decide. `why` says it in words."""

    subtract: int | None
    why: str


def decide(rule: Rule, facts: Facts) -> Decision:
    """Apply one catalogue's rule.

    Parameters
    ----------
    rule : str
        ``flag`` (Earth Search v1), ``flag-or-old`` (v0), ``declared`` (Collection 1),
        ``baseline`` (Planetary Computer), ``declared-and-baseline`` (CDSE, and others that publish
        ESA's DN and declare the offset of each item) or ``pixels`` (its facts are not believed).
    facts : Facts
        What the item says.

    Returns
    -------
    Decision
        Undecided whenever the facts contradict each other or do not suffice: a wrong guess moves
        every reflectance by 0.1, unseen.
    """
    if facts.conflict:
        return Decision(None, facts.conflict)
    return _RULES[rule](facts)


def _declared(facts: Facts) -> bool:
    return facts.offset == DECLARED_OFFSET


def _by_flag(facts: Facts) -> Decision:
    # The declared -0.1 describes the JPEG 2000 asset; the flag describes the COG.
    if facts.shifted_by_esa is None:
        return Decision(None, "without a baseline the offset is unknown")
    if facts.shifted_by_esa:
        if facts.flag:
            return Decision(0, "the catalogue subtracted it")
        return Decision(None, "the flag is known to be wrong in both directions when not true")
    if facts.flag or _declared(facts):
        return Decision(None, "a baseline before 04.00 has no offset, but one is stated")
    return Decision(0, "before baseline 04.00")


def _by_flag_or_age(facts: Facts) -> Decision:
    if facts.shifted_by_esa is None:
        return Decision(None, "without a baseline the offset is unknown")
    if not facts.shifted_by_esa:
        return Decision(0, "before baseline 04.00")
    if facts.flag:
        return Decision(0, "the catalogue subtracted it")
    return Decision(None, "baseline 04.00 or later, and nothing says that it was subtracted")


def _by_declaration(facts: Facts) -> Decision:
    if facts.flag:
        return Decision(None, "this collection never subtracts, but the flag says it did")
    if facts.shifted_by_esa is False:
        return Decision(None, "this collection begins with baseline 05.00")
    if _declared(facts):
        return Decision(BOA_OFFSET, "declared")
    return Decision(None, "this collection declares -0.1 on every item, but not here")


def _by_baseline(facts: Facts) -> Decision:
    if facts.shifted_by_esa is None:
        return Decision(None, "without a baseline the offset is unknown")
    if facts.flag or (facts.offset is not None and _declared(facts) != facts.shifted_by_esa):
        return Decision(None, "the baseline says one thing and the declared offset another")
    return Decision(BOA_OFFSET if facts.shifted_by_esa else 0, f"baseline {facts.baseline}")


def _by_both(facts: Facts) -> Decision:
    if facts.shifted_by_esa is None or facts.offset is None:
        return Decision(None, "baseline and declared offset are both needed")
    return _by_baseline(facts)


def _never(facts: Facts) -> Decision:
    return Decision(None, "this catalogue's facts are not believed")


_RULES: dict[Rule, Callable[[Facts], Decision]] = {
    "flag": _by_flag,
    "flag-or-old": _by_flag_or_age,
    "declared": _by_declaration,
    "baseline": _by_baseline,
    "declared-and-baseline": _by_both,
    "pixels": _never,
}
