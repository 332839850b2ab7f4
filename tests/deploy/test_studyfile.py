"""Study files: mistakes are named by their line, hostile ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cube.errors import StudyError
from cube.providerfile import read_provider
from cube.recipe import Mask
from deploy.studyfile import read_study, resolve

STUDIES = Path(__file__).parent.parent.parent / "studies"
GOOD = """\
name: small
recipe:
  bands: [blue, nir]
  start: 2023-01
  end: 2023-12
zones:
  file: zones.gpkg
labels:
  parcels: parcels.gpkg
"""


def read(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read_study(path)


@pytest.mark.parametrize("name", ["demo", "france-2023"])
def test_shipped_studies_are_valid(name):
    assert read_study(STUDIES / f"{name}.yaml").name == name


def test_the_shipped_provider_file_is_valid():
    provider = read_provider(STUDIES / "provider-example.yaml")
    assert {"blue", "green", "red", "nir", "scl"} <= provider.assets.keys()
    provider.check_href("https://files.example.org/scene/B02.tif")


def test_a_good_file(tmp_path):
    study = read(tmp_path, GOOD)
    assert study.recipe.bands == ("blue", "nir")
    assert study.network.preset is None


def test_a_study_may_use_every_rule_of_a_recipe(tmp_path):
    rules = """\
  start: 2023-01-02
  end: 2023-12-31
  period: W-MON
  composite: percentile
  percentile: 25
  mask: {keep: [4, 5], erode: 20, dilate: 100}
  fill: linear
"""
    study = read(tmp_path, GOOD.replace("  start: 2023-01\n  end: 2023-12\n", rules))
    recipe = study.recipe
    assert (recipe.period, len(recipe.periods), recipe.start) == ("W-MON", 52, "2023-01-02")
    assert (recipe.composite, recipe.percentile, recipe.fill) == ("percentile", 25, "linear")
    assert recipe.mask == Mask(keep=(4, 5), erode=20, dilate=100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("file: zones", "fil: zones"), r"line 7: unknown key 'zones.fil'; did you mean 'file'\?"),
        (("name: small", "nam: small"), r"line 1: unknown key 'nam'; did you mean 'name'\?"),
        (("[blue, nir]", "[blue, near]"), r"line 3: recipe\.bands: unknown band 'near'\."),
        (("end: 2023-12", "perod: QS"), r"line 5: unknown key 'recipe.perod'; .*'period'\?"),
        (("end: 2023-12", "end: 2023-12\n  period: ME"), "line 6: recipe.period: 'ME' does not"),
        (
            ("end: 2023-12", "end: 2023-12\n  mask:\n    dilate: 5"),
            "line 7: recipe.mask.dilate: 5 m is neither",
        ),
        (("end: 2023-12", "end: 2023-12\n  percentile: 5"), "line 2: recipe: `percentile` goes"),
        (("end: 2023-12", "end: 2023-12\n  composite: medain"), "line 6: recipe.composite: "),
        (
            ("end: 2023-12", "end: 2023-12\n  composite: series\n  fill: none"),
            "line 2: recipe: models take one value per period",
        ),
        (("end: 2023-12", "end: 2023-12-30"), "line 2: recipe: "),
        (("end: 2023-12", "end: 2023-13"), "line 5: recipe.end: '2023-13' is not in the calendar"),
        (("  file: zones.gpkg", "  file: a\n  area: b"), "line 6: .*exactly one of file"),
        (("labels:", "network: {epochs: 0}\nlabels:"), "line 8: network.epochs: .*greater than"),
        (("name: small", "name: ../../evil"), "line 1: name: .*use letters"),
        (("name: small", "name: small\nname: large"), "line 2: 'name' again"),
        (("name: small", "name: [small"), "not YAML"),
        (("name: small", "name: !!python/object/apply:os.system [ls]"), "not YAML|line 1"),
    ],
)
def test_mistakes_name_their_line(tmp_path, change, message):
    with pytest.raises(StudyError, match=message):
        read(tmp_path, GOOD.replace(*change))


def test_alias_bombs_are_refused(tmp_path):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    with pytest.raises(StudyError, match="aliases that multiply"):
        read(tmp_path, bomb)
    with pytest.raises(StudyError, match="aliases that multiply"):
        read(tmp_path, "a: &a [*a]\n")


def test_missing_and_odd_files(tmp_path):
    with pytest.raises(StudyError, match="not readable"):
        read_study(tmp_path / "none.yaml")
    with pytest.raises(StudyError, match="a mapping of keys"):
        read(tmp_path, "- a\n- b\n")


def test_paths_of_a_study(tmp_path):
    (tmp_path / "zones.gpkg").touch()
    study_file = tmp_path / "study.yaml"
    assert resolve("zones.gpkg", study_file, None) == str(tmp_path / "zones.gpkg")
    assert resolve("earth-search", study_file, None) == "earth-search"
    assert resolve("archive:items.json", study_file, Path("/a")) == "/a/items.json"
    assert resolve((1, 2, 3, 4), study_file, None) == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="needs `simulate:`"):
        resolve("archive:items.json", study_file, None)


def test_an_option_the_network_does_not_have_is_named_with_its_line(tmp_path):
    text = GOOD + "network:\n  options: {widht: 3}\n"
    with pytest.raises(StudyError, match="widht"):
        read(tmp_path, text)
