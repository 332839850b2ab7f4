"""Ranges of bytes, from disk and over HTTP; every failure is told apart by its kind.

No GDAL below here: which host is spoken to, what is sent, which answer is believed and what is
worth a second try are decided in this file. A redirect is never followed and, but for the API that
the user named, no private address is ever spoken to, so an href of a stranger's catalogue reaches
nothing inside the reader's own network.
"""

from __future__ import annotations

import io
import ipaddress
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol
from urllib.request import getproxies

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, TimeoutError

from cube import traffic
from cube.errors import redact

Kind = Literal["transport", "forbidden", "missing", "corrupt", "refused"]

#: Connections kept open to one host; more than the reads in flight would only sit idle.
CONNECTIONS = 64
#: Seconds to connect, between two packets, and for one whole answer.
CONNECT_TIMEOUT, STALL_TIMEOUT, ANSWER_TIMEOUT = 15.0, 30.0, 120.0
_PIECE = 1 << 20


class FetchError(Exception):
    """A range that could not be had.

    Attributes
    ----------
    kind : {"transport", "forbidden", "missing", "corrupt", "refused"}
        Waiting mends ``transport`` (429, 5xx, time-outs, resets, short answers); signing again may
        mend ``forbidden`` (401, 403); nothing mends the others.
    wait : float
        Seconds that the server asked to wait; 0 if it did not.
    """

    def __init__(self, kind: Kind, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.kind, self.wait = kind, wait


@dataclass(frozen=True)
class Source:
    """A file on disk or an https URL, signed; `private` allows addresses inside networks."""

    href: str
    private: bool = False

    @property
    def remote(self) -> bool:
        """Whether it is read over HTTP."""
        return self.href.startswith(("http://", "https://"))

    def read_into(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` with bytes from `start`; return their number, less only at the end.

        Raises
        ------
        FetchError
            With its kind; the text holds no query of a signed URL.
        """
        if self.remote:
            got = _http_range(self, start, buffer)[0]
        else:
            with _local(self.href) as file:
                got = os.preadv(file.fileno(), [buffer], start)
        traffic.count(requests=1, read=got)
        return got

    def size(self) -> int:
        """Return the length of the whole file in bytes; asks the server for one byte."""
        if self.remote:
            return _http_range(self, 0, memoryview(bytearray(1)))[1]
        with _local(self.href) as file:
            return os.fstat(file.fileno()).st_size


class Readable(Protocol):
    """A `Source`, or what stands before one to try again."""

    def read_into(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` with bytes from `start`; return their number, less only at the end."""

    def size(self) -> int:
        """Return the length of the whole file in bytes."""


class SourceFile(io.RawIOBase):
    """A `Source` as a seekable file of `size` bytes, fetched in pieces of at least `ahead`."""

    def __init__(self, source: Readable, size: int, ahead: int) -> None:
        self._source, self._size, self._ahead = source, size, ahead
        self._at, self._start, self._piece = 0, 0, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset` from the start, the position or the end; returns the new position."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` from the position; returns the number of bytes, less only at the end."""
        wanted = max(0, min(len(buffer), self._size - self._at))
        place = self._at - self._start
        if not 0 <= place <= place + wanted <= len(self._piece):
            piece = bytearray(min(max(wanted, self._ahead), self._size - self._at))
            got = self._source.read_into(self._at, memoryview(piece))
            self._piece, self._start, place = bytes(piece[:got]), self._at, 0
        part = self._piece[place : place + wanted]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


@contextmanager
def _local(path: str) -> Iterator[io.FileIO]:
    try:
        with io.FileIO(path) as file:
            yield file
    except FileNotFoundError as error:
        raise FetchError("missing", "no such file") from error
    except OSError as error:
        raise FetchError("transport", f"the disk says: {error.strerror}") from error


def _http_range(source: Source, start: int, buffer: memoryview) -> tuple[int, int]:
    """Return the number of bytes received and the length of the whole file."""
    last = start + len(buffer) - 1
    try:
        answer = _pool(source.private).request(
            "GET",
            source.href,
            headers={"Range": f"bytes={start}-{last}", "Accept-Encoding": "identity"},
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=STALL_TIMEOUT),
        )
        try:
            expected, whole = _expected(answer, start, len(buffer))
            got = _receive(answer, buffer[:expected])
        except BaseException:
            # What is left of this answer must not be taken for the next one.
            answer.close()
            raise
        finally:
            answer.release_conn()
    except TimeoutError as error:
        raise FetchError("transport", "the server did not answer in time") from error
    except HTTPError as error:
        raise FetchError("transport", f"the connection failed ({redact(str(error))})") from error
    if got != expected:
        raise FetchError("transport", f"the answer broke off after {got} of {expected} bytes")
    return got, whole


def _receive(answer: urllib3.BaseHTTPResponse, buffer: memoryview) -> int:
    deadline, got = time.monotonic() + ANSWER_TIMEOUT, 0
    while got < len(buffer):
        count = answer.readinto(buffer[got : got + _PIECE])
        if count == 0:
            break
        got += count
        if time.monotonic() > deadline:
            raise FetchError("transport", f"no whole answer within {ANSWER_TIMEOUT:.0f} s")
    return got


def _expected(answer: urllib3.BaseHTTPResponse, start: int, length: int) -> tuple[int, int]:
    """Return how many bytes a good answer holds and the whole file; raise for any other answer."""
    status = answer.status
    if 300 <= status < 400:
        raise FetchError("refused", f"the server redirects (HTTP {status}); not followed")
    if status in (401, 403):
        raise FetchError("forbidden", f"access refused (HTTP {status})")
    if status in (404, 410):
        raise FetchError("missing", f"not there (HTTP {status})")
    if status in (408, 425, 429) or status >= 500:
        raise FetchError("transport", f"HTTP {status}", _retry_after(answer))
    if "html" in answer.headers.get("Content-Type", ""):
        raise FetchError("corrupt", f"a page of HTML instead of an image (HTTP {status})")
    if status == 416:
        raise FetchError("corrupt", "the file ends before the block that its header names")
    if status == 206:
        return _length_of(answer.headers.get("Content-Range", ""), start, length)
    whole = int(answer.headers.get("Content-Length", -1))
    if status == 200 and start == 0 and 0 <= whole <= length:
        return whole, whole
    raise FetchError("corrupt", f"the server does not serve ranges of files (HTTP {status})")


def _length_of(content_range: str, start: int, length: int) -> tuple[int, int]:
    # RFC 9110, 14.4: "bytes first-last/length".
    try:
        unit, _, rest = content_range.partition(" ")
        span, _, total = rest.partition("/")
        first, last = (int(number) for number in span.split("-"))
        whole = int(total)
    except ValueError:
        raise FetchError("transport", f"Content-Range '{content_range[:80]}'") from None
    if unit != "bytes" or first != start or last + 1 != min(start + length, whole):
        raise FetchError("transport", f"asked for {length} bytes at {start}, got {content_range}")
    return last - first + 1, whole


def _retry_after(answer: urllib3.BaseHTTPResponse) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(60.0, float(text)) if text.isdigit() else 0.0


class _PublicOnly:
    """Closes a connection to a private address before anything is sent over it."""

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        address = self.sock.getpeername()[0]  # type: ignore[attr-defined]
        if not ipaddress.ip_address(address.partition("%")[0]).is_global:
            self.close()  # type: ignore[attr-defined]
            raise FetchError("refused", f"the host has the private address {address}")


class _PublicHTTP(_PublicOnly, HTTPConnection):
    pass


class _PublicHTTPS(_PublicOnly, HTTPSConnection):
    pass


class _PublicHTTPPool(HTTPConnectionPool):
    ConnectionCls = _PublicHTTP


class _PublicHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _PublicHTTPS


class _Redacting(logging.Filter):
    """urllib3 writes whole URLs to its debug log; signatures are cut out of them."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_Redacting())


@cache
def _pool(private: bool) -> urllib3.PoolManager:
    proxy = getproxies().get("https")
    if proxy and not private:
        # Behind a proxy it is the proxy that resolves names and decides what can be reached.
        return urllib3.ProxyManager(proxy, maxsize=CONNECTIONS)
    pool = urllib3.PoolManager(maxsize=CONNECTIONS)
    if not private:
        pool.pool_classes_by_scheme = {"http": _PublicHTTPPool, "https": _PublicHTTPSPool}
    return pool
