"""The land as a sensor meets it: shares of units in each pixel, their spectra, and texture."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from affine import Affine
from rasterio.features import rasterize

from cube.grid import PIXEL
from cube.simulate.crops import Crop, Cycle
from cube.simulate.layout import Layout
from cube.simulate.parcels import Farmland, Unit
from cube.simulate.phenology import DAY_STEP, LEAF_STEP, Season, series
from cube.simulate.rng import smooth, stream
from cube.simulate.settings import Region, Settings
from cube.simulate.table import BAND_NAMES

#: ESA WorldCover class of each kind of land; meadows and alfalfa are told apart by crop.
WORLDCOVER = {
    "crop": 40, "orchard": 10, "forest": 10, "built": 50, "road": 50, "water": 80, "scrub": 30,
}  # fmt: skip
#: Variation inside a field: standard deviation of relative leaf area, of delay in days and of
#: relative brightness; `FINE` is the share of variance within some tens of metres, the rest is
#: wider than most fields.
LEAF_SPREAD, DELAY_SPREAD, TONE_SPREAD, FINE = 0.36, 9.5, 0.08, 0.88
#: A pixel holds at most this many units; what is less goes to the largest.
PARTS = 3
#: The sensor's blur: weights of the four 5 m cells across a 10 m pixel and its rims.
_BLUR = np.array([1.0, 3.0, 3.0, 1.0], np.float32) / 8
_MARGIN_COVER = Season((Cycle(85, 20, 300, 30, 2.6, 56),), 0.9, shade=0.85)
_DECIDUOUS = (Cycle(112, 16, 302, 16, 4.6, 52),)
#: Constant spectra, ten bands each: open water, asphalt, then roofs (tile, slate, bright sheet).
_WATER = (0.045, 0.042, 0.030, 0.026, 0.022, 0.021, 0.019, 0.018, 0.010, 0.007)
_ASPHALT = (0.085, 0.095, 0.105, 0.115, 0.125, 0.13, 0.135, 0.14, 0.15, 0.14)
_ROOFS = (
    (0.08, 0.105, 0.165, 0.18, 0.195, 0.205, 0.21, 0.22, 0.27, 0.25),
    (0.10, 0.11, 0.12, 0.125, 0.13, 0.135, 0.14, 0.14, 0.16, 0.16),
    (0.36, 0.38, 0.39, 0.40, 0.40, 0.40, 0.41, 0.41, 0.40, 0.37),
)


@dataclass(frozen=True)
class Landscape:
    """One region's ground.

    Attributes
    ----------
    units : list of Unit
        Land units; unit i has number i + 1, number 0 is the grassy margin between them.
    number : int32 [y, x]
        Unit with the largest share of each 10 m pixel.
    parts, shares : int32 and float32 [y, x, PARTS]
        Units in the pixel and their shares, adding up to one.
    leaf, delay, tone : float32 [y, x]
        Texture: leaf area and delay, −1 to 1 in steps of `phenology.LEAF_STEP` and `DAY_STEP`, and
        relative deviation of brightness.
    seasons : list of Season or tuple
        Per unit number: a season, or a constant spectrum.
    """

    units: list[Unit]
    number: np.ndarray
    parts: np.ndarray
    shares: np.ndarray
    leaf: np.ndarray
    delay: np.ndarray
    tone: np.ndarray
    seasons: list[Season | tuple[float, ...]]

    @property
    def worldcover(self) -> np.ndarray:
        """ESA WorldCover class of every pixel; uint8 [y, x]."""
        classes = [30] + [30 if _grassy(u.crop) else WORLDCOVER[u.kind] for u in self.units]
        return np.array(classes, np.uint8)[self.number]

    @property
    def bright(self) -> np.ndarray:
        """True on sheet roofs, which cloud detection takes for cloud; bool [y, x]."""
        roofs = [s is _ROOFS[2] for s in self.seasons]
        return np.array(roofs)[self.number]

    @property
    def water(self) -> np.ndarray:
        """True on open water; bool [y, x]."""
        return np.array([False, *(u.kind == "water" for u in self.units)])[self.number]


def _grassy(crop: Crop | None) -> bool:
    return crop is not None and crop.code == "PPH"


@numba.njit(nogil=True)
def _mix(
    fine: np.ndarray, blur: np.ndarray, parts: np.ndarray, shares: np.ndarray
) -> None:  # pragma: no cover - compiled
    """Fill `parts` and `shares` from unit numbers on a 5 m raster with a rim of one cell."""
    height, width, keep = parts.shape
    for y in range(height):
        for x in range(width):
            ids = np.full(16, -1, np.int32)
            weight = np.zeros(16, np.float32)
            n = 0
            for dy in range(4):
                for dx in range(4):
                    unit, at = fine[2 * y + dy, 2 * x + dx], 0
                    while at < n and ids[at] != unit:
                        at += 1
                    ids[at] = unit
                    weight[at] += blur[dy] * blur[dx]
                    n = max(n, at + 1)
            total = np.float32(0)
            for part in range(keep):
                best = np.argmax(weight)
                parts[y, x, part] = max(ids[best], 0)
                shares[y, x, part] = weight[best]
                total += weight[best]
                weight[best] = 0
            for part in range(keep):
                shares[y, x, part] /= total


def _rasterise(units: list[Unit], place: Layout) -> np.ndarray:
    """Return unit numbers on a 5 m raster with one cell of rim on each side; int32."""
    grid, half = place.grid, PIXEL / 2
    shape = (2 * grid.height + 2, 2 * grid.width + 2)
    transform = Affine(half, 0, grid.left - half, 0, -half, grid.top + half)
    numbered = ((unit.polygon, i + 1) for i, unit in enumerate(units))
    return rasterize(numbered, out_shape=shape, transform=transform, fill=0, dtype="int32")


def _crop_season(crop: Crop, region: Region, rng: np.random.Generator) -> Season:
    """Draw the season of one field: region first, then the farmer and the soil."""
    dry = region.dryness
    return Season(
        crop.cycles,
        crop.base * rng.lognormal(0, 0.18),
        start=region.season + rng.normal(0, 3.5),
        end=0.8 * region.season - 6 * dry + rng.normal(0, 3.5),
        amplitude=rng.lognormal(0, 0.11) * (1 - 0.15 * dry),
        rise=rng.lognormal(0, 0.12),
        fall=rng.lognormal(0, 0.15),
        brightness=rng.uniform(0.7, 1.3),
        wetness=rng.uniform(0.15, 0.65),
        bloom=crop.bloom * rng.uniform(0.6, 1.3),
    )


def _cover(unit: Unit, region: Region, rng: np.random.Generator) -> Season | tuple[float, ...]:
    if unit.crop is not None:
        return _crop_season(unit.crop, region, rng)
    if unit.kind == "water":
        return _WATER
    if unit.kind == "road":
        return _ASPHALT
    if unit.kind == "built":
        roof = int(rng.choice(3, p=(0.62, 0.30, 0.08)))
        return _ROOFS[roof]
    spring = region.season + rng.normal(0, 3)
    soil = {"brightness": rng.uniform(0.7, 1.1), "wetness": rng.uniform(0.3, 0.7)}
    if unit.kind == "forest":
        if rng.random() < 0.2:
            return Season((), rng.uniform(3.2, 4.5), shade=0.5, **soil)
        return Season(_DECIDUOUS, rng.uniform(0.8, 1.3), spring, spring, shade=0.62, **soil)
    amplitude = rng.lognormal(0, 0.25)
    return Season(_MARGIN_COVER.cycles, 1.0, spring, spring, amplitude, shade=0.85, **soil)


def _rows(units: list[Unit], number: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return stripes along each field's rows, scaled by the crop's contrast; float32 [y, x].

    Rows themselves are finer than a pixel; what is seen is every few rows: terraces, tracks, and
    the beat between row spacing and pixel.
    """
    n = len(units) + 1
    axis, wave, phase, contrast = (np.zeros(n, np.float32) for _ in range(4))
    for i, unit in enumerate(units, start=1):
        axis[i], wave[i] = unit.axis, rng.uniform(24, 42)
        phase[i] = rng.uniform(0, 2 * np.pi)
        contrast[i] = unit.crop.rows if unit.crop else 0.0
    y, x = np.indices(number.shape, dtype=np.float32) * np.float32(PIXEL)
    wave[0] = 30
    across = -x * np.sin(axis)[number] - y * np.cos(axis)[number]
    stripes = np.sin(2 * np.pi * across / wave[number] + phase[number])
    return np.float32(1.4) * contrast[number] * stripes


