"""Where items come from: a STAC API, page by page, or a file of items on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pandas as pd
import pystac_client
import shapely
from pystac.errors import STACError
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry.base import BaseGeometry
from urllib3 import Retry

from cube.errors import SearchError
from cube.providerfile import read_provider
from cube.providers import PROVIDERS, Provider, detect, get_provider
from cube.recipe import Recipe

logger = logging.getLogger(__name__)

Item = dict[str, Any]

PAGE = 100
TIMEOUT_S = (10.0, 60.0)
MAX_ITEMS = 200_000
MAX_FILE_BYTES = 2 * 2**30

_NOT_AN_API = (STACError, ClientTypeError, NotImplementedError, KeyError, TypeError, ValueError)

#: More vertices than this are not sent to a server; the convex hull is, and finds the same or more.
_MAX_QUERY_VERTICES = 500


class Catalogue(Protocol):
    """A source of STAC items."""

    @property
    def source(self) -> str:
        """Say where the items come from, for messages and for the record."""

    def items(self, area: BaseGeometry, recipe: Recipe) -> Iterator[Item]:
        """Yield the items whose footprint meets the area, in the recipe's period."""

    def provider_of(self, item: Item) -> Provider:
        """Return the conventions of an item; SceneError where it follows none."""


def open_catalogue(provider: str | Path) -> Catalogue:
    """Return the catalogue that `provider` names.

    Parameters
    ----------
    provider : str or Path
        A name in `PROVIDERS`; the URL of a STAC API (``https://host/stac``; a collection other
        than ``sentinel-2-l2a`` as ``https://host/stac/collections/name``); the path of a provider
        file (``.yaml``, see `cube.providerfile`); or the path of a file of items.

    Raises
    ------
    SearchError
        If it is none of these.
    """
    text = str(provider)
    if text in PROVIDERS:
        return _known(PROVIDERS[text])
    if text.startswith(("https://", "http://")):
        return _by_url(text)
    if text.lower().endswith((".yaml", ".yml")):
        return _known(read_provider(provider))
    if "/" in text or "." in text or Path(text).exists():
        return ItemFile(Path(provider))
    get_provider(text)
    raise SearchError(f"'{text}' has no catalogue to search; known: {', '.join(PROVIDERS)}")


def _known(entry: Provider) -> StacApi:
    if entry.root is None or entry.collection is None:
        raise SearchError(f"'{entry.style}' has no catalogue to search")
    return StacApi(entry.root, entry.collection, entry)


def _by_url(url: str) -> StacApi:
    parts = urlsplit(url)
    if parts.username is not None or not parts.hostname:
        raise SearchError(f"'{url}' is not the URL of a STAC API (credentials are not accepted)")
    root, _, collection = url.rstrip("/").partition("/collections/")
    collection = collection or "sentinel-2-l2a"
    for entry in PROVIDERS.values():
        if (entry.root, entry.collection) == (root, collection):
            return _known(entry)
    return StacApi(root, collection, None)


# --- over HTTP ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class StacApi:
    """A STAC API with item search. `entry` is None where its conventions are found per item."""

    root: str
    collection: str
    entry: Provider | None

    @property
    def source(self) -> str:
        """URL of the collection."""
        return f"{self.root}/collections/{self.collection}"

    def provider_of(self, item: Item) -> Provider:
        """Return the entry, or what the item's facts say; the API's own host is then allowed."""
        if self.entry is not None:
            return self.entry
        parts = urlsplit(self.root)
        return detect(item).served_from(f"{parts.scheme}://{parts.netloc}")

    def items(self, area: BaseGeometry, recipe: Recipe) -> Iterator[Item]:
        """Yield every item of every page.

        Requests that fail in transport, or with 429 or 5xx, are repeated five times with growing
        pauses.

        Raises
        ------
        SearchError
            If the service does not answer, is not a STAC API, or serves the same page for ever.
        """
        try:
            yield from self._pages(area, recipe)
        except APIError as error:
            raise SearchError(
                f"{self.source}: the search failed ({_short(error)}); try again later, or search "
                "another provider"
            ) from error
        except _NOT_AN_API as error:
            raise SearchError(
                f"{self.source}: this is not a STAC API with item search ({_short(error)})"
            ) from error

    def _pages(self, area: BaseGeometry, recipe: Recipe) -> Iterator[Item]:
        retry = Retry(
            total=5,
            connect=2,  # a wrong address should be told soon
            backoff_factor=0.5,
            backoff_jitter=0.25,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,  # a search by POST changes nothing: it may be repeated
        )
        client = pystac_client.Client.open(
            self.root, stac_io=StacApiIO(max_retries=retry, timeout=TIMEOUT_S)
        )
        search = client.search(
            collections=[self.collection],
            intersects=shapely.geometry.mapping(_query_area(area)),
            datetime="/".join(recipe.datetime),
            limit=PAGE,
        )
        seen: set[str] = set()
        for page in search.pages_as_dicts():
            features = [item for item in page["features"] if isinstance(item, dict)]
            fresh = {str(item.get("id")) for item in features} - seen
            if not fresh:
                raise SearchError(f"{self.source}: the service repeats its pages; try later")
            seen |= fresh
            if len(seen) > MAX_ITEMS:
                raise SearchError(
                    f"{self.source}: more than {MAX_ITEMS:,} items; search a smaller area or period"
                )
            yield from features


