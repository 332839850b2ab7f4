"""Make `spectra.npz`, the reflectance table that the simulated archive draws on.

A developer's script: ``python -m cube.simulate.make_table`` (needs the package `prosail`). It runs
the canopy model PROSAIL on random canopies and keeps what Sentinel-2's bands would see.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from cube.simulate.table import BAND_NAMES, TABLE

#: Centre and full width at half maximum in nm (ESA, Sentinel-2 spectral responses), BAND_NAMES.
RESPONSES = (
    (492.4, 66.0),
    (559.8, 36.0),
    (664.6, 31.0),
    (704.1, 15.0),
    (740.5, 15.0),
    (782.8, 20.0),
    (832.8, 106.0),
    (864.7, 21.0),
    (1613.7, 91.0),
    (2202.4, 175.0),
)
RUNS = 6000


def draw_canopies(rng: np.random.Generator, runs: int) -> dict[str, np.ndarray]:
    """Return `runs` random canopies; brown pigment and leaf area lean towards small values."""
    u = rng.random((9, runs))
    return {
        "lai": 7.5 * u[0] ** 1.6,
        "angle": 35 + 40 * u[1],
        "brightness": 0.5 + u[2],
        "wetness": u[3],
        "brown": 0.9 * u[4] ** 2,
        "cab": 15 + 55 * u[5],
        "water": 0.006 + 0.020 * u[6],
        "dry": 0.003 + 0.010 * u[7],
    }


def band_weights() -> np.ndarray:
    """Return the normalised Gaussian response of every band; [band, 2101 wavelengths]."""
    wavelength = np.arange(400, 2501)
    rows = []
    for centre, fwhm in RESPONSES:
        response = np.exp(-4 * np.log(2) * ((wavelength - centre) / fwhm) ** 2)
        rows.append(response / response.sum())
    return np.array(rows)


def run(canopies: dict[str, np.ndarray]) -> np.ndarray:
    """Return directional reflectance [run, band] of the canopies at 40° sun zenith, seen at nadir.

    PROSAIL calls soil moisture's complement `psoil`: 1 is the dry spectrum, 0 the wet one.
    """
    prosail: Any = importlib.import_module("prosail")
    weights = band_weights()
    rows = []
    for i in range(len(canopies["lai"])):
        c = {name: float(values[i]) for name, values in canopies.items()}
        leaf = (1.5, c["cab"], 8.0, c["brown"], c["water"], c["dry"])
        canopy = (c["lai"], c["angle"], 0.05, 40.0, 0.0, 0.0)
        spectrum = prosail.run_prosail(
            *leaf, *canopy, rsoil=c["brightness"], psoil=1 - c["wetness"]
        )
        rows.append(weights @ spectrum)
    return np.array(rows)


def main(path: Path = TABLE) -> None:
    """Write the table."""
    canopies = draw_canopies(np.random.default_rng(20230101), RUNS)
    keys = ("lai", "angle", "brightness", "wetness", "brown")
    np.savez_compressed(
        path,
        canopy=np.stack([canopies[key] for key in keys], axis=1).astype(np.float32),
        reflectance=np.round(run(canopies) * 1e4).astype(np.uint16),
        bands=np.array(BAND_NAMES),
    )


if __name__ == "__main__":
    main()
