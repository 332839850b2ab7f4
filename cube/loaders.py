"""odc-stac and stackstac as loaders of scenes: one lazy layer per scene and band.

Both get STAC items made from scenes, so that no difference between providers reaches them. What
stands in these items for an address only names the file and its provider: inside the task, just
before GDAL opens it, the href is checked, signed (tokens live shorter than a notebook stays open),
asked for one byte over a connection that follows no redirect and speaks to no private address,
and tried with GDAL's driver for GeoTIFF or JPEG 2000 alone, for a file named ``.tif`` may be a
virtual raster that points elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

import dask.array as da
import numpy as np
import odc.stac
import pystac
import rasterio
import shapely
import stackstac
from odc.geo.geobox import GeoBox
from odc.loader import RasterSource, RioDriver, RioReader
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from stackstac.rio_reader import DEFAULT_GDAL_ENV, AutoParallelRioReader

from cube.errors import ReadError
from cube.grid import PIXEL
from cube.providers import get_provider
from cube.ranges import FetchError, Source
from cube.read import ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, gsd
from cube.scenes import Scene

GDAL = {
    # No search for side-car files, which cost a request each and could carry other georeferences.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # A presigned address is good for GET alone, and each HEAD costs a round trip.
    "CPL_VSIL_CURL_USE_HEAD": "NO",
    # GDAL does not try again by itself.
    "GDAL_HTTP_MAX_RETRY": "10",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    # A server that stalls must not hold a task for ever.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
}

Warp = Literal["nearest", "bilinear"]


def load_with_odc(
    scenes: Sequence[Scene], bands: Sequence[str], box: GeoBox, warp: Warp, chunk: int
) -> da.Array:
    """Return stored values through odc-stac, lazily.

    Parameters
    ----------
    scenes : sequence of Scene
    bands : sequence of str
        Common names of reflectance bands, or ``scl`` alone.
    box : GeoBox
        Pixels to load; files on another grid are warped.
    warp : {"nearest", "bilinear"}
        How values between pixels are found.
    chunk : int
        Side of a chunk in pixels.

    Returns
    -------
    dask Array of uint16, or uint8 for ``scl`` [scene, band, y, x]
        0 = no data.
    """
    loaded = odc.stac.load(
        [_item(scene, bands) for scene in scenes],
        bands=list(bands),
        geobox=box,
        groupby=_in_order,
        resampling=warp,
        dtype=_dtype(bands),
        nodata=0,
        chunks={"y": chunk, "x": chunk},
        driver=_OdcDriver(),
        # Overviews make coarse reads cheap, but those of classes may be averages of class numbers.
        use_overviews="scl" not in bands,
    )
    return da.stack([loaded[band].data for band in bands], axis=1)


def load_with_stackstac(
    scenes: Sequence[Scene], bands: Sequence[str], box: GeoBox, warp: Warp, chunk: int
) -> da.Array:
    """Return stored values through stackstac, lazily; arguments as in `load_with_odc`."""
    dtype = np.dtype(_dtype(bands))
    items = [_item(scene, bands).to_dict(include_self_link=False) for scene in scenes]
    for item, scene in zip(items, scenes, strict=True):
        # stackstac 0.5.1 does not know `proj:code`.
        item["properties"]["proj:epsg"] = scene.grid.epsg
    stacked = stackstac.stack(
        items,
        assets=list(bands),
        epsg=box.crs.epsg,
        resolution=(abs(box.resolution.x), abs(box.resolution.y)),
        bounds=tuple(box.boundingbox),
        snap_bounds=False,
        resampling=Resampling[warp],
        chunksize=chunk,
        dtype=dtype,
        fill_value=dtype.type(0),
        rescale=False,
        sortby_date=False,
        properties=False,
        band_coords=False,
        gdal_env=DEFAULT_GDAL_ENV.updated(always=GDAL),
        # Its default turns files that are not there into no data, unseen.
        errors_as_nodata=(),
        reader=_StackstacReader,
    )
    return stacked.data


def _dtype(bands: Sequence[str]) -> str:
    return "uint8" if tuple(bands) == ("scl",) else "uint16"


def _in_order(item: pystac.Item, parsed: object, index: int) -> int:
    return index


def _item(scene: Scene, bands: Sequence[str]) -> pystac.Item:
    box = scene.grid.geobox(scene.grid.window)
    footprint = box.extent.to_crs("EPSG:4326", resolution=5_000).geom
    item = pystac.Item(
        id=scene.id,
        geometry=shapely.geometry.mapping(footprint),
        bbox=list(footprint.bounds),
        datetime=pystac.utils.str_to_datetime(scene.datetime),
        properties={"proj:code": f"EPSG:{scene.grid.epsg}"},
        stac_extensions=["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
    )
    for band in bands:
        grid, factor = scene.grid, gsd(band) // int(PIXEL)
        fields = {
            "proj:shape": [-(-grid.height // factor), -(-grid.width // factor)],
            "proj:transform": [gsd(band), 0, grid.left, 0, -gsd(band), grid.top],
        }
        item.add_asset(
            band,
            pystac.Asset(
                _named(scene, band),
                media_type=pystac.MediaType.COG,
                roles=["data"],
                extra_fields=fields,
            ),
        )
    return item


def _named(scene: Scene, band: str) -> str:
    # No href that may be opened has a fragment of its own.
    facts = {"provider": scene.provider, "item": scene.id, "asset": band}
    return f"{scene.hrefs[band]}#{urlencode(facts)}"


def _facts(name: str) -> tuple[str, dict[str, str]]:
    href, _, query = name.rpartition("#")
    return href, dict(parse_qsl(query))


def _address(name: str, *, mixing: bool = False) -> str:
    """Return the address to open now for what `_named` returned, after all checks."""
    href, facts = _facts(name)
    provider = get_provider(facts["provider"])
    provider.check_href(href)
    address = provider.sign(href)
    _require_direct(Source(address, private=provider.may_be_private(href)))
    driver = "JP2OpenJPEG" if href.lower().endswith(".jp2") else "GTiff"
    with rasterio.open(address, driver=driver, sharing=False) as file:
        if mixing and file.nodata is None:
            raise RuntimeError(
                "the file does not say that 0 is no data, and stackstac would mix it into its "
                "neighbours; use loader='odc' or resampling='nearest'"
            )
    return address


def _require_direct(source: Source) -> None:
    """Refuse an address that redirects or is not to be spoken to: GDAL would follow blindly."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            source.size()
            return
        except FetchError as error:
            if error.kind != "transport" or attempt == ATTEMPTS:
                raise
            time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)))


