"""A Dask Gateway of local processes on loopback: for tests and for one person on one machine.

Every cluster runs with the rights of whoever starts the server, and one password opens it for all:
never run it for several people, as root, or on another address than loopback.

Environment: ``CROPCUBE_GATEWAY_DIR`` (state, kept between starts), ``CROPCUBE_GATEWAY_PASSWORD``,
``CROPCUBE_GATEWAY_PORT`` (default 8000; the next port is used too), ``DASK_GATEWAY_ENCRYPT_KEYS``
(base64 of 32 random bytes, the same at each start) and ``DASK_GATEWAY_PROXY_TOKEN`` (64 hexadecimal
digits). Then ``dask-gateway-server -f deploy/gateway/local/dask_gateway_config.py``; end it with
Ctrl-C, which stops its clusters: killed with SIGKILL it leaves them running.
"""

import os
import sys
from pathlib import Path

from deploy.gateway.options import Limits, cluster_options

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - the server provides it

# The full path: schedulers and workers get a stripped environment. Dask has no dask-scheduler any
# more, which the gateway would call.
dask = str(Path(sys.executable).with_name("dask"))
root = Path(os.environ["CROPCUBE_GATEWAY_DIR"])
port = int(os.environ.get("CROPCUBE_GATEWAY_PORT", "8000"))

c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = os.environ["CROPCUBE_GATEWAY_PASSWORD"]
c.DaskGateway.address = f"127.0.0.1:{port + 1}"
c.Proxy.address = f"127.0.0.1:{port}"  # the default listens on every interface
c.DBBackendBase.db_url = f"sqlite:///{root}/gateway.sqlite"
c.LocalBackend.clusters_directory = str(root / "clusters")
c.ClusterConfig.scheduler_cmd = [dask, "scheduler"]
c.ClusterConfig.worker_cmd = [dask, "worker"]
c.ClusterConfig.cluster_max_workers = 4
c.Backend.cluster_options = cluster_options(Limits(cores=2, memory=8.0))
