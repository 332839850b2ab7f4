"""Workers as jobs of a SLURM cluster; the scheduler runs in this process."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import distributed
from dask.utils import format_bytes

from cube.errors import ClusterError
from deploy.cluster.environment import require_no_secrets, worker_environment
from deploy.cluster.wishes import Wishes

KNOWN = frozenset({"workers", "worker_memory", "worker_threads", "env", "options"})
#: Certificates and logs, on a file system that the nodes see too.
FOLDER = Path("~/.cache/cropcube/slurm")


class SlurmBackend:
    """A cluster of SLURM jobs, one worker each, with TLS between them.

    ``options`` are arguments of `dask_jobqueue.SLURMCluster`; what they do not say comes from its
    configuration (``jobqueue.yaml``). `shared_temp_directory` and `log_directory` default to
    ``~/.cache/cropcube/slurm``, which has to be visible from the nodes.
    """

    kind = "slurm"
    name = "slurm"

    def __init__(self, wishes: Wishes, start_timeout: float) -> None:
        wishes.require_known(self.kind, KNOWN)
        try:
            from dask_jobqueue import SLURMCluster
        except ImportError as error:
            raise ClusterError(
                "backend 'slurm' needs dask-jobqueue: install 'cropcube[slurm]'"
            ) from error
        self._wanted = 0
        self._adaptive: distributed.deploy.adaptive.Adaptive | None = None
        with ExitStack() as undo:
            try:
                self._cluster = undo.enter_context(SLURMCluster(**_arguments(wishes)))
            except (ValueError, TypeError) as error:
                raise ClusterError(f"backend 'slurm': {error}") from error
            self.client = distributed.Client(self._cluster, timeout=start_timeout)
            undo.callback(self.client.close, timeout=5)
            if wishes.workers:
                self.scale(wishes.workers)
            self._open = undo.pop_all()
        self.dashboard_link = self.client.dashboard_link or ""

    def scale(self, workers: int) -> None:
        """Ask for that many workers, one job each."""
        self._wanted = workers
        if self._adaptive is not None:
            self._adaptive.stop()  # it would undo this
        self._cluster.scale(workers)

    def adapt(self, minimum: int, maximum: int) -> None:
        """Let the number of jobs follow the work."""
        self._wanted = 0
        self._adaptive = self._cluster.adapt(minimum=minimum, maximum=maximum)

    def look_after(self) -> None:
        """Ask again for workers whose jobs were cancelled or killed: dask-jobqueue does not."""
        # Dask forgets a lost worker after a while, but only a call of scale fills the gap.
        if len(self._cluster.workers) < self._wanted:
            self._cluster.scale(self._wanted)

    def close(self, stop: bool) -> None:
        """Cancel the jobs; without the scheduler in this process they could do nothing."""
        self._open.close()


def _arguments(wishes: Wishes) -> dict[str, Any]:
    require_no_secrets(wishes.env, "job scripts are files that others may read")
    folder = FOLDER.expanduser()
    given: dict[str, Any] = {
        "processes": 1,
        "security": True,  # a scheduler runs any code it is sent, and this one listens on a network
        "shared_temp_directory": str(folder),
        "log_directory": str(folder / "logs"),
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
    }
    if wishes.worker_threads is not None:
        given["cores"] = wishes.worker_threads
    if wishes.worker_memory is not None:
        given["memory"] = format_bytes(wishes.worker_memory).replace(" ", "")
    given |= wishes.options
    exports = [
        f"export {name}={shlex.quote(value)}"
        for name, value in worker_environment(wishes.env).items()
    ]
    given["job_script_prologue"] = [*exports, *given.get("job_script_prologue", [])]
    Path(given["shared_temp_directory"]).mkdir(parents=True, exist_ok=True, mode=0o700)
    return given
