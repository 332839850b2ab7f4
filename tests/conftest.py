"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
