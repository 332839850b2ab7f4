"""The offset rule against the published table, written here a second time as sets of facts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.offset import Facts, Rule, decide

OLD, NEW = "02.14", "05.00"

# (baseline, declared offset, flag) → DN to subtract; every other combination must be undecided.
EARTH_SEARCH_V1 = {
    (OLD, 0.0, False): 0,
    (OLD, 0.0, None): 0,
    (OLD, None, False): 0,
    (OLD, None, None): 0,
    (NEW, -0.1, True): 0,  # all published items flagged True declare -0.1 as well
    (NEW, 0.0, True): 0,
    (NEW, None, True): 0,
}
COLLECTION_1 = {
    (NEW, -0.1, None): 1000,
    (NEW, -0.1, False): 1000,
    (None, -0.1, None): 1000,
    (None, -0.1, False): 1000,
}
V0 = {
    **{(OLD, offset, flag): 0 for offset in (None, 0.0, -0.1) for flag in (None, False, True)},
    **{(NEW, offset, True): 0 for offset in (None, 0.0, -0.1)},
}
PLANETARY_COMPUTER = {
    (OLD, None, None): 0,
    (OLD, None, False): 0,
    (OLD, 0.0, None): 0,
    (OLD, 0.0, False): 0,
    (NEW, None, None): 1000,
    (NEW, None, False): 1000,
    (NEW, -0.1, None): 1000,
    (NEW, -0.1, False): 1000,
}
DECLARED_PER_ITEM = {
    (OLD, 0.0, None): 0,
    (OLD, 0.0, False): 0,
    (NEW, -0.1, None): 1000,
    (NEW, -0.1, False): 1000,
}
TABLES: dict[Rule, dict] = {
    "flag": EARTH_SEARCH_V1,
    "declared": COLLECTION_1,
    "flag-or-old": V0,
    "baseline": PLANETARY_COMPUTER,
    "declared-and-baseline": DECLARED_PER_ITEM,
    "pixels": {},
}
EVERY = list(itertools.product((None, OLD, NEW), (None, 0.0, -0.1), (None, False, True)))


@pytest.mark.parametrize("rule", TABLES)
def test_every_combination_is_decided_as_the_table_says(rule: Rule) -> None:
    for baseline, offset, flag in EVERY:
        decided = decide(rule, Facts(baseline, offset, flag)).subtract
        assert decided == TABLES[rule].get((baseline, offset, flag)), (baseline, offset, flag)


@pytest.mark.parametrize("rule", TABLES)
def test_the_border_is_at_04_00(rule: Rule) -> None:
    for before, after in (("03.01", "04.00"), ("02.05", "05.11")):
        for offset, flag in itertools.product((None, 0.0, -0.1), (None, False, True)):
            as_old = decide(rule, Facts(before, offset, flag)).subtract
            as_new = decide(rule, Facts(after, offset, flag)).subtract
            assert as_old == decide(rule, Facts(OLD, offset, flag)).subtract
            assert as_new == decide(rule, Facts(NEW, offset, flag)).subtract


@given(rule=st.sampled_from(list(TABLES)), facts=st.sampled_from(EVERY))
def test_a_conflict_always_stops_and_says_why(rule, facts) -> None:
    decision = decide(rule, Facts(*facts, conflict="two baselines"))
    assert decision.subtract is None
    assert decision.why == "two baselines"


def test_facts_read_like_a_sentence() -> None:
    text = str(Facts("04.00", -0.1, False))
    assert text == "baseline 04.00, declared offset -0.1, boa_offset_applied False"
    assert "not stated" in str(Facts(None))
