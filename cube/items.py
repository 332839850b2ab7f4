"""STAC item → scene: reads what catalogues of ten years and four STAC versions say.

Nothing is guessed: an item whose granule, grid, level, time or band files are missing or
contradict each other is refused with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from cube.errors import SceneError
from cube.grid import NativeGrid
from cube.offset import DECLARED_OFFSET, Decision, Facts, decide
from cube.projection import native_grid
from cube.providers import Provider, get_provider
from cube.scenes import Scene

Item = Mapping[str, Any]

_ID = re.compile(r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$")
_BASELINE = re.compile(r"^(\d{1,2})\.(\d{2})$")
_BASELINE_IN_NAME = re.compile(r"_N(\d{2})\.?(\d{2})(?=_|\.|$)")
_TILE_IN_NAME = re.compile(r"(?:^|_)T?(\d{1,2}[C-X][A-Z]{2})(?=_|$)")
_TILE = re.compile(r"^(?:MGRS-)?T?(\d{1,2})([C-X][A-Z]{2})$")
_DATATAKE = re.compile(r"(?:^|_)G?S2[A-Z]_(?:MSIL2A_)?(\d{8}T\d{6})_")
_SATELLITE = re.compile(r"^(?:S2|sentinel-2)([a-z])", re.IGNORECASE)
_STRIP = re.compile(r"_S(\d{8}T\d{6})_")
#: What Sentinel-2's own properties begin with: in most catalogues, in CDSE.
_PREFIXES = ("s2", "eopf")
_LAST_STAMP = re.compile(r"_(\d{8}T\d{6})(?:\.SAFE)?$")


@dataclass(frozen=True)
class Acquisition:
    """One item, read: a scene, and what tells it from others.

    Attributes
    ----------
    id, datetime, grid, hrefs, provider
        As in `Scene`.
    facts : Facts
        What the item says about its offset.
    decision : Decision
        What the provider's rule makes of these facts.
    satellite : str
        Letter of the spacecraft, ``A``; empty when unknown.
    acquisition : str
        As in `Scene`; `cube.duplicates` makes it equal for the parts of a pass.
    datatake : str
        Start of the datatake, ``20200302T102021``; empty when unknown.
    strip : str
        Start of the datastrip; empty when unknown. Two datastrips are two parts of a granule.
    product : str
        Name of ESA's product; empty when unknown.
    generated : str
        When the product was generated, 14 digits; empty when unknown.
    """

    id: str
    datetime: str
    grid: NativeGrid
    hrefs: dict[str, str]
    provider: str
    facts: Facts
    decision: Decision
    satellite: str
    acquisition: str
    datatake: str
    strip: str
    product: str
    generated: str

    def scene(self) -> Scene:
        """Return the scene; undecided where the facts cannot tell the offset."""
        subtract = self.decision.subtract
        return Scene(
            id=self.id,
            datetime=self.datetime,
            satellite=self.satellite,
            acquisition=self.acquisition,
            grid=self.grid,
            hrefs=self.hrefs,
            subtract=subtract,
            decided=None if subtract is None else "metadata",
            why=f"{self.facts}: {self.decision.why}" if subtract is None else "",
            baseline=self.facts.baseline or "",
            provider=self.provider,
        )


def scene_from_item(item: Item, provider: Provider | str, bands: Sequence[str]) -> Scene:
    """Return the scene of one STAC item.

    Parameters
    ----------
    item : mapping
        A STAC item, any version from 0.8 to 1.1.
    provider : Provider or str
        Whose conventions it follows; `cube.providers.detect` finds out.
    bands : sequence of str
        Common names of the bands needed; the scene classification comes with them.

    Raises
    ------
    SceneError
        If the item cannot become a scene.
    """
    if isinstance(provider, str):
        provider = get_provider(provider)
    return read_item(item, provider, bands).scene()


def read_item(item: Item, provider: Provider, bands: Sequence[str]) -> Acquisition:
    """Read everything a scene needs from an item, and what tells it from other items.

    Raises
    ------
    SceneError
        Naming the item and what is missing, contradictory or not allowed.
    """
    name = item_id(item)
    try:
        return _read(item, provider, bands)
    except SceneError as error:
        raise SceneError(f"{name}: {error}") from error


def sighting(item: Item) -> dict[str, str]:
    """Return place and time as far as the item states them, for the record of refusals.

    Returns
    -------
    dict of str to str
        ``granule``, ``datetime``, ``satellite`` as for `Scene`; empty where missing or
        contradictory.
    """
    properties = item.get("properties")
    seen = {"granule": "", "datetime": "", "satellite": ""}
    if isinstance(properties, Mapping):
        with suppress(SceneError, KeyError, TypeError):
            seen["datetime"] = _sensing_time(properties)
        with suppress(SceneError, KeyError, TypeError):
            seen["granule"] = granule_of(item, properties)
        with suppress(KeyError, TypeError):
            seen["satellite"] = _satellite(item, properties)
    return seen


def item_id(item: Item) -> str:
    """Return an item's id for messages: printable, at most 80 characters."""
    text = str(item.get("id", "")) or "item without id"
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:80]


