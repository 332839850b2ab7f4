"""Access tokens from a real HTTP server on loopback, and presigned addresses worked out by hand."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from cube import signing
from cube.errors import AccessError
from cube.providers import PROVIDERS
from cube.signing import SasTokens, sign

HREF = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/31/U/ES/B04_10m.tif"
SCENE = "s3://eodata/Sentinel-2/MSI/L2A_N0500/2020/07/05/S2B_MSIL2A.SAFE/R10m/T32TNT_B04_10m.jp2"


@dataclass
class TokenApi:
    """Answers one after the other; the last one for ever. A number is a token's life in seconds."""

    answers: list[float | int | bytes | tuple[int, dict[str, str]]]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        now = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(now, tuple):
            return *now, b"later"
        if isinstance(now, bytes):
            return 200, {}, now
        expiry = (datetime.now(UTC) + timedelta(seconds=now)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        token = f"se={expiry}&sp=rl&sig=secret{len(self.asked)}"
        return 200, {}, json.dumps({"msft:expiry": expiry, "token": token}).encode()


@contextmanager
def token_api(*answers: float | bytes | tuple[int, dict[str, str]]) -> Iterator[TokenApi]:
    api = TokenApi(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api.asked.append(self.path)
            status, headers, body = api.answer()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_one_token_serves_every_file_of_a_container_and_every_thread() -> None:
    with token_api(2700) as api:
        tokens = SasTokens(api.url)
        hrefs = [f"{HREF}{n}" for n in range(50)]
        with ThreadPoolExecutor(16) as pool:
            signed = list(pool.map(tokens.sign, hrefs))
        assert api.asked == ["/sentinel2l2a01/sentinel2-l2"]
        assert all(s.startswith(f"{h}?se=") for s, h in zip(signed, hrefs, strict=True))
        assert all(s.endswith("&sig=secret1") for s in signed)
        assert tokens.sign("https://ai4edata.blob.core.windows.net/maps/a.tif").endswith("secret2")
        assert api.asked[1:] == ["/ai4edata/maps"]


def test_a_token_is_renewed_before_it_expires() -> None:
    with token_api(1.2) as api:
        tokens = SasTokens(api.url, margin_s=1.0)
        assert tokens.sign(HREF).endswith("secret1")
        assert tokens.sign(HREF).endswith("secret1")
        time.sleep(0.8)  # the token lives for another 0.4 s
        assert tokens.sign(HREF).endswith("secret2")


def test_tokens_that_arrive_nearly_expired_are_asked_again() -> None:
    with token_api(-5, 40, 2700) as api:
        assert SasTokens(api.url, pause_s=0.01).sign(HREF).endswith("secret3")


def test_the_best_of_nearly_expired_tokens_is_used_while_it_lasts() -> None:
    with token_api(60, 120, 90, 60, 60) as api:
        tokens = SasTokens(api.url, pause_s=0.01)
        assert [tokens.sign(HREF)[-7:] for _ in range(3)] == ["secret2"] * 3
        assert len(api.asked) == 5


def test_only_expired_tokens_are_an_error_after_a_few_asks() -> None:
    with token_api(-60) as api:
        with pytest.raises(AccessError, match="clock"):
            SasTokens(api.url, asks=3, pause_s=0.01).sign(HREF)
        assert len(api.asked) == 3


@pytest.mark.parametrize("busy", [(429, {"Retry-After": "1"}), (503, {}), (500, {})])
def test_a_busy_token_api_is_waited_for(busy: tuple[int, dict[str, str]]) -> None:
    with token_api(busy, 2700) as api:
        assert SasTokens(api.url).sign(HREF).endswith("secret2")


def test_a_refused_token_is_forgotten_once_for_all_threads() -> None:
    with token_api(2700) as api:
        tokens = SasTokens(api.url, young_s=0.3)
        assert tokens.sign(HREF).endswith("secret1")
        tokens.forget(HREF)
        assert tokens.sign(HREF).endswith("secret1")  # just fetched: nobody can have waited with it
        time.sleep(0.4)
        for _ in range(8):
            tokens.forget(HREF)
            assert tokens.sign(HREF).endswith("secret2")


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b"[]",
        b'{"token": "sig=secret"}',
        b'{"token": "sig=secret", "msft:expiry": "sig=secret"}',
        (404, {}),
        (403, {}),
    ],
)
def test_an_answer_that_is_no_token_is_told_without_it(answer: bytes) -> None:
    with token_api(answer) as api:
        with pytest.raises(AccessError, match="access token") as caught:
            SasTokens(api.url).sign(HREF)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None or "secret" not in str(caught.value.__cause__)


def test_the_provider_signs_with_the_token_api(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = PROVIDERS["planetary-computer"]
    with token_api(2700) as api:
        monkeypatch.setattr(signing, "_PLANETARY_COMPUTER", api.url)
        signing._azure.cache_clear()
        try:
            assert provider.sign(HREF).endswith("&sig=secret1")
            assert provider.sign("/data/archive/B04.tif") == "/data/archive/B04.tif"
            assert provider.sign_again(HREF)
            held = repr(signing._azure().__dict__)
        finally:
            signing._azure.cache_clear()
    assert "secret" not in held + repr(provider)


def test_open_catalogues_sign_nothing() -> None:
    for name in ("earth-search", "earth-search-c1", "earth-search-v0"):
        assert PROVIDERS[name].sign(HREF) == HREF
        assert not PROVIDERS[name].sign_again(HREF)


# --- CDSE --------------------------------------------------------------------------------------


def _signature(url: str, secret: str) -> str:
    """AWS Signature Version 4 of a presigned GET, from its published description."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    given = query.pop("X-Amz-Signature")
    assert len(given) == 64
    canonical_query = "&".join(
        f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(query.items())
    )
    request = "\n".join(
        ["GET", parts.path, canonical_query, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"]
    )
    _, scope = query["X-Amz-Credential"].split("/", 1)
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, digest])
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    assert hmac.new(key, text.encode(), hashlib.sha256).hexdigest() == given
    return given


def test_a_file_of_cdse_gets_a_presigned_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    provider = PROVIDERS["cdse"]
    url = provider.sign(SCENE)
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("https", "eodata.dataspace.copernicus.eu")
    assert parts.path == f"/eodata/{SCENE.removeprefix('s3://eodata/')}"
    assert dict(parse_qsl(parts.query))["X-Amz-Expires"] == "3600"
    _signature(url, "very-secret")
    assert "very-secret" not in url
    assert not provider.sign_again(SCENE)
    assert _signature(provider.sign(f"{SCENE}.other"), "very-secret") != _signature(
        url, "very-secret"
    )


def test_without_keys_cdse_names_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(AccessError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        sign("cdse", SCENE)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    with pytest.raises(AccessError, match="set AWS_SECRET_ACCESS_KEY where"):
        sign("cdse", SCENE)
    assert sign("cdse", "/data/SCL_20m.jp2") == "/data/SCL_20m.jp2"
