"""Where and how cropcube runs."""

from deploy.cluster import open_cluster

__all__ = ["open_cluster"]
