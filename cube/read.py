"""Read one window of one asset of a scene; failures carry their facts and are never no data."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from threading import Event
from typing import Protocol

import numba
import numpy as np

from cube import traffic
from cube.blocks import Blocks, pack, unpack
from cube.cores import compute, scratch
from cube.errors import AccessError, ReadError, redact
from cube.grid import PIXEL, TILE, Window
from cube.pace import UNLIMITED, turn
from cube.providers import get_provider
from cube.ranges import FetchError, Source
from cube.recipe import BANDS
from cube.scenes import Scene
from cube.tiff import Layout, copy_block, read_layout

logger = logging.getLogger(__name__)

#: Tries of a request that failed on the way, and the pauses between them in seconds: doubled each
#: time, up to the longest. A provider that is away for half a minute is waited for.
ATTEMPTS = 12
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 8.0


class Reader(Protocol):
    """What a build needs to read pixels: `read_native` or a stand-in with its contract."""

    def __call__(
        self,
        scene: Scene,
        band: str,
        window: Window,
        out: np.ndarray,
        wanted: np.ndarray | None = None,
        free: Event | None = None,
    ) -> int:
        """Fill `out` with the window's pixels and return the greatest of them."""


def read_window(
    scene: Scene,
    band: str,
    window: Window,
    out: np.ndarray,
    wanted: np.ndarray | None = None,
    free: Event | None = None,
    read: Reader | None = None,
) -> int:
    """Read one asset at 10 m into `out`; coarser bands are replicated, never interpolated.

    Parameters are those of `read_native`, but for `window` and the shapes of `out` and `wanted`,
    which are pixels of the granule's 10 m grid, and `read`, which stands in for `read_native`.
    """
    read = read or read_native
    factor = gsd(band) // int(PIXEL)
    if factor == 1:
        return read(scene, band, window, out, wanted, free)
    coarse = native_window(window, factor)
    memory = scratch("coarse").take(coarse.height * coarse.width * out.itemsize)
    pixels = memory.view(out.dtype).reshape(coarse.height, coarse.width)
    greatest = read(scene, band, coarse, pixels)
    if free is not None:
        free.wait()
    replicate(pixels, factor, window.row % factor, window.col % factor, out)
    return greatest


def read_native(
    scene: Scene,
    band: str,
    window: Window,
    out: np.ndarray,
    wanted: np.ndarray | None = None,
    free: Event | None = None,
) -> int:
    """Read one asset at its own resolution into `out`.

    Parameters
    ----------
    scene : Scene
        Its href is read only if its provider allows the scheme and host.
    band : str
        Common name, or ``scl``.
    window : Window
        Pixels of the asset's own grid: 10, 20 or 60 m.
    out : ndarray of uint8 or uint16 [window.height, window.width]
        Receives the stored values, 0 = no data.
    wanted : ndarray of bool [window.height, window.width], optional
        Blocks of the file without a wanted pixel are not fetched; their pixels in `out` become 0.
    free : Event, optional
        Set when `out` may be written; bytes are fetched before.

    Returns
    -------
    int
        The greatest value read: above 60 000 it tells of an unsigned underflow.

    Raises
    ------
    ReadError
        Naming item, asset, tile and attempt; after `ATTEMPTS` tries of what waiting can mend, at
        once for the rest.
    """
    asset = _asset(scene, band, window)
    try:
        if scene.hrefs[band].lower().endswith(".jp2"):
            from cube.jpeg2000 import read_jpeg2000

            return read_jpeg2000(asset, window, out, free)
        layout = _layout(asset)
        _require_grid(layout, scene, band)
        return _read_blocks(asset, layout, window, out, wanted, free)
    except FetchError as error:
        # The file may have been replaced since its header was read.
        _layout.cache_clear()
        _blocks.clear()
        raise asset.failure(error, attempt=1) from error


