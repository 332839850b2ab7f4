"""What a caller asks of a cluster, in one vocabulary for every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cube.errors import ClusterError

#: Takes one line for people about what is being waited for.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wishes:
    """What is asked of a cluster; None and empty mean the backend's own default.

    Attributes
    ----------
    workers : int
        Worker processes.
    worker_memory : int
        Bytes of each worker.
    worker_threads : int
        Threads of each worker.
    image : str
        Container image of scheduler and workers.
    env : mapping of str to str
        Environment variables of the workers, beside the settings for GDAL.
    idle_timeout : float
        Seconds without work after which the cluster stops by itself.
    options : mapping
        What only this backend knows: a hub's own options, or arguments of ``SLURMCluster``.
    """

    workers: int | None = None
    worker_memory: int | None = None
    worker_threads: int | None = None
    image: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    idle_timeout: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def require_known(self, backend: str, known: frozenset[str]) -> None:
        """Refuse what a backend cannot give.

        Raises
        ------
        ClusterError
            Naming each wish, and what the backend takes.
        """
        given = {one.name for one in fields(self) if getattr(self, one.name) not in (None, {})}
        if refused := sorted(given - known):
            takes = ", ".join(sorted(known)) or "none: its workers have been started already"
            raise ClusterError(
                f"backend '{backend}' cannot set {', '.join(refused)}; what it takes: {takes}"
            )
