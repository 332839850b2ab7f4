"""What all runners of a job have used together, as far as their records tell."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cube.objects import Folder
from deploy.jobs.claims import Attempt, read_attempt
from deploy.jobs.usage import Usage

#: Records that are read at once.
_READS = 32


class Ledger:
    """The sum over the records of a run; each is read once.

    Parameters
    ----------
    folder : Folder
        The run's folder.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self.used = Usage()

    def enter(self, attempt: Attempt) -> None:
        """Add a record of this runner, which need not be read."""
        self._known.add(f"attempts/{attempt.task}/{attempt.attempt}.json")
        self.used += attempt.usage

    def look(self) -> None:
        """Add what others recorded since the last look: one listing, and one read of each."""
        new = sorted(self._folder.listing("attempts").keys() - self._known)
        with ThreadPoolExecutor(_READS) as pool:
            found = list(pool.map(lambda name: read_attempt(self._folder, name), new))
        self._known.update(new)
        self.used = sum((one.usage for one in found if one is not None), self.used)
