"""Open files are reused, never shared, and never kept after a failure."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from cube.handles import Handles
from tests.archive import GRID, write_tif


@pytest.fixture
def paths(tmp_path):
    values = np.ones((8, 8), np.uint16)
    return [write_tif(tmp_path / f"{n}.tif", values, GRID, 10) for n in range(4)]


def test_a_returned_file_is_given_again(paths):
    handles = Handles(rasterio.open)
    with handles.borrow(paths[0]) as first:
        pass
    with handles.borrow(paths[0]) as again:
        assert again is first
        assert not again.closed


def test_two_borrowers_never_hold_the_same_file(paths):
    handles = Handles(rasterio.open)
    with handles.borrow(paths[0]) as one, handles.borrow(paths[0]) as other:
        assert one is not other
    # One of the two is kept, the other closed.
    assert sorted([one.closed, other.closed]) == [False, True]


def test_a_failed_read_closes_the_file(paths):
    handles = Handles(rasterio.open)
    with pytest.raises(ValueError, match="broken"), handles.borrow(paths[0]) as source:
        raise ValueError("broken")
    assert source.closed
    with handles.borrow(paths[0]) as fresh:
        assert fresh is not source


def test_the_file_idle_longest_is_closed_first(paths):
    handles = Handles(rasterio.open, kept=2)
    opened = []
    for path in paths[:3]:
        with handles.borrow(path) as source:
            opened.append(source)
    assert [source.closed for source in opened] == [True, False, False]
