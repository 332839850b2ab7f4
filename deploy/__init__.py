"""Where and how cropcube runs."""

from deploy.cluster import Cluster, open_cluster

__all__ = ["Cluster", "open_cluster"]
