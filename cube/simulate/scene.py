"""Draws the scenes of one region: ground, sky, scene classification, and the files of each item."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer
from shapely.geometry import Polygon

from cube.grid import PIXEL, NativeGrid
from cube.recipe import BANDS
from cube.simulate.atmosphere import CLOUD_COLOUR, HAZE_COLOUR, Sky, classify, draw_sky, sun
from cube.simulate.items import FILES, Acquisition, build_item, calendar, swath_edge
from cube.simulate.landscape import build_landscape, unit_series
from cube.simulate.layout import Layout, clip_window
from cube.simulate.parcels import cut
from cube.simulate.rng import key, stream
from cube.simulate.sensor import ground, half, sense
from cube.simulate.settings import Settings
from cube.simulate.table import BAND_NAMES

Progress = Callable[[int, int, str], None]

_SNOW = (0.82, 0.80, 0.78, 0.77, 0.76, 0.75, 0.74, 0.72, 0.12, 0.10)
_COG = {
    "driver": "COG", "blocksize": 512, "compress": "deflate", "predictor": 2, "level": 1,
    "overviews": "none", "num_threads": 1,
}  # fmt: skip


class Studio:
    """Everything of one region that its scenes share.

    Attributes
    ----------
    place : Layout
        Where the region, its zones and granules lie.
    land : Landscape
        Its ground.
    passes : tuple of Acquisition
        The year's overpasses.
    """

    def __init__(self, place: Layout, settings: Settings) -> None:
        self.place, self.settings = place, settings
        self.land = build_landscape(place, settings)
        self.passes = tuple(calendar(place.region, settings))
        wanted = settings.bands
        #: Bands that are drawn; the scene classification needs red and nir in any case.
        self.bands = (*wanted, *(b for b in ("red", "nir") if b not in wanted))
        days = np.array([passed.day for passed in self.passes])
        self.spectra = unit_series(self.land, days, self.bands)
        to_lonlat = Transformer.from_crs(place.grid.epsg, 4326, always_xy=True)
        self.latitude = float(to_lonlat.transform(place.grid.left, place.grid.top)[1])
        self.snowy = self._draw_snowy()

    @property
    def reprocessed(self) -> int | None:
        """The pass that is catalogued twice: a complete one near mid-July, if there is one."""
        fitting = [i for i, p in enumerate(self.passes) if not p.partial and not p.collection1]
        return min(fitting, key=lambda i: abs(self.passes[i].day - 200), default=None)

    def _draw_snowy(self) -> frozenset[int]:
        """Return the passes with snow on the ground: two of winter, north of 45° only."""
        winter = [i for i, p in enumerate(self.passes) if p.time.month <= 2]
        if self.latitude < 45 or not winter:
            return frozenset()
        rng = stream(self.settings.seed, self.place.region.name, "snow")
        return frozenset(rng.choice(winter, min(2, len(winter)), replace=False).tolist())

    def sky(self, index: int) -> Sky:
        """Return the air of one pass."""
        passed, grid = self.passes[index], self.place.grid
        return draw_sky(
            self.settings.seed,
            passed,
            (grid.height, grid.width),
            self.latitude,
            snowy=index in self.snowy,
        )

    def surface(self, index: int, sky: Sky) -> np.ndarray:
        """Return surface reflectance float32 [band, y, x] of one pass over the region."""
        land = self.land
        texture = (land.leaf, land.delay, land.tone)
        surface = ground(land.parts, land.shares, self.spectra[index], *texture)
        if sky.snow.any():
            white = np.array([_SNOW[BAND_NAMES.index(b)] for b in self.bands], np.float32)
            surface += sky.snow * (white[:, None, None] - surface)
        return surface

    def classification(self, index: int, sky: Sky, surface: np.ndarray) -> np.ndarray:
        """Return the SCL uint8 [y/2, x/2] of one pass over the region, where all is seen."""
        red, nir = (surface[self.bands.index(band)] for band in ("red", "nir"))
        rng = stream(self.settings.seed, self.passes[index].datatake, "scl")
        return classify(sky, red, nir, self.land.water, self.land.bright, rng)


def write_pass(studio: Studio, index: int, folder: Path, twice: bool) -> list[dict[str, Any]]:
    """Write one overpass: every granule that sees some of it, and its reprocessing if `twice`.

    Returns the items, hrefs relative to their own folder.
    """
    passed = studio.passes[index]
    sky = studio.sky(index)
    surface = studio.surface(index, sky)
    scl = studio.classification(index, sky, surface)
    versions = [passed, passed.reprocessed()] if twice else [passed]
    scenes = [
        write_scene(studio, version, clip, sky, surface, scl, folder)
        for version in versions
        for clip in studio.place.clips
    ]
    return [item for item in scenes if item is not None]


def write_scene(
    studio: Studio, passed: Acquisition, clip: NativeGrid, sky: Sky, surface: np.ndarray,
    scl: np.ndarray, folder: Path,
) -> dict[str, Any] | None:  # fmt: skip
    """Write the rasters of one item and return it; None when the swath misses the clip."""
    edge, inward = swath_edge(passed, studio.place.grid)
    swath = _seen(clip, edge, inward)
    if swath is None:
        return None
    name = passed.item_id(clip.granule)
    (folder / name).mkdir(exist_ok=True)
    part = clip_window(studio.place, clip).yx
    valid = _valid(clip, edge, inward)
    for band in studio.settings.bands:
        seed = key(studio.settings.seed, name, passed.baseline, band)
        values = _numbers(studio, band, surface, sky, part, valid, passed.offset, seed)
        _write_raster(folder / name / f"{FILES[band][0]}.tif", values, clip, BANDS[band])
    coarse = tuple(slice(s.start // 2, s.stop // 2) for s in part)
    classes = np.where(half(valid.astype(np.float32)) == 1, scl[coarse], 0).astype(np.uint8)
    _write_raster(folder / name / "SCL.tif", classes, clip, 20)
    light = sun(passed.day, studio.latitude)
    return build_item(passed, clip, swath, studio.settings.bands, classes, light)


def _numbers(
    studio: Studio, band: str, surface: np.ndarray, sky: Sky, part: tuple[slice, slice],
    valid: np.ndarray, offset: int, seed: np.uint64,
) -> np.ndarray:  # fmt: skip
    """Return the digital numbers of one band in its own resolution."""
    layers = [surface[studio.bands.index(band)], sky.cloud, sky.shade, sky.haze]
    layers = [np.ascontiguousarray(layer[part]) for layer in layers]
    if BANDS[band] == 20:
        layers = [half(layer) for layer in layers]
        valid = half(valid.astype(np.float32)) == 1
    i = BAND_NAMES.index(band)
    cloud_value = CLOUD_COLOUR[i] * sky.brightness
    return sense(*layers, valid, cloud_value, HAZE_COLOUR[i], sky.gain, offset, seed)


def _valid(clip: NativeGrid, edge: np.ndarray, inward: np.ndarray) -> np.ndarray:
    """Return where pixel centres lie inside the swath; bool [y, x]."""
    x = clip.left + PIXEL * (np.arange(clip.width) + 0.5) - edge[0]
    y = clip.top - PIXEL * (np.arange(clip.height) + 0.5) - edge[1]
    return np.asarray(inward[0] * x[None, :] + inward[1] * y[:, None] >= 0)


def _seen(clip: NativeGrid, edge: np.ndarray, inward: np.ndarray) -> Polygon | None:
    """Return the part of the clip inside the swath in metres, or None when there is none."""
    left, top = clip.left, clip.top
    right, bottom = left + PIXEL * clip.width, top - PIXEL * clip.height
    ring = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
    if ((ring - edge) @ inward).max() <= 2 * PIXEL:
        return None
    return Polygon(cut(ring, edge, inward)[0])


def _write_raster(path: Path, values: np.ndarray, clip: NativeGrid, gsd: int) -> None:
    """Write a cloud-optimised GeoTIFF: 512 blocks, deflate with differences, no overviews."""
    profile = {
        "dtype": values.dtype.name, "count": 1, "nodata": 0, "height": values.shape[0],
        "width": values.shape[1], "crs": f"EPSG:{clip.epsg}",
        "transform": Affine(gsd, 0, clip.left, 0, -gsd, clip.top),
    }  # fmt: skip
    with rasterio.open(path, "w", **_COG, **profile) as file:
        file.write(values, 1)
