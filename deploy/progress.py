"""Progress on stderr: bars for people, lines for logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

Report = Callable[[int, int, str], None]

#: Messages for people; results go to stdout.
console = Console(stderr=True, highlight=False)

_LINE_EVERY_S = 10.0


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show one long step; gives the callback ``report(done, total, what)``.

    On a terminal a bar, elsewhere a line at the start, one every ten seconds and one at the end.
    """
    with _bar(title) if sys.stderr.isatty() else _lines(title) as report:
        yield report


@contextmanager
def _bar(title: str) -> Iterator[Report]:
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[what]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(title, total=None, what="")

        def report(done: int, total: int, what: str) -> None:
            bars.update(task, completed=done, total=total or None, what=what)

        yield report


@contextmanager
def _lines(title: str) -> Iterator[Report]:
    started = said = time.monotonic()
    last = (0, 0, "")
    console.print(f"{title} …")

    def report(done: int, total: int, what: str) -> None:
        nonlocal said, last
        last = (done, total, what)
        if time.monotonic() - said >= _LINE_EVERY_S:
            said = time.monotonic()
            console.print(f"{title}: {done}/{total or '?'} {what}", markup=False)

    yield report
    done, total, _ = last
    count = f" {done}/{total}" if total else ""
    seconds = time.monotonic() - started
    console.print(f"{title}:{count} done in {seconds:.1f} s", markup=False)
