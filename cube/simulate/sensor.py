"""From ground to digital numbers: compiled loops that release the interpreter lock.

Noise is counter-based: a pixel's draw depends only on the key of its band and scene and on its
place, so threads in any order write the same bytes.
"""

from __future__ import annotations

import numba
import numpy as np

#: Relative and absolute standard deviation of one value (models of sensor and correction noise).
RELATIVE_NOISE, ABSOLUTE_NOISE = 0.02, 0.003
_SHIFT = np.uint64(16)
_LOW = np.uint64(0xFFFF)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


@numba.njit(nogil=True, inline="always")
def _normal(key: np.uint64, counter: int) -> float:  # pragma: no cover - compiled
    """Return a nearly normal number from a hash (SplitMix64): the sum of its four 16-bit parts."""
    z = key + np.uint64(counter) * _STEP
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    z = z ^ (z >> _S31)
    total = 0.0
    for _ in range(4):
        total += np.float64(z & _LOW)
        z >>= _SHIFT
    return (total / 65535.0 - 2.0) * 1.7320508


@numba.njit(nogil=True)
def ground(
    parts: np.ndarray,
    shares: np.ndarray,
    states: np.ndarray,
    leaf: np.ndarray,
    delay: np.ndarray,
    tone: np.ndarray,
) -> np.ndarray:  # pragma: no cover - compiled
    """Return surface reflectance float32 [band, y, x] of one date, without noise or air.

    A pixel is the mix of its units. Each is moved from its plain state towards the denser or
    thinner and the later or earlier one by the pixel's texture (`leaf`, `delay`, −1 to 1), then
    brightened by `tone`. `states` is float32 [5, unit, band].
    """
    height, width, n = parts.shape
    bands = states.shape[2]
    out = np.zeros((bands, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            dense, late = leaf[y, x], delay[y, x]
            by_leaf = 1 if dense > 0 else 2
            by_day = 3 if late > 0 else 4
            dense, late = abs(dense), abs(late)
            for part in range(n):
                share = shares[y, x, part]
                if share <= 0:
                    continue
                unit = parts[y, x, part]
                for b in range(bands):
                    value = (
                        states[0, unit, b] * (1 - dense - late)
                        + states[by_leaf, unit, b] * dense
                        + states[by_day, unit, b] * late
                    )
                    out[b, y, x] += share * value
            for b in range(bands):
                out[b, y, x] = max(out[b, y, x] * (1 + tone[y, x]), np.float32(0.002))
    return out


@numba.njit(nogil=True)
def sense(
    surface: np.ndarray,
    cloud: np.ndarray,
    shade: np.ndarray,
    haze: np.ndarray,
    valid: np.ndarray,
    cloud_value: float,
    haze_value: float,
    gain: float,
    offset: int,
    key: np.uint64,
) -> np.ndarray:  # pragma: no cover - compiled
    """Return digital numbers uint16 [y, x] of one band; 0 where nothing was seen.

    Light is dimmed by `shade` (share lost), then whitened by `haze` and covered by `cloud`
    (opacities 0-1); noise is added, and `offset` in DN.
    """
    height, width = surface.shape
    out = np.zeros((height, width), np.uint16)
    for y in range(height):
        for x in range(width):
            if not valid[y, x]:
                continue
            value = surface[y, x] * gain * (1 - shade[y, x])
            value += haze[y, x] * (haze_value - value)
            value += cloud[y, x] * (cloud_value - value)
            spread = np.sqrt((RELATIVE_NOISE * value) ** 2 + ABSOLUTE_NOISE**2)
            value += spread * _normal(key, y * width + x)
            dn = int(np.floor(value * 10_000 + 0.5))
            out[y, x] = min(max(dn, 1) + offset, 32_767)
    return out


def half(array: np.ndarray) -> np.ndarray:
    """Return means over blocks of 2 × 2 pixels of the last two axes: 10 m to 20 m."""
    rows = array[..., 0::2, :] + array[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]) * np.float32(0.25)