def _texture(
    units: list[Unit], number: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return leaf, delay and tone: part varies from pixel to pixel or so, part with wide soils."""
    patchy = np.array([0.8, *(u.crop.patchy if u.crop else 0.7 for u in units)], np.float32)[number]
    wooded = np.array([False, *(u.kind == "forest" for u in units)])[number]

    def field(scale: float, grain: float) -> np.ndarray:
        wide = smooth(rng, number.shape, scale, 5.0)
        fine = smooth(rng, number.shape, grain, 5.0)
        return np.float32(np.sqrt(1 - FINE)) * wide + np.float32(np.sqrt(FINE)) * fine

    leaf = LEAF_SPREAD * patchy * field(60, 0.4) + _rows(units, number, rng)
    delay = DELAY_SPREAD * field(60, 1.5)
    tone = np.where(wooded, 2.0, 1.0) * TONE_SPREAD * field(25, 0.3)
    leaf, delay = leaf / LEAF_STEP, delay / DAY_STEP
    return (
        np.clip(leaf, -1, 1).astype(np.float32),
        np.clip(delay, -1, 1).astype(np.float32),
        np.clip(tone, -0.3, 0.3).astype(np.float32),
    )


def build_landscape(place: Layout, settings: Settings) -> Landscape:
    """Return the ground of one region, the same for the same settings."""
    name = place.region.name
    units = Farmland(place, settings).units()
    fine = _rasterise(units, place)
    shape = (place.grid.height, place.grid.width)
    parts = np.zeros((*shape, PARTS), np.int32)
    shares = np.zeros((*shape, PARTS), np.float32)
    _mix(fine, _BLUR, parts, shares)
    number = np.ascontiguousarray(parts[..., 0])
    rng = stream(settings.seed, name, "cover")
    seasons: list[Season | tuple[float, ...]] = [_MARGIN_COVER]
    seasons += [_cover(unit, place.region, rng) for unit in units]
    texture = _texture(units, number, stream(settings.seed, name, "texture"))
    return Landscape(units, number, parts, shares, *texture, seasons)


def unit_series(land: Landscape, days: np.ndarray, bands: tuple[str, ...]) -> np.ndarray:
    """Return reflectance of every unit on every day; float32 [day, state, unit, band].

    States are those of `phenology.spectra`; constant spectra are the same in all of them.
    """
    columns = [BAND_NAMES.index(band) for band in bands]
    growing = [i for i, s in enumerate(land.seasons) if isinstance(s, Season)]
    drawn = series([s for s in land.seasons if isinstance(s, Season)], days)[..., columns]
    out = np.zeros((len(days), len(drawn), len(land.seasons), len(bands)), np.float32)
    out[:, :, growing] = drawn.swapaxes(0, 1)
    for i, constant in enumerate(land.seasons):
        if not isinstance(constant, Season):
            out[:, :, i] = np.array(constant, np.float32)[columns]
    return out
