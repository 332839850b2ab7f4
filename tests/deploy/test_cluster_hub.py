"""A Dask Gateway behind a real JupyterHub: its users' tokens open clusters, others do not."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import dask
import pytest
import requests

from cube.errors import ClusterError
from deploy import open_cluster
from tests.deploy.gateway_server import CONFIG, free_pair, gateway_server

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
MISSING = [p for p in ("jupyterhub", "configurable-http-proxy") if not shutil.which(p, path=PATH)]

pytestmark = [
    pytest.mark.hub,
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs PyPI jupyterhub and npm configurable-http-proxy: {MISSING}"
    ),
]
PREFIX = "/services/dask-gateway"

GATEWAY_CONFIG = """
load_subconfig({config!r})
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.JupyterHubAuthenticator"
c.JupyterHubAuthenticator.jupyterhub_api_token = {token!r}
c.JupyterHubAuthenticator.jupyterhub_api_url = {hub!r} + "/hub/api"
c.Proxy.prefix = {prefix!r}
"""

HUB_CONFIG = """
import json
told = json.loads({told!r})
c.JupyterHub.bind_url = told["hub"]
c.JupyterHub.hub_bind_url = told["inner"]
c.ConfigurableHTTPProxy.api_url = told["proxy"]
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.db_url = "sqlite:///:memory:"
c.JupyterHub.services = [
    dict(name="dask-gateway", url=told["gateway"], api_token=told["token"]),
    dict(name="maker", api_token=told["maker"]),
]
c.JupyterHub.load_roles = [
    dict(name="user", scopes=["self", "access:services!service=dask-gateway"]),
    dict(name="gateway", scopes=["read:users", "tokens"], services=["dask-gateway"]),
    dict(name="maker", scopes=["admin:users", "tokens"], services=["maker"]),
]
"""


class Hub(NamedTuple):
    address: str
    gateway: str
    token: str

    def configured(self, token):
        return dask.config.set(
            {
                "gateway.address": self.address + PREFIX,
                "gateway.public-address": self.address + PREFIX,
                "gateway.proxy-address": self.gateway.replace("http:", "gateway:"),
                "gateway.auth.type": "jupyterhub",
                "gateway.auth.kwargs": {"api_token": token},
            }
        )


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    first, second = free_pair(), free_pair()
    address, token, maker = (
        f"http://127.0.0.1:{first}",
        secrets.token_hex(16),
        secrets.token_hex(16),
    )
    config = root / "gateway_config.py"
    config.write_text(
        GATEWAY_CONFIG.format(config=str(CONFIG), token=token, hub=address, prefix=PREFIX)
    )
    with gateway_server(root, config, PREFIX) as server:
        told = {"hub": address, "inner": f"http://127.0.0.1:{first + 1}", "token": token}
        told |= {"proxy": f"http://127.0.0.1:{second}", "maker": maker}
        told["gateway"] = gateway = f"http://127.0.0.1:{server.port}"
        with running_hub(root, told):
            answer = {"Authorization": f"token {maker}"}
            api = f"{address}/hub/api/users/alice"
            requests.post(api, headers=answer, timeout=10).raise_for_status()
            made = requests.post(f"{api}/tokens", headers=answer, json={}, timeout=10)
            made.raise_for_status()
            yield Hub(address, gateway, made.json()["token"])


class running_hub:
    def __init__(self, root: Path, told: dict[str, str]) -> None:
        self.root, self.told = root, told

    def __enter__(self):
        config = self.root / "jupyterhub_config.py"
        config.write_text(HUB_CONFIG.format(told=json.dumps(self.told)))
        program = str(shutil.which("jupyterhub", path=PATH))
        environment = os.environ | {
            "PATH": PATH,
            "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(16),
            "JUPYTERHUB_CRYPT_KEY": secrets.token_hex(32),
        }
        log = self.root / "hub.log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [program, "-f", config], env=environment, cwd=self.root, stdout=out, stderr=out
            )
        deadline = time.monotonic() + 90
        while not self.answers():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.told['hub']}/hub/api", timeout=2).ok
        except requests.RequestException:
            return False

    def __exit__(self, *error):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def test_a_user_of_the_hub_has_clusters(hub):
    with (
        hub.configured(hub.token),
        open_cluster("gateway", workers=1, worker_memory="2GiB", strict_versions=False) as cluster,
    ):
        assert cluster.client.submit(sum, [1, 2]).result(30) == 3
        assert cluster.dashboard_link.startswith(hub.address + PREFIX)


def test_others_have_none(hub):
    with hub.configured("wrong"), pytest.raises(ClusterError, match="refuses"):
        open_cluster("gateway")
