"""Legends against the table they come from, the class tree of ZueriCrop and its counts."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import pandas as pd
import pytest

import model.legend
from cube.errors import LabelError
from model.legend import IGNORE, Legend, load_legend

FOLDER = Path(model.legend.__file__).parent / "legends"
LEVELS = ("level1", "level2", "level3", "level3_fr_ext", "hcat3_name")

#: Turkoglu et al. 2021: 5 classes at level 1 over 16 at level 2.
TREE = {
    "Field crops": "SmallGrainCereal LargeGrainCereal BroadLeafRowCrop VegetableCrop CropMix",
    "Special crops": "Berries Fallow Hedge Multiple Gardens",
    "Grassland": "BiodiversityArea Meadow Pasture",
    "Orchards": "OrchardCrop TreeCrop",
    "Forest": "Forest",
}


def rows() -> list[dict[str, str]]:
    with (FOLDER / "rpg_to_turkoglu.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def zueri_tree(real_data: Path) -> set[tuple[str, str, str]]:
    with (real_data / "labels" / "ZueriCrop_labels.csv").open(encoding="utf-8") as lines:
        return {
            (row["2nd_tier"], row["3rd_tier"], row["4th_tier_ENG"])
            for row in csv.DictReader(lines)
            if row["1st_tier"] == "Vegetation"
        }


def test_372_unique_codes_each_with_one_parent_path():
    table = rows()
    assert len({row["code"] for row in table}) == len(table) == 372
    for row in table:
        if row["level2"]:
            assert row["level2"] in TREE[row["level1"]].split(), row["code"]
        assert not (row["level3"] and not row["level2"]), row["code"]


@pytest.mark.real
def test_every_path_exists_in_the_published_tree(real_data):
    tree = zueri_tree(real_data)
    pairs = {(first, second) for first, second, _ in tree}
    for row in rows():
        if row["level3"]:
            assert (row["level1"], row["level2"], row["level3"]) in tree, row["code"]
        elif row["level2"]:
            assert (row["level1"], row["level2"]) in pairs, row["code"]


@pytest.mark.real
def test_the_shipped_table_is_the_reference_table(real_data):
    reference = real_data / "labels" / "rpg_to_turkoglu.csv"
    assert (FOLDER / "rpg_to_turkoglu.csv").read_bytes() == reference.read_bytes()


@pytest.mark.parametrize("level", LEVELS)
def test_every_code_leads_to_its_own_class_or_says_why_not(level):
    legend = load_legend(level=level)
    assert legend.classes[0] == "background"
    assert len(set(legend.classes)) == len(legend.classes) == len(legend.colours)
    changed = {"J6P"}  # its class differs since 2023, tested below
    for row in rows():
        if row["code"] in changed:
            continue
        index, reason = legend.resolve(row["code"])
        if row["status"] in ("other", "overseas", "not_farmland", "margin") or not row[level]:
            assert (index, bool(reason)) == (IGNORE, True), row["code"]
        else:
            assert (legend.classes[index], reason) == (row[level], ""), row["code"]


def test_counts_of_classes():
    # models.md: 43 strict and 82 extended classes, less the margins' one, and for the extension
    # less greenhouses, not farmed land and the undetermined.
    counts = [load_legend(level=level).n_classes - 1 for level in LEVELS[:4]]
    assert counts == [5, 12, 43 - 1, 82 - 4]


def test_siblings_stand_together_and_order_is_fixed():
    legend = load_legend(level="level3")
    parents = {row["level3"]: (row["level1"], row["level2"]) for row in rows()}
    order = [parents[name] for name in legend.classes[1:]]
    assert order == sorted(order)
    assert load_legend(level="level3") == legend


@pytest.mark.parametrize("level", LEVELS[:4])
def test_colours_can_be_told_apart(level):
    legend = load_legend(level=level)
    values = [tuple(bytes.fromhex(colour[1:])) for colour in legend.colours]
    for one, other in itertools.combinations(values, 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) >= 20


def test_a_class_keeps_its_colour_when_others_go():
    legend = load_legend(level="level3")
    few = legend.restrict(["Maize", "Vines"])
    assert few.classes == ("background", "Maize", "Vines")
    for name in few.classes:
        assert few.colours[few.index(name)] == legend.colours[legend.index(name)]
    assert few.resolve("MIS") == (1, "")
    assert few.resolve("BTH") == (IGNORE, "class WinterWheat is not kept")
    assert few.resolve("SNE") == (IGNORE, "not farmed")


def test_background_cannot_be_reached_from_a_code():
    for level in LEVELS:
        assert 0 not in load_legend(level=level).codes.values()


def test_compact_keeps_what_occurs_often_enough():
    parcels = pd.DataFrame({"code": ["MIS"] * 3 + ["BTH"] * 2 + ["TRN", "XYZ"]})
    legend = load_legend(level="level3")
    assert legend.compact(parcels).classes == ("background", "Sunflowers", "Maize", "WinterWheat")
    assert legend.compact(parcels, min_parcels=2).classes == ("background", "Maize", "WinterWheat")
    with pytest.raises(LabelError, match="no class is left"):
        legend.compact(parcels, min_parcels=9)


def test_years_decide_what_a_code_means():
    before, since = load_legend(level="level3", year=2022), load_legend(level="level3", year=2023)
    assert before.classes[before.codes["J6P"]] == "Fallow"
    assert since.classes[since.codes["J6P"]] == "Meadow"
    assert "JAC" in before.out_of_year
    assert "JAC" not in since.out_of_year
    assert "J5M" in since.out_of_year
    assert "J5M" not in before.out_of_year
    assert since.classes[since.codes["J5M"]] == "Fallow"  # out of year, mapped all the same


def test_names_count_when_their_codes_agree():
    legend = load_legend(level="level3", year=2018)
    assert legend.resolve(name="vineyards_wine_vine_rebland_grapes")[0] == legend.index("Vines")
    index, reason = legend.resolve(name="pasture_meadow_grassland_grass")
    assert (index, reason) == (IGNORE, "ambiguous: Meadow / Pasture")
    upper = load_legend(level="level1", year=2018)
    assert upper.resolve(name="pasture_meadow_grassland_grass")[0] == upper.index("Grassland")
    # Land that is not farmed has no class: it does not contradict fallow.
    assert legend.resolve(name="fallow_land_not_crop")[0] == legend.index("Fallow")
    # A crop without a class at this level does: RIZ is rice, BTH is wheat.
    assert legend.resolve(candidates="RIZ|BTH")[0] == IGNORE


def test_the_first_statement_decides():
    legend = load_legend(level="level3", year=2018)
    assert legend.resolve(code="MIS", name="vineyards_wine_vine_rebland_grapes")[0] == (
        legend.index("Maize")
    )
    # The name alone stands for one millet; the candidates say that it may be others.
    name = "unspecified_season_unspecified_cereals"
    assert legend.resolve(candidates="CGF|CGH|CGP", name=name)[0] == IGNORE
    assert legend.resolve(group="21")[0] == legend.index("Vines")
    assert legend.resolve(group="1") == (IGNORE, "ambiguous: SummerWheat / WinterWheat")


def test_what_is_unknown_is_said():
    legend = load_legend()
    assert legend.resolve("XYZ") == (IGNORE, "unknown code XYZ")
    assert legend.resolve(name="moon_dust") == (IGNORE, "unknown name moon_dust")
    assert legend.resolve() == (IGNORE, "no code and no name")


def test_json_round_trip():
    legend = load_legend(level="level3_fr_ext", year=2019).restrict(["Alfalfa", "Rice"])
    assert Legend.from_dict(json.loads(json.dumps(legend.to_dict()))) == legend
    with pytest.raises(LabelError, match="legend, level"):
        Legend.from_dict({"name": "x"})


def test_own_table(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("code,level1,level3\nA,Trees,Oak\nB,Trees,Ash\nC,Grass,Lawn\nD,,\n")
    legend = load_legend(table, level="level3")
    assert legend.classes == ("background", "Lawn", "Ash", "Oak")
    assert legend.resolve("D") == (IGNORE, "no class at level3")
    table.write_text("code,level3\nA,Oak\nA,Ash\n")
    with pytest.raises(LabelError, match=r"code\(s\) A stand twice"):
        load_legend(table, level="level3")


def test_mistakes_are_named():
    with pytest.raises(LabelError, match="no legend 'turkish'"):
        load_legend("turkish")
    with pytest.raises(LabelError, match="no column 'level9'"):
        load_legend(level="level9")
    with pytest.raises(LabelError, match="did you mean 'Maize'"):
        load_legend(classes=["Maiz"])


def test_notice_names_sources_and_licences():
    notice = (FOLDER / "NOTICE").read_text(encoding="utf-8")
    for words in (
        "Licence Ouverte / Etalab",
        "EuroCrops",
        "CC BY-SA 4.0",
        "rosetta-cultures",
        "MIT",
    ):
        assert words in notice
