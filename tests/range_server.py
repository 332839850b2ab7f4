"""A real HTTP server for files, with ranges, delays and the faults that servers have."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Chooses the fault of a request from its path and how often that path was asked; "" for none.
Faults = Callable[[str, int], str]


def no_fault(path: str, nth: int) -> str:
    return ""


class RangeServer(ThreadingHTTPServer):
    """Serves a folder; counts requests per path in `asked` and what each got in `given`."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: Path, faults: Faults, delay: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.faults, self.delay = folder, faults, delay
        self.asked: Counter[str] = Counter()
        self.given: Counter[str] = Counter()
        self.sent = 0
        self.lock = threading.Lock()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def setup(self) -> None:
        super().setup()
        # Without this the body waits for the acknowledgement of the header.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        with self.server.lock:
            self.server.asked[path] += 1
            fault = self.server.faults(self.path, self.server.asked[path])
            self.server.given[fault] += 1
        if self.server.delay:
            time.sleep(self.server.delay)
        if fault == "hang":
            time.sleep(3)
            self.close_connection = True
        elif fault == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault.startswith("redirect "):
            self._short(302, b"", Location=fault.removeprefix("redirect "))
        elif fault == "html":
            self._short(200, b"<html>please log in</html>", **{"Content-Type": "text/html"})
        elif fault.isdigit():
            self._short(int(fault), b"no", **({"Retry-After": "0"} if fault == "429" else {}))
        else:
            self._file(self.server.folder / path.lstrip("/"), fault)

    def _short(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, path: Path, fault: str) -> None:
        if not path.is_file():
            return self._short(404, b"not here")
        size = path.stat().st_size
        asked = self.headers.get("Range", "")
        whole = fault == "whole" or not asked
        if whole:
            first, last = 0, size - 1
        else:
            first, last = (int(n) for n in asked.removeprefix("bytes=").split("-"))
            last = min(last, size - 1)
        if first >= size:
            return self._short(416, b"")
        with path.open("rb") as file:
            file.seek(first)
            body = file.read(last - first + 1)
        if fault == "corrupt":
            middle = len(body) // 2
            body = body[:middle] + bytes(64) + body[middle + 64 :]
        self.send_response(200 if whole else 206)
        self.send_header("Content-Type", "image/tiff")
        self.send_header("Content-Length", str(len(body)))
        if not whole:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if fault == "truncate":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)
        with self.server.lock:
            self.server.sent += len(body)
        return None


@contextmanager
def serve(folder: Path, faults: Faults = no_fault, delay: float = 0.0) -> Iterator[RangeServer]:
    """Serve `folder` on loopback; every answer starts after `delay` seconds."""
    server = RangeServer(folder, faults, delay)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
