"""Requests to a Dask Gateway: each with a limit, each failure told in a sentence.

The library's own synchronous client can hang for ever: garbage collection may run its finaliser,
which waits for the event loop, on the very thread of that loop. An asynchronous `Gateway` has no
such finaliser. So there is one, on a loop of our own, and it is closed explicitly.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

import aiohttp
import dask
from dask_gateway import Gateway, GatewayClusterError, GatewayServerError
from dask_gateway.client import ClusterReport
from dask_gateway.options import Options

from cube.errors import ClusterError

T = TypeVar("T")

#: Seconds for one answer.
ANSWER = 30.0


class GatewayApi:
    """The gateway of Dask's configuration (``gateway.address``, ``gateway.auth``).

    Raises
    ------
    ClusterError
        From every method: if no address is configured, nothing answers, the password or token is
        refused, or the gateway says no.
    """

    def __init__(self) -> None:
        self.address = str(dask.config.get("gateway.address", None) or "")
        if not self.address:
            raise ClusterError(
                "no gateway is configured; set DASK_GATEWAY__ADDRESS, or gateway.address in "
                "~/.config/dask/gateway.yaml"
            )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, daemon=True, name="cropcube gateway"
        )
        self._thread.start()
        try:
            self._gateway: Gateway = self._run(_make_gateway)
        except BaseException as error:
            self._end_loop()
            if isinstance(error, ValueError):
                raise ClusterError(f"gateway {self.address}: {error}") from error
            raise

    def options(self) -> Options:
        """Return the options that this gateway offers, with its defaults and the user's own."""
        return self._ask(lambda gateway: gateway.cluster_options())

    def submit(self, options: Options) -> str:
        """Ask for a cluster; returns its name at once."""
        return str(self._ask(lambda gateway: gateway.submit(options)))

    def report(self, name: str) -> ClusterReport:
        """Return what the gateway knows about a cluster."""
        return self._ask(lambda gateway: gateway.get_cluster(name))

    def clusters(self) -> list[ClusterReport]:
        """Return the user's clusters that are starting or running."""
        return list(self._ask(lambda gateway: gateway.list_clusters()))

    def stop(self, name: str) -> None:
        """Stop a cluster; a cluster that is gone already is fine."""
        self._ask(lambda gateway: gateway.stop_cluster(name))

    def scale(self, name: str, workers: int) -> None:
        """Ask for that many workers."""
        self._ask(lambda gateway: gateway.scale_cluster(name, workers))

    def adapt(self, name: str, minimum: int, maximum: int) -> None:
        """Let the number of workers follow the work."""
        self._ask(lambda gateway: gateway.adapt_cluster(name, minimum=minimum, maximum=maximum))

    def close(self) -> None:
        """End the connection; clusters go on."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._gateway.close)
        finally:
            self._end_loop()

    def _ask(self, request: Callable[[Gateway], Awaitable[T]]) -> T:
        if self._loop.is_closed():
            raise ClusterError(f"the connection to gateway {self.address} was closed")
        try:
            return self._run(lambda: request(self._gateway))
        except aiohttp.ClientResponseError as error:
            raise ClusterError(self._refusal(error)) from error
        except (aiohttp.ClientError, OSError, TimeoutError, FutureTimeoutError) as error:
            raise ClusterError(
                f"gateway {self.address} does not answer ({type(error).__name__}: {error}); check "
                "that it runs, the address, and that this machine may reach it"
            ) from error
        except (GatewayServerError, GatewayClusterError, ValueError, KeyError) as error:
            raise ClusterError(f"gateway {self.address} refuses: {error.args[0]}") from error

    def _refusal(self, error: aiohttp.ClientResponseError) -> str:
        if error.status in (401, 403):
            return (
                f"gateway {self.address} refuses the password or token ({error.status}); set "
                "gateway.auth in Dask's configuration, or on a hub JUPYTERHUB_API_TOKEN"
            )
        return f"gateway {self.address} answers {error.status} {error.message}; look at its log"

    def _run(self, request: Callable[[], Awaitable[T]]) -> T:
        async def limited() -> T:
            return await asyncio.wait_for(request(), ANSWER)

        # The second limit is for a loop that died.
        return asyncio.run_coroutine_threadsafe(limited(), self._loop).result(2 * ANSWER)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER)
        self._loop.close()


async def _make_gateway() -> Any:
    return Gateway(asynchronous=True)
