"""What installs cropcube says the same everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
#: PyPI name → conda-forge name where they differ.
CONDA = {"dask": "dask-core", "matplotlib": "matplotlib-base", "torch": "pytorch"}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def conda():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    specs = [rattler.MatchSpec(entry) for entry in listed]
    return {spec.name.normalized: str(spec.version or "") for spec in specs}


def requirements(project):
    extras = project["optional-dependencies"]
    names = re.search(r"\[(.*)\]", extras["all"][0])[1].split(",")
    wanted = project["dependencies"] + [entry for name in names for entry in extras[name]]
    return [Requirement(entry) for entry in wanted]


def test_conda_and_pip_ask_for_the_same(project, conda):
    pip = {CONDA.get(r.name, r.name): str(r.specifier) for r in requirements(project)}
    pip["python"] = project["requires-python"]
    ours = {name: SpecifierSet(version) for name, version in pip.items()}
    theirs = {n: SpecifierSet(v) for n, v in conda.items() if n != "pip"}
    assert theirs == ours


def test_constraints_pin_a_tested_version_of_every_requirement(project):
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {r.name.lower().replace("_", "-"): r for r in map(Requirement, lines)}
    for requirement in requirements(project):
        (pin,) = pinned[requirement.name].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), requirement


def test_nothing_asks_for_torchvision(project, conda):
    # Its wheels are CUDA builds: beside a CPU torch they break the import of lightning.
    text = (ROOT / "constraints.txt").read_text() + (ROOT / "pyproject.toml").read_text()
    assert "torchvision" not in text
    assert "torchvision" not in conda
