"""The deployment files, and the programs that check them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
OVERLAYS = ("dev", "aws-spot")
#: Kubernetes versions that the manifests are for.
VERSIONS = tuple(f"1.{minor}" for minor in range(30, 38))


def program(name: str) -> str:
    """Return a program installed beside this Python, or elsewhere on PATH; skips without it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed on this machine")
    return found


def check(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a checker; its verdict is the return code, its words are in `stdout`."""
    return subprocess.run(
        [str(word) for word in command],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def rendered(overlay: str) -> list[dict[str, Any]]:
    """Return what `kubectl apply -k` would send for an overlay."""
    done = check(program("kubectl"), "kustomize", DEPLOY / "kubernetes" / "overlays" / overlay)
    assert done.returncode == 0, done.stdout
    return list(yaml.safe_load_all(done.stdout))


def broken(path: Path, folder: Path, old: str, new: str) -> Path:
    """Write a copy of a file with one mistake in it."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    copy = folder / path.name
    copy.write_text(text.replace(old, new, 1), encoding="utf-8")
    return copy
