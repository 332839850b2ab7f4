"""Fixtures of the learning rooms."""

import pytest

from tests.model.farm import Farm, build_farm


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A small cube with labels and zones, built once."""
    return build_farm(tmp_path_factory.mktemp("farm"))
