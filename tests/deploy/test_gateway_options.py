"""What the options handler lets users of a gateway ask for."""

from __future__ import annotations

import pytest

from deploy.gateway.options import Limits, cluster_options

LIMITS = Limits(
    cores=4, memory=16.0, images=("ghcr.io/org/cropcube",), image="ghcr.io/org/cropcube:1"
)


def settings(limits=LIMITS, **asked):
    """What the server makes of a request, by its own code."""
    options = cluster_options(limits)
    return options.get_configuration(options.parse_options(asked), user=None)


def test_defaults():
    assert settings(Limits()) == {
        **{"worker_cores": 1, "worker_threads": 1, "worker_memory": 4 * 2**30},
        **{"idle_timeout": 1800, "environment": {}},
    }


def test_what_is_asked_for_within_the_limits():
    digest = "ghcr.io/org/cropcube@sha256:" + "0" * 64
    got = settings(worker_cores=2, worker_memory=8, environment={"GDAL_CACHEMAX": 64}, image=digest)
    assert (got["worker_cores"], got["worker_threads"], got["worker_memory"]) == (2, 2, 2**33)
    assert got["environment"] == {"GDAL_CACHEMAX": "64"}
    assert got["image"] == digest


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"worker_cores": 5}, "worker_cores must be <= 4"),
        ({"worker_memory": 17.0}, "worker_memory must be <= 16"),
        ({"idle_timeout": 0}, "idle_timeout must be >= 1"),
        ({"environment": {"LD_PRELOAD": "x"}}, "LD_PRELOAD may not be set"),
        ({"environment": {"PYTHONPATH": "x"}}, "PYTHONPATH may not be set"),
        ({"environment": {"AWS_SESSION_TOKEN": "x"}}, "AWS_SESSION_TOKEN looks like a secret"),
        ({"image": "docker.io/other:1"}, "is not allowed; choose one of ghcr.io/org/cropcube"),
        ({"image": "ghcr.io/org/cropcube-evil:1"}, "is not allowed"),
        ({"image": "ghcr.io/org/cropcube"}, "name a tag or a digest"),
        ({"image": "ghcr.io/org/cropcube:latest"}, "name a tag or a digest"),
        ({"image": "ghcr.io:443/org/cropcube:1"}, "is not allowed"),
    ],
)
def test_what_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        settings(**asked)
