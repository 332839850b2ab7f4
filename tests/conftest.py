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
