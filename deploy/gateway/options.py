"""Options that a Dask Gateway offers to users of cropcube, and the limits it holds them to.

For the gateway server's configuration::

    from deploy.gateway.options import Limits, cluster_options
    c.Backend.cluster_options = cluster_options(Limits(images=("ghcr.io/org/cropcube",)))

This file needs the standard library and dask-gateway-server alone: a server without cropcube can be
given it as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dask_gateway_server.options import Float, Integer, Mapping, Options, String

#: Beginnings of the environment variables that users may set: none of them loads a library.
ENVIRONMENT = ("GDAL_", "CPL_", "VSI_", "AWS_", "DASK_", "CROPCUBE_")
_SECRET = re.compile(r"(?i)secret|token|passw|credential|access_key")


@dataclass(frozen=True)
class Limits:
    """What a user may ask for.

    Attributes
    ----------
    cores : int
        Most threads of a worker.
    memory : float
        Most memory of a worker, GiB.
    idle_timeout : int
        Seconds without work after which a cluster stops; the default, and a quarter of the most
        that may be asked for. There is no way to switch it off.
    images : tuple of str
        Repositories of images without tag that may run; empty: users choose no image.
    image : str
        The default image.
    environment : tuple of str
        Beginnings of the names of variables that may be set.
    """

    cores: int = 4
    memory: float = 16.0
    idle_timeout: int = 1800
    images: tuple[str, ...] = ()
    image: str = ""
    environment: tuple[str, ...] = ENVIRONMENT


def cluster_options(limits: Limits) -> Options:
    """Return the options for ``c.Backend.cluster_options``."""
    fields = [
        Integer("worker_cores", 1, min=1, max=limits.cores, label="Threads of a worker"),
        Float("worker_memory", min(4.0, limits.memory), min=0.5, max=limits.memory, label="GiB"),
        Integer("idle_timeout", limits.idle_timeout, min=1, max=4 * limits.idle_timeout),
        Mapping("environment", {}, label="Environment variables"),
    ]
    if limits.images:
        fields.append(String("image", limits.image, label="Image, with tag or digest"))
    return Options(*fields, handler=lambda options: settings(options, limits))


def settings(options: Any, limits: Limits) -> dict[str, Any]:
    """Return a cluster's configuration from a user's options.

    Parameters
    ----------
    options : mapping with attributes
        As the gateway server hands them over, types and ranges checked.
    limits : Limits
        Those of `cluster_options`.

    Raises
    ------
    ValueError
        With what was refused; the server passes the text on to the user.
    """
    environment = {name: str(value) for name, value in options.environment.items()}
    _check_environment(environment, limits.environment)
    chosen: dict[str, Any] = {
        "worker_cores": options.worker_cores,
        "worker_threads": options.worker_cores,
        "worker_memory": int(options.worker_memory * 2**30),
        "idle_timeout": options.idle_timeout,
        "environment": environment,
    }
    if limits.images:
        _check_image(options.image, limits.images)
        chosen["image"] = options.image
    return chosen


def _check_environment(environment: dict[str, str], allowed: tuple[str, ...]) -> None:
    refused = sorted(name for name in environment if not name.startswith(allowed))
    if refused:
        raise ValueError(
            f"environment: {', '.join(refused)} may not be set; allowed are names that begin with "
            f"{', '.join(allowed)}"
        )
    if secret := sorted(name for name in environment if _SECRET.search(name)):
        raise ValueError(
            f"environment: {', '.join(secret)} looks like a secret, which a gateway would store; "
            "give the workers a service account instead"
        )


def _check_image(image: str, allowed: tuple[str, ...]) -> None:
    repository, mark = _parts(image)
    if repository not in allowed:
        raise ValueError(f"image '{image}' is not allowed; choose one of {', '.join(allowed)}")
    if mark in ("", "latest"):
        raise ValueError(
            f"image '{image}': name a tag or a digest, nodes keep different images called latest"
        )


def _parts(image: str) -> tuple[str, str]:
    """Return the repository of an image, and its digest or tag."""
    repository, at, digest = image.partition("@")
    folder, slash, name = repository.rpartition("/")
    bare, _, tag = name.partition(":")
    return f"{folder}{slash}{bare}", digest if at else tag
