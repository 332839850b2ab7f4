"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import pytest
from hypothesis import settings

from tests.s3_server import S3Server, serve_s3

# Kernels are compiled at their first call: time says nothing about an example.
settings.register_profile("cropcube", deadline=None)
settings.load_profile("cropcube")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real archives, labels and items; skips where there is none."""
    folder = os.environ.get("CROPCUBE_DATA")
    if not folder:
        pytest.skip("CROPCUBE_DATA is not set: no real data on this machine")
    path = Path(folder)
    if not (path / "archive").is_dir():
        pytest.skip(f"CROPCUBE_DATA={path} holds no folder 'archive'")
    return path.resolve()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server for the whole session; most tests want `s3`, which also tells where it is."""
    with serve_s3() as server:
        yield server


@pytest.fixture(scope="module")
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """The S3 server, with the environment through which every program finds it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        yield s3_server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of one MiB, where that is permitted."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


#: Files that take minutes: begun first, or two processes would end with one of them working alone.
LONG = (
    *("test_main_job_real", "test_readme", "test_boost", "test_train", "test_store"),
    "test_predict",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal out files that mostly wait (of `deploy`) in turn with files that compute."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting = [path for path in files if path.parent.name == "deploy"]
    computing = sorted(
        (path for path in files if path.parent.name != "deploy"),
        key=lambda path: path.stem not in LONG,
    )
    turns = chain.from_iterable(zip_longest(waiting, computing))
    items[:] = [item for path in turns if path is not None for item in files[path]]
