"""Random streams by name, and smooth random fields."""

from __future__ import annotations

import zlib

import numpy as np
from scipy import fft


def stream(seed: int, *names: object) -> np.random.Generator:
    """Return the generator that belongs to `names`, independent of all others."""
    keys = [zlib.crc32(str(name).encode()) for name in names]
    return np.random.default_rng([seed, *keys])


def key(seed: int, *names: object) -> np.uint64:
    """Return a 64-bit key that belongs to `names`, for counter-based noise."""
    return np.uint64(stream(seed, *names).integers(1 << 63))


def smooth(
    rng: np.random.Generator, shape: tuple[int, int], scale: float, slope: float = 4.0
) -> np.ndarray:
    """Return a periodic Gaussian random field float32 [y, x] of zero mean and unit variance.

    Power is level for wavelengths above `scale` pixels and falls with the wavenumber to the power
    of −`slope` below: 3 is ragged like cloud, 5 and more smooth.
    """
    rows, cols = fft.next_fast_len(shape[0], real=True), fft.next_fast_len(shape[1], real=True)
    white = rng.standard_normal((rows, cols), dtype=np.float32)
    ky, kx = fft.fftfreq(rows)[:, None], fft.rfftfreq(cols)[None, :]
    gain = (1 + scale**2 * (ky**2 + kx**2)) ** (-slope / 4)
    gain[0, 0] = 0
    field = fft.irfft2(fft.rfft2(white) * gain.astype(np.float32), s=(rows, cols))
    return (field / max(float(field.std()), 1e-6))[: shape[0], : shape[1]]
