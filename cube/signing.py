"""Short-lived access to files that are not open: Azure tokens and presigned S3 addresses.

A href is signed inside the task, just before it is read, because a token lives shorter than a
job. What is signed is never stored: scenes, plans and logs hold the bare href.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

import obstore
import pandas as pd
import requests
from obstore.store import S3Store
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from cube.errors import AccessError

Signing = Literal["none", "planetary-computer", "cdse"]

#: The least life with which a token may still be used when no better one is given.
LEAST_LIFE_S = 30.0
TIMEOUT_S = (10.0, 30.0)

_PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
_CDSE = "https://eodata.dataspace.copernicus.eu"
_CDSE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
#: A presigned address is used for half an hour at most and valid for an hour: half an hour is left.
_PRESIGNED_USE_S = 1800


def sign(method: Signing, href: str) -> str:
    """Return the address to read an href from, now.

    Parameters
    ----------
    method : {"none", "planetary-computer", "cdse"}
        ``planetary-computer``: a token of the token API is appended. ``cdse``: ``s3://`` becomes
        an https address, presigned with the keys in ``AWS_ACCESS_KEY_ID`` and
        ``AWS_SECRET_ACCESS_KEY``.
    href : str
        As stored in a scene. What the method is not meant for (a local file, another scheme)
        comes back unchanged.

    Raises
    ------
    AccessError
        If the token API gives no token, or the keys are not set.
    """
    if method == "planetary-computer" and href.startswith("https:"):
        return _azure().sign(href)
    if method == "cdse" and href.startswith("s3:"):
        return _presign(href)
    return href


def forget(method: Signing, href: str) -> bool:
    """Drop the token of an href that was refused; return whether another can be had."""
    if method == "planetary-computer" and href.startswith("https:"):
        _azure().forget(href)
        return True
    return False


# --- tokens of the Planetary Computer ----------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    query: str = field(repr=False)
    expires: float
    fetched: float

    @property
    def life(self) -> float:
        return self.expires - time.time()


class SasTokens:
    """Tokens for Azure containers from a token API, kept until shortly before they expire.

    Parameters
    ----------
    api : str
        Root of the token API; ``<api>/<account>/<container>`` answers with ``token`` and
        ``msft:expiry``.
    asks : int
        How often to ask when tokens arrive nearly expired: the API hands out cached ones.
    pause_s : float
        Seconds before the second ask; doubled each time.
    margin_s : float
        A token is renewed this long before it expires, so that no read begins with a dying one.
    young_s : float
        A token this young is not dropped: the threads that were refused with the old one share it.
    """

    def __init__(
        self,
        api: str,
        *,
        asks: int = 5,
        pause_s: float = 1.0,
        margin_s: float = 300.0,
        young_s: float = 10.0,
    ) -> None:
        self._api, self._asks, self._pause_s = api, asks, pause_s
        self._margin_s, self._young_s = margin_s, young_s
        self._tokens: dict[str, _Token] = {}
        self._lock = threading.Lock()
        self._session = requests.Session()
        # 429 and 5xx are waited for, as long as the service says or with growing pauses.
        retry = Retry(
            total=6,
            backoff_factor=1.0,
            backoff_jitter=0.5,
            status_forcelist=(429, 500, 502, 503, 504),
        )
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def sign(self, href: str) -> str:
        """Return the href with a token that lives for a while.

        Raises
        ------
        AccessError
            If no token can be had, or only dying ones.
        """
        place = _container(href)
        # One request at a time: the other threads want the same token and wait for it.
        with self._lock:
            token = self._tokens.get(place)
            if token is None or token.life < self._margin(token):
                token = self._tokens[place] = self._ask(place)
        return f"{href}{'&' if urlsplit(href).query else '?'}{token.query}"

    def forget(self, href: str) -> None:
        """Drop the token of an href, unless it has just been renewed."""
        with self._lock:
            token = self._tokens.get(_container(href))
            if token is not None and time.time() - token.fetched > self._young_s:
                del self._tokens[_container(href)]

    def _margin(self, token: _Token) -> float:
        # One that came nearly expired is used for half of what was left of it.
        return min(self._margin_s, (token.expires - token.fetched) / 2)

    def _ask(self, place: str) -> _Token:
        best: _Token | None = None
        for attempt in range(self._asks):
            if attempt:
                time.sleep(self._pause_s * 2 ** (attempt - 1))
            token = self._fetch(place)
            best = token if best is None or token.expires > best.expires else best
            if best.life >= self._margin_s:
                return best
        if best is None or best.life < LEAST_LIFE_S:
            raise AccessError(
                f"{self._api}/{place}: {self._asks} tokens in a row had expired or nearly so; "
                "check this machine's clock, or try again later"
            )
        return best

    def _fetch(self, place: str) -> _Token:
        url = f"{self._api}/{place}"
        now = time.time()
        try:
            answer = self._session.get(url, timeout=TIMEOUT_S)
            answer.raise_for_status()
            found = answer.json()
            expires = pd.Timestamp(found["msft:expiry"])
            expires = expires.tz_localize("UTC") if expires.tz is None else expires
            return _Token(str(found["token"]), expires.timestamp(), now)
        except requests.RequestException as error:
            raise AccessError(f"{url}: no access token ({error}); try again later") from error
        except (KeyError, TypeError, ValueError) as error:
            # The answer itself may hold a token: only its kind of fault is told.
            raise AccessError(
                f"{url}: the answer is not an access token ({type(error).__name__})"
            ) from None


def _container(href: str) -> str:
    parts = urlsplit(href)
    account = (parts.hostname or "").partition(".")[0]
    return f"{account}/{parts.path.lstrip('/').partition('/')[0]}"


@lru_cache(maxsize=1)
def _azure() -> SasTokens:
    return SasTokens(_PLANETARY_COMPUTER)


# --- addresses of the Copernicus Data Space Ecosystem -------------------------------------------


def _presign(href: str) -> str:
    missing = [name for name in _CDSE_KEYS if not os.environ.get(name)]
    if missing:
        raise AccessError(
            f"{href}: reading from CDSE needs S3 keys; make them at "
            "https://eodata-s3keysmanager.dataspace.copernicus.eu and set "
            f"{' and '.join(missing)} where the job runs"
        )
    key, secret = (os.environ[name] for name in _CDSE_KEYS)
    return _presigned(href, key, secret, int(time.time() // _PRESIGNED_USE_S))


@lru_cache(maxsize=4096)
def _presigned(href: str, key: str, secret: str, half_hour: int) -> str:
    # The same address for half an hour, so that caches by address find it again.
    parts = urlsplit(href)
    store = S3Store(
        parts.netloc,
        endpoint=_CDSE,
        region="default",
        virtual_hosted_style_request=False,
        access_key_id=key,
        secret_access_key=secret,
    )
    life = timedelta(seconds=2 * _PRESIGNED_USE_S)
    return obstore.sign(store, "GET", parts.path.lstrip("/"), life)