def _read_blocks(
    asset: Asset,
    layout: Layout,
    window: Window,
    out: np.ndarray,
    wanted: np.ndarray | None,
    free: Event | None,
) -> int:
    greatest = 0
    # Other tiles need the rest of a block that is larger than a tile.
    shared = layout.pixel * max(layout.block) > PIXEL * TILE
    for index, block in layout.blocks(window):
        part = block.intersect(window)
        here = part.relative_to(window).yx
        if shared:
            packed = _blocks.get((asset, index), partial(_pack_block, asset, layout, index))
            place = part.relative_to(block)
            greatest = max(greatest, compute(_copy_packed, layout, packed, place, out[here]))
            continue
        size = int(layout.sizes[index])
        if wanted is not None and not wanted[here].any():
            size = 0
        data = _bytes_of(asset, layout, index, size)
        if free is not None:
            free.wait()
        if size == 0:
            out[here] = 0
            continue
        place = part.relative_to(block)
        greatest = max(greatest, compute(copy_block, layout, index, data, place, out[here]))
    return greatest


def _bytes_of(asset: Asset, layout: Layout, index: int, size: int) -> memoryview:
    data = scratch("block").take(size).data
    if size and asset.read_into(int(layout.offsets[index]), data) < size:
        raise FetchError("corrupt", f"the file ends inside block {index}")
    return data


def _pack_block(asset: Asset, layout: Layout, index: int) -> bytes:
    data = _bytes_of(asset, layout, index, int(layout.sizes[index]))
    return compute(_decode_and_pack, layout, index, data)


def _decode_and_pack(layout: Layout, index: int, data: memoryview) -> bytes:
    high, wide = layout.block
    memory = scratch("whole").take(high * wide * layout.dtype.itemsize)
    pixels = memory.view(layout.dtype).reshape(layout.block)
    if len(data):
        copy_block(layout, index, data, Window(row=0, col=0, height=high, width=wide), pixels)
    else:
        pixels[:] = 0
    return pack(pixels)


def _copy_packed(layout: Layout, packed: bytes, place: Window, out: np.ndarray) -> int:
    out[:] = unpack(packed, layout.block, layout.dtype)[place.yx]
    return int(out.max(initial=0))


def check_scene(scene: Scene) -> None:
    """Read the header of a scene's classification: a small request that tells whether it is there.

    Raises
    ------
    ReadError
        If it cannot be read, or lies on another grid than the scene.
    """
    asset = _asset(scene, "scl", scene.grid.window)
    try:
        if asset.href.lower().endswith(".jp2"):
            asset.size()
        else:
            _require_grid(_layout(asset), scene, "scl")
    except FetchError as error:
        raise asset.failure(error, attempt=1) from error


def gsd(band: str) -> int:
    """Return the ground sampling distance of a band, or of ``scl``, in metres."""
    return 20 if band == "scl" else BANDS[band]


