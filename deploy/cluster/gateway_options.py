"""From our words to the options that a gateway offers: their names and units differ by hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask.utils import format_bytes

from cube.errors import ClusterError
from deploy.cluster.environment import require_no_secrets, worker_environment
from deploy.cluster.wishes import Tell, Wishes

#: Our word → names under which hubs offer it, the usual one first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "worker_threads": ("worker_cores", "worker_threads", "cores"),
    "worker_memory": ("worker_memory", "memory"),
    "image": ("image",),
    "env": ("environment", "env", "extra_env"),
    "idle_timeout": ("idle_timeout",),
}
_GIB = 2**30


def chosen_options(offered: Mapping[str, Any], wishes: Wishes, tell: Tell) -> dict[str, Any]:
    """Return the options to set, in the gateway's names and units.

    Parameters
    ----------
    offered : mapping
        Option → default, as `Gateway.cluster_options` gives them: the type of a default tells the
        unit. Memory as a number is GiB, as text ``8GiB``.
    wishes : Wishes
        `workers` is no option: a gateway's clusters are scaled.
    tell : callable
        Hears that GDAL's settings cannot be given.

    Raises
    ------
    ClusterError
        For a wish under no known name, with what there is instead; for a secret in `env`; for an
        image without tag or digest.
    """
    require_no_secrets(wishes.env, "the gateway stores it and shows it in the cluster's options")
    chosen: dict[str, Any] = {}
    for wish, value in _given(wishes).items():
        option = _offered(wish, offered)
        chosen[option] = _in_unit_of(offered[option], wish, value)
    try:
        option = _offered("env", offered)
    except ClusterError:
        if wishes.env:
            raise
        tell(
            "this gateway lets nobody set the workers' environment: GDAL runs with the image's "
            "settings, cluster.check() says which are missing"
        )
    else:
        chosen[option] = {**offered[option], **worker_environment(wishes.env)}
    for option, value in wishes.options.items():
        if option not in offered:
            raise ClusterError(f"options: {_not_offered(option, offered)}")
        chosen[option] = value
    return chosen


def _given(wishes: Wishes) -> dict[str, Any]:
    if wishes.image is not None:
        _require_tag(wishes.image)
    values = {wish: getattr(wishes, wish) for wish in NAMES if wish != "env"}
    return {wish: value for wish, value in values.items() if value is not None}


def _offered(wish: str, offered: Mapping[str, Any]) -> str:
    for name in NAMES[wish]:
        if name in offered:
            return name
    raise ClusterError(_not_offered(wish, offered))


def _not_offered(wish: str, offered: Mapping[str, Any]) -> str:
    return (
        f"this gateway does not offer '{wish}'; it offers {', '.join(offered) or 'no options'}: "
        "leave it out, or use one of these through options={…}"
    )


def _in_unit_of(default: Any, wish: str, value: Any) -> Any:
    if wish == "worker_memory":
        if isinstance(default, str):
            return format_bytes(value).replace(" ", "")
        return type(default)(value / _GIB)
    return type(default)(value)


def _require_tag(image: str) -> None:
    name = image.rpartition("/")[2]
    if "@sha256:" not in image and ":" not in name:
        raise ClusterError(
            f"image '{image}' has no tag: nodes keep different images called latest; name a tag "
            "or, better, a digest (@sha256:…)"
        )
