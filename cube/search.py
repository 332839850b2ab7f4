"""Search: area + recipe → scenes, from a STAC API or a file of items."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from cube.area import read_area
from cube.catalogue import Catalogue, open_catalogue
from cube.duplicates import drop_duplicates
from cube.errors import SceneError, SearchError
from cube.items import Acquisition, item_id, read_item, undecided
from cube.offset import BOA_OFFSET, decide
from cube.providers import get_provider
from cube.recipe import Recipe
from cube.scenes import Removed, Scene, Scenes

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]


def search(
    area: Any,
    recipe: Recipe,
    provider: str | Path = "earth-search",
    *,
    exclude: Collection[str] = (),
    offsets: Mapping[str, int] | None = None,
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
        or the path of a file of items (GeoJSON FeatureCollection or stac-geoparquet).
    exclude : collection of str
        Ids of items to leave out.
    offsets : mapping of str to int
        Item id → DN to subtract (0 or 1000), stated by hand; overrides the catalogue.
    progress : callable
        Called with the number of items found so far, 0 (the total is unknown) and a text.

    Returns
    -------
    Scenes
        In order of time, then id. `removed` lists every item that was found but not taken.

    Raises
    ------
    AreaError
        For an area that cannot be read.
    SearchError
        If the catalogue does not answer, or has nothing usable for this area and period.
    SceneError
        If items do not tell whether ESA's offset is in their pixels.
    """
    by_hand = _checked_offsets(offsets or {})
    shape = read_area(area)
    catalogue = open_catalogue(provider)
    found, removed = _read_all(catalogue, shape, recipe, frozenset(exclude), progress)
    kept, duplicates = drop_duplicates(found)
    scenes = _decide_offsets(kept, by_hand)
    removed += duplicates
    _warn_unknown({*exclude, *by_hand}, scenes, removed)
    if not scenes:
        raise SearchError(_nothing(catalogue, shape, recipe, removed))
    logger.info("%s: %d scenes, %d items removed", catalogue.source, len(scenes), len(removed))
    return Scenes(source=catalogue.source, scenes=tuple(scenes), removed=tuple(removed))


def _checked_offsets(offsets: Mapping[str, int]) -> Mapping[str, int]:
    for name, value in offsets.items():
        if isinstance(value, bool) or value not in (0, BOA_OFFSET):
            raise SceneError(f"offsets: {name}: {value!r} is neither 0 nor {BOA_OFFSET}")
    return offsets


def _read_all(
    catalogue: Catalogue,
    shape: BaseGeometry,
    recipe: Recipe,
    exclude: frozenset[str],
    progress: Progress | None,
) -> tuple[list[Acquisition], list[Removed]]:
    found: dict[str, Acquisition] = {}
    removed: list[Removed] = []
    for count, item in enumerate(catalogue.items(shape, recipe), start=1):
        if progress is not None:
            progress(count, 0, "items found")
        name = item_id(item)
        if name in exclude:
            removed.append(Removed(id=name, reason="excluded", detail="excluded by hand"))
            continue
        if name in found:
            detail = "the catalogue lists this id twice"
            removed.append(Removed(id=name, reason="duplicate", detail=detail, kept=name))
            continue
        try:
            found[name] = read_item(item, catalogue.provider_of(item), recipe.bands)
        except SceneError as error:
            logger.warning("refused: %s", error)
            removed.append(Removed(id=name, reason="refused", detail=str(error)))
    return list(found.values()), removed


def _decide_offsets(kept: Iterable[Acquisition], by_hand: Mapping[str, int]) -> list[Scene]:
    scenes: list[Scene] = []
    open_cases: list[tuple[Acquisition, str]] = []
    for found in kept:
        decision = decide(get_provider(found.provider).rule, found.facts)
        subtract = by_hand.get(found.id, decision.subtract)
        if subtract is None:
            open_cases.append((found, decision.why))
        else:
            scenes.append(found.scene(subtract))
    if open_cases:
        raise SceneError(undecided(open_cases))
    return scenes


def _warn_unknown(named: set[str], scenes: Iterable[Scene], removed: Iterable[Removed]) -> None:
    known = {scene.id for scene in scenes} | {item.id for item in removed}
    for name in sorted(named - known):
        logger.warning(
            "no item '%s' was found: excluding it or stating its offset did nothing", name
        )


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
