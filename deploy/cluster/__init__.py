"""One way to a Dask cluster, wherever it runs."""

from deploy.cluster.handle import Cluster, Status
from deploy.cluster.opening import open_cluster
from deploy.cluster.preflight import Finding, Preflight
from deploy.cluster.versions import Versions

__all__ = ["Cluster", "Finding", "Preflight", "Status", "Versions", "open_cluster"]
