"""Tiled GeoTIFFs: the layout of a file from its header, and its blocks straight into an array.

Sentinel-2 COGs are one kind of file: one band of unsigned integers in DEFLATE blocks with
horizontal differencing (TIFF 6.0, section 14). That kind is decoded here, by libdeflate and one
pass that undoes the differences while it copies; any other compression goes through tifffile. The
test oracle is GDAL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numba
import numpy as np
import tifffile

from cube.cores import scratch
from cube.errors import CropcubeError
from cube.grid import Window
from cube.ranges import FetchError, Readable, SourceFile

#: Header bytes asked for first: holds the tables of a full granule (121 blocks) and its overviews.
HEADER = 32768
#: No header is this far into a file; stands for the length of a file that nobody asked for.
_ANY_SIZE = 1 << 50
_DEFLATE = (8, 32946)
#: Tags and keys of OGC GeoTIFF 1.1.
_SCALE, _TIE, _KEYS = 33550, 33922, 34735
_RASTER_TYPE, _PROJECTED_CRS = 1025, 3072


@dataclass(frozen=True)
class Layout:
    """Where the pixels of a file are, and where they lie on the ground.

    Attributes
    ----------
    height, width : int
        Pixels.
    block : (int, int)
        Rows and columns of a block; blocks at the edges are padded to it.
    offsets, sizes : ndarray of int64 [block]
        Place of each block in the file, row by row; size 0 = all no data.
    dtype : dtype
        uint8 or uint16, in the byte order of the file.
    left, top, pixel : float
        Outer corner and pixel size, metres.
    epsg : int
        0 if the file does not name one.
    decode : callable or None
        tifffile's decoder of one block; None for DEFLATE with horizontal differencing.
    """

    height: int
    width: int
    block: tuple[int, int]
    offsets: np.ndarray
    sizes: np.ndarray
    dtype: np.dtype
    left: float
    top: float
    pixel: float
    epsg: int
    decode: Callable[[bytes, int], tuple[Any, ...]] | None

    @property
    def across(self) -> int:
        """Number of blocks side by side."""
        return -(-self.width // self.block[1])

    def blocks(self, window: Window) -> Iterator[tuple[int, Window]]:
        """Yield the index of every block that meets the window, and its pixels."""
        high, wide = self.block
        for row in range(window.row // high, -(-(window.row + window.height) // high)):
            for col in range(window.col // wide, -(-(window.col + window.width) // wide)):
                yield (
                    row * self.across + col,
                    Window(row=row * high, col=col * wide, height=high, width=wide),
                )


def read_layout(source: Readable) -> Layout:
    """Read the header of a file.

    Raises
    ------
    FetchError
        ``corrupt`` if it is no tiled GeoTIFF of one band of uint8 or uint16.
    """
    file = SourceFile(source, _ANY_SIZE, HEADER)
    try:
        with tifffile.TiffFile(file, size=_ANY_SIZE) as tiff:  # type: ignore[arg-type]
            return _layout(tiff.pages.first)
    except (FetchError, CropcubeError):
        raise
    except Exception as error:
        # The parser meets whatever a stranger's bytes make it meet.
        raise FetchError("corrupt", f"not a readable TIFF ({error})") from error


def _layout(page: Any) -> Layout:
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    if not page.is_tiled or page.samplesperpixel != 1 or dtype.str[1:] not in ("u1", "u2"):
        raise FetchError("corrupt", "not one band of uint8 or uint16 in tiles")
    scale, tie = page.tags.valueof(_SCALE), page.tags.valueof(_TIE)
    if scale is None or tie is None or len(tie) != 6 or scale[0] != scale[1] or any(tie[:2]):
        raise FetchError("corrupt", "it is not georeferenced by its corner and a pixel size")
    # RasterPixelIsPoint (2) names the centre of the first pixel.
    keys = _geo_keys(page.tags.valueof(_KEYS) or ())
    half = scale[0] / 2 if keys.get(_RASTER_TYPE) == 2 else 0.0
    plain = page.compression in _DEFLATE and page.predictor == 2 and dtype.str[0] != ">"
    layout = Layout(
        height=page.imagelength,
        width=page.imagewidth,
        block=(page.tilelength, page.tilewidth),
        offsets=np.asarray(page.dataoffsets, np.int64),
        sizes=np.asarray(page.databytecounts, np.int64),
        dtype=dtype,
        left=tie[3] - half,
        top=tie[4] + half,
        pixel=float(scale[0]),
        epsg=keys.get(_PROJECTED_CRS, 0),
        decode=None if plain else page.decode,
    )
    high = -(-layout.height // layout.block[0])
    if not len(layout.offsets) == len(layout.sizes) == high * layout.across:
        raise FetchError("corrupt", "its table of blocks does not fit its size")
    # Compression may lengthen noise by a little; a longer block is a trap.
    if layout.sizes.max(initial=0) > 2 * layout.block[0] * layout.block[1] * dtype.itemsize + 1024:
        raise FetchError("corrupt", "its table names blocks longer than any can be")
    return layout


def _geo_keys(directory: Sequence[int]) -> dict[int, int]:
    # After a header of four, rows of key, where its value lies (0 = here), count, value.
    rows = zip(*(directory[n::4] for n in range(4)), strict=False)
    return {key: value for key, place, _, value in list(rows)[1:] if place == 0}


def copy_block(layout: Layout, index: int, data: memoryview, place: Window, out: np.ndarray) -> int:
    """Decode one block and copy a part of it.

    Parameters
    ----------
    layout : Layout
        Of the file.
    index : int
        Of the block.
    data : memoryview
        Its bytes as stored.
    place : Window
        The part wanted, relative to the block.
    out : ndarray of the file's dtype [place.height, place.width]
        Receives the pixels.

    Returns
    -------
    int
        The greatest value copied.

    Raises
    ------
    FetchError
        ``corrupt`` if the bytes do not decode to a whole block.
    """
    rows, cols = place.yx
    if layout.decode is not None:
        out[:] = _decoded(layout, index, data)[rows, cols]
        return int(out.max(initial=0))
    raw = scratch("raw").take(layout.block[0] * layout.block[1] * layout.dtype.itemsize)
    try:
        size = len(imagecodecs.deflate_decode(data, out=raw))  # type: ignore[arg-type]
    except imagecodecs.DeflateError as error:
        raise FetchError("corrupt", f"block {index} does not decompress ({error})") from error
    if size != len(raw):
        raise FetchError("corrupt", f"block {index} is {size} bytes, not {len(raw)}")
    block = raw.view(layout.dtype).reshape(layout.block)
    return int(_undo_differences(block[rows], cols.start, cols.stop, out))


@numba.njit(nogil=True, cache=True)
def _undo_differences(block, first, last, out):  # type: ignore[no-untyped-def]
    greatest = out.dtype.type(0)
    for r in range(block.shape[0]):
        row, target, value = block[r], out[r], np.uint32(0)
        # Places are unsigned: numba would ask of each signed one whether it counts from the end,
        # which takes twice the time.
        for c in range(first):
            value = np.uint32(value + row[np.uint64(c)])
        tail = row[first:last]
        for c in range(last - first):
            place = np.uint64(c)
            value = np.uint32(value + tail[place])
            target[place] = value
        for c in range(last - first):
            greatest = max(greatest, target[c])
    return greatest


def _decoded(layout: Layout, index: int, data: memoryview) -> np.ndarray:
    try:
        pixels = layout.decode(bytes(data), index)[0]  # type: ignore[misc]
    except Exception as error:
        # Every codec has its own errors for damaged bytes.
        raise FetchError("corrupt", f"block {index} does not decompress ({error})") from error
    return np.asarray(pixels).reshape(layout.block)
