"""The table of faults in deploy/README.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_fault_has_its_test_or_says_why_not():
    text = (ROOT / "deploy" / "README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", text, flags=re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, 23))
    known = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        known.update(re.findall(r"def (test_\w+)", path.read_text()))
    for number, _, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, number
        assert set(named) <= known, (number, set(named) - known)
