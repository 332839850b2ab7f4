"""What software runs on client, scheduler and workers, and where it differs.

Code and arrays travel pickled between the three: another version on one side gives errors that
name anything but the cause, or other values.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import distributed

from cube.errors import VersionMismatchError

PACKAGES = (
    *("python", "dask", "distributed", "cloudpickle", "numpy", "zarr", "xarray", "rasterio"),
    "cropcube",
)
GDAL, REVISION, IMAGE = "GDAL", "cropcube revision", "image"
#: The client may run anywhere: in no image, or in a notebook's.
_NOT_OF_CLIENT = frozenset({IMAGE})
_UNKNOWN = "–"


@dataclass(frozen=True)
class Versions:
    """Versions by fact and process.

    Attributes
    ----------
    client, scheduler : dict of str to str
        Fact → version; absent when it is not installed or not known.
    workers : dict of str to dict
        The same for each worker's address.
    """

    client: dict[str, str]
    scheduler: dict[str, str]
    workers: dict[str, dict[str, str]]

    @property
    def differences(self) -> list[str]:
        """Facts that are not the same everywhere.

        A package that the scheduler lacks is no difference, for it only passes bytes on; nor is a
        revision or an image that a process does not know.
        """
        return [fact for fact in (*PACKAGES, GDAL, REVISION, IMAGE) if self._differs(fact)]

    def _differs(self, fact: str) -> bool:
        needed = fact in PACKAGES
        found = {one.get(fact) for one in self.workers.values()}
        if fact not in _NOT_OF_CLIENT:
            found.add(self.client.get(fact))
        if not needed:
            found.discard(None)
        if (at_scheduler := self.scheduler.get(fact)) is not None:
            found.add(at_scheduler)
        return len(found) > 1

    def text(self, only: Iterable[str] = (*PACKAGES, GDAL, REVISION, IMAGE)) -> str:
        """Return a table; workers that agree share a line."""
        rows = [("", "client", "scheduler", f"workers ({len(self.workers)})")]
        for fact in only:
            counted = Counter(one.get(fact, _UNKNOWN) for one in self.workers.values())
            several = len(counted) > 1
            workers = ", ".join(f"{v} ({n})" if several else v for v, n in counted.items())
            at_client, at_scheduler = (one.get(fact, _UNKNOWN) for one in self._ends)
            rows.append((fact, at_client, at_scheduler, workers or _UNKNOWN))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)

    @property
    def _ends(self) -> tuple[dict[str, str], dict[str, str]]:
        return self.client, self.scheduler

    def require_same(self) -> None:
        """Refuse a cluster whose processes differ.

        Raises
        ------
        VersionMismatchError
            With the table of what differs.
        """
        if different := self.differences:
            raise VersionMismatchError(
                f"the cluster's software differs from this process's:\n{self.text(different)}\n"
                "start the workers from the same image or environment as this process; "
                "strict_versions=False goes on at your own risk"
            )


def read_versions(client: distributed.Client) -> Versions:
    """Ask every process of a cluster what it runs."""
    packages = [name for name in PACKAGES if name != "python"]
    told: dict[str, Any] = client.get_versions(packages=packages)
    here = _packages(told["client"])
    scheduler = _packages(told["scheduler"])
    workers = {address: _packages(one) for address, one in told["workers"].items()}
    same = [address for address, one in workers.items() if _can_tell(one, here)]
    for address, facts in _facts_of_workers(client, same).items():
        workers[address] |= facts
    # Asked by its environment alone: importing cropcube there would stop a busy scheduler for
    # seconds, and it reads no image.
    asked = {REVISION: "CROPCUBE_REVISION", IMAGE: "CROPCUBE_IMAGE"}
    scheduler |= _known({f: client.run_on_scheduler(os.getenv, v) for f, v in asked.items()})
    return Versions(here | _known(software()), scheduler, workers)


def _can_tell(there: dict[str, str], here: dict[str, str]) -> bool:
    # Only the same cropcube under the same Python can be asked with a function of ours.
    return all(there.get(name) == here.get(name) for name in ("python", "cropcube"))


def _facts_of_workers(client: distributed.Client, addresses: list[str]) -> dict[str, Any]:
    if not addresses:
        return {}
    told = client.run(software, workers=addresses, on_error="return")
    # A worker whose installation is broken has no facts, which the table shows.
    return {a: _known(facts) for a, facts in told.items() if isinstance(facts, dict)}


def _packages(told: dict[str, Any]) -> dict[str, str]:
    return {name: told["packages"][name] for name in PACKAGES if told["packages"].get(name)}


def _known(facts: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}


def software() -> dict[str, str | None]:
    """Return what the calling process knows beyond the versions of packages."""
    import rasterio

    image = os.environ.get("CROPCUBE_IMAGE")
    return {GDAL: rasterio.__gdal_version__, REVISION: revision(), IMAGE: image}


@cache
def revision() -> str:
    """Return cropcube's git commit: from ``CROPCUBE_REVISION`` or a checkout; '' if unknown."""
    if told := os.environ.get("CROPCUBE_REVISION"):
        return told
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        found = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607 - git from the user's PATH
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
