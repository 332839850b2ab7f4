"""What happens in a run: one JSON line per event, to stdout and into the run's folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from cube.objects import Folder
from deploy.jobs.claims import Heart

Listener = Callable[[dict[str, Any]], None]


class Events:
    """Events of one runner.

    Object stores know no appending: lines are kept for a while and written in parts.

    Parameters
    ----------
    folder : Folder
        The run's folder.
    job, runner : str
        Names that each line carries.
    heart : Heart
        Whose clock gives the time of each line.
    listener : callable, optional
        Is given every event at once.
    """

    def __init__(
        self, folder: Folder, job: str, runner: str, heart: Heart, listener: Listener | None
    ) -> None:
        self._folder = folder / f"events/{runner}"
        self._names = {"job": job, "runner": runner}
        self._heart, self._listener = heart, listener
        self._lines: list[str] = []
        self._part = 0
        self._lock = threading.Lock()

    def tell(self, event: str, level: str = "info", **facts: Any) -> None:
        """Tell one event."""
        line = {"ts": self._heart.now().isoformat(timespec="milliseconds"), "level": level}
        line |= {**self._names, "event": event, **facts}
        with self._lock:
            self._lines.append(json.dumps(line, default=str))
        if self._listener is not None:
            self._listener(line)

    def flush(self) -> None:
        """Write what was told since the last time."""
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            self._folder.put(f"{self._part:06}.jsonl", ("\n".join(lines) + "\n").encode())
            self._part += 1


def read_events(folder: Folder) -> Iterator[dict[str, Any]]:
    """Yield every event of a run, runner by runner, in each runner's order."""
    for name in sorted(folder.listing("events")):
        for line in folder.get(name).decode().splitlines():
            yield json.loads(line)
