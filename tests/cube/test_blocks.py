"""Blocks that several tiles share: made once, forgotten in order, the same pixels back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cube.blocks import Blocks, pack, unpack


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_pixels_come_back_as_they_were(dtype):
    pixels = np.random.default_rng(1).integers(0, 200, (96, 64)).astype(dtype)
    np.testing.assert_array_equal(unpack(pack(pixels), (96, 64), np.dtype(dtype)), pixels)


def test_threads_that_ask_at_once_make_a_block_once():
    made, blocks, together = [], Blocks(), threading.Barrier(4)

    def make():
        made.append(1)
        return b"block"

    def ask(_):
        together.wait()
        return blocks.get("key", make)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [b"block"] * 4
    assert len(made) == 1


def test_what_was_used_longest_ago_is_forgotten_first():
    made, blocks = [], Blocks(limit=20)

    def make(key):
        made.append(key)
        return bytes(8)

    for key in ("a", "b", "a", "c", "a", "b"):
        blocks.get(key, lambda key=key: make(key))
    assert made == ["a", "b", "c", "b"]


def test_a_block_that_failed_is_asked_for_again():
    blocks = Blocks()

    def fail():
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        blocks.get("key", fail)
    assert blocks.get("key", lambda: b"here") == b"here"


def test_a_block_made_twice_counts_once():
    blocks = Blocks(limit=20)
    for _ in range(5):
        blocks._keep("a", bytes(8))
    blocks._keep("b", bytes(8))
    assert (blocks.get("a", bytes), blocks.get("b", bytes)) == (bytes(8), bytes(8))
