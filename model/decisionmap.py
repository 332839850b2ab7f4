"""Days of decisions as rasters, beside the maps of an early classifier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pystac
import rasterio
from pystac.extensions.file import FileExtension

import cube.store
from cube.grid import PIXEL, NativeGrid, Window
from model.artefact import load
from model.early import decision_days, early_classifier
from model.maps import NO_DECISION, GridMap, Maps, write_cog
from model.predict import check_recipe
from model.samples import days_of_year

Progress = Callable[[int, int, str], None]

#: Day of the year where nothing was decided.
NO_DAY = 0
#: Side of what is decided at once, pixels.
STEP = 512


def decision_maps(
    artefact: str | Path,
    store: str | Path,
    found: Maps,
    *,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the day of the year at which each pixel of finished maps was decided.

    Parameters
    ----------
    artefact : path
        Folder of an early classifier.
    store : path
        The cube that the maps are of.
    found : Maps
        What `model.predict` made with the same model.
    progress : callable, optional
        Called with (done, total, what).

    Returns
    -------
    list of Path
        Per native grid ``<granule>_decision.tif``, pixel by pixel as its classes: uint16, days of
        the year, 0 = no decision. The STAC item of the grid names it.

    Raises
    ------
    ArtefactError
        If the model is no early classifier, or the cube is of another recipe.
    """
    model = load(artefact)
    network = early_classifier(model.network())
    doy = days_of_year(check_recipe(model, store).periods)
    grids = {plan.grid.granule: plan.grid for plan in cube.store.read_plan(store).grids}
    written = []
    for number, made in enumerate(found.grids, start=1):
        with rasterio.open(made.classes) as source:
            classes = source.read(1)
            left, top = source.transform.c, source.transform.f
        grid = grids[made.granule]
        shown = _window(grid, left, top, classes.shape)
        days = np.full(classes.shape, NO_DAY, np.uint16)
        for part in _parts(shown):
            inside = part.relative_to(shown).yx
            if (classes[inside] != NO_DECISION).any():
                reflectance, _ = cube.store.read_window(store, made.granule, part)
                days[inside] = decision_days(network, model.normalisation, doy, reflectance)
        days[classes == NO_DECISION] = NO_DAY
        path = found.folder / f"{made.granule}_decision.tif"
        write_cog(path, days, grid.geobox(shown), "mode", nodata=NO_DAY)
        _note(made, path)
        written.append(path)
        if progress:
            progress(number, len(found.grids), "days of decisions")
    return written


def _window(grid: NativeGrid, left: float, top: float, shape: tuple[int, ...]) -> Window:
    """Return the pixels of a grid that a raster with this corner shows."""
    row, col = round((grid.top - top) / PIXEL), round((left - grid.left) / PIXEL)
    return Window(row=row, col=col, height=shape[0], width=shape[1])


def _parts(window: Window) -> list[Window]:
    corners = [
        (row, col) for row in range(0, window.height, STEP) for col in range(0, window.width, STEP)
    ]
    whole = [
        Window(row=window.row + row, col=window.col + col, height=STEP, width=STEP)
        for row, col in corners
    ]
    return [part.intersect(window) for part in whole]


def _note(made: GridMap, path: Path) -> None:
    """Add the raster to the STAC item of its grid."""
    item = pystac.Item.from_dict(json.loads(made.item.read_text(encoding="utf-8")))
    asset = pystac.Asset(
        f"./{path.name}",
        "day of the year of the decision",
        media_type=pystac.MediaType.COG,
        roles=["data"],
    )
    item.add_asset("decision", asset)
    described = FileExtension.ext(asset, add_if_missing=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    described.apply(checksum=f"1220{digest}", size=path.stat().st_size)
    made.item.write_text(json.dumps(item.to_dict(), indent=1), encoding="utf-8")
