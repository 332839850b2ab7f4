"""Where land cover comes from: one raster, or the rasters of a STAC catalogue around a place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pystac_client
import shapely
from pystac_client.exceptions import APIError
from requests.exceptions import RequestException

from cube.errors import AreaError
from cube.providers import Provider

#: ESA WorldCover as the Planetary Computer and ESA's own bucket publish it; asset key ``map``.
_WORLDCOVER = Provider(
    style="esa-worldcover",
    root=None,
    collection="esa-worldcover",
    assets={"landcover": "map"},
    rule="baseline",
    hosts=frozenset(
        {
            "ai4edataeuwest.blob.core.windows.net",
            "esa-worldcover.s3.eu-central-1.amazonaws.com",
        }
    ),
    signing="planetary-computer",
)
_RASTERS = (".tif", ".tiff", ".vrt")


def rasters_around(
    source: str | Path, box: tuple[float, float, float, float], year: int = 2021
) -> list[str]:
    """Return what to open for the land cover of a box.

    Parameters
    ----------
    source : str or Path
        A raster; or a file of STAC items with an asset ``map`` whose relative hrefs stay below
        the file; or a collection of a STAC API, ``https://host/stac/collections/esa-worldcover``.
    box : tuple of float
        West, south, east, north in degrees.
    year : int
        Year of the map asked of an API.

    Raises
    ------
    AreaError
        If the catalogue does not answer or has nothing there.
    SceneError
        If an href may not be opened.
    """
    text = str(source)
    if text.lower().endswith(_RASTERS):
        return [text]
    if "/collections/" in text:
        provider, items = _WORLDCOVER, _from_api(text, box, year)
    else:
        provider, items = _WORLDCOVER.within(Path(text).resolve().parent), _from_file(text)
    area = shapely.box(*box)
    meeting = [item for item in items if shapely.box(*item["bbox"]).intersects(area)]
    hrefs = [provider.resolve(item["assets"]["map"]["href"]) for item in meeting]
    if not hrefs:
        raise AreaError(f"{text} has no land cover around {box}; give one that covers it")
    return [provider.sign(href) if "windows.net" in href else href for href in hrefs]


def _from_api(url: str, box: tuple[float, float, float, float], year: int) -> list[dict[str, Any]]:
    root, _, collection = url.rstrip("/").partition("/collections/")
    try:
        found = pystac_client.Client.open(root).search(
            collections=[collection], bbox=box, datetime=str(year)
        )
        return list(found.items_as_dicts())
    except (APIError, RequestException) as error:
        raise AreaError(f"{url}: the catalogue does not answer ({error})") from error


def _from_file(path: str) -> list[dict[str, Any]]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        features = document["features"]
        for item in features:
            item["bbox"], item["assets"]["map"]["href"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AreaError(
            f"{path}: neither a raster nor a file of STAC items with an asset 'map' ({error!r})"
        ) from error
    return features
