"""A catalogue described by a YAML file: searched over real HTTP, mistakes named by their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cube.errors import SceneError, SearchError
from cube.providerfile import read_provider
from cube.providers import get_provider
from cube.recipe import Recipe
from cube.scenes import Scenes
from cube.search import search
from tests.cube.stac_items import BBOX_UES, planetary_computer
from tests.stac_api import stac_api

RECIPE = Recipe(bands=("blue", "red"), start="2019-01", end="2019-12")
GOOD = """\
name: our-archive
root: https://stac.example.org/v1
collection: sentinel-2-l2a
assets: {blue: B02, red: B04, scl: SCL}
rule: baseline
hosts: [files.example.org]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "provider.yaml"
    path.write_text(text)
    return path


def test_what_a_file_says(tmp_path: Path) -> None:
    provider = read_provider(write(tmp_path, GOOD))
    assert provider.name == "our-archive@https://files.example.org"
    assert (provider.root, provider.rule) == ("https://stac.example.org/v1", "baseline")
    provider.check_href("https://files.example.org/a.tif")
    for named, key in (("common", "red"), ("esa", "B04")):
        text = GOOD.replace("{blue: B02, red: B04, scl: SCL}", named)
        assert read_provider(write(tmp_path, text)).assets["red"] == key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("hosts:", "host:"), r"line 6: unknown key 'host'; did you mean 'hosts'\?"),
        (("[files.example.org]", "[]"), "line 6: hosts: no host"),
        (("files.example.org", "files.example.org/data"), "line 6: hosts: .*write files"),
        (("files.example.org", '"user@files.example.org"'), "line 6: hosts: "),
        (("scl: SCL", "nir: B08"), "line 4: assets.*scl is missing"),
        (("blue: B02", "bleu: B02"), "line 4: assets.*unknown: bleu"),
        (("baseline", "guess"), "line 5: rule: "),
        (("our-archive", "earth-search"), "line 1: name: .*taken"),
        (("our-archive", "a@b"), "line 1: name: "),
        (("https://stac", "ftp://stac"), "line 2: root: .*not the URL"),
        (("rule: baseline", ""), "rule: Field required"),
    ],
)
def test_mistakes_name_their_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        read_provider(write(tmp_path, GOOD.replace(*change)))


def test_an_archive_of_ones_own_is_searched_and_read_without_the_file(tmp_path: Path) -> None:
    items = [planetary_computer(baseline="05.11"), planetary_computer(day="20190601")]
    for item in items:
        for key, asset in item["assets"].items():
            asset["href"] = f"https://files.example.org/{item['id']}/{key}.tif"
    stranger = planetary_computer(day="20190701")
    with stac_api([*items, stranger]) as server:
        path = write(tmp_path, GOOD.replace("https://stac.example.org/v1", server.url))
        found = search(BBOX_UES, RECIPE, path)
    path.unlink()
    assert [(scene.subtract, scene.baseline) for scene in found] == [(1000, "05.11"), (0, "02.12")]
    assert [(item.id, item.reason) for item in found.removed] == [(stranger["id"], "refused")]
    again = Scenes.load(found.save(tmp_path / "scenes.json")).scenes[0]
    provider = get_provider(again.provider)
    provider.check_href(again.hrefs["red"])
    with pytest.raises(SceneError, match="not allowed for our-archive"):
        provider.check_href("https://elsewhere.example.org/a.tif")


def test_facts_that_are_not_believed_are_left_to_the_pixels(tmp_path: Path) -> None:
    item = planetary_computer(baseline="05.11")
    for key, asset in item["assets"].items():
        asset["href"] = f"https://files.example.org/{key}.tif"
    with stac_api([item]) as server:
        text = GOOD.replace("https://stac.example.org/v1", server.url)
        found = search(BBOX_UES, RECIPE, write(tmp_path, text.replace("baseline", "pixels")))
    assert [scene.subtract for scene in found] == [None]
    assert "not believed" in found.scenes[0].why


def test_a_band_that_the_file_does_not_name_is_told(tmp_path: Path) -> None:
    with stac_api([planetary_computer()]) as server:
        path = write(tmp_path, GOOD.replace("https://stac.example.org/v1", server.url))
        with pytest.raises(SearchError, match="our-archive names no asset for nir"):
            search(BBOX_UES, RECIPE.model_copy(update={"bands": ("nir",)}), path)
