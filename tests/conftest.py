"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

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


#: Files that take minutes: begun first, or two processes would end with one of them working alone.
LONG = (
    *("test_main_job_real", "test_readme", "test_boost", "test_train", "test_store"),
    "test_predict",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)
