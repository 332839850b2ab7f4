"""Ranges against a real server with the faults that servers have."""

from __future__ import annotations

import io

import pytest

from cube import ranges
from cube.ranges import FetchError, Source, SourceFile
from tests.range_server import serve

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.tif").write_bytes(CONTENT)
    return tmp_path


def read(source: Source, start: int, length: int) -> bytes:
    buffer = bytearray(length)
    return bytes(buffer[: source.read_into(start, memoryview(buffer))])


@pytest.mark.parametrize(
    ("start", "length"), [(0, 10), (300, 1), (5000, 5240), (10200, 500), (0, 99999)]
)
def test_a_range_is_the_slice_of_the_file(folder, start, length):
    with serve(folder) as server:
        remote = Source(f"{server.origin}/a.tif", private=True)
        assert read(remote, start, length) == CONTENT[start : start + length]
        assert remote.size() == len(CONTENT)
    local = Source(str(folder / "a.tif"))
    assert read(local, start, length) == CONTENT[start : start + length]
    assert local.size() == len(CONTENT)


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("404", "missing", "HTTP 404"),
        ("403", "forbidden", "HTTP 403"),
        ("429", "transport", "HTTP 429"),
        ("503", "transport", "HTTP 503"),
        ("reset", "transport", "connection failed"),
        ("hang", "transport", "in time"),
        ("truncate", "transport", "broke off|connection failed"),
        ("html", "corrupt", "HTML"),
        ("400", "corrupt", "HTTP 400"),
        ("whole", "corrupt", "ranges"),
        ("redirect http://127.0.0.1:1/secret", "refused", "redirects"),
    ],
)
def test_failures_are_told_apart(folder, monkeypatch, fault, kind, says):
    monkeypatch.setattr(ranges, "STALL_TIMEOUT", 0.3)
    with (
        serve(folder, lambda path, nth: fault) as server,
        pytest.raises(FetchError, match=says) as error,
    ):
        read(Source(f"{server.origin}/a.tif", private=True), 100, 1000)
    assert error.value.kind == kind


def test_a_failure_does_not_spoil_the_next_answer(folder):
    faults = ["truncate", "", "corrupt", "", "html", ""]
    with serve(folder, lambda path, nth: faults[nth - 1]) as server:
        source = Source(f"{server.origin}/a.tif", private=True)
        for fault in faults:
            if fault in ("", "corrupt"):
                assert (read(source, 0, 512) == CONTENT[:512]) == (fault == "")
            else:
                with pytest.raises(FetchError):
                    read(source, 0, 512)


def test_a_private_address_hears_nothing(folder):
    with serve(folder) as server:
        for host in ("127.0.0.1", "localhost"):
            url = f"http://{host}:{server.server_address[1]}/a.tif"
            with pytest.raises(FetchError, match="private address") as error:
                read(Source(url), 0, 10)
            assert error.value.kind == "refused"
        assert not server.asked


def test_the_end_of_the_file_inside_a_block_is_noticed(folder):
    with (
        serve(folder) as server,
        pytest.raises(FetchError, match="ends before") as error,
    ):
        read(Source(f"{server.origin}/a.tif", private=True), len(CONTENT) + 5, 10)
    assert error.value.kind == "corrupt"


def test_no_server_is_a_transport_failure(folder):
    with serve(folder) as server:
        url = f"{server.origin}/a.tif?sig=topsecret"
    with pytest.raises(FetchError) as error:
        read(Source(url, private=True), 0, 10)
    assert error.value.kind == "transport"
    assert "topsecret" not in str(error.value)


def test_a_source_is_a_file(folder):
    file = io.BufferedReader(SourceFile(Source(str(folder / "a.tif")), len(CONTENT), 100))
    assert file.read(5) == CONTENT[:5]
    assert file.seek(-3, io.SEEK_END) == len(CONTENT) - 3
    assert file.read() == CONTENT[-3:]
    assert file.seek(1000) == 1000
    assert file.read(700) == CONTENT[1000:1700]