def _read(item: Item, provider: Provider, bands: Sequence[str]) -> Acquisition:
    if not isinstance(item.get("id"), str) or not _ID.match(item["id"]):
        raise SceneError("its id is not made of letters, digits, '.', '_' and '-'")
    properties = _mapping(item, "properties")
    _require_level_2a(item, properties)
    assets = _wanted_assets(item, provider, bands)
    granule = granule_of(item, properties)
    names = _names(item, properties)
    time, satellite = _sensing_time(properties), _satellite(item, properties)
    datatake = next((found[1] for text in names if (found := _DATATAKE.search(text))), "")
    hrefs = {band: provider.resolve(asset["href"]) for band, asset in assets.items()}
    facts = _facts(properties, names, [assets[band] for band in bands])
    strips = (_STRIP.search(_text(properties, f"{prefix}:datastrip_id")) for prefix in _PREFIXES)
    return Acquisition(
        id=item["id"],
        datetime=time,
        grid=native_grid(item, provider, bands, granule),
        hrefs=hrefs,
        provider=provider.name,
        facts=facts,
        decision=decide(provider.rule, facts),
        satellite=satellite,
        acquisition=f"S2{satellite}_{datatake or re.sub('[-:]', '', time)[:15]}",
        datatake=datatake,
        strip=next((found[1] for found in strips if found), ""),
        product=_text(properties, "s2:product_uri") or _text(properties, "sentinel:product_id"),
        generated=_generated(properties, names),
    )


# --- text of an item ---------------------------------------------------------------------------


