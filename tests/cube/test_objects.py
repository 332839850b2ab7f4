"""Objects: the same on disk and in a bucket, whole or not at all, created once."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cube.errors import StoreError
from cube.objects import Folder, at

pytestmark = pytest.mark.s3


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path) -> Folder:
    if request.param == "disk":
        return at(tmp_path / "a folder" / "b")
    return at(f"{request.getfixturevalue('s3').bucket()}/a folder/b/")


def test_what_is_put_is_listed_got_and_deleted(folder):
    assert folder.is_empty()
    assert folder.listing() == {}
    assert folder.children() == []
    folder.put("x/y/1", b"one")
    folder.put("x/2", b"two")
    folder.put("3", b"")
    assert folder.get("x/y/1") == b"one"
    assert folder.get("3") == b""
    assert sorted(folder.listing()) == ["3", "x/2", "x/y/1"]
    assert sorted(folder.listing("x")) == ["x/2", "x/y/1"]
    assert folder.listing("nothing") == {}
    assert folder.children() == ["3", "x"]
    assert (folder / "x").get("2") == b"two"
    assert not folder.is_empty()
    for _ in range(2):
        folder.delete("x/2")
    assert sorted(folder.listing()) == ["3", "x/y/1"]
    assert not folder.exists("x/2")
    for asked in (folder.get, folder.sha256, lambda name: folder.get_end(name, 1)):
        with pytest.raises(FileNotFoundError):
            asked("x/2")


def test_an_iterable_becomes_one_object_and_is_read_in_parts(folder):
    # More than one part of a multipart upload.
    pieces = [bytes([n % 251]) * 1_000_003 for n in range(12)]
    folder.put("big", iter(pieces))
    content = b"".join(pieces)
    assert folder.get("big") == content
    assert folder.sha256("big") == hashlib.sha256(content).hexdigest()
    assert folder.get_end("big", 5) == content[-5:]
    starts, lengths = [3, 2_000_000, 9_999_999], [4, 100, 1]
    assert folder.get_parts("big", starts, lengths) == [
        content[start : start + length] for start, length in zip(starts, lengths, strict=True)
    ]


def test_a_version_changes_with_the_content(folder):
    assert folder.version("a") is None
    assert folder.modified("a") is None
    folder.put("a", b"1")
    first = folder.version("a")
    assert first == folder.version("a") == folder.listing()["a"]
    folder.put("a", b"22")
    assert folder.version("a") != first
    assert abs(folder.modified("a") - datetime.now(UTC)) < timedelta(minutes=5)


def test_an_interrupted_put_changes_nothing(folder):
    def breaks_off() -> Iterator[bytes]:
        yield b"new" * 3_000_000
        raise RuntimeError("in the middle")

    folder.put("a", b"old")
    with pytest.raises(RuntimeError, match="in the middle"):
        folder.put("a", breaks_off())
    assert folder.get("a") == b"old"
    assert list(folder.listing()) == ["a"]


def test_a_name_is_created_once(folder):
    assert folder.create("claim", b"mine")
    assert not folder.create("claim", b"yours")
    assert folder.create("claim", b"mine")
    assert folder.get("claim") == b"mine"
    folder.delete("claim")
    assert folder.create("claim", b"yours")


def test_of_many_at_once_one_creates(folder):
    names, writers = [f"c/{n}" for n in range(10)], [f"writer {n}".encode() for n in range(6)]
    barrier = threading.Barrier(len(writers))

    def compete(writer: bytes) -> list[str]:
        barrier.wait()
        return [name for name in names if folder.create(name, writer)]

    with ThreadPoolExecutor(len(writers)) as pool:
        won = dict(zip(writers, pool.map(compete, writers), strict=True))
    assert sorted(name for mine in won.values() for name in mine) == sorted(names)
    assert all(folder.get(name) == writer for writer, mine in won.items() for name in mine)


@contextmanager
def losing_replies(endpoint: str) -> Iterator[str]:
    """Serve what `endpoint` serves, but the answer to each first write of a name is lost."""
    target, seen = urlsplit(endpoint).netloc, set()

    class Forward(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_PUT(self) -> None:
            connection = HTTPConnection(target, timeout=10)
            length = int(self.headers.get("Content-Length", 0))
            connection.request(self.command, self.path, self.rfile.read(length), self.headers)
            reply = connection.getresponse()
            body = reply.read()
            if self.command == "PUT" and self.path not in seen:
                seen.add(self.path)
                return
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("connection", "server", "date"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def created_at_last(folder: Folder, name: str, content: bytes) -> bool:
    """Create as a runner does, which asks again after an error of the network."""
    try:
        return folder.create(name, content)
    except StoreError:
        return folder.create(name, content)


def test_who_lost_the_reply_still_has_the_name(s3, monkeypatch):
    bucket = s3.bucket()
    with losing_replies(s3.endpoint) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        folder = at(f"{bucket}/run")
        assert created_at_last(folder, "claim", b"mine")
        assert not created_at_last(folder, "claim", b"yours")
        assert folder.get("claim") == b"mine"


def test_a_staged_file_of_a_killed_process_is_no_object(tmp_path):
    folder = at(tmp_path)
    folder.put("a/b", b"whole")
    (tmp_path / "a" / "b#1").write_bytes(b"ha")
    assert list(folder.listing()) == ["a/b"]
    folder.put("a/b", b"anew")
    assert folder.get("a/b") == b"anew"


def test_a_bucket_that_is_not_there_is_told(s3):
    folder = at("s3://never-made/x")
    for asked in (
        lambda: folder.get("a"),
        lambda: folder.put("a", b""),
        lambda: folder.create("a", b""),
        folder.listing,
        folder.children,
        folder.is_empty,
    ):
        with pytest.raises(StoreError, match="s3://never-made/x: there is no such bucket"):
            asked()


def test_a_file_in_the_way_is_the_systems_own_error(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(OSError, match="Not a directory"):
        at(tmp_path).put("a/b", b"1")
    with pytest.raises(FileExistsError):
        at(tmp_path / "a").put("b", b"1")


def test_places_are_paths_or_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert at("a/b/").place == Path("a/b")
    assert at("a/b").absolute().place == tmp_path.resolve() / "a" / "b"
    bucket = at("s3://b/c/")
    assert bucket.place == str(bucket.absolute()) == "s3://b/c"
    assert at(bucket) is bucket
    assert pickle.loads(pickle.dumps(bucket / "d")) == at("s3://b/c/d")  # noqa: S301
    with pytest.raises(StoreError, match="hand it over as text"):
        at(Path("s3://b/c"))
    with pytest.raises(StoreError, match="ftp://b/c: not a place for a store"):
        at("ftp://b/c")
