"""What stands between ground and sensor: clouds, their shadows, haze; and what the SCL says of it.

The scene classification (SCL) sees clouds as Sen2Cor does: it misses thin edges and light shadows,
takes bright roofs for cloud, and leaves doubtful ground unclassified.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from cube.simulate.items import Acquisition
from cube.simulate.rng import smooth, stream
from cube.simulate.sensor import half

#: Mean share of cloud per month over France, January to December (climatology in outline).
CLOUDINESS = (0.74, 0.68, 0.62, 0.58, 0.55, 0.48, 0.40, 0.40, 0.47, 0.60, 0.71, 0.76)
#: Reflectance of thick cloud and of haze per band, in the order of `table.BAND_NAMES`.
CLOUD_COLOUR = (0.56, 0.54, 0.55, 0.56, 0.57, 0.57, 0.57, 0.57, 0.38, 0.28)
HAZE_COLOUR = (0.34, 0.30, 0.27, 0.26, 0.25, 0.24, 0.24, 0.23, 0.12, 0.08)
#: Opacity from which the classification notices a cloud, and calls it certain.
SEEN, CERTAIN = 0.22, 0.55


@dataclass(frozen=True)
class Sky:
    """The state of the air on one date over a region; float32 [y, x] each, 0 = none.

    `cloud` and `haze` are opacities, `shade` is the share of light lost, `snow` the share of snow.
    `brightness` scales the clouds' reflectance, `gain` is the date's calibration error.
    """

    cloud: np.ndarray
    haze: np.ndarray
    shade: np.ndarray
    snow: np.ndarray
    brightness: float
    gain: float


def _cover(passed: Acquisition, rng: np.random.Generator) -> float:
    """Draw a date's share of cloud: often none, often all, mean as the climatology says."""
    climate = CLOUDINESS[passed.time.month - 1] * passed.region.cloudiness
    mean = float(np.clip(climate, 0.02, 0.97))
    if passed.luck < 0.55 * mean:
        return 1.0
    if passed.luck > 1 - 0.62 * (1 - mean):
        return 0.0
    return float(rng.beta(2.2 * mean + 0.3, 2.2 * (1 - mean) + 0.3))


def _opacity(field: np.ndarray, cover: float, softness: float) -> np.ndarray:
    """Return opacity 0-1 that covers a share `cover` of the field, with soft edges."""
    if cover <= 0.005:
        return np.zeros_like(field)
    level = np.quantile(field, 1 - min(cover, 0.995)) if cover < 1 else field.min() - 1.5
    ramp = np.clip((field - level) / softness, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def sun(day: float, latitude: float) -> tuple[float, float]:
    """Return sun elevation and azimuth in degrees at about 10:40 local solar time."""
    declination = np.radians(-23.44 * np.cos(2 * np.pi * (day + 10) / 365))
    hour, phi = np.radians(-20.0), np.radians(latitude)
    sine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour)
    elevation = np.arcsin(sine)
    east = -np.sin(hour) * np.cos(declination)
    north = np.sin(declination) * np.cos(phi) - np.cos(declination) * np.sin(phi) * np.cos(hour)
    return float(np.degrees(elevation)), float(np.degrees(np.arctan2(east, north)) % 360)


def _shadow(cloud: np.ndarray, day: float, latitude: float, height_m: float) -> np.ndarray:
    """Return the clouds moved away from the sun by their height; fields are periodic."""
    elevation, azimuth = (np.radians(a) for a in sun(day, latitude))
    reach = height_m / np.tan(max(elevation, 0.15)) / 10
    down, right = round(float(reach * np.cos(azimuth))), round(float(-reach * np.sin(azimuth)))
    return np.roll(cloud, (down, right), axis=(0, 1))


def draw_sky(
    seed: int, passed: Acquisition, shape: tuple[int, int], latitude: float, *, snowy: bool
) -> Sky:
    """Return the air of one overpass, the same for every granule and every processing of it."""
    rng = stream(seed, passed.datatake, "sky")
    cover = _cover(passed, rng)
    field = smooth(rng, shape, rng.uniform(50, 140), 3.8)
    cloud = _opacity(field, cover, rng.uniform(0.5, 1.0))
    if cover < 0.9 and rng.random() < 0.22:  # thin cirrus
        cloud = np.maximum(cloud, 0.4 * _opacity(smooth(rng, shape, 220, 4.2), 0.45, 1.6))
    shade = 0.6 * _shadow(cloud, passed.day, latitude, rng.uniform(500, 1400)) * (1 - cloud)
    patches = smooth(rng, shape, 22, 4.0)
    haze = rng.choice((0.02, 0.06, 0.13), p=(0.5, 0.35, 0.15)) * np.clip(0.35 + 0.5 * patches, 0, 2)
    snow = np.zeros(shape, np.float32)
    if snowy:
        snow = _opacity(smooth(rng, shape, 60, 3.6), rng.uniform(0.3, 0.9), 0.6)
    return Sky(
        cloud.astype(np.float32),
        haze.astype(np.float32),
        shade.astype(np.float32),
        snow.astype(np.float32),
        float(rng.uniform(0.8, 1.2)),
        float(rng.lognormal(0, 0.025)),
    )


def classify(
    sky: Sky, red: np.ndarray, nir: np.ndarray, water: np.ndarray, bright: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Return the scene classification uint8 at 20 m from fields at 10 m.

    `red` and `nir` are surface reflectance; `water` and `bright` (sheet roofs) are bool.
    """
    red, nir = half(red), half(nir)
    ndvi = (nir - red) / (nir + red)
    scl = np.where(ndvi > 0.36, 4, 5).astype(np.uint8)
    doubtful = (ndvi > 0.25) & (ndvi < 0.36) & (rng.random(ndvi.shape) < 0.25)
    scl[doubtful] = 7
    scl[(red < 0.04) & (nir < 0.13)] = 2
    scl[half(water.astype(np.float32)) > 0.6] = 6
    scl[half(sky.snow) > 0.4] = 11
    wobble = gaussian_filter(rng.standard_normal(ndvi.shape, dtype=np.float32), 1.5)
    seen = half(sky.cloud) + 0.35 * wobble * half(sky.cloud)
    dim = half(sky.shade) + 0.1 * wobble
    scl[dim > 0.2] = 3
    scl[half(bright.astype(np.float32)) > 0.45] = 8
    scl[seen > SEEN] = 10
    scl[seen > (SEEN + CERTAIN) / 2] = 8
    scl[seen > CERTAIN] = 9
    return scl
