"""Read one window of one asset of a scene; failures carry their facts and are never no data."""

from __future__ import annotations

import logging
import random
import time
from functools import lru_cache
from typing import Protocol

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from cube.errors import ReadError, redact
from cube.grid import PIXEL, Window
from cube.providers import get_provider
from cube.recipe import BANDS
from cube.scenes import Scene

logger = logging.getLogger(__name__)

ATTEMPTS = 4

#: GDAL options of every read, each with its reason.
GDAL_OPTIONS: dict[str, str | int] = {
    # One request for the header: no directory listing, no search for side-car files.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
    # Neighbouring blocks in one request, many requests on one connection.
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    # The cheap transport failures (429, 5xx) are retried inside the request.
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    # A stalled read must not hang a worker.
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_TIMEOUT": 120,
    "GDAL_HTTP_LOW_SPEED_TIME": 30,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1000,
    # The default is 5 % of the host's memory in every process; each block is read once.
    "GDAL_CACHEMAX": 64,
}


class Reader(Protocol):
    """What `build_tile` needs to read pixels: `read_window` or a stand-in with its contract."""

    def __call__(self, scene: Scene, band: str, window: Window, out: np.ndarray) -> None:
        """Fill `out` with the window's pixels at 10 m."""


def read_window(scene: Scene, band: str, window: Window, out: np.ndarray) -> None:
    """Read one asset at 10 m into `out`; coarser bands are replicated, never interpolated.

    Parameters
    ----------
    scene : Scene
        Its href is read only if its provider allows the scheme and host.
    band : str
        Common name, or ``scl``.
    window : Window
        Pixels of the granule's 10 m grid.
    out : ndarray of uint8 or uint16 [window.height, window.width]
        Receives the stored values, 0 = no data.

    Raises
    ------
    ReadError
        Naming item, asset, window and attempt, after `ATTEMPTS` tries of a transport failure, or
        at once for one that no retry mends.
    """
    factor = 2 if band == "scl" else BANDS[band] // int(PIXEL)
    coarse = Window(
        row=window.row // factor,
        col=window.col // factor,
        height=-(-(window.row + window.height) // factor) - window.row // factor,
        width=-(-(window.col + window.width) // factor) - window.col // factor,
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            pixels = _read_once(scene, band, coarse, factor, out if factor == 1 else None)
            break
        except RasterioError as error:
            kind = _kind(str(error), scene.hrefs[band])
            if kind != "transport" or attempt == ATTEMPTS:
                raise _failure(scene, band, window, attempt, kind, error) from error
            pause = random.uniform(0.5, 1.5) * 2 ** (attempt - 1)  # noqa: S311 - jitter only
            logger.warning(
                "%s, %s: attempt %d failed, next in %.1f s", scene.id, band, attempt, pause
            )
            time.sleep(pause)
    if factor > 1:
        replicate(pixels, factor, window.row % factor, window.col % factor, out)


def replicate(coarse: np.ndarray, factor: int, row: int, col: int, out: np.ndarray) -> None:
    """Write each coarse pixel `factor` × `factor` times, starting `row`, `col` fine pixels in."""
    height, width = out.shape
    wide = np.repeat(coarse, factor, axis=1)[:, col : col + width]
    lines = (np.arange(height) + row) // factor
    np.take(wide, lines, axis=0, out=out)


def _read_once(
    scene: Scene, band: str, coarse: Window, factor: int, out: np.ndarray | None
) -> np.ndarray:
    provider = get_provider(scene.provider)
    provider.check_href(scene.hrefs[band])
    place = RasterWindow(coarse.col, coarse.row, coarse.width, coarse.height)
    # Only the TIFF driver: a VRT behind a harmless name could name files of this machine.
    with (
        rasterio.Env(**GDAL_OPTIONS),
        rasterio.open(provider.sign(scene.hrefs[band]), driver="GTiff") as source,
    ):
        _require_grid(source, scene, band, factor)
        return source.read(1, window=place, out=out)


def _require_grid(source: rasterio.DatasetReader, scene: Scene, band: str, factor: int) -> None:
    grid, found = scene.grid, source.transform
    expected = (PIXEL * factor, grid.left, grid.top)
    corners = zip((found.a, found.c, found.f), expected, strict=True)
    fits = all(abs(a - b) < 1e-3 for a, b in corners) and found.a == -found.e
    if not fits or _epsg(source.crs) != grid.epsg:
        message = (
            f"{scene.id}, {band}: the file lies on another grid (EPSG:{source.crs.to_epsg()}, "
            f"pixel {found.a} m, corner {found.c}, {found.f}) than its item says "
            f"(EPSG:{grid.epsg}, pixel {expected[0]} m, corner {grid.left}, {grid.top}); "
            "exclude the item"
        )
        raise ReadError(
            message, item=scene.id, asset=band, tile=grid.granule, attempt=1, kind="corrupt"
        )


@lru_cache(maxsize=256)
def _epsg(crs: rasterio.crs.CRS) -> int | None:
    return crs.to_epsg()


def _kind(message: str, href: str) -> str:
    # GDAL tells HTTP failures apart by their text only.
    if not href.startswith(("http:", "https:", "s3:")):
        return "missing" if "No such file" in message else "corrupt"
    if "404" in message:
        return "missing"
    if "401" in message or "403" in message:
        return "forbidden"
    return "transport"


def _failure(
    scene: Scene, band: str, window: Window, attempt: int, kind: str, error: Exception
) -> ReadError:
    remedy = {
        "missing": "the file is gone; search again or exclude the item",
        "forbidden": "access was refused; check the provider's signing and credentials",
        "corrupt": "the file is damaged; exclude the item or fetch it again",
        "transport": "the network or the provider failed; run again to resume",
    }[kind]
    place = f"{scene.grid.granule} row {window.row} col {window.col}"
    message = (
        f"{scene.id}, {band} ({redact(scene.hrefs[band])}), tile {place}, attempt {attempt}: "
        f"{error}; {remedy}"
    )
    return ReadError(message, item=scene.id, asset=band, tile=place, attempt=attempt, kind=kind)
