"""A real Dask Gateway server on loopback, with the repository's own local configuration."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import psutil
import requests
from dask_gateway.auth import BasicAuth

import deploy

CONFIG = Path(deploy.__file__).parent / "gateway" / "local" / "dask_gateway_config.py"


class GatewayServer:
    """The server's process; it can be killed and started again with the same state.

    Parameters
    ----------
    root : path
        Keeps state and logs.
    config : path
        The server's configuration.
    prefix : str
        Path below which the configuration puts it.
    """

    def __init__(self, root: Path, config: Path = CONFIG, prefix: str = "") -> None:
        self.root, self.port, self.password = root, free_pair(), secrets.token_hex(8)
        self.config, self.address = config, f"http://127.0.0.1:{self.port}{prefix}"
        self._environment = os.environ | {
            "CROPCUBE_GATEWAY_DIR": str(root),
            "CROPCUBE_GATEWAY_PORT": str(self.port),
            "CROPCUBE_GATEWAY_PASSWORD": self.password,
            "DASK_GATEWAY_ENCRYPT_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
            "DASK_GATEWAY_PROXY_TOKEN": secrets.token_hex(32),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = Path(sys.executable).with_name("dask-gateway-server")
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-f", self.config], env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.address}/api/health", timeout=2).ok
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """Kill the server alone, as a crash does: its proxy notices, its clusters live on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order, then whatever of its clusters is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for left in self.processes():
            left.kill()

    def processes(self, part: str = "") -> list[psutil.Process]:
        """Processes of the clusters (and the proxy) whose command holds `part`."""
        found = []
        for process in psutil.process_iter():
            try:
                command, place = " ".join(process.cmdline()), process.cwd()
            except psutil.Error:
                continue
            if place.startswith(str(self.root / "clusters")) and part in command:
                found.append(process)
        return found

    def log(self) -> str:
        return (self.root / "server.log").read_text()

    def configured(self, password: str | None = None) -> Any:
        """Dask's configuration of a user of this gateway, as a context."""
        auth = BasicAuth("someone", password or self.password)
        return dask.config.set({"gateway.address": self.address, "gateway.auth.type": lambda: auth})


@contextmanager
def gateway_server(root: Path, config: Path = CONFIG, prefix: str = "") -> Iterator[GatewayServer]:
    server = GatewayServer(root, config, prefix)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_pair() -> int:
    """A free port whose successor is free too."""
    for _ in range(100):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise RuntimeError("no two free ports in a row")
