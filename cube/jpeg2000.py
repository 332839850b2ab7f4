"""Windows of JPEG 2000 files, as ESA publishes products (CDSE): GDAL decodes, we fetch.

GDAL sees a Python file and one driver only, so it opens nothing by itself.
"""

from __future__ import annotations

import io
from threading import Event

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from cube.grid import Window
from cube.ranges import FetchError, Readable, SourceFile

#: The tables of tile lengths at the front of a granule's file take some 100 kB.
_AHEAD = 1 << 20


def read_jpeg2000(
    asset: Readable, window: Window, out: np.ndarray, free: Event | None = None
) -> int:
    """Read a window of one JPEG 2000 file into `out`; returns the greatest value.

    Raises
    ------
    FetchError
        ``corrupt`` if it does not decode.
    """
    file = io.BufferedReader(SourceFile(asset, asset.size(), _AHEAD))
    place = RasterWindow(window.col, window.row, window.width, window.height)
    try:
        with rasterio.open(file, driver="JP2OpenJPEG") as source:
            pixels = source.read(1, window=place)
    except RasterioError as error:
        raise FetchError("corrupt", f"it does not decode ({error})") from error
    if free is not None:
        free.wait()
    out[:] = pixels
    return int(out.max(initial=0))
