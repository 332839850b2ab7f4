"""Reads through disk and network: the same pixels, or the right error."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, fields
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import rasterio.shutil

from cube import ranges
from cube import read as reading
from cube.build import build
from cube.errors import ReadError, SceneError
from cube.grid import Window
from cube.planning import plan
from cube.providers import Provider, get_provider
from cube.read import read_native, read_window
from cube.recipe import Recipe
from cube.signing import SasTokens
from tests.archive import GRID, write_archive
from tests.cube.test_signing import token_api
from tests.range_server import serve

DATES = ["2023-01-05", "2023-01-15", "2023-02-03", "2023-02-10", "2023-03-12", "2023-03-30"]
BANDS = ("blue", "swir16", "nir")
RECIPE = Recipe(bands=BANDS, start="2023-01", end="2023-03")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(reading, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(reading, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(ranges, "STALL_TIMEOUT", 0.4)
    reading._layout.cache_clear()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive"), DATES, BANDS)


@pytest.fixture(scope="module")
def folder(archive):
    return Path(archive.scenes.source)


def area():
    box = GRID.geobox(GRID.window).extent.to_crs("EPSG:4326").boundingbox
    return (box.left, box.bottom, box.right, box.top)


def remote(archive, folder, server):
    """The same scenes as an API on loopback would list them."""

    def moved(scene):
        hrefs = {
            band: f"{server.origin}/{href.removeprefix(str(folder)).lstrip('/')}"
            for band, href in scene.hrefs.items()
        }
        return scene.model_copy(
            update={"hrefs": hrefs, "provider": f"earth-search@{server.origin}"}
        )

    scenes = tuple(moved(scene) for scene in archive.scenes)
    return archive.scenes.model_copy(update={"scenes": scenes})


def cube_of(scenes):
    with dask.config.set(scheduler="threads", num_workers=2):
        return build(plan(area(), scenes, RECIPE)).compute()


def test_a_window_is_the_one_of_gdal(archive):
    scene = archive.scenes.scenes[0]
    window = Window(row=101, col=33, height=77, width=150)
    for band in (*BANDS, "scl"):
        with rasterio.open(scene.hrefs[band]) as source:
            whole = np.kron(source.read(1), np.ones((2, 2), source.dtypes[0]))
            if band in ("blue", "nir"):
                whole = source.read(1)
        out = np.empty((77, 150), whole.dtype)
        greatest = read_window(scene, band, window, out)
        assert np.array_equal(out, whole[window.yx])
        assert greatest >= out.max()


def test_blocks_that_nobody_wants_are_not_fetched(tmp_path):
    grid = GRID.model_copy(update={"height": 1100, "width": 600})
    archive = write_archive(tmp_path, DATES[:1], ("blue",), grid=grid)
    wanted = np.zeros((1100, 600), np.bool_)
    wanted[600, 599] = True  # one pixel, in the second block of the second row of blocks
    with serve(tmp_path) as server:
        scene = remote(archive, tmp_path, server).scenes[0]
        out = np.full((1100, 600), 9, np.uint16)
        read_native(scene, "blue", grid.window, out, wanted)
        assert sum(server.asked.values()) == 2  # the header and one block
    expected = np.zeros_like(out)
    expected[512:1024, 512:] = archive.dn.values[0, 0, 512:1024, 512:]
    assert np.array_equal(out, expected)


def test_a_build_over_http_is_the_build_from_disk(archive, folder):
    with serve(folder) as server:
        over_http = cube_of(remote(archive, folder, server))
        assert all(count <= 2 for count in server.asked.values())
    assert over_http.identical(cube_of(archive.scenes))


@pytest.mark.parametrize("over_http", [False, True])
def test_jpeg2000_gives_the_same_pixels(tmp_path, over_http):
    archive = write_archive(tmp_path, DATES[:2], ("blue", "swir16"))
    expected = cube_of_two(archive.scenes)
    lossless = {"driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": "100"}
    moved = []
    for scene in archive.scenes:
        for href in scene.hrefs.values():
            jp2 = Path(href).with_suffix(".jp2")
            rasterio.shutil.copy(href, jp2, **lossless)
            Path(href).unlink()
        hrefs = {band: str(Path(href).with_suffix(".jp2")) for band, href in scene.hrefs.items()}
        moved.append(scene.model_copy(update={"hrefs": hrefs}))
    scenes = archive.scenes.model_copy(update={"scenes": tuple(moved)})
    with serve(tmp_path) as server:
        if over_http:
            archive.scenes = scenes
            scenes = remote(archive, tmp_path, server)
        assert cube_of_two(scenes).identical(expected)


def cube_of_two(scenes):
    recipe = Recipe(bands=("blue", "swir16"), start="2023-01", end="2023-01")
    return build(plan(area(), scenes, recipe)).compute().drop_attrs()


def test_a_damaged_jpeg2000_names_its_item(tmp_path):
    archive = write_archive(tmp_path, DATES[:1], ("blue",))
    scene = archive.scenes.scenes[0]
    path = tmp_path / "a.jp2"
    path.write_bytes(b"\0\0\0\x0cjP  nothing of the kind")
    scene = scene.model_copy(update={"hrefs": {**scene.hrefs, "blue": str(path)}})
    with pytest.raises(ReadError, match=f"{scene.id}, blue .*does not decode"):
        read_window(scene, "blue", GRID.window, np.empty((353, 232), np.uint16))


@pytest.mark.parametrize("kinds", [["503", "429"], ["reset", "truncate", "500"], ["hang"]])
def test_a_bad_network_costs_time_and_nothing_else(archive, folder, kinds):
    chance, rng = (0.05 if kinds == ["hang"] else 0.3), random.Random(1)  # noqa: S311

    def faults(path, nth):
        return rng.choice(kinds) if rng.random() < chance else ""

    with serve(folder, faults) as server:
        over_http = cube_of(remote(archive, folder, server))
        assert sum(server.given[kind] for kind in kinds) > 0
    assert over_http.identical(cube_of(archive.scenes))


@pytest.mark.parametrize("arrived", [0, 1])
@pytest.mark.parametrize(
    ("fault", "kind", "tries", "says"),
    [
        ("404", "missing", 1, "search again or exclude"),
        ("html", "corrupt", 1, "HTML"),
        ("corrupt", "corrupt", 1, "damaged|another grid"),
        ("redirect http://127.0.0.1:1/a.tif", "refused", 1, "nothing was read"),
        ("403", "forbidden", 1, "credentials"),
        ("503", "transport", reading.ATTEMPTS, "run again to resume"),
    ],
)
def test_what_waiting_cannot_mend_fails_at_once(archive, folder, fault, kind, tries, says, arrived):
    bad = archive.scenes.scenes[3]

    def faults(path, nth):
        # The header does not arrive, or it does and its first block does not.
        return fault if f"{bad.id}/nir" in path and nth > arrived else ""

    with serve(folder, faults) as server, pytest.raises(ReadError, match=says) as error:
        cube_of(remote(archive, folder, server))
    assert (error.value.item, error.value.asset, error.value.kind) == (bad.id, "nir", kind)
    assert error.value.attempt == tries
    assert error.value.tile.startswith("31TEJ row")
    # A header may be damaged where nobody looks.
    assert server.given[fault] == tries or (fault, arrived) == ("corrupt", 0)


@dataclass(frozen=True)
class Signed(Provider):
    """A provider on loopback whose addresses need a token."""

    tokens: SasTokens | None = None

    def sign(self, href):
        return self.tokens.sign(href)

    def sign_again(self, href):
        self.tokens.forget(href)
        return True


@pytest.mark.parametrize(("renewed", "kind"), [(True, None), (False, "forbidden")])
def test_a_token_that_expires_while_building_is_renewed_once(
    archive, folder, monkeypatch, renewed, kind
):
    expired = []

    def faults(path, nth):
        token = path.partition("?")[2]
        if sum(server.asked.values()) == 30:
            expired.append(token)
        return "403" if token in expired or (expired and not renewed) else ""

    expected = cube_of(archive.scenes)
    with serve(folder, faults) as server, token_api(*[2700] * 40) as api:
        tokens = SasTokens(api.url, young_s=0.0)
        known = get_provider(f"earth-search@{server.origin}")
        facts = {field.name: getattr(known, field.name) for field in fields(Provider)}
        monkeypatch.setattr(reading, "get_provider", lambda name: Signed(**facts, tokens=tokens))
        scenes = remote(archive, folder, server)
        if kind is None:
            assert cube_of(scenes).identical(expected)
            assert 2 <= len(api.asked) <= 40
        else:
            with pytest.raises(ReadError, match="access refused") as error:
                cube_of(scenes)
            assert error.value.kind == kind
        assert server.given["403"] > 0


def test_secrets_stay_out_of_errors_and_logs(archive, folder, caplog):
    caplog.set_level(logging.DEBUG)
    with serve(folder, lambda path, nth: "503") as server:
        scenes = remote(archive, folder, server)
        scene = scenes.scenes[0]
        href = f"{scene.hrefs['blue']}?sig=topsecret&st=2023"
        scene = scene.model_copy(update={"hrefs": {**scene.hrefs, "blue": href}})
        with pytest.raises(ReadError) as error:
            read_native(scene, "blue", Window(row=0, col=0, height=5, width=5), np.empty((5, 5)))
    assert "topsecret" not in str(error.value)
    assert "topsecret" not in caplog.text
    assert "next try" in caplog.text


def hostile(folder, secret, origin):
    return [
        str(secret),
        f"file://{secret}",
        f"{origin}/vrt.tif",
        f"{origin}/raw.tif",
        f"<VRTDataset><SourceFilename>{secret}</SourceFilename></VRTDataset>",
        f"<VRTDataset rasterXSize='1'>{secret}</VRTDataset>",
        f"vrt://{secret}",
        "<VRTDataset><PixelFunctionLanguage>Python</PixelFunctionLanguage></VRTDataset>",
        "<!DOCTYPE a [<!ENTITY b 'bb'>]><VRTDataset>&b;</VRTDataset>",
        f"/vsicurl?header_file={secret}&url={origin}/a.tif",
        f"/vsisubfile/0_999999,{secret}",
        f"{origin}/a.tif",
        "<GDAL_WMS><Service name='TMS'/></GDAL_WMS>",
        f"https://user:pass@sentinel-cogs.s3.us-west-2.amazonaws.com{secret}",
        "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif\r\nX: y",
        f"/vsizip/{secret}",
        "http://169.254.169.254/latest/meta-data/a.tif",
        "https://[::1]/a.tif",
        f"../{secret.name}",
    ]


@pytest.mark.parametrize("number", range(19))
def test_hostile_hrefs_are_refused_before_a_byte_is_read(tmp_path, number):
    """The thirteen of the reference list, and some more."""
    inside = tmp_path / "archive"
    archive = write_archive(inside, DATES[:1], ("blue",))
    secret = tmp_path / "secret.tif"
    (inside / archive.scenes.scenes[0].id / "blue.tif").rename(secret)
    with serve(inside) as server:
        href = hostile(inside, secret, server.origin)[number]
        scene = archive.scenes.scenes[0]
        for provider in ("earth-search", f"earth-search@{inside}"):
            stranger = scene.model_copy(
                update={"provider": provider, "hrefs": {**scene.hrefs, "blue": href}}
            )
            with pytest.raises((SceneError, ReadError)):
                read_window(stranger, "blue", GRID.window, np.empty((353, 232), np.uint16))
        assert not server.asked
