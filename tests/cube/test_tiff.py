"""Our reading of GeoTIFF blocks against GDAL's."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window as RasterWindow

from cube.grid import Window
from cube.ranges import FetchError, Source
from cube.tiff import copy_block, read_layout

CORNER = (499_980.0, 5_000_040.0)


def write(path, values, block=256, **options):
    profile = {
        "driver": "GTiff",
        "dtype": values.dtype,
        "count": 1,
        "height": values.shape[0],
        "width": values.shape[1],
        "crs": "EPSG:32631",
        "transform": rasterio.Affine(10, 0, CORNER[0], 0, -10, CORNER[1]),
        "nodata": 0,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
    }
    with rasterio.open(path, "w", **(profile | options)) as target:
        target.write(values, 1)
    return path


def noise(shape=(700, 530), dtype=np.uint16):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def read(path, window):
    source = Source(str(path))
    layout = read_layout(source)
    out = np.full((window.height, window.width), 7, layout.dtype.newbyteorder("="))
    greatest = 0
    for index, block in layout.blocks(window):
        part = block.intersect(window)
        data = bytearray(int(layout.sizes[index]))
        source.read_into(int(layout.offsets[index]), memoryview(data))
        here = out[part.relative_to(window).yx]
        if data:
            place = part.relative_to(block)
            got = copy_block(layout, index, memoryview(data), place, here)
            greatest = max(greatest, got)
        else:
            here[:] = 0
    return out, greatest


WHOLE = Window(row=0, col=0, height=700, width=530)
KINDS = {
    "cog-like": {"compress": "deflate", "predictor": 2},
    "no predictor": {"compress": "deflate"},
    "uncompressed": {},
    "lzw": {"compress": "lzw", "predictor": 2},
    "zstd": {"compress": "zstd"},
    "big-endian": {"compress": "deflate", "predictor": 2, "endianness": "big"},
    "bigtiff": {"compress": "deflate", "predictor": 2, "bigtiff": "yes"},
    "cog": {"driver": "COG", "compress": "deflate", "predictor": "yes", "blocksize": 256},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_those_of_gdal(tmp_path, kind, dtype):
    options = dict(KINDS[kind])
    if options.get("driver") == "COG":
        options |= {"tiled": None, "blockxsize": None, "blockysize": None}
    values = noise(dtype=dtype)
    path = write(tmp_path / "a.tif", values, **options)
    got, greatest = read(path, WHOLE)
    assert np.array_equal(got, values)
    assert greatest == values.max()
    layout = read_layout(Source(str(path)))
    assert (layout.left, layout.top, layout.pixel, layout.epsg) == (*CORNER, 10.0, 32631)
    assert (layout.height, layout.width, layout.block) == (700, 530, (256, 256))
    fast = kind in ("cog-like", "bigtiff", "cog") or (kind == "big-endian" and dtype == np.uint8)
    assert (layout.decode is None) == fast


@pytest.fixture(scope="module")
def cog(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tiff") / "a.tif", noise(), **KINDS["cog-like"])


@settings(max_examples=60)
@given(st.data())
def test_any_window_is_that_of_gdal(cog, data):
    row, col = data.draw(st.integers(0, 699)), data.draw(st.integers(0, 529))
    window = Window(
        row=row,
        col=col,
        height=data.draw(st.integers(1, 700 - row)),
        width=data.draw(st.integers(1, 530 - col)),
    )
    with rasterio.open(cog) as source:
        expected = source.read(1, window=RasterWindow(col, row, window.width, window.height))
    assert np.array_equal(read(cog, window)[0], expected)


def test_blocks_that_were_never_written_are_no_data(tmp_path):
    values = np.zeros((700, 530), np.uint16)
    values[300:310, 300:310] = 5
    path = write(tmp_path / "a.tif", values, sparse_ok=True, **KINDS["cog-like"])
    assert (read_layout(Source(str(path))).sizes == 0).any()
    assert np.array_equal(read(path, WHOLE)[0], values)


def test_damage_is_found(tmp_path, cog):
    layout, good = read_layout(Source(str(cog))), cog.read_bytes()
    start, size = int(layout.offsets[0]), int(layout.sizes[0])
    path = tmp_path / "b.tif"
    for place in (start + 2, start + size // 2, start + size - 2):
        path.write_bytes(good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :])
        with pytest.raises(FetchError, match="does not decompress") as error:
            read(path, Window(row=0, col=0, height=5, width=5))
        assert error.value.kind == "corrupt"


@pytest.mark.parametrize(
    "content", [b"", b"<html>no</html>", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x05\0" * 9]
)
def test_what_is_no_tiff_is_corrupt(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FetchError) as error:
        read_layout(Source(str(tmp_path / "a.tif")))
    assert error.value.kind == "corrupt"


def test_a_vrt_with_the_name_of_a_tiff_opens_nothing(tmp_path, cog):
    vrt = f"<VRTDataset><SourceFilename>{cog}</SourceFilename></VRTDataset>"
    (tmp_path / "a.tif").write_text(vrt)
    with pytest.raises(FetchError, match="not a readable TIFF"):
        read_layout(Source(str(tmp_path / "a.tif")))


@pytest.mark.parametrize(
    "options",
    [
        {"tiled": False, "blockxsize": None, "blockysize": 16},
        {"dtype": "float32"},
        {"transform": rasterio.Affine(10, 3, 0, 3, -10, 0)},
        {"transform": rasterio.Affine(10, 0, 0, 0, -20, 0)},
    ],
)
def test_other_kinds_are_refused_with_a_reason(tmp_path, options):
    path = write(tmp_path / "a.tif", noise().astype(options.get("dtype", "uint16")), **options)
    with pytest.raises(FetchError, match="tiles|georeferenced"):
        read_layout(Source(str(path)))


def test_a_table_of_giant_blocks_is_a_trap(tmp_path):
    path = write(tmp_path / "a.tif", noise((256, 256)), **KINDS["cog-like"])
    content = bytearray(path.read_bytes())
    # Tag 325, TileByteCounts, type LONG, count 1: the value stands in the entry.
    place = content.index(b"\x45\x01\x04\x00\x01\x00\x00\x00") + 8
    content[place : place + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(FetchError, match="longer than any can be"):
        read_layout(Source(str(path)))
