"""The STAC item of one tile of a store: what it holds, where, when, and how it was made.

Extensions: projection v2 and processing v1.2. Nothing in it tells when or by whom the tile was
made (no ``processing:datetime``): the same task always writes the same bytes, markers included.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import pandas as pd
import pystac
from pystac.extensions.projection import ProjectionExtension

from cube.planning import GridPlan, Tile
from cube.recipe import Recipe

#: Schema of the processing extension, for `stac_extensions`.
PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"


def tile_item(plan: GridPlan, tile: Tile, name: str, facts: dict[str, Any]) -> bytes:
    """Return the item of a finished tile, JSON.

    Parameters
    ----------
    plan : GridPlan
        What the tile belongs to.
    tile : Tile
        The tile; its window is the item's footprint.
    name : str
        Id of the item.
    facts : dict
        Properties of our own.
    """
    box = plan.grid.geobox(tile.window)
    lonlat = box.extent.to_crs("EPSG:4326")
    item = pystac.Item(
        id=name,
        geometry=lonlat.json,
        bbox=list(lonlat.boundingbox),
        datetime=None,
        start_datetime=plan.recipe.periods[0].to_pydatetime(),
        end_datetime=pd.Timestamp(plan.recipe.datetime[1]).to_pydatetime(),
        properties=facts
        | {
            "processing:software": software(),
            "processing:level": _level(plan.recipe),
            "processing:lineage": lineage(plan.recipe, len(plan.scenes)),
        },
        stac_extensions=[PROCESSING],
    )
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.apply(
        code=f"EPSG:{plan.grid.epsg}", shape=list(box.shape), transform=list(box.transform)[:6]
    )
    # A link for each of hundreds of scenes would be longer than all the rest of a small tile.
    item.add_link(processed_by("plan.json", "the recipe, and every scene that it was applied to"))
    text = json.dumps(item.to_dict(include_self_link=False), indent=1, sort_keys=True)
    return text.encode()


def software() -> dict[str, str]:
    """Return the value of ``processing:software``."""
    return {"cropcube": version("cropcube")}


def lineage(recipe: Recipe, scenes: int) -> str:
    """Return one sentence for people: what was done to how many scenes."""
    mask = recipe.mask
    clear = f"mask '{mask.custom}'" if mask.custom else f"SCL {', '.join(map(str, mask.keep))}"
    made = "every pass" if recipe.composite == "series" else f"{recipe.composite} per period"
    return (
        f"{scenes} scenes of Sentinel-2 L2A, harmonised; clear is {clear}; {made} "
        f"({recipe.period}); gaps: {recipe.fill}"
    )


def processed_by(href: str, title: str) -> pystac.Link:
    """Return a link to what says how an item was made."""
    return pystac.Link("processing-expression", href, "application/json", title)


def _level(recipe: Recipe) -> str:
    """Return the CEOS level: composites are L3, single passes are still L2A."""
    return "L2A" if recipe.composite == "series" else "L3"
