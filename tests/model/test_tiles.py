"""Samples against the store they come from; leaks looked for by changing what must not matter."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st

from cube import store
from cube.errors import LabelError, RecipeError, SplitError, StoreError
from cube.grid import Window
from model.labels import LabelStore, write_labels
from model.legend import IGNORE, load_legend
from model.samples import Normalisation, Sums, cut, days_of_year
from model.splits import Split, split_parcels, split_zones
from model.tiles import TileData
from tests.model.farm import GRID, RECIPE, ZONES

STAGES = ("train", "val", "test")


def loaders(data: TileData):
    return zip(
        STAGES,
        (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()),
        strict=True,
    )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def key(x: torch.Tensor) -> bytes:
    return x.numpy().tobytes()


@pytest.fixture(scope="module")
def data(farm):
    return TileData(farm.store, farm.labels, farm.legend, split_zones(farm.labels))


def test_contract_of_a_batch(data, farm):
    batch = next(iter(data.train_dataloader()))
    kinds = {name: (tuple(t.shape), t.dtype) for name, t in batch.items()}
    assert kinds == {
        "x": ((16, 2, 3, 64, 64), torch.float32),
        "valid": ((16, 3, 64, 64), torch.bool),
        "doy": ((16, 3), torch.int64),
        "y": ((16, 64, 64), torch.int64),
        "parcel": ((16, 64, 64), torch.int32),
        "zone": ((16, 64, 64), torch.int16),
    }
    assert batch["doy"][0].tolist() == [105, 135, 166]
    assert (data.bands, data.n_classes, data.months) == (("red", "nir"), 6, 3)
    assert (data.recipe, data.legend) == (RECIPE, farm.legend)
    assert list(data.zones.zone) == list(ZONES)
    assert len(data.parcels) == len(farm.parcels)


def test_every_labelled_pixel_comes_exactly_once_and_only_in_its_stage(data, farm):
    whole = LabelStore(farm.labels).read("31TEJ", GRID.window)
    for stage, loader in loaders(data):
        seen = np.zeros(data.n_classes, np.int64)
        parcels: dict[int, int] = {}
        for batch in loader:
            y, parcel = batch["y"].numpy(), batch["parcel"].numpy()
            good = y != IGNORE
            assert set(np.unique(batch["zone"].numpy()[good])) <= data.split.groups(stage)
            seen += np.bincount(y[good], minlength=data.n_classes)
            for number, count in zip(*np.unique(parcel[good], return_counts=True), strict=True):
                parcels[number] = parcels.get(number, 0) + count
        mine = np.isin(whole.zone, sorted(data.split.groups(stage))) & (whole.label != IGNORE)
        assert np.array_equal(seen, np.bincount(whole.label[mine], minlength=data.n_classes))
        numbers, counts = np.unique(whole.parcel[mine], return_counts=True)
        assert parcels == dict(zip(numbers, counts, strict=True))
        assert np.array_equal(seen, data.index.class_counts[stage])
    assert np.array_equal(data.class_counts, data.index.class_counts["train"])


def test_x_is_the_store_standardised(data, farm):
    """Looks every test sample up in the store by hand."""
    mean, std = (
        np.array(v)[:, None, None, None] for v in (data.normalisation.mean, data.normalisation.std)
    )
    entries = data.index.entries["test"]
    batches = list(data.test_dataloader())
    x = torch.cat([b["x"] for b in batches]).numpy()
    valid = torch.cat([b["valid"] for b in batches]).numpy()
    for sample in range(0, len(entries), 7):
        tile, row, col = entries[sample]
        window = Window(row=row, col=col, height=64, width=64).intersect(
            data.index.tiles[tile].window
        )
        raw = store.read_window(farm.store, "31TEJ", window)[0].transpose(1, 0, 2, 3)
        h, w = raw.shape[2:]
        present = (raw != 0).all(axis=0)
        assert np.array_equal(valid[sample, :, :h, :w], present)
        assert not valid[sample, :, h:].any()
        assert not valid[sample, :, :, w:].any()
        expected = np.where(present, (raw - mean) / std, 0)
        assert np.allclose(x[sample, :, :, :h, :w], expected, atol=1e-5)
        assert (x[sample][:, ~valid[sample]] == 0).all()


def test_samples_lie_on_the_lattice_and_hold_a_label(data):
    for stage, loader in loaders(data):
        entries = data.index.entries[stage]
        assert (entries[:, 1:] % 64 == 0).all()
        assert len(np.unique(entries[:, 1:], axis=0)) == len(entries) == data.samples(stage) > 0
        for batch in loader:
            assert ((batch["y"] != IGNORE).flatten(1).any(1)).all()


def test_no_training_sample_shows_a_test_zone(farm):
    # Zone 3 ends at row 1200 and zone 4 begins at column 580: samples of 512 touch both.
    data = TileData(farm.store, farm.labels, None, split_zones(farm.labels), sample=512)
    dropped = False
    for stage, loader in loaders(data):
        others = [g for s in STAGES if s != stage for g in data.split.groups(s)]
        for batch in loader:
            shown = torch.isin(batch["zone"], torch.tensor(others, dtype=torch.int16)).any()
            if stage == "train":
                assert not shown
    whole = LabelStore(farm.labels).read("31TEJ", GRID.window)
    trainable = np.isin(whole.zone, sorted(data.split.train)) & (whole.label != IGNORE)
    dropped = data.class_counts.sum() < trainable.sum()
    assert dropped
    assert sum(len(p.y) for p in data.pixels("train")) == data.class_counts.sum()


def test_by_parcel_one_window_serves_several_stages(farm):
    split = split_parcels(farm.labels)
    data = TileData(farm.store, farm.labels, farm.legend, split)
    places = {stage: {tuple(e) for e in data.index.entries[stage].tolist()} for stage in STAGES}
    assert places["train"] & places["test"]
    for stage, loader in loaders(data):
        for batch in loader:
            good = batch["y"] != IGNORE
            assert set(batch["parcel"][good].unique().tolist()) <= split.groups(stage)
    assert data.class_counts[0] == 0  # background belongs to no parcel


def test_labels_never_touch_inputs(farm, tmp_path):
    """Permuting all classes changes y, and not a bit of x, valid or the normalisation."""
    shutil.copytree(farm.labels, tmp_path / "labels.zarr")
    shutil.copy(farm.labels.parent / "parcels.csv", tmp_path)
    turned = zarr.open_group(tmp_path / "labels.zarr", mode="r+")["31TEJ/label"]
    values = turned[:]
    turned[:] = np.where(values == IGNORE, IGNORE, (values + 2) % 6).astype(np.uint8)
    split = split_zones(farm.labels)
    one = TileData(farm.store, farm.labels, None, split)
    other = TileData(farm.store, tmp_path / "labels.zarr", None, split)
    assert one.normalisation == other.normalisation
    changed = False
    for (_, first), (_, second) in zip(loaders(one), loaders(other), strict=True):
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a["x"], b["x"])
            assert torch.equal(a["valid"], b["valid"])
            changed |= not torch.equal(a["y"], b["y"])
    assert changed


def test_normalisation_sees_training_groups_only(farm):
    split = split_zones(farm.labels)
    data = TileData(farm.store, farm.labels, None, split)
    whole = LabelStore(farm.labels).read("31TEJ", GRID.window)
    mine = np.isin(whole.zone, sorted(split.train)) & (whole.label != IGNORE)
    raw = store.read_window(farm.store, "31TEJ", GRID.window)[0][:, :, mine].astype(np.float64)
    for band in range(2):
        values = raw[:, band][(raw != 0).all(axis=1)]
        assert data.normalisation.mean[band] == pytest.approx(values.mean(), rel=1e-12)
        assert data.normalisation.std[band] == pytest.approx(values.std(), rel=1e-9)
    other = data.with_split(Split("zone", split.val, frozenset(), split.test))
    assert other.normalisation != data.normalisation
    kept = Normalisation((1.0, 2.0), (3.0, 4.0))
    given_one = TileData(farm.store, farm.labels, None, split, normalisation=kept)
    assert given_one.normalisation == kept


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 4))
def test_sums_are_exact_in_any_order(seed, n, parts):
    random = np.random.default_rng(seed)
    values = random.choice([0, 1, 3000, 65535], (n, 3, 4)).astype(np.uint16)
    values[0] = 65535
    total, once = Sums(), Sums()
    once.add(values)
    for part in np.array_split(values, parts)[::-1]:
        total.add(part)
    assert total == once
    good = [
        v for row in values.transpose(0, 2, 1).reshape(-1, 3).tolist() if all(row) for v in [row]
    ]
    assert once.first == [sum(v[b] for v in good) for b in range(3)]
    assert once.second == [sum(v[b] ** 2 for v in good) for b in range(3)]


def test_a_band_without_variation_is_not_divided_by_zero():
    sums = Sums()
    sums.add(np.full((5, 1, 2), 700, np.uint16))
    x, valid = sums.normalisation().apply(np.full((2, 1, 3, 3), 700, np.uint16))
    assert valid.all()
    assert (x == 0).all()
    with pytest.raises(SplitError, match="no valid pixel"):
        Sums().normalisation()


def test_order_is_the_seeds(farm):
    def first(epochs=1, **options):
        data = TileData(farm.store, farm.labels, None, split_zones(farm.labels), **options)
        loader = data.train_dataloader()
        return [[key(b["x"]) for b in loader] for _ in range(epochs)]

    one = first(epochs=2, seed=1)
    assert one == first(epochs=2, seed=1)
    assert one[0] != one[1]  # another order each epoch
    assert one[0] != first(seed=2)[0]


def test_memory_bounds_do_not_change_what_is_seen(farm):
    def seen(memory):
        data = TileData(
            farm.store, farm.labels, None, split_zones(farm.labels), batch_size=1, memory=memory
        )
        loader = data.train_dataloader()
        kept = loader.dataset._kept
        passes = [sorted(key(b["x"]) for b in loader) for _ in range(2)]
        assert passes[0] == passes[1]
        return passes[0], len(kept)

    small, kept_small = seen(1 << 16)
    large, kept_large = seen(1 << 30)
    assert small == large
    assert (kept_small, kept_large > 0) == (0, True)


def test_small_sets_are_read_once(farm, tmp_path):
    path = tmp_path / "cube.zarr"
    shutil.copytree(farm.store, path)
    data = TileData(path, farm.labels, None, split_zones(farm.labels))
    loader = data.val_dataloader()
    before = [key(b["x"]) for b in loader]
    shutil.rmtree(path / "31TEJ" / "reflectance")
    assert [key(b["x"]) for b in loader] == before


def test_workers_share_the_samples_and_are_never_forked(farm):
    split = split_zones(farm.labels)
    alone = TileData(farm.store, farm.labels, None, split, batch_size=1)
    data = TileData(farm.store, farm.labels, None, split, batch_size=7, workers=2, seed=3)
    loader = data.train_dataloader()
    assert loader.multiprocessing_context.get_start_method() == "forkserver"
    batches = list(loader)
    assert len(batches) == len(loader)
    parts = [key(x[None]) for b in batches for x in b["x"]]
    assert sorted(parts) == sorted(key(b["x"]) for b in alone.train_dataloader())
    assert parts != [key(x[None]) for b in loader for x in b["x"]]  # workers count epochs too


def test_augmentation_is_a_turn_or_flip_decided_by_the_seed(farm):
    split = split_zones(farm.labels)

    def samples(**options):
        data = TileData(farm.store, farm.labels, None, split, batch_size=1, **options)
        return list(data.train_dataloader())

    plain, turned, again = samples(), samples(augment=True), samples(augment=True)
    different = 0
    for before, after, twin in zip(plain, turned, again, strict=True):
        assert same(after, twin)
        different += not torch.equal(before["x"], after["x"])
        options = [
            {k: v if k == "doy" else _turned(v, turns, flip) for k, v in before.items()}
            for turns in range(4)
            for flip in (False, True)
        ]
        assert any(same(option, after) for option in options)
    assert different > len(plain) / 2
    data = TileData(farm.store, farm.labels, None, split, batch_size=1, augment=True)
    for one, other in zip(data.val_dataloader(), samples_of(farm, split, "val"), strict=True):
        assert same(one, other)


def samples_of(farm, split, stage):
    data = TileData(farm.store, farm.labels, None, split, batch_size=1)
    return dict(loaders(data))[stage]


def _turned(values, turns, flip):
    turned = torch.rot90(values, turns, (-2, -1))
    return turned.flip(-1) if flip else turned


def test_pixels_are_those_of_the_samples(data, farm):
    whole = LabelStore(farm.labels).read("31TEJ", GRID.window)
    raw = store.read_window(farm.store, "31TEJ", GRID.window)[0]
    for stage in STAGES:
        mine = np.isin(whole.zone, sorted(data.split.groups(stage))) & (whole.label != IGNORE)
        count = 0
        for pixels in data.pixels(stage):
            assert pixels.reflectance.dtype == np.uint16
            expected = raw[:, :, pixels.row, pixels.col].transpose(2, 1, 0)
            assert np.array_equal(pixels.reflectance, expected)
            assert np.array_equal(pixels.y, whole.label[pixels.row, pixels.col])
            assert np.array_equal(pixels.parcel, whole.parcel[pixels.row, pixels.col])
            assert np.array_equal(pixels.zone, whole.zone[pixels.row, pixels.col])
            assert mine[pixels.row, pixels.col].all()
            count += len(pixels.y)
        assert count == mine.sum()


def test_ignored_pixels_change_nothing(farm, tmp_path):
    """255 end to end: what lies under ignored pixels reaches neither counts nor normalisation."""
    path = tmp_path / "cube.zarr"
    shutil.copytree(farm.store, path)
    split = split_zones(farm.labels)
    whole = LabelStore(farm.labels).read("31TEJ", GRID.window)
    mine = np.isin(whole.zone, sorted(split.train)) & (whole.label != IGNORE)
    cube_values = zarr.open_group(path, mode="r+")["31TEJ/reflectance"]
    values = cube_values[:]
    values[:, :, ~mine] = 60_000
    cube_values[:] = values
    one = TileData(farm.store, farm.labels, None, split)
    other = TileData(path, farm.labels, None, split)
    assert one.normalisation == other.normalisation
    for a, b in zip(one.pixels("train"), other.pixels("train"), strict=True):
        assert np.array_equal(a.reflectance, b.reflectance)


@given(st.integers(-40, 40), st.integers(-40, 40), st.integers(1, 50), st.integers(1, 50))
def test_cut_is_a_padded_slice(row, col, height, width):
    held = Window(row=3, col=5, height=20, width=30)
    values = np.arange(1, 601).reshape(20, 30)
    wide = np.zeros((200, 200), int)
    wide[103:123, 105:135] = values
    wanted = Window(row=row, col=col, height=height, width=width)
    expected = wide[100 + row : 100 + row + height, 100 + col : 100 + col + width]
    assert np.array_equal(cut(values, held, wanted), expected)


def test_days_of_year_of_a_leap_year():
    recipe = RECIPE.model_copy(update={"start": "2023-12", "end": "2024-03"})
    assert days_of_year(recipe.periods).tolist() == [349, 15, 46, 75]


def test_mistakes_are_named(farm, tmp_path):
    split = split_zones(farm.labels)
    with pytest.raises(LabelError, match="was written with legend"):
        TileData(farm.store, farm.labels, load_legend(), split)
    with pytest.raises(ValueError, match="it must divide 1024"):
        TileData(farm.store, farm.labels, None, split, sample=24)
    moved = GRID.model_copy(update={"left": GRID.left + 20})
    grid = farm.plan.grids[0].model_copy(update={"grid": moved})
    other = farm.plan.model_copy(update={"grids": (grid,)})
    write_labels(farm.parcels, other, farm.legend, farm.zones, tmp_path / "l.zarr")
    with pytest.raises(LabelError, match="differ in the grid of 31TEJ"):
        TileData(farm.store, tmp_path / "l.zarr", None, split)
    one_tile = farm.plan.grids[0].model_copy(update={"tiles": farm.plan.grids[0].tiles[:1]})
    part = farm.plan.model_copy(update={"grids": (one_tile,)})
    write_labels(farm.parcels, part, farm.legend, farm.zones, tmp_path / "p.zarr")
    with pytest.raises(LabelError, match="no labels for 31TEJ"):
        TileData(farm.store, tmp_path / "p.zarr", None, split)
    store.create(farm.plan, tmp_path / "empty.zarr")
    with pytest.raises(StoreError, match="0 of 4 tiles are built"):
        TileData(tmp_path / "empty.zarr", farm.labels, None, split)
    recipe = RECIPE.model_copy(update={"composite": "series", "fill": "none"})
    grids = tuple(grid.model_copy(update={"recipe": recipe}) for grid in farm.plan.grids)
    series = farm.plan.model_copy(update={"recipe": recipe, "grids": grids})
    store.create(series, tmp_path / "series.zarr")
    with pytest.raises(RecipeError, match="another composite than 'series'"):
        TileData(tmp_path / "series.zarr", farm.labels, None, split)
