"""Folders of objects: on disk or in a bucket, read and written in the same few ways.

A `Folder` is a folder of the file system or a prefix of a bucket, ``s3://bucket/prefix``; what lies
in it are objects, named by their path below it. An object is written whole or not at all, and
`Folder.create` lets exactly one of several writers have a name: on disk by a hard link, in a bucket
by a conditional request (``If-None-Match: *``).

Buckets are configured by the environment, as in other tools: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``, and ``AWS_ALLOW_HTTP=true`` for an
endpoint without TLS.

A process that is killed while it writes can leave a part behind: on disk a file ``name#1``, which
no method here shows, in a bucket an unfinished multipart upload, which a lifecycle rule of the
bucket (AbortIncompleteMultipartUpload) removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, ObjectStore, from_url

from cube.errors import AccessError, StoreError

#: How a folder is given: its path, or the URL of a bucket and prefix.
Place = str | Path

_SCHEMES = ("s3", "gs")
_STREAM_BYTES = 4 * 2**20
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_FLATTENED_URL = re.compile(rf"({'|'.join(_SCHEMES)}):/[^/]")


@dataclass(frozen=True)
class Folder:
    """A folder of objects; use `at` to make one.

    Every method raises `StoreError` if the bucket does not do as asked, `AccessError` if it refuses
    the credentials, and the operating system's own `OSError` if a disk does not.

    Attributes
    ----------
    address : str
        Path or URL, without a slash at its end.
    """

    address: str

    @property
    def is_url(self) -> bool:
        """Whether it lies in a bucket, where every question costs a request."""
        return "://" in self.address

    @property
    def place(self) -> Place:
        """The path or the URL, as `at` takes it."""
        return self.address if self.is_url else Path(self.address)

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.address}/{name}")

    def absolute(self) -> Folder:
        """Return the same folder, named so that other processes find it too."""
        return self if self.is_url else Folder(str(Path(self.address).resolve()))

    def put(self, name: str, content: bytes | Iterable[bytes]) -> None:
        """Write an object, so that a reader sees the old content or the new, never half of it.

        Parameters
        ----------
        name : str
            Path below the folder.
        content : bytes or iterable of bytes
            An iterable is written while it is made, a few MiB of it in memory at a time.
        """
        with self._told(name, "written"):
            obstore.put(self._store(make=True), name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one of this name.

        Returns
        -------
        bool
            Whether the object holds `content`, because this call wrote it or an earlier one did: a
            request whose answer was lost is sent again and must not lose against itself. Writers
            that compete for a name put something of their own into the content.
        """
        with self._told(name, "written"):
            try:
                obstore.put(self._store(make=True), name, content, mode="create")
            except AlreadyExistsError:
                with suppress(FileNotFoundError):
                    return self.get(name) == content
                return False
        return True

    def get(self, name: str) -> bytes:
        """Return an object's content.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        """
        with self._told(name, "read"):
            return obstore.get(self._store(), name).bytes().to_bytes()

    def get_end(self, name: str, length: int) -> bytes:
        """Return the last `length` bytes of an object; FileNotFoundError as for `get`."""
        with self._told(name, "read"):
            asked = obstore.get(self._store(), name, options={"range": {"suffix": length}})
            return asked.bytes().to_bytes()

    def get_parts(self, name: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """Return parts of an object, neighbours in one request; FileNotFoundError as for `get`."""
        with self._told(name, "read"):
            parts = obstore.get_ranges(self._store(), name, starts=starts, lengths=lengths)
        return [part.to_bytes() for part in parts]

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of an object in hexadecimal; FileNotFoundError as for `get`."""
        digest = hashlib.sha256()
        with self._told(name, "read"):
            for part in obstore.get(self._store(), name).stream(min_chunk_size=_STREAM_BYTES):
                digest.update(part)
        return digest.hexdigest()

    def version(self, name: str) -> str | None:
        """Return what changes whenever the object does (its ETag), or None if there is none."""
        with suppress(FileNotFoundError, NotADirectoryError), self._told(name, "read"):
            return _version(obstore.head(self._store(), name))
        return None

    def exists(self, name: str) -> bool:
        """Return whether there is such an object."""
        return self.version(name) is not None

    def modified(self, name: str) -> datetime | None:
        """Return when the object was written, UTC by the store's clock, or None without one."""
        with suppress(FileNotFoundError, NotADirectoryError), self._told(name, "read"):
            return obstore.head(self._store(), name)["last_modified"]
        return None

    def listing(self, below: str = "") -> dict[str, str]:
        """Return name and version of every object, or of those in the folder `below`."""
        with suppress(FileNotFoundError), self._told(below, "listed"):
            found = obstore.list(self._store(), below or None).collect()
            return {meta["path"]: _version(meta) for meta in found}
        return {}

    def children(self) -> list[str]:
        """Return the names that lie directly in the folder, of objects and of folders."""
        with suppress(FileNotFoundError), self._told("", "listed"):
            found = obstore.list_with_delimiter(self._store())
            return sorted([*found["common_prefixes"], *(one["path"] for one in found["objects"])])
        return []

    def is_empty(self) -> bool:
        """Return whether there is no object at all, at any depth."""
        with suppress(FileNotFoundError), self._told("", "listed"):
            return not next(iter(obstore.list(self._store(), chunk_size=1)), None)
        return True

    def delete(self, name: str) -> None:
        """Delete an object if there is one of this name."""
        with suppress(FileNotFoundError), self._told(name, "deleted"):
            obstore.delete(self._store(), name)

    def _store(self, make: bool = False) -> ObjectStore:
        if self.is_url:
            return _bucket(self.address)
        if make:
            Path(self.address).mkdir(parents=True, exist_ok=True)
        elif not Path(self.address).is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.address)
        return LocalStore(self.address)

    @contextmanager
    def _told(self, name: str, done: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            self._require_bucket(error)
            if done == "written":
                raise StoreError(f"{self}/{name}: cannot be written ({_reason(error)})") from error
            raise
        except BaseError as error:
            self._require_bucket(error)
            if number := _OS_ERROR.search(_reason(error)):
                code = int(number[1])
                raise OSError(code, os.strerror(code), f"{self}/{name}") from error
            if isinstance(error, PermissionDeniedError | UnauthenticatedError):
                raise AccessError(
                    f"{self}/{name}: cannot be {done}, access is refused; give AWS_ACCESS_KEY_ID "
                    "and AWS_SECRET_ACCESS_KEY of an account that may, where the program runs"
                ) from error
            raise StoreError(
                f"{self}/{name}: cannot be {done} ({_reason(error)}); check the URL, the network "
                "and AWS_ENDPOINT_URL, AWS_REGION and the keys in the environment"
            ) from error

    def _require_bucket(self, error: Exception) -> None:
        # A bucket that is not there must not be taken for an empty one.
        if "NoSuchBucket" in str(error):
            raise StoreError(f"{self}: there is no such bucket; create it first") from error


def at(place: Place | Folder) -> Folder:
    """Return the folder at a path or URL; nothing is opened or made yet.

    Parameters
    ----------
    place : str, Path or Folder
        ``zones.zarr``, ``/data/zones.zarr``, ``s3://bucket/zones.zarr`` or
        ``gs://bucket/zones.zarr``.

    Raises
    ------
    StoreError
        If it is a URL of another kind.
    """
    if isinstance(place, Folder):
        return place
    address = str(place)
    if _FLATTENED_URL.match(address):
        raise StoreError(f"{address}: a URL was made a pathlib.Path; hand it over as text")
    scheme, mark, _ = address.partition("://")
    if not mark:
        return Folder(str(Path(address)))
    if scheme not in _SCHEMES:
        known = " or ".join(f"{one}://bucket/prefix" for one in _SCHEMES)
        raise StoreError(f"{address}: not a place for a store; give a folder, {known}")
    return Folder(address.rstrip("/"))


@lru_cache(maxsize=256)
def _bucket(url: str) -> ObjectStore:
    return from_url(url)


def _version(meta: obstore.ObjectMeta) -> str:
    return meta["e_tag"] or meta["last_modified"].isoformat()


def _reason(error: Exception) -> str:
    # The first line says it; then come the server's XML and the library's own state.
    return str(error).partition("\n")[0].partition(": <?xml")[0]
