"""Splits: disjoint, far apart as measured by hand, and loud about every leak."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from cube.errors import SplitError
from cube.grid import Window
from model.labels import LabelStore, write_labels
from model.leakage import audit
from model.legend import IGNORE, load_legend
from model.splits import Split, folds, split_parcels, split_zones
from tests.model.farm import bare_plan, box, register, zones

LEGEND = load_legend(level="level3")


def one_two(**sets: set[int]) -> Split:
    full = {"train": {1}, "val": set(), "test": set()} | sets
    return Split(by="zone", **{name: frozenset(groups) for name, groups in full.items()})


def study(regions: int, per_region: int) -> gpd.GeoDataFrame:
    """One test zone per region, the first, as in the reference study."""
    rows = [(f"r{r}", n == 0) for r in range(regions) for n in range(per_region)]
    shapes = [shapely.box(i, 0, i + 0.5, 1) for i in range(len(rows))]
    return gpd.GeoDataFrame(
        {"region": [r for r, _ in rows], "test": [t for _, t in rows]}, geometry=shapes, crs=2154
    )


def zones_of(windows: list[Window]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {"zone": list("abcdefgh"[: len(windows)])}, geometry=[box(w) for w in windows], crs=32631
    )


def test_reference_study_has_8_test_zones_and_one_validation_zone_per_region():
    split = split_zones(study(8, 5), seed=3)
    assert split.test == {1, 6, 11, 16, 21, 26, 31, 36}
    assert len(split.val) == 8
    assert len({(zone - 1) // 5 for zone in split.val}) == 8
    assert split.train | split.val | split.test == set(range(1, 41))
    assert not split.val & split.test
    assert split_zones(study(8, 5), seed=3) == split
    assert len({split_zones(study(8, 5), seed=seed).val for seed in range(5)}) > 1


def test_small_studies_still_train():
    assert split_zones(study(1, 2)) == one_two(train={2}, test={1})
    two = split_zones(study(2, 2))  # no region can spare a zone, but one of two can go
    assert (len(two.train), len(two.val), two.test) == (1, 1, {1, 3})
    with pytest.raises(SplitError, match="no group is left to train on"):
        split_zones(study(2, 1))


def test_table_of_stages():
    split = one_two(train={1, 4}, val={2}, test={3})
    assert split.stage_of().tolist() == [0, 1, 2, 3, 1]
    assert split.to_dict() == {"by": "zone", "train": [1, 4], "val": [2], "test": [3]}
    with pytest.raises(SplitError, match="no stage 'exam'"):
        split.groups("exam")
    with pytest.raises(SplitError, match="numbered from 1"):
        one_two(train={0, 1})
    with pytest.raises(SplitError, match="use zone, parcel, sample"):
        Split("pixel", frozenset({1}), frozenset(), frozenset())


@given(st.integers(2, 20), st.integers(2, 5), st.integers(0, 99))
def test_folds_are_a_partition_without_the_test_set(zones, k, seed):
    split = one_two(train=set(range(1, zones + 1)), val={zones + 1}, test={zones + 2})
    if k > zones + 1:
        with pytest.raises(SplitError, match=f"{k} folds from"):
            folds(split, k, seed=seed)
        return
    parts = folds(split, k, seed=seed)
    assert sorted(group for part in parts for group in part.val) == list(range(1, zones + 2))
    for part in parts:
        assert not part.train & part.val
        assert part.train | part.val == split.train | split.val
        assert part.test == split.test
        assert abs(len(part.val) - (zones + 1) / k) < 1 + 1e-9
    assert folds(split, k, seed=seed) == parts


def test_folds_share_out_rare_classes(tmp_path):
    # Six zones; maize grows in 1, 2 and 3 only, and every fold must see it in validation.
    windows = [Window(row=0, col=60 * n, height=60, width=30) for n in range(6)]
    codes = ["MIS", "MIS", "MIS", "BTH", "BTH", "BTH"]
    parcels = register().iloc[:6].assign(code=codes).set_geometry([box(w) for w in windows])
    out = tmp_path / "l.zarr"
    write_labels(parcels, bare_plan(), LEGEND, zones_of(windows), out)
    split = one_two(train=set(range(1, 7)))
    for seed in range(5):
        for part in folds(split, 3, labels=out, seed=seed):
            assert len(part.val & {1, 2, 3}) == 1
            assert len(part.val) == 2


def test_audit_measures_zones(farm):
    split = split_zones(farm.labels)
    found = audit(split, farm.labels)
    outlines = [box(window) for window in (w for *_, w in _windows())]

    def between(one, other):
        return min(outlines[a - 1].distance(outlines[b - 1]) for a in one for b in other)

    assert found.train_test == pytest.approx(between(split.train, split.test), abs=1)
    assert found.train_val == pytest.approx(between(split.train, split.val), abs=1)
    assert found.val_test == pytest.approx(between(split.val, split.test), abs=1)


def _windows():
    from tests.model.farm import ZONES

    return ZONES.values()


def test_audit_finds_a_group_in_two_sets(farm):
    with pytest.raises(SplitError, match=r"zone \[4\] in both train and test"):
        audit(one_two(train={1, 4}, test={4}), farm.labels)
    with pytest.raises(SplitError, match=r"zone \[2\] in both train and val"):
        audit(one_two(train={1, 2}, val={2}), farm.labels)
    with pytest.raises(SplitError, match=r"zone \[9\] not in"):
        audit(one_two(train={1}, val={9}), farm.labels)


def test_audit_finds_shared_ground(tmp_path):
    overlapping = [
        Window(row=0, col=0, height=100, width=100),
        Window(row=90, col=90, height=100, width=100),
        Window(row=0, col=100, height=50, width=50),
    ]
    out = tmp_path / "l.zarr"
    write_labels(register(), bare_plan(), LEGEND, zones_of(overlapping), out)
    with pytest.raises(SplitError, match="'a' and 'b' overlap"):
        audit(one_two(train={1}, test={2}), out)
    # Neighbours that share an edge are at distance 0, but not a leak.
    assert audit(one_two(train={1}, test={3}), out).train_test == pytest.approx(0, abs=0.01)
    assert np.isnan(audit(one_two(train={1}, test={3}), out).train_val)


def test_parcels_are_stratified(farm):
    split = split_parcels(farm.labels, val=0.2, test=0.25, seed=1)
    table = LabelStore(farm.labels).parcels.set_index("index")["class"]
    assert not split.train & split.val
    assert not split.train & split.test
    assert not split.val & split.test
    block = LabelStore(farm.labels)
    for name in farm.legend.classes[1:]:
        members = set(table.index[table == farm.legend.index(name)])
        used = members & (split.train | split.val | split.test)
        assert used
        assert len(used & split.test) == round(0.25 * len(used))
        assert len(used & split.val) == round(0.2 * len(used))
    ignored = set(table.index[table == IGNORE])
    assert not ignored & (split.train | split.val | split.test)
    assert block.legend == farm.legend
    assert split == split_parcels(farm.labels, val=0.2, test=0.25, seed=1)


def test_rare_classes_are_trained_before_they_are_tested(tmp_path):
    codes = ["MIS"] * 10 + ["BTH"] * 3 + ["TRN"] * 2 + ["VRC"]
    parcels = register().iloc[: len(codes)].assign(code=codes)
    out = tmp_path / "l.zarr"
    write_labels(parcels, bare_plan(), LEGEND, None, out)
    split = split_parcels(out, val=0.2, test=0.2)
    sizes = {}
    for name, members in LabelStore(out).parcels.groupby("code"):
        ids = set(members["index"])
        sizes[name] = tuple(len(ids & split.groups(s)) for s in ("train", "val", "test"))
    assert sizes == {"MIS": (6, 2, 2), "BTH": (1, 1, 1), "TRN": (1, 0, 1), "VRC": (1, 0, 0)}
    with pytest.raises(SplitError, match="must leave something"):
        split_parcels(out, val=0.5, test=0.5)


def test_distance_of_parcels_by_hand_and_buffer(tmp_path):
    # Fields are 28 pixels, 2 apart: neighbours' nearest pixel centres are 3 pixels (30 m) apart.
    out = tmp_path / "l.zarr"
    write_labels(register().assign(code="MIS"), bare_plan(), LEGEND, None, out)
    row = Split("parcel", frozenset({1}), frozenset({3}), frozenset({2}))
    found = audit(row, out)
    assert (found.train_test, found.val_test) == (30, 30)
    assert found.train_val == 30 + 300
    dense = split_parcels(out, val=0.0, test=0.1)
    assert audit(dense, out).train_test == 30
    apart = split_parcels(out, val=0.0, test=0.1, buffer=100)
    assert audit(apart, out).train_test > 100
    assert apart.test == dense.test
    assert 0 < len(apart.train) < len(dense.train)


def test_zones_of_a_store_and_of_a_table_split_alike(farm):
    assert split_zones(farm.labels, seed=5) == split_zones(zones(), seed=5)
