"""Where and how cropcube runs."""

from cube.errors import ClusterError, ClusterLostError, JobError, VersionMismatchError
from deploy.cluster import Cluster, open_cluster

__all__ = [
    "Cluster",
    "ClusterError",
    "ClusterLostError",
    "JobError",
    "VersionMismatchError",
    "open_cluster",
]
