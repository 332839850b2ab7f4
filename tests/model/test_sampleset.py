"""Samples in memory: what belongs to a stage, how dates are thinned, training and its artefact."""

import numpy as np
import pytest
import torch

from cube.errors import ArtefactError, LabelError, SplitError
from model import artefact
from model.legend import IGNORE, flat_legend
from model.sampleset import SampleSet
from model.setdata import SetData, thinned
from model.splits import Split
from model.train import train


def seasons(n: int = 120, dates: int = 9, seed: int = 0) -> SampleSet:
    """Return two crops that only the order of the dates tells apart."""
    random = np.random.default_rng(seed)
    y = random.integers(1, 3, n).astype(np.uint8)
    ramp = np.linspace(500, 3000, dates)
    rising = np.where((y == 1)[:, None], ramp, ramp[::-1])
    x = np.stack([rising, 3500 - rising], axis=1) + random.normal(0, 100, (n, 2, dates))
    valid = random.random((n, dates)) < 0.8
    x = np.where(valid[:, None], x, 0).round().clip(0).astype(np.uint16)
    doy = np.where(valid, np.linspace(10, 350, dates).astype(np.int16), 0)
    return SampleSet(
        name="seasons",
        kind="pixel",
        bands=("red", "nir"),
        legend=flat_legend("seasons", ["early", "late"]),
        x=x,
        valid=valid,
        doy=doy,
        y=y,
        group=np.arange(n, dtype=np.int32) % 6 + 1,
    )


SPLIT = Split("zone", frozenset({1, 2, 3, 4}), frozenset({5}), frozenset({6}))


def test_rows_of_the_stages_follow_the_groups() -> None:
    samples = seasons()
    for stage in ("train", "val", "test"):
        rows = samples.rows(SPLIT, stage)
        assert set(samples.group[rows]) == SPLIT.groups(stage)
    everything = np.concatenate([samples.rows(SPLIT, s) for s in ("train", "val", "test")])
    assert sorted(everything) == list(range(len(samples)))


def test_a_split_by_sample_counts_from_one() -> None:
    split = Split("sample", frozenset({1, 3}), frozenset({2}), frozenset())
    assert seasons().rows(split, "train").tolist() == [0, 2]


def test_a_split_by_parcel_needs_parcels() -> None:
    split = Split("parcel", frozenset({1}), frozenset({2}), frozenset())
    with pytest.raises(SplitError, match="no parcel per sample"):
        seasons().rows(split, "train")


def test_normalisation_is_that_of_valid_training_values() -> None:
    samples = seasons()
    rows = samples.rows(SPLIT, "train")
    values = samples.x[rows].astype(float)
    values[~np.broadcast_to(samples.valid[rows][:, None], values.shape)] = np.nan
    found = samples.normalisation(rows)
    np.testing.assert_allclose(found.mean, np.nanmean(values, axis=(0, 2)))
    np.testing.assert_allclose(found.std, np.nanstd(values, axis=(0, 2)))


def test_thinning_keeps_pairs_of_value_and_day_in_order() -> None:
    samples = seasons()
    batch = SetData(samples, SPLIT).batch(np.arange(len(samples)))
    # A value that names its date: whatever is moved must still sit on its day.
    batch["x"] = batch["doy"][:, None].float() * batch["valid"][:, None]
    thin = thinned(batch, 4, np.random.default_rng(0))
    assert thin["x"].shape[2] == 4
    assert torch.equal(thin["x"][:, 0], thin["doy"].float() * thin["valid"])
    kept = thin["valid"].sum(dim=1)
    assert torch.equal(kept, batch["valid"].sum(dim=1).clamp(max=4))
    days = thin["doy"].masked_fill(~thin["valid"], 0)
    for row, count in zip(days, kept, strict=True):
        seen = row[row > 0]
        assert len(seen) == count
        assert bool((seen.diff() > 0).all())


def test_every_date_is_seen_at_test() -> None:
    samples = seasons()
    data = SetData(samples, SPLIT, dates=3)
    assert next(iter(data.train_dataloader()))["x"].shape[2] == 3
    assert next(iter(data.test_dataloader()))["x"].shape[2] == samples.dates


def test_shapes_that_do_not_fit_are_refused() -> None:
    samples = seasons()
    with pytest.raises(LabelError, match="doy"):
        SampleSet(**{**vars(samples), "doy": samples.doy[:, 1:]})
    with pytest.raises(LabelError, match="label 7"):
        SampleSet(**{**vars(samples), "y": np.full(len(samples), 7, np.uint8)})


def test_a_network_learns_from_a_set_and_comes_back_from_its_folder(tmp_path) -> None:
    samples = seasons()
    data = SetData(samples, SPLIT, batch_size=16, dates=6)
    run = train("ltae", data, tmp_path, epochs=12, lr=3e-3, precision="32-true")
    model = artefact.load(run.folder)
    rows = data.stage_rows["test"]
    batch = data.batch(rows)
    with torch.inference_mode():
        logits = model.network()(batch["x"], batch["valid"], batch["doy"])
    right = (logits.argmax(dim=1) == batch["y"]).float().mean()
    share = np.bincount(samples.y[rows][samples.y[rows] != IGNORE]).max() / len(rows)
    assert right > max(0.9, share + 0.2)
    with pytest.raises(ArtefactError, match="draws no maps"):
        _ = model.recipe
