"""Random beside spatial, and one region left out: who trains on what, and what is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cube.errors import SplitError
from model.artefact import Run
from model.boost import boost
from model.evaluate import evaluate
from model.setdata import SetData
from model.splits import Split
from model.tiles import TileData
from model.train import train
from model.trials import compare_splits, left_out, random_split, transfer
from tests.model.fixture_store import write_study
from tests.model.test_sampleset import SPLIT, seasons


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> TileData:
    study = write_study(tmp_path_factory.mktemp("trials"), height=96, width=320, noise=900)
    return study.data(sample=16)


def quick(data: SetData, out: Path) -> Run:
    return train("ltae", data, out, epochs=1, precision="32-true")


def trees(data: TileData, out: Path) -> Run:
    return boost(data, out, rounds=3, cap=200)


def test_a_random_split_of_samples_has_the_same_sizes() -> None:
    data = SetData(seasons(), SPLIT)
    split = random_split(data)
    assert split.by == "sample"
    for stage in ("train", "val", "test"):
        assert len(split.groups(stage)) == data.samples(stage)
    groups = {
        stage: set(data.set.group[data.set.rows(split, stage)]) for stage in ("train", "test")
    }
    assert len(groups["train"] & groups["test"]) >= 5  # neighbours on both sides
    with pytest.raises(SplitError, match="random already"):
        random_split(data.with_split(split))


def test_a_random_split_of_a_cube_is_by_parcel(tiles: TileData) -> None:
    split = random_split(tiles)
    assert split.by == "parcel"
    block = tiles.label_store.read("31TEJ", tiles.index.tiles[0].window)
    zone_of: dict[int, set[int]] = {}
    for parcel, zone in zip(block.parcel.ravel(), block.zone.ravel(), strict=True):
        if parcel and zone:
            zone_of.setdefault(int(parcel), set()).add(int(zone))
    everything = split.train | split.val | split.test
    assert everything == set(zone_of)
    table = tiles.split
    test = [p for p, zones in zone_of.items() if zones <= table.test]
    assert 0 <= len(split.test) - len(test) <= 4  # but for parcels on the border
    assert any(zone_of[p] <= table.train for p in split.test)


def test_spatial_and_random_scores_stand_side_by_side(tmp_path: Path) -> None:
    data = SetData(seasons(), SPLIT, batch_size=32)
    found = compare_splits(quick, data, tmp_path)
    assert list(found.rows) == ["spatial split", "random split"]
    told = evaluate(tmp_path / "spatial", data).whole["pixel"]["all"]["accuracy"]
    assert found.rows["spatial split"]["OA"] == pytest.approx(told)
    text = (tmp_path / "comparison.md").read_text()
    assert "random split" in text
    assert "what to expect" in text
    audit = json.loads((tmp_path / "random" / "scores" / "metrics.json").read_text())["audit"]
    assert audit["shared_parcels"] == 0


def test_each_region_of_a_cube_is_left_out_once(tiles: TileData, tmp_path: Path) -> None:
    seen: list[Split] = []

    def noted(data: TileData, out: Path) -> Run:
        seen.append(data.split)
        return trees(data, out)

    found = transfer(noted, tiles, tmp_path)
    assert list(found.rows) == ["west", "east", "mean"]
    assert [split.test for split in seen] == [{1, 2}, {3, 4}]
    for split in seen:
        assert split.train
        assert split.val
        assert not (split.train | split.val) & split.test
    rows = found.rows
    assert rows["mean"]["OA"] == pytest.approx(np.mean([rows["west"]["OA"], rows["east"]["OA"]]))


def test_groups_of_samples_may_be_put_together_to_regions() -> None:
    regions = {"south": frozenset({1, 2}), "north": frozenset({3, 4, 5}), "far": frozenset({6})}
    split = left_out(SPLIT, regions, "south")
    assert split.test == {1, 2}
    assert split.train | split.val == {3, 4, 5, 6}
    with pytest.raises(SplitError, match="region 'far' has 1 groups and the others 0"):
        left_out(SPLIT, {"far": frozenset({6})}, "far")


def test_areas_of_the_zones_are_estimated(tiles: TileData, tmp_path: Path) -> None:
    folder = trees(tiles, tmp_path / "trees").folder
    scores = evaluate(folder, tiles, "train", target_confidence=0.7)
    # Zones of 80 × 96 pixels; 32 × 32 of the first were never seen. One validates.
    hectares = (len(tiles.split.train) * 80 * 96 - 32 * 32 * (1 in tiles.split.train)) / 100
    assert sum(row["mapped"] for row in scores.areas) == pytest.approx(hectares)
    assert sum(row["estimated"] for row in scores.areas) == pytest.approx(hectares)
    assert sum(row["share"] for row in scores.back_off) == pytest.approx(1)
    assert [row["level"] for row in scores.back_off][1:] == ["level2", "level1", "no decision"]
    # Labels cover the zones, so what is estimated is what the labels hold.
    truth = np.array(scores.confusion).sum(axis=1)
    by_class = {row["class"]: row["estimated"] for row in scores.areas}
    for name, pixels in zip(tiles.legend.classes, truth, strict=True):
        assert by_class[name] == pytest.approx(pixels / 100, rel=0.05)
    parcels = evaluate(folder, tiles.with_split(random_split(tiles)))
    assert parcels.areas == []
