"""Which files may be opened, and whose conventions an item follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.errors import SceneError, SearchError
from cube.providers import PROVIDERS, detect, get_provider
from cube.recipe import BANDS

COG = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs/31/T/B04.tif"
EODATA = "s3://eodata/Sentinel-2/MSI/L2A/2024/B04_10m.jp2"
AZURE = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/31/U/B04_10m.tif"

HOSTILE = [
    "/tmp/secret.tif",  # noqa: S108 - never opened
    "file:///tmp/secret.tif",
    "FILE:///tmp/secret.tif",
    "vrt:///tmp/secret.tif",
    "vrt://https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif",
    "/vsicurl?header_file=/tmp/secret.txt&url=https://sentinel-cogs.s3.us-west-2.amazonaws.com/a",
    "/vsicurl/https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif",
    "/vsisubfile/0_999999,/tmp/secret.tif",
    "//vsis3/bucket/a.tif",
    "vsizip/a.zip",
    "<VRTDataset rasterXSize='1'/>",
    "  <GDAL_WMS/>",
    "http://127.0.0.1:8000/a.tif",
    "https://127.0.0.1/a.tif",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]/a.tif",
    "http://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com.evil.org/a.tif",
    "https://evil.org/sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com@evil.org/a.tif",
    "https://user:secret@sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com:8443/a.tif",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com:99999/a.tif",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif?header_file=/etc/passwd",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif#frag",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com\\@evil.org/a.tif",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a\n.tif",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a\x00.tif",
    "s3://sentinel-cogs/a.tif",
    "s3://eodata.evil.org/a.jp2",
    "s3://user@eodata/a.jp2",
    "s3://eodata/a.jp2?header_file=/etc/passwd",
    "s3://eodata/a.jp2?X-Amz-Signature=abc",
    "/vsis3/eodata/a.jp2",
    "zip+https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.zip!a.tif",
    "//sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif",
    "GTIFF_RAW:/tmp/secret.tif",
    "../../../etc/passwd",
    "a/../../b.tif",
    "~/a.tif",
    "..\\..\\a.tif",
    "",
    "x" * 5000,
]


@pytest.mark.parametrize("href", HOSTILE)
def test_hostile_hrefs_are_refused(href: str, tmp_path: Path) -> None:
    local = PROVIDERS["earth-search"].within(tmp_path)
    for provider in (*PROVIDERS.values(), local):
        with pytest.raises(SceneError):
            provider.check_href(href)
        with pytest.raises(SceneError):
            provider.resolve(href)


@pytest.mark.parametrize("href", [None, 7, ["a.tif"], {}])
def test_what_is_no_text_is_refused(href: object) -> None:
    with pytest.raises(SceneError):
        PROVIDERS["earth-search"].check_href(href)  # type: ignore[arg-type]


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "archive", tmp_path / "secret.tif"
    inside.mkdir()
    outside.write_bytes(b"x")
    (inside / "innocent.tif").symlink_to(outside)
    local = PROVIDERS["earth-search"].within(inside)
    with pytest.raises(SceneError, match="leaves the folder"):
        local.resolve("innocent.tif")


def test_each_catalogue_opens_its_own_hosts_only() -> None:
    PROVIDERS["earth-search"].check_href(COG)
    PROVIDERS["planetary-computer"].check_href(AZURE)
    for name, href in (("earth-search", AZURE), ("planetary-computer", COG)):
        with pytest.raises(SceneError, match="not allowed"):
            PROVIDERS[name].check_href(href)


def test_a_bucket_is_opened_by_its_own_catalogue_only() -> None:
    for href in (EODATA, "https://zipper.dataspace.copernicus.eu/odata/v1/Products(1)/$value"):
        assert PROVIDERS["cdse"].resolve(href) == href
        for name in PROVIDERS.keys() - {"cdse"}:
            with pytest.raises(SceneError, match="not allowed"):
                PROVIDERS[name].resolve(href)


def test_files_below_the_items_file_are_made_absolute(tmp_path: Path) -> None:
    local = PROVIDERS["earth-search"].within(tmp_path)
    resolved = local.resolve("./an item/B04.tif")
    assert resolved == str(tmp_path.resolve() / "an item" / "B04.tif")
    local.check_href(resolved)
    assert local.resolve(COG) == COG
    assert local.sign(resolved) == resolved


def test_the_name_carries_what_is_allowed(tmp_path: Path) -> None:
    local = PROVIDERS["planetary-computer"].within(tmp_path)
    remote = PROVIDERS["earth-search"].served_from("http://127.0.0.1:81")
    for provider in (*PROVIDERS.values(), local, remote):
        assert get_provider(provider.name) == provider
    assert local.name == f"planetary-computer@{tmp_path.resolve()}"


def test_an_api_of_ones_own_may_serve_its_own_files_only() -> None:
    provider = PROVIDERS["earth-search"].served_from("http://127.0.0.1:8123")
    provider.check_href("http://127.0.0.1:8123/files/a.tif")
    provider.check_href(COG)
    for href in (
        "http://127.0.0.1:8124/a.tif",
        "https://127.0.0.1:8123/a.tif",
        "http://127.0.0.1:8123@evil.org/a.tif",
        "http://127.0.0.1:8123/a.tif?header_file=/etc/passwd",
    ):
        with pytest.raises(SceneError):
            provider.check_href(href)


def test_signed_hrefs_are_stored_without_their_signature() -> None:
    signed = f"{AZURE}?st=2024&se=2025&sig=abc"
    assert PROVIDERS["planetary-computer"].resolve(signed) == AZURE


def test_signing_leaves_other_catalogues_alone() -> None:
    assert PROVIDERS["earth-search"].sign(COG) == COG


@given(st.text(max_size=60))
def test_no_text_at_all_reaches_outside(href: str) -> None:
    folder = Path("/tmp/no-such-archive")  # noqa: S108 - never opened
    local = PROVIDERS["earth-search"].within(folder)
    try:
        resolved = local.resolve(href)
    except SceneError:
        return
    assert Path(resolved).is_relative_to(folder.resolve())
    assert "\x00" not in resolved


def test_a_provider_of_ones_own_needs_no_file_to_be_read_from() -> None:
    provider = get_provider("our-archive@https://files.example.org,http://10.0.0.1:8000")
    for href in ("https://files.example.org/a.tif", "http://10.0.0.1:8000/a.tif"):
        provider.check_href(href)
        assert provider.sign(href) == href
        assert provider.may_be_private(href)
    for href in ("http://files.example.org/a.tif", "https://files.example.org:81/a.tif", COG):
        assert not provider.may_be_private(href)
        with pytest.raises(SceneError, match="not allowed for our-archive"):
            provider.check_href(href)


def test_an_unknown_name_says_what_was_meant() -> None:
    with pytest.raises(SearchError, match="did you mean 'earth-search'"):
        get_provider("earthsearch")


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=list(PROVIDERS))
def test_every_entry_knows_every_band_and_has_hosts(provider) -> None:
    assert set(provider.assets) == {*BANDS, "scl"}
    assert len(set(provider.assets.values())) == len(provider.assets)
    assert provider.hosts
    assert provider.root.startswith("https://")


def _item(assets: list[str], **fields: object) -> dict[str, object]:
    return {"assets": {key: {"href": "./a.tif"} for key in assets}, **fields}


def test_conventions_are_told_apart_by_facts() -> None:
    flag = {"earthsearch:boa_offset_applied": False}
    assert detect(_item(["scl"], properties=flag)).style == "earth-search"
    assert detect(_item(["scl"], collection="sentinel-2-l2a")).style == "earth-search"
    assert detect(_item(["scl"], collection="sentinel-2-c1-l2a")).style == "earth-search-c1"
    assert detect(_item(["scl"], collection="mine")).style == "stactools"
    assert detect(_item(["SCL"], properties={"sentinel:sequence": "0"})).style == "earth-search-v0"
    assert detect(_item(["SCL"], properties={"s2:mgrs_tile": "31UES"})).style == (
        "planetary-computer"
    )
    long_id = "S2B_MSIL2A_20180804T105022_R051_T31UES_20180804T105022"
    assert detect(_item(["SCL"], id=long_id)).style == "planetary-computer"
    assert detect(_item(["B02_10m", "SCL_20m"])).style == "cdse"
    old = _item(["scl"], collection="sentinel-2-pre-c1-l2a")
    assert detect(old).style == "earth-search-pre-c1"


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"assets": []},
        {"assets": {"scl": None}, "properties": []},
        _item(["SCL"]),
        _item(["B02"]),
    ],
)
def test_an_unknown_style_is_refused_or_strict(item: dict) -> None:
    try:
        style = detect(item).style
    except SceneError:
        return
    assert style == "stactools"  # decides nothing without a declared offset and a baseline