def _mapping(holder: Item, key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    if not isinstance(value, Mapping):
        raise SceneError(f"it has no {key}")
    return value


def _text(properties: Mapping[str, Any], key: str) -> str:
    value = properties.get(key)
    return value if isinstance(value, str) else ""


def _names(item: Item, properties: Mapping[str, Any]) -> list[str]:
    keys = (
        *(f"{prefix}:datatake_id" for prefix in _PREFIXES),
        *("s2:product_uri", "sentinel:product_id", "s2:granule_id"),
    )
    return [_text(properties, key) for key in keys] + [item["id"]]


def _require_level_2a(item: Item, properties: Mapping[str, Any]) -> None:
    stated = _text(properties, "s2:product_type") or _text(properties, "product:type")
    if "1C" in stated or "l1c" in str(item.get("collection", "")).lower():
        raise SceneError(f"it is a Level-1C item ({stated or item.get('collection')}), not L2A")


def _sensing_time(properties: Mapping[str, Any]) -> str:
    text = _text(properties, "datetime") or _text(properties, "start_datetime")
    if not text:
        raise SceneError("it has no datetime")
    try:
        time = pd.Timestamp(text)
        time = time.tz_localize("UTC") if time.tz is None else time.tz_convert("UTC")
        return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except ValueError as error:
        raise SceneError(f"its datetime '{text[:40]}' is not a time") from error


def _satellite(item: Item, properties: Mapping[str, Any]) -> str:
    for text in (_text(properties, "platform"), item["id"]):
        if found := _SATELLITE.match(text):
            return found[1].upper()
    return ""


def _generated(properties: Mapping[str, Any], names: Iterable[str]) -> str:
    stated = _text(properties, "s2:generation_time") or _text(properties, "processing:datetime")
    if stated := re.sub(r"\D", "", stated)[:14]:
        return stated
    stamps = (found[1] for text in names if (found := _LAST_STAMP.search(text)))
    return next(stamps, "").replace("T", "")


# --- offset ------------------------------------------------------------------------------------


def _facts(
    properties: Mapping[str, Any], names: Iterable[str], reflectance: Sequence[Mapping[str, Any]]
) -> Facts:
    baselines = list(_baselines(properties, names))
    conflict = ""
    if len({text >= "04.00" for text in baselines}) > 1:
        conflict = f"it names baselines on both sides of 04.00 ({', '.join(baselines)})"
    if any(_declared(asset, "scale") not in (None, 0.0001) for asset in reflectance):
        raise SceneError("its bands declare another scale than 0.0001")
    flag = properties.get("earthsearch:boa_offset_applied")
    if flag is None:
        flag = properties.get("sentinel:boa_offset_applied")
    return Facts(
        baseline=baselines[0] if baselines else None,
        offset=_declared_offset(reflectance),
        flag=flag if isinstance(flag, bool) else None,
        conflict=conflict,
    )


def _declared_offset(reflectance: Sequence[Mapping[str, Any]]) -> float | None:
    """Return 0, `DECLARED_OFFSET` or None: with any other, no pixel test could tell what to do."""
    declared = {_declared(asset, "offset") for asset in reflectance}
    if len(declared) > 1:
        listed = ", ".join(map(str, sorted(declared, key=str)))
        raise SceneError(f"its bands declare different offsets ({listed})")
    offset = declared.pop()
    if offset is None:
        return None
    for known in (0.0, DECLARED_OFFSET):
        if math.isclose(offset, known, abs_tol=1e-9):
            return known
    raise SceneError(f"it declares an offset of {offset:g}; ESA's products have 0 or -0.1")


def _baselines(properties: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    for key in ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version"):
        value = properties.get(key)
        text = f"{value:05.2f}" if isinstance(value, (int, float)) else _text(properties, key)
        if found := _BASELINE.match(text):
            yield f"{int(found[1]):02d}.{found[2]}"
    for name in names:
        if found := _BASELINE_IN_NAME.search(name):
            yield f"{found[1]}.{found[2]}"


def _declared(asset: Mapping[str, Any], what: str) -> float | None:
    """Return scale or offset of an asset: `raster:bands`, or STAC 1.1's fields and `bands`."""
    places: list[Any] = [asset.get(f"raster:{what}")]
    for key, field in (("raster:bands", what), ("bands", f"raster:{what}")):
        listed = asset.get(key)
        if isinstance(listed, list) and listed and isinstance(listed[0], Mapping):
            places.append(listed[0].get(field))
    for value in places:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


# --- assets and tile ---------------------------------------------------------------------------


def _asset(item: Item, key: str) -> Mapping[str, Any] | None:
    asset = _mapping(item, "assets").get(key)
    return asset if isinstance(asset, Mapping) and asset.get("href") else None


def _suffix(asset: Mapping[str, Any]) -> str:
    return PurePosixPath(str(asset["href"]).partition("?")[0]).suffix.lower()


def _wanted_assets(
    item: Item, provider: Provider, bands: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for band in (*bands, "scl"):
        key = provider.assets.get(band)
        if key is None:
            raise SceneError(f"provider {provider.style} names no asset for {band}")
        asset = _asset(item, key)
        if asset is None:
            raise SceneError(f"it has no asset '{key}' ({band})")
        if not provider.jpeg2000 and _suffix(asset) == ".jp2":
            # The same key may hold ESA's file in one item and a shifted copy in another.
            raise SceneError(f"its {band} is JPEG 2000, which {provider.style} does not publish")
        found[band] = asset
    return found


def granule_of(item: Item, properties: Mapping[str, Any]) -> str:
    """Return the MGRS tile, zone with two digits as ESA writes it: ``07HFE``.

    Raises
    ------
    SceneError
        If the item names none, or two.
    """
    stated = [_text(properties, "grid:code"), _text(properties, "s2:mgrs_tile")]
    for prefix, zone in (("mgrs:", "utm_zone"), ("sentinel:", "utm_zone")):
        parts = (properties.get(prefix + key) for key in (zone, "latitude_band", "grid_square"))
        stated.append("".join(str(part) for part in parts if part is not None))
    names = [_text(properties, "s2:product_uri"), _text(properties, "sentinel:product_id")]
    for name in (*names, item["id"]):
        if found := _TILE_IN_NAME.search(name.removesuffix(".SAFE")):
            stated.append(found[1])
    tiles = {f"{int(found[1]):02d}{found[2]}" for text in stated if (found := _TILE.match(text))}
    if len(tiles) != 1:
        raise SceneError(f"its MGRS tile is {' or '.join(sorted(tiles)) or 'not stated'}")
    return tiles.pop()
