"""A SLURM of one node, started for tests where its programs are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo", "scancel", "squeue")


def missing() -> list[str]:
    """Programs that this machine lacks."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


@contextmanager
def slurm() -> Iterator[Path]:
    """Run munged, slurmctld and slurmd on loopback; gives the configuration, SLURM_CONF."""
    # Not pytest's folder: munged wants its socket where every user may come.
    with tempfile.TemporaryDirectory(prefix="slurm") as place:
        root = Path(place)
        root.chmod(0o755)
        with _running(root) as config:
            yield config


@contextmanager
def _running(root: Path) -> Iterator[Path]:
    key, sock = root / "munge.key", root / "munge.socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    config = _write_config(root, sock)
    environment = os.environ | {"SLURM_CONF": str(config)}
    munged = ["munged", "--foreground", f"--key-file={key}", f"--socket={sock}"]
    munged += [f"--pid-file={root}/munge.pid", f"--log-file={root}/munge.log"]
    munged += [f"--seed-file={root}/munge.seed"]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in (munged, ["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
            program = shutil.which(command[0], path="/usr/sbin:/usr/bin") or command[0]
            with (root / f"{command[0]}.out").open("wb") as out:
                running.append(
                    subprocess.Popen(
                        [program, *command[1:]], env=environment, stdout=out, stderr=out
                    )
                )
            time.sleep(0.5)
        _wait_until_idle(environment, root)
        yield config
    finally:
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _write_config(root: Path, sock: Path) -> Path:
    host = socket.gethostname().partition(".")[0]
    for folder in ("state", "spool"):
        (root / folder).mkdir()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={sock}",
        "SlurmctldPort": _free_port(),
        "SlurmdPort": _free_port(),
        "StateSaveLocation": root / "state",
        "SlurmdSpoolDir": root / "spool",
        "SlurmctldPidFile": root / "slurmctld.pid",
        "SlurmdPidFile": root / "slurmd.pid",
        "ProctrackType": "proctrack/pgid",
        "TaskPlugin": "task/none",
        "SwitchType": "switch/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "AccountingStorageType": "accounting_storage/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "ReturnToService": 2,
        "MpiDefault": "none",
    }
    node = f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory * 9 // 10}"
    lines = [f"{name}={value}" for name, value in settings.items()]
    lines += [node, f"PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP"]
    config = root / "slurm.conf"
    config.write_text("\n".join(lines) + "\n")
    return config


def _wait_until_idle(environment: dict[str, str], root: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        told = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True
        )
        if told.stdout.strip() == "idle":
            return
        if time.monotonic() > deadline:
            logs = [path.read_text() for path in root.glob("*.out")]
            raise RuntimeError("\n".join([told.stdout, told.stderr, *logs]))
        time.sleep(0.3)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port
