"""What the notebooks share: the offline archive, and pictures with an alternative text."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Image, display
from matplotlib.figure import Figure

from cube.simulate import FRENCH_REGIONS, Settings, simulate


def offline_archive(cache: str | Path) -> Path:
    """Return the folder of a small simulated archive, written at the first call.

    Two regions of four zones of 1.28 × 1.28 km and a year of passes. Auch lies across the border
    of two granules, Saint-Quentin inside one.
    """
    folder = Path(cache) / "archive"
    if not (folder / "done").exists():
        regions = {region.name: region for region in FRENCH_REGIONS}
        settings = Settings(
            seed=11,
            regions=(regions["auch"], regions["saint-quentin"]),
            zones_per_region=4,
            zone_metres=1280,
            revisit_days=8,
        )
        simulate(folder, settings)
        (folder / "done").touch()
    return folder


def show(picture: Figure | Path, alt: str, width: int | None = None) -> None:
    """Show a figure or a PNG file with an alternative text; `width` in pixels on the screen."""
    if isinstance(picture, Figure):
        png = io.BytesIO()
        picture.savefig(png, format="png", dpi=80, bbox_inches="tight", facecolor="white")
        plt.close(picture)
        data = png.getvalue()
    else:
        data = picture.read_bytes()
    display(Image(data=data, format="png", width=width, alt=alt))
