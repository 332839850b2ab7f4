"""Providers as data: what differs between catalogues, and which files may be opened.

An href comes from a stranger's catalogue and could name a local path, another host or a virtual
file. So only https on the provider's own data hosts is allowed, its own S3 buckets or, for a file
of items on disk, files below the folder that holds it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from cube.errors import SceneError, SearchError
from cube.offset import Rule
from cube.pace import UNLIMITED, Pace
from cube.signing import Signing, forget, sign

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SCHEME = re.compile(r"^([^/]*:|//)")
_HTTPS = (None, 443)
_PRODUCT_ID = re.compile(r"^S2[A-Z]_MSIL2A_\d{8}T\d{6}_R\d{3}_T\d{2}[A-Z]{3}_\d{8}T\d{6}$")
#: Options of GDAL's /vsicurl that name local files or credentials.
_QUERY_REFUSED = frozenset({"header_file", "cookiefile", "userpwd", "proxyuserpwd"})

_TEN, _SIXTY = ("B02", "B03", "B04", "B08"), ("B01", "B09")

#: Common band name (and ``scl``) → ESA's name, the asset key of half of all catalogues.
ESA_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "coastal": "B01",
        "blue": "B02",
        "green": "B03",
        "red": "B04",
        "rededge1": "B05",
        "rededge2": "B06",
        "rededge3": "B07",
        "nir": "B08",
        "nir08": "B8A",
        "nir09": "B09",
        "swir16": "B11",
        "swir22": "B12",
        "scl": "SCL",
    }
)
COMMON_NAMES: Mapping[str, str] = MappingProxyType({name: name for name in ESA_NAMES})
#: As CDSE lists ESA's files: each band at several resolutions, of which one is its own.
_NATIVE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        name: f"{band}_{10 if band in _TEN else 60 if band in _SIXTY else 20}m"
        for name, band in ESA_NAMES.items()
    }
)

_SENTINEL_COGS = "sentinel-cogs.s3.us-west-2.amazonaws.com"
_COLLECTION_1 = "e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com"
_CDSE_BUCKET, _CDSE_HOSTS = "eodata", ("eodata", "download", "zipper")
_AZURE = "sentinel2l2a01.blob.core.windows.net"


@dataclass(frozen=True)
class Provider:
    """One catalogue's conventions.

    Attributes
    ----------
    style : str
        Key of the entry whose conventions these are.
    root, collection : str or None
        STAC API and collection; None for conventions that no API of their own has.
    assets : mapping of str to str
        Common band name, and ``scl``, to asset key. Keys, because `common_name` is ambiguous.
        Empty where the provider is only read from (see `get_provider`).
    rule : str
        How the offset of baseline 04.00 is decided; see `cube.offset.decide`.
    hosts : frozenset of str
        Hosts whose files may be opened, over https only.
    buckets : frozenset of str
        S3 buckets whose files may be opened.
    signing : {"none", "planetary-computer", "cdse"}
        What `sign` does; see `cube.signing`.
    jpeg2000 : bool
        Whether its assets may be ESA's own JPEG 2000 files.
    pace : Pace
        How fast its files may be asked for; over the network only.
    origins : tuple of str
        Scheme, host and port of servers that the user named: an API given by URL, or the hosts of
        a provider file. Their files may be opened as well.
    folder : Path or None
        Folder of an items file: files below it may be opened as well.
    """

    style: str
    root: str | None
    collection: str | None
    assets: Mapping[str, str]
    rule: Rule
    hosts: frozenset[str]
    buckets: frozenset[str] = frozenset()
    signing: Signing = "none"
    jpeg2000: bool = False
    pace: Pace = UNLIMITED
    origins: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def name(self) -> str:
        """Text from which `get_provider` makes the same provider again, on any worker."""
        place = self.folder or ",".join(self.origins)
        return f"{self.style}@{place}" if place else self.style

    def within(self, folder: Path) -> Provider:
        """Return the same conventions for items on disk, in `folder`."""
        return replace(self, folder=folder.resolve())

    def served_from(self, *origins: str) -> Provider:
        """Return the same conventions for items whose files lie on other servers."""
        return replace(self, origins=origins)

    def resolve(self, href: str) -> str:
        """Return what to store for an item's href: unsigned and, on disk, absolute.

        Raises
        ------
        SceneError
            If the href may not be opened.
        """
        _require_plain(href)
        if _SCHEME.match(href):
            parts = urlsplit(href)
            if self.signing == "planetary-computer" and parts.hostname in self.hosts:
                href = parts._replace(query="", fragment="").geturl()
        elif self.folder is None:
            raise SceneError(f"href '{href}' is relative; only an items file on disk may say that")
        elif href.startswith(("/", "~")) or "\\" in href:
            raise SceneError(f"href '{href}' is not relative to the items file; refused")
        else:
            href = str((self.folder / href).resolve())
        self.check_href(href)
        return href

    def check_href(self, href: str) -> None:
        """Raise where a scene's href may not be opened.

        Raises
        ------
        SceneError
            For another scheme, host or bucket, userinfo, control characters, virtual files, and
            for files outside of the folder of the items file.
        """
        _require_plain(href)
        if _SCHEME.match(href):
            self._check_url(href)
        elif self.folder is None:
            raise SceneError(f"href '{href}' is a local file; {self.style} may not name one")
        elif not Path(href).resolve().is_relative_to(self.folder) or not Path(href).is_absolute():
            raise SceneError(f"href '{href}' leaves the folder {self.folder}; refused")

    def _check_url(self, href: str) -> None:
        try:
            parts = urlsplit(href)
            _ = parts.port
        except ValueError as error:
            raise SceneError(f"href '{href}' is not a URL ({error})") from error
        if parts.username is not None or parts.password is not None or "\\" in href or " " in href:
            raise SceneError(f"href '{href}' carries credentials or odd characters; refused")
        if parts.fragment or _QUERY_REFUSED & parse_qs(parts.query, keep_blank_values=True).keys():
            raise SceneError(f"href '{href}' carries options for GDAL; refused")
        if not self._allows(parts):
            known = (*sorted(self.hosts), *(f"s3://{name}" for name in sorted(self.buckets)))
            known += self.origins
            raise SceneError(
                f"href '{href}' is not allowed for {self.style} "
                f"(only: {', '.join(known) or 'none'}); refused"
            )

    def _allows(self, parts: SplitResult) -> bool:
        if f"{parts.scheme}://{parts.netloc}" in self.origins:
            return True
        if parts.scheme == "s3":
            return parts.netloc in self.buckets and not parts.query
        return parts.scheme == "https" and parts.hostname in self.hosts and parts.port in _HTTPS

    def may_be_private(self, href: str) -> bool:
        """Return whether `href` is of a server that the user named, wherever that is."""
        return href.startswith(tuple(f"{origin}/" for origin in self.origins))

    def sign(self, href: str) -> str:
        """Return the address to read now; short-lived tokens are cached and renewed.

        Raises
        ------
        AccessError
            If no token was given, or credentials are not set.
        """
        return sign(self.signing, href)

    def sign_again(self, href: str) -> bool:
        """Forget the token of an href that was refused; return whether another can be had."""
        return forget(self.signing, href)


def _require_plain(href: object) -> None:
    if not isinstance(href, str) or not href or len(href) > 4096 or _CONTROL.search(href):
        raise SceneError(f"href {str(href)[:80]!r} is empty, too long or has control characters")
    if href.lower().lstrip("/").startswith("vsi") or href.lstrip().startswith("<"):
        raise SceneError(f"href '{href[:80]}' names a virtual file of GDAL; refused")


_EARTH_SEARCH = "https://earth-search.aws.element84.com"

#: Catalogues that `search` knows by name.
PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        # COGs on the old scale; `boa_offset_applied` says so, mostly.
        "earth-search": Provider(
            style="earth-search",
            root=f"{_EARTH_SEARCH}/v1",
            collection="sentinel-2-l2a",
            assets=COMMON_NAMES,
            rule="flag",
            hosts=frozenset({_SENTINEL_COGS}),
        ),
        # ESA's Collection 1 (baseline 05.00 and later), DN as published: declares -0.1.
        "earth-search-c1": Provider(
            style="earth-search-c1",
            root=f"{_EARTH_SEARCH}/v1",
            collection="sentinel-2-c1-l2a",
            assets=COMMON_NAMES,
            rule="declared",
            hosts=frozenset({_COLLECTION_1}),
        ),
        # Older baselines, else as Collection 1; its template declares -0.1, so each item is read.
        "earth-search-pre-c1": Provider(
            style="earth-search-pre-c1",
            root=f"{_EARTH_SEARCH}/v1",
            collection="sentinel-2-pre-c1-l2a",
            assets=COMMON_NAMES,
            rule="declared-and-baseline",
            hosts=frozenset({_COLLECTION_1}),
        ),
        "earth-search-v0": Provider(
            style="earth-search-v0",
            root=f"{_EARTH_SEARCH}/v0",
            collection="sentinel-s2-l2a-cogs",
            assets=ESA_NAMES,
            rule="flag-or-old",
            hosts=frozenset({_SENTINEL_COGS}),
        ),
        # DN as ESA published them; nothing but the baseline tells.
        "planetary-computer": Provider(
            style="planetary-computer",
            root="https://planetarycomputer.microsoft.com/api/stac/v1",
            collection="sentinel-2-l2a",
            assets=ESA_NAMES,
            rule="baseline",
            hosts=frozenset({_AZURE}),
            signing="planetary-computer",
        ),
        # ESA's own files; -0.1 is declared, on AOT and WVP as well, which are never asked for.
        "cdse": Provider(
            style="cdse",
            root="https://stac.dataspace.copernicus.eu/v1",
            collection="sentinel-2-l2a",
            assets=_NATIVE_NAMES,
            rule="declared-and-baseline",
            hosts=frozenset({f"{name}.dataspace.copernicus.eu" for name in _CDSE_HOSTS}),
            buckets=frozenset({_CDSE_BUCKET}),
            signing="cdse",
            jpeg2000=True,
            # Its quotas for a general user's S3 access, per account.
            pace=Pace(at_once=4, per_minute=2000),
        ),
    }
)

#: Items made from ESA's products by others (as `stactools` does): DN as published, each declared.
_STACTOOLS = Provider(
    style="stactools",
    root=None,
    collection=None,
    assets=COMMON_NAMES,
    rule="declared-and-baseline",
    hosts=frozenset(),
    jpeg2000=True,
)
_STYLES = {**PROVIDERS, _STACTOOLS.style: _STACTOOLS}


@lru_cache(maxsize=256)
def get_provider(name: str) -> Provider:
    """Return the provider of a name, on any worker.

    Names are ``earth-search``, ``earth-search@<folder>``, ``earth-search@<origin>`` and, for a
    provider of the user's own, ``name@<origin>,<origin>``: with it comes what a reader needs, the
    servers whose files may be opened, but neither asset keys nor offset rule, which are used up
    when a scene is made.

    Raises
    ------
    SearchError
        If no such provider is known.
    """
    style, _, place = name.partition("@")
    origins = tuple(place.split(",")) if place.startswith(("http://", "https://")) else ()
    entry = _STYLES.get(style)
    if entry is None and origins:
        return Provider(style, None, None, {}, "pixels", frozenset(), origins=origins)
    if entry is None:
        near = difflib.get_close_matches(style, PROVIDERS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise SearchError(f"unknown provider '{name}'{hint} Known: {', '.join(PROVIDERS)}")
    if origins:
        return entry.served_from(*origins)
    return entry.within(Path(place)) if place else entry


def detect(item: Mapping[str, Any]) -> Provider:
    """Return the entry whose conventions an item of unknown origin follows.

    The choice decides the offset rule, so it goes by facts that only one catalogue has: its flag,
    its property names, its data host, its collection, the form of its ids.

    Raises
    ------
    SceneError
        If the item follows no known conventions.
    """
    assets, properties = _mapping(item, "assets"), _mapping(item, "properties")
    collection = item.get("collection")
    hosts = {_host(asset) for asset in assets.values() if isinstance(asset, Mapping)}
    if "scl" in assets:
        if collection == "sentinel-2-pre-c1-l2a":
            return PROVIDERS["earth-search-pre-c1"]
        if collection == "sentinel-2-c1-l2a" or _COLLECTION_1 in hosts:
            return PROVIDERS["earth-search-c1"]
        flagged = "earthsearch:boa_offset_applied" in properties
        if flagged or collection == "sentinel-2-l2a" or _SENTINEL_COGS in hosts:
            return PROVIDERS["earth-search"]
        return _STACTOOLS
    if "SCL" in assets:
        if any(key.startswith("sentinel:") for key in properties) or _SENTINEL_COGS in hosts:
            return PROVIDERS["earth-search-v0"]
        by_id = _PRODUCT_ID.match(str(item.get("id"))) is not None
        if properties.get("s2:mgrs_tile") or _AZURE in hosts or by_id:
            return PROVIDERS["planetary-computer"]
    if "SCL_20m" in assets:
        return PROVIDERS["cdse"]
    raise SceneError(_unknown(assets, properties))


def _unknown(assets: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    if "1C" in str(properties.get("s2:product_type")):
        return "it is a Level-1C item, not L2A"
    keys = ", ".join(sorted(assets)[:8]) or "none"
    return (
        f"its assets ({keys}) follow no known catalogue: Earth Search, Planetary Computer, CDSE or "
        "stactools with a scene classification (scl, SCL, SCL_20m) is needed"
    )


def _mapping(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = item.get(key)
    return value if isinstance(value, Mapping) else {}


def _host(asset: Mapping[str, Any]) -> str | None:
    href = asset.get("href")
    try:
        return urlsplit(href).hostname if isinstance(href, str) else None
    except ValueError:
        return None