@contextmanager
def _failures_of(name: str) -> Iterator[None]:
    """Turn failures of GDAL into one that names item and asset."""
    try:
        yield
    except (FetchError, RasterioError, RuntimeError) as error:
        href, facts = _facts(name)
        local = "://" not in href
        kind = "transport" if not local else "corrupt" if Path(href).exists() else "missing"
        if isinstance(error, FetchError):
            kind = error.kind
        message = f"{facts['item']}, {facts['asset']} ({href}): {error}"
        # The original carries the signed address: it is not shown.
        raise ReadError(
            message, item=facts["item"], asset=facts["asset"], tile="", attempt=1, kind=kind
        ) from None


class _OdcDriver(RioDriver):
    """odc-loader's own reader, behind the checks."""

    def capture_env(self) -> dict[str, Any]:
        return dict(GDAL)

    def open(self, src: RasterSource, ctx: Any) -> RioReader:
        return _OdcReader(src, ctx)


class _OdcReader(RioReader):
    def read(self, cfg: Any, dst_geobox: GeoBox, **how: Any) -> Any:
        with _failures_of(self._src.uri):
            opened = RioReader(replace(self._src, uri=_address(self._src.uri)), self._ctx)
            # Many files do not state it: zeros would be mixed into their neighbours, and from
            # GDAL 3.11 on a warp changes valid zeros to 1 (GDAL issue 13677).
            return opened.read(replace(cfg, src_nodata_override=0), dst_geobox, **how)


class _StackstacReader(AutoParallelRioReader):
    """stackstac's own reader, behind the checks."""

    def __init__(self, *, url: str, **how: Any) -> None:
        super().__init__(url=url, **how)
        self._name = url

    def _open(self) -> Any:
        # Called under the reader's lock, once per task and file.
        with self.gdal_env.open:
            self.url = _address(self._name, mixing=self.resampling is not Resampling.nearest)
        try:
            return super()._open()
        finally:
            self.url = self._name

    def read(self, window: Any, **how: Any) -> np.ndarray:
        with _failures_of(self._name):
            return super().read(window, **how)