def _query_area(area: BaseGeometry) -> BaseGeometry:
    if shapely.get_num_coordinates(area) <= _MAX_QUERY_VERTICES:
        return area
    west, _, east, _ = area.bounds
    if east - west > 180:
        # Split at the antimeridian: one hull of both sides would go around the Earth.
        halves = (shapely.box(-180, -90, 0, 90), shapely.box(0, -90, 180, 90))
        return shapely.MultiPolygon([_hull(area.intersection(half)) for half in halves])
    return _hull(area)


def _hull(area: BaseGeometry) -> BaseGeometry:
    hull = area.convex_hull
    return hull if shapely.get_num_coordinates(hull) <= _MAX_QUERY_VERTICES // 2 else hull.envelope


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# --- on disk -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ItemFile:
    """A file of items: GeoJSON FeatureCollection, one item, or stac-geoparquet."""

    path: Path

    @property
    def source(self) -> str:
        """Path of the file."""
        return str(self.path)

    def provider_of(self, item: Item) -> Provider:
        """Return what the item's facts say; files below the folder of the file are allowed."""
        return detect(item).within(self.path.resolve().parent)

    def items(self, area: BaseGeometry, recipe: Recipe) -> Iterator[Item]:
        """Yield the items that meet the area and the period.

        Raises
        ------
        SearchError
            If the file is missing or not a file of items.
        """
        start, end = recipe.periods[0].tz_localize("UTC"), recipe.stop.tz_localize("UTC")
        shapely.prepare(area)
        for item in self._read():
            if _meets(item, area) and _within(item, start, end):
                yield item

    def _read(self) -> Iterable[Item]:
        if self.path.is_dir():
            raise SearchError(f"{self.path}: a folder; name the file of items in it (items.json)")
        if not self.path.is_file():
            raise SearchError(f"{self.path}: no such file of items, and no provider of that name")
        if self.path.stat().st_size > MAX_FILE_BYTES:
            raise SearchError(f"{self.path}: larger than 2 GiB; split it by year or area")
        if self.path.suffix.lower() in (".parquet", ".geoparquet"):
            return _read_parquet(self.path)
        return _read_json(self.path)


def _read_json(path: Path) -> list[Item]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SearchError(f"{path}: not readable as JSON ({_short(error)})") from error
    kind = document.get("type") if isinstance(document, dict) else None
    features = document.get("features") if kind == "FeatureCollection" else [document]
    if kind not in ("FeatureCollection", "Feature") or not isinstance(features, list):
        raise SearchError(f"{path}: not a GeoJSON FeatureCollection of STAC items")
    if not all(isinstance(item, dict) for item in features):
        raise SearchError(f"{path}: a feature is not an object")
    return features


def _read_parquet(path: Path) -> Iterator[Item]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
        import stac_geoparquet.arrow as stac_arrow
    except ImportError as error:
        raise SearchError(
            f"{path}: reading stac-geoparquet needs `pip install 'cropcube[geoparquet]'`"
        ) from error
    try:
        yield from stac_arrow.stac_table_to_items(pq.read_table(path))
    except (OSError, KeyError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise SearchError(f"{path}: not readable as stac-geoparquet ({_short(error)})") from error


def _meets(item: Item, area: BaseGeometry) -> bool:
    # An item without a usable footprint stays: its grid is compared with the area when planning.
    footprint = _footprint(item)
    return footprint is None or bool(shapely.intersects(area, footprint))


def _footprint(item: Item) -> BaseGeometry | None:
    try:
        geometry = item.get("geometry")
        if isinstance(geometry, Mapping):
            shape = shapely.geometry.shape(dict(geometry))
            return shape if shape.is_valid else shapely.make_valid(shape)
        west, south, east, north = item["bbox"]
        return None if west > east else shapely.box(west, south, east, north)
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError):
        return None


def _within(item: Item, start: pd.Timestamp, end: pd.Timestamp) -> bool:
    properties = item.get("properties")
    if not isinstance(properties, Mapping):
        return True
    try:
        time = pd.Timestamp(properties.get("datetime") or properties.get("start_datetime") or "")
    except (TypeError, ValueError):
        return True
    if pd.isna(time):
        return True
    time = time.tz_localize("UTC") if time.tz is None else time
    return bool(start <= time < end)