@dataclass(frozen=True)
class Asset:
    """One file of a scene as a source of bytes that signs, waits and tries again.

    Two are equal when they are the same file: `version` is when a local file was last changed.
    """

    href: str
    version: int
    scene: Scene = field(compare=False)
    band: str = field(compare=False)
    tile: str = field(compare=False)

    def read_into(self, start: int, buffer: memoryview) -> int:
        """Fill `buffer` with bytes from `start`; return their number, less only at the end.

        Raises
        ------
        ReadError
            After the last try.
        """
        return self._patiently(lambda source: source.read_into(start, buffer))

    def size(self) -> int:
        """Return the length of the file in bytes.

        Raises
        ------
        ReadError
            After the last try.
        """
        return self._patiently(Source.size)

    def _patiently(self, work: Callable[[Source], int]) -> int:
        provider, signed_again = get_provider(self.scene.provider), False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with turn(provider.style, provider.pace if ":" in self.href else UNLIMITED):
                    return work(self._source())
            except AccessError as error:
                raise self.failure(FetchError("forbidden", str(error)), attempt) from error
            except FetchError as error:
                if error.kind == "forbidden" and not signed_again:
                    signed_again = provider.sign_again(self.href)
                    if signed_again:
                        continue
                if error.kind != "transport" or attempt == ATTEMPTS:
                    raise self.failure(error, attempt) from error
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
                pause = max(error.wait, pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                logger.info("%s; next try in %.1f s", self.failure(error, attempt), pause)
                traffic.count(retries=1)
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def failure(self, error: FetchError, attempt: int) -> ReadError:
        """Return the error to raise: what, where, and what to do."""
        remedy = {
            "missing": "the file is gone; search again or exclude the item",
            "forbidden": "check the provider's signing and credentials",
            "corrupt": "the file is damaged; exclude the item or fetch it again",
            "refused": "nothing was read; exclude the item",
            "transport": "the network or the provider failed; run again to resume",
        }[error.kind]
        message = (
            f"{self.scene.id}, {self.band} ({redact(self.href)}), tile {self.tile}, "
            f"attempt {attempt}: {error}; {remedy}"
        )
        return ReadError(
            message,
            item=self.scene.id,
            asset=self.band,
            tile=self.tile,
            attempt=attempt,
            kind=error.kind,
        )

    def _source(self) -> Source:
        provider = get_provider(self.scene.provider)
        _check_href(self.scene.provider, self.href, self.version)
        return Source(provider.sign(self.href), private=provider.may_be_private(self.href))


def _asset(scene: Scene, band: str, window: Window) -> Asset:
    href, tile = scene.hrefs[band], f"{scene.grid.granule} row {window.row} col {window.col}"
    try:
        version = 0 if ":" in href else Path(href).stat().st_mtime_ns
    except OSError:
        version = 0
    return Asset(href, version, scene, band, tile)


@lru_cache(maxsize=8192)
def _check_href(provider: str, href: str, version: int) -> None:
    # Once for each state of a file: a local one is resolved to see where it really lies.
    get_provider(provider).check_href(href)


_blocks = Blocks()


@lru_cache(maxsize=8192)
def _layout(asset: Asset) -> Layout:
    return read_layout(asset)


def _require_grid(layout: Layout, scene: Scene, band: str) -> None:
    # The size too: a header that promises a far larger image is a trap, not a scene.
    grid, factor = scene.grid, gsd(band) // int(PIXEL)
    found = (layout.left, layout.top, layout.pixel, layout.epsg, layout.height, layout.width)
    rows, cols = -(-grid.height // factor), -(-grid.width // factor)
    expected = (grid.left, grid.top, PIXEL * factor, grid.epsg, rows, cols)
    if any(abs(a - b) >= 1e-3 for a, b in zip(found, expected, strict=True)):
        raise FetchError(
            "corrupt",
            f"the file lies on another grid ({_words(found)}) than its item says "
            f"({_words(expected)})",
        )


def _words(grid: tuple[float, ...]) -> str:
    left, top, pixel, epsg, height, width = grid
    return f"EPSG:{epsg}, corner {left}, {top}, {height} × {width} pixels of {pixel} m"


def native_window(window: Window, factor: int) -> Window:
    """Return the pixels `factor` times as large that cover a window of 10 m pixels."""
    row, col = window.row // factor, window.col // factor
    bottom = -(-(window.row + window.height) // factor)
    right = -(-(window.col + window.width) // factor)
    return Window(row=row, col=col, height=bottom - row, width=right - col)


def replicate(coarse: np.ndarray, factor: int, row: int, col: int, out: np.ndarray) -> None:
    """Write each coarse pixel `factor` × `factor` times, starting `row`, `col` fine pixels in."""
    _replicate(coarse, factor, row, col, out)


@numba.njit(nogil=True, cache=True)
def _replicate(coarse, factor, row, col, out):  # type: ignore[no-untyped-def]
    height, width = out.shape
    # The first coarse pixel of a row may be cut, and so may the last.
    first = min(factor - col, width)
    whole = (width - first) // factor
    for y in range(height):
        source, target = coarse[(y + row) // factor], out[y]
        if y > 0 and (y + row) % factor != 0:
            target[:] = out[y - 1]
            continue
        for x in range(first):
            target[x] = source[0]
        for k in range(factor):
            part = target[first + k : first + whole * factor : factor]
            for n in range(whole):
                part[n] = source[n + 1]
        for x in range(first + whole * factor, width):
            target[x] = source[whole + 1]
