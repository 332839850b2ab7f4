"""Search: area + recipe → scenes, from a STAC API or a file of items."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from cube.area import read_area
from cube.catalogue import Catalogue, open_catalogue
from cube.duplicates import drop_duplicates
from cube.errors import SceneError, SearchError
from cube.items import Acquisition, item_id, read_item, sighting
from cube.recipe import Recipe
from cube.scenes import Removed, Scenes

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]


def search(
    area: Any,
    recipe: Recipe,
    provider: str | Path = "earth-search",
    *,
    exclude: Collection[str] = (),
    progress: Progress | None = None,
) -> Scenes:
    """Find the scenes of an area and period, normalised and without duplicates.

    Parameters
    ----------
    area
        Anything `cube.area.read_area` takes.
    recipe : Recipe
        Its period is searched; its bands decide which assets an item must have.
    provider : str or Path
        A name in `cube.providers.PROVIDERS`; the URL of any STAC API
        (``https://host/stac/collections/name`` for a collection other than ``sentinel-2-l2a``);
        the path of a provider file (``.yaml``, see `cube.providerfile`); or the path of a file of
        items (GeoJSON FeatureCollection or stac-geoparquet).
    exclude : collection of str
        Ids of items to leave out.
    progress : callable
        Called with the number of items found so far, 0 (the total is unknown) and a text.

    Returns
    -------
    Scenes
        In order of time; parts of one pass stand together, in order of id. `removed` lists every
        item that was found but not taken, and notes the parts. Where an item does not tell
        whether ESA's offset is in its pixels, `subtract` is None: `plan` looks at the pixels.

    Raises
    ------
    AreaError
        For an area that cannot be read.
    SearchError
        If the catalogue does not answer, or has nothing usable for this area and period.
    """
    shape = read_area(area)
    catalogue = open_catalogue(provider)
    found, removed = _read_all(catalogue, shape, recipe, frozenset(exclude), progress)
    kept, duplicates = drop_duplicates(found)
    scenes = [found.scene() for found in kept]
    removed = sorted([*removed, *duplicates], key=lambda item: (item.id, item.reason))
    _warn_unknown(exclude, removed)
    if not scenes:
        raise SearchError(_nothing(catalogue, shape, recipe, removed))
    logger.info("%s: %d scenes, %d notes on items", catalogue.source, len(scenes), len(removed))
    return Scenes(source=catalogue.source, scenes=tuple(scenes), removed=tuple(removed))


def _read_all(
    catalogue: Catalogue,
    shape: BaseGeometry,
    recipe: Recipe,
    exclude: frozenset[str],
    progress: Progress | None,
) -> tuple[list[Acquisition], list[Removed]]:
    found: list[Acquisition] = []
    removed: list[Removed] = []
    for count, item in enumerate(catalogue.items(shape, recipe), start=1):
        if progress is not None:
            progress(count, 0, "items found")
        name = item_id(item)
        if name in exclude:
            detail = "excluded by hand"
            removed.append(Removed(id=name, reason="excluded", detail=detail, **sighting(item)))
            continue
        try:
            found.append(read_item(item, catalogue.provider_of(item), recipe.bands))
        except SceneError as error:
            logger.warning("refused: %s", error)
            detail = str(error)
            removed.append(Removed(id=name, reason="refused", detail=detail, **sighting(item)))
    return found, removed


def _warn_unknown(exclude: Iterable[str], removed: Iterable[Removed]) -> None:
    known = {item.id for item in removed}
    for name in sorted(set(exclude) - known):
        logger.warning("no item '%s' was found: excluding it did nothing", name)


def _nothing(
    catalogue: Catalogue, shape: BaseGeometry, recipe: Recipe, removed: list[Removed]
) -> str:
    west, south, east, north = shapely.bounds(shape)
    asked = (
        f"{catalogue.source}: no usable scene from {recipe.start} to {recipe.end} between "
        f"{west:.4f}, {south:.4f} and {east:.4f}, {north:.4f}"
    )
    if not removed:
        return f"{asked}; check area and period, or search another provider or collection"
    reasons = "; ".join(item.detail for item in removed[:3])
    return f"{asked}: {len(removed)} items were found but none could be used: {reasons}"
