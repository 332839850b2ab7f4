"""Class trees, and networks with heads for several levels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cube.errors import ArtefactError, LabelError
from model import networks
from model.hierarchy import Tree, consistency, read_tree, tree_of
from model.legend import IGNORE, flat_legend, load_legend
from model.networks.catalogue import ARCHITECTURES
from tests.model.zoo import BANDS, DATES, SMALL

#: Of models.md: ZueriCrop's tree, single parent.
KNOWN = {
    "WinterWheat": ("Field crops", "SmallGrainCereal"),
    "Maize": ("Field crops", "LargeGrainCereal"),
    "Sunflowers": ("Field crops", "BroadLeafRowCrop"),
    "Meadow": ("Grassland", "Meadow"),
    "Vines": ("Orchards", "OrchardCrop"),
    "Fallow": ("Special crops", "Fallow"),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Arrays are too small for more, and other processes may be at work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("year", [2018, 2022, 2023])
@pytest.mark.parametrize("level", ["level3", "level3_fr_ext"])
def test_parents_of_known_crops(level: str, year: int) -> None:
    legend = load_legend("turkoglu", level, year)  # type: ignore[arg-type]
    tree = tree_of(legend)
    assert tree is not None
    assert tree.levels == ("level1", "level2")
    for crop, above in KNOWN.items():
        index = legend.index(crop)
        for level_number, name in enumerate(above):
            assert tree.names[level_number][tree.parents[level_number][index]] == name
    assert tree.parents[0][0] == tree.parents[1][0] == 0
    assert tree.names[0][0] == tree.names[1][0] == "background"
    assert tree.sizes[0] == 6  # the source's outputs: five classes and one more
    # Whoever has a parent at level 2 has one level-1 parent in common with its siblings.
    pairs = {(b, a) for a, b in zip(*tree.parents, strict=True) if b != IGNORE}
    assert len(pairs) == tree.sizes[1]


def test_a_class_without_parent_is_ignored_at_that_level_alone() -> None:
    legend = load_legend("turkoglu", "level3_fr_ext", 2023)
    tree = tree_of(legend)
    assert tree is not None
    lavender = legend.index("Lavender")
    assert tree.names[0][tree.parents[0][lavender]] == "Special crops"
    assert tree.parents[1][lavender] == IGNORE


def test_the_tree_of_a_smaller_legend_has_only_its_parents() -> None:
    legend = load_legend("turkoglu", "level3", 2023, classes=["Maize", "WinterWheat", "Meadow"])
    tree = tree_of(legend)
    assert tree is not None
    assert set(tree.names[0]) == {"background", "Field crops", "Grassland"}
    assert tree.sizes == (3, 4)
    counts = np.array([5, 0, 0, 0])
    counts[[legend.index("Maize"), legend.index("WinterWheat")]] = 7, 11
    fields = tree.names[0].index("Field crops")
    assert tree.counts(0, counts)[fields] == 18
    assert tree.counts(0, counts)[0] == 5
    table = tree.table(0)
    assert table[legend.index("Maize")] == fields
    assert table[IGNORE] == IGNORE


def test_legends_without_coarser_levels_have_no_tree() -> None:
    assert tree_of(load_legend("turkoglu", "level1", 2023)) is None
    assert tree_of(flat_legend("mine", ["wheat"])) is None
    two = tree_of(load_legend("turkoglu", "level2", 2023))
    assert two is not None
    assert two.levels == ("level1",)
    assert two.weights == (0.5,)


def test_a_tree_from_a_file(tmp_path: Path) -> None:
    legend = flat_legend("mine", ["wheat", "barley", "soy", "weeds"])
    path = tmp_path / "tree.csv"
    path.write_text("class,group\nbarley,cereal\nwheat,cereal\nsoy,legume\nweeds,\noats,cereal\n")
    tree = read_tree(path, legend)
    assert tree.names == (("background", "cereal", "legume"),)
    assert tree.parents == ((0, 1, 1, 2, IGNORE),)
    assert Tree.from_dict(tree.to_dict()) == tree


def test_mistakes_in_a_tree_are_named(tmp_path: Path) -> None:
    legend = flat_legend("mine", ["wheat", "soy"])
    path = tmp_path / "tree.csv"
    with pytest.raises(LabelError, match="no CSV"):
        read_tree(path, legend)
    path.write_text("class,group\nwheat,cereal\n")
    with pytest.raises(LabelError, match="no row for soy"):
        read_tree(path, legend)
    path.write_text("class,group\nwheat,cereal\nsoy,legume\nwheat,grass\n")
    with pytest.raises(LabelError, match="wheat stands below two parents"):
        read_tree(path, legend)
    path.write_text("crop,group\nwheat,cereal\n")
    with pytest.raises(LabelError, match="give a column 'class'"):
        read_tree(path, legend)
    path.write_text("class,a,b,c\nwheat,1,2,3\nsoy,1,2,4\n")
    with pytest.raises(LabelError, match="one or two levels"):
        read_tree(path, legend)


def test_consistency_by_hand() -> None:
    parents = [0, 1, 1, 2, IGNORE]
    fine = np.array([0, 1, 2, 3, 3, 4, IGNORE, 1])
    coarse = np.array([0, 1, 2, 2, 1, 0, 1, IGNORE])
    assert consistency(fine, coarse, parents) == pytest.approx(3 / 5)
    assert np.isnan(consistency(fine[-1:], coarse[-1:], parents))


LEVELLED = [name for name in networks.names() if ARCHITECTURES[name].takes_levels]


@pytest.mark.parametrize("heads", ["plain", "refined"])
@pytest.mark.parametrize("name", LEVELLED)
def test_any_backbone_takes_levels(name: str, heads: str) -> None:
    torch.manual_seed(0)
    options = SMALL.get(name, {}) | {"levels": [2, 3], "heads": heads}
    network = networks.create(name, c_in=BANDS, n_classes=5, months=DATES, **options).eval()
    given = network.example(2, BANDS, DATES)
    levels = network.levels(**given)
    finest = [5] if heads == "plain" else [5, 5]
    assert [scores.shape[1] for scores in levels] == [2, 3, *finest]
    assert torch.equal(network(**given), levels[-1])
    places = levels[-1].shape[2:]
    assert all(scores.shape[2:] == places for scores in levels)
    plain = networks.create(name, c_in=BANDS, n_classes=5, months=DATES, **SMALL.get(name, {}))
    assert (network.stride, network.causal) == (plain.stride, plain.causal)
    assert network.halo - plain.halo in (0, 2)


def test_refined_series_know_no_neighbours() -> None:
    torch.manual_seed(0)
    network = networks.create(
        "ltae", c_in=2, n_classes=4, months=5, levels=[2, 3], heads="refined"
    ).eval()
    x, doy = torch.randn(1, 2, 5, 3, 3), torch.arange(5)[None] * 30
    window = network(x, None, doy)
    one = network(x[..., 1, 2], None, doy)
    torch.testing.assert_close(window[0, :, 1, 2], one[0], atol=1e-5, rtol=1e-5)


def test_the_refinement_reaches_two_pixels_further() -> None:
    torch.manual_seed(0)
    network = networks.create(
        "unet3d", c_in=2, n_classes=4, months=2, width=4, levels=[2], heads="refined"
    )
    assert network.halo == networks.create("unet3d", c_in=2, n_classes=4, months=2).halo + 2


def test_levels_that_make_no_network_are_refused() -> None:
    with pytest.raises(ArtefactError, match="unknown option of elects: 'levels'"):
        networks.options("elects", levels=[2])
    with pytest.raises(ArtefactError, match="heads 'fine' are unknown"):
        networks.create("gru", c_in=2, n_classes=3, months=4, levels=[2], heads="fine")


def test_the_trees_table_needs_no_more_than_pandas() -> None:
    """Twin: parents straight from the shipped file."""
    path = Path(__file__).parents[2] / "model" / "legends" / "rpg_to_turkoglu.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    crops = table[(table.level3_fr_ext != "") & (table.level1 != "")]
    above = crops.groupby("level3_fr_ext").level1.agg(set)
    legend = load_legend("turkoglu", "level3_fr_ext", 2023)
    tree = tree_of(legend)
    assert tree is not None
    for index, name in enumerate(legend.classes[1:], start=1):
        assert tree.names[0][tree.parents[0][index]] in above[name]
