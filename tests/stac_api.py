"""A small STAC API on loopback, for tests: item search as Earth Search and Planetary Computer do.

Real HTTP, real paging, real filters; nothing is replaced in the code under test.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import shapely
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Paging = Literal["earth-search", "planetary-computer", "get", "endless"]

CONFORMANCE = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
]


@dataclass
class StacServer:
    """The running server: `url` is the API's root, `requests` what was asked of it."""

    items: list[dict[str, Any]]
    paging: Paging
    page_size: int
    failures: list[int]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)

    def landing(self, request: Request) -> Response:
        search = {"rel": "search", "type": "application/geo+json", "href": f"{self.url}/search"}
        links = [
            {"rel": "self", "href": self.url},
            {"rel": "root", "href": self.url},
            {**search, "method": "POST"},
            {**search, "method": "GET"},
        ]
        body = {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "test",
            "description": "A STAC API for tests",
            "conformsTo": CONFORMANCE,
            "links": links,
        }
        return JSONResponse(body)

    async def search(self, request: Request) -> Response:
        if request.method == "POST":
            asked = await request.json()
        else:
            asked = {key: _parsed(value) for key, value in request.query_params.items()}
        self.requests.append(asked)
        if self.failures:
            return Response("injected", status_code=self.failures.pop(0))
        found = [item for item in self.items if _matches(item, asked)]
        start = int(str(asked.get("token") or asked.get("next") or "0").removeprefix("next:"))
        size = min(int(asked.get("limit", 10)), self.page_size)
        body: dict[str, Any] = {
            "type": "FeatureCollection",
            "features": found[start : start + size],
            "links": [{"rel": "root", "href": self.url}],
        }
        if self.paging == "earth-search":
            body["numberMatched"] = len(found)
        if start + size < len(found) or self.paging == "endless":
            body["links"].append(self._next(asked, start + size))
        return JSONResponse(body)

    def _next(self, asked: dict[str, Any], start: int) -> dict[str, Any]:
        link: dict[str, Any] = {"rel": "next", "href": f"{self.url}/search", "method": "POST"}
        if self.paging == "earth-search":
            # The whole search, and `merge` false, as the service writes it.
            return {**link, "merge": False, "body": {**asked, "next": str(start)}}
        if self.paging == "planetary-computer":
            return {**link, "body": {**asked, "token": f"next:{start}"}}
        if self.paging == "endless":
            return {**link, "body": asked}
        query = "&".join(f"{key}={json.dumps(value)}" for key, value in asked.items())
        return {"rel": "next", "href": f"{self.url}/search?{query}&token={start}", "method": "GET"}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _matches(item: dict[str, Any], asked: dict[str, Any]) -> bool:
    if asked.get("collections") and item.get("collection") not in asked["collections"]:
        return False
    footprint = shapely.geometry.shape(item["geometry"])
    if "bbox" in asked and not footprint.intersects(shapely.box(*asked["bbox"])):
        return False
    if "intersects" in asked:
        wanted = shapely.geometry.shape(asked["intersects"])
        if not footprint.intersects(wanted):
            return False
    if "datetime" in asked:
        first, _, last = asked["datetime"].partition("/")
        when = pd.Timestamp(item["properties"]["datetime"])
        if when.tz is None:
            when = when.tz_localize("UTC")
        if not pd.Timestamp(first) <= when <= pd.Timestamp(last or first):
            return False
    return True


@contextmanager
def stac_api(
    items: Sequence[dict[str, Any]],
    *,
    paging: Paging = "earth-search",
    page_size: int = 100,
    failures: Sequence[int] = (),
) -> Iterator[StacServer]:
    """Serve `items`; the first searches answer with the HTTP codes in `failures`."""
    server = StacServer(list(items), paging, page_size, list(failures))
    routes = [
        Route("/", server.landing),
        Route("/search", server.search, methods=["GET", "POST"]),
    ]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    runner = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error"))
    thread = threading.Thread(target=runner.run, args=([listener],), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not runner.started:
            if time.monotonic() > deadline:
                raise RuntimeError("the STAC API for tests did not start")
            time.sleep(0.01)
        yield server
    finally:
        runner.should_exit = True
        thread.join(timeout=10)
        listener.close()
