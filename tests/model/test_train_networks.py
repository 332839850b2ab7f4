"""Every network of the catalogue is trained by `train`, and only on samples that it takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cube.errors import ArtefactError, LabelError
from model import artefact, networks
from model.hierarchy import Tree
from model.legend import IGNORE, load_legend
from model.networks.catalogue import ARCHITECTURES, Input
from model.preparation import require_kind
from model.samples import inputs
from model.sampleset import SampleSet
from model.setdata import SetData
from model.splits import Split
from model.train import train
from tests.model.seasons import Seasons
from tests.model.test_sampleset import SPLIT, seasons
from tests.model.zoo import SMALL

QUICK: dict[str, Any] = {"epochs": 1, "precision": "32-true", "accelerator": "cpu"}
PLACES: dict[Input, tuple[int, ...]] = {
    "pixel": (),
    "parcel-pixels": (6,),
    "parcel-image": (32, 32),
    "image": (16, 16),
}
LEGEND = load_legend("turkoglu", "level3", 2023, classes=["Maize", "WinterWheat", "Meadow"])


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Arrays are too small for more, and other processes may be at work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def data(kind: Input, size: int | None = None, **options: Any) -> SetData:
    """Return three training and three validation samples of 4 dates."""
    random = np.random.default_rng(0)
    places = PLACES[kind] if size is None else (size, size)
    n, dates = 6, 4
    y = random.integers(1, 4, (n, *places) if kind == "image" else n).astype(np.uint8)
    samples = SampleSet(
        name="tiny",
        kind=kind,
        bands=("red", "nir"),
        legend=LEGEND,
        x=random.integers(1, 4000, (n, 2, dates, *places)).astype(np.uint16),
        valid=np.ones((n, dates, *places), bool),
        doy=np.tile(np.array([30, 120, 200, 300], np.int16), (n, 1)),
        y=y,
        group=np.arange(n, dtype=np.int32) % 2 + 1,
        geometry=random.normal(size=(n, 4)).astype(np.float32) if kind == "parcel-pixels" else None,
    )
    split = Split("zone", frozenset({1}), frozenset({2}), frozenset())
    return SetData(samples, split, batch_size=4, **options)


@pytest.mark.parametrize("name", networks.names())
def test_every_network_trains_and_comes_back(name: str, tmp_path: Path) -> None:
    small = SMALL.get(name, {})
    given = data(ARCHITECTURES[name].input, small.get("size"))
    run = train(name, given, tmp_path, **QUICK, **small)
    assert np.isfinite(run.metrics["val_loss"])
    network = artefact.load(tmp_path).network()
    rows = given.stage_rows["val"]
    batch = given.batch(rows)
    with torch.inference_mode():
        predicted = network(**inputs(batch)).argmax(dim=1)
    right = (predicted == batch["y"]).float().mean().item()
    assert run.metrics["val_accuracy"] == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize("name", ["gru", "elects"])
def test_networks_of_pixels_learn_from_windows(name: str, tmp_path: Path) -> None:
    small = {"hidden": 8} if name == "gru" else {}
    run = train(name, Seasons(train=2, val=1), tmp_path, **QUICK, **small)
    assert ("val_earliness" in run.metrics) == (name == "elects")
    assert 0 <= run.metrics.get("val_earliness", 0) <= 1


def test_samples_of_another_kind_are_refused(tmp_path: Path) -> None:
    for name, kind in itertools.product(networks.names(), PLACES):
        wanted = ARCHITECTURES[name].input
        if wanted == kind or (wanted, kind) == ("pixel", "image"):
            require_kind(name, kind)
        else:
            with pytest.raises(ArtefactError, match=f"{name} takes samples of kind '{wanted}'"):
                require_kind(name, kind)
    with pytest.raises(ArtefactError, match="the data are 'pixel'; choose one of bilstm, elects"):
        train("utae", data("pixel"), tmp_path, **QUICK)
    with pytest.raises(ArtefactError, match="takes samples of kind 'parcel-pixels'"):
        train("pse-ltae", Seasons(), tmp_path, **QUICK)


def test_levels_come_from_the_legend_and_come_back(tmp_path: Path) -> None:
    given = data("pixel")
    run = train("gru", given, tmp_path, levels="refined", hidden=8, **QUICK)
    model = artefact.load(tmp_path)
    assert model.options["levels"] == [3, 4]
    tree = Tree.from_dict(model.training["tree"])
    assert tree.levels == ("level1", "level2")
    assert 0 <= run.metrics["val_consistency"] <= 1
    batch = given.batch(given.stage_rows["val"])
    levels = model.network().levels(batch["x"], batch["valid"], batch["doy"])
    assert [scores.shape[1] for scores in levels] == [3, 4, 4, 4]


def test_convstar_takes_its_levels_from_the_legend(tmp_path: Path) -> None:
    train("convstar", data("image", 8), tmp_path / "tree", hidden=4, **QUICK)
    assert artefact.load(tmp_path / "tree").options["coarse"] == [3, 4]
    train("convstar", Seasons(train=2, val=1), tmp_path / "flat", hidden=4, **QUICK)
    assert artefact.load(tmp_path / "flat").training["tree"] is None


def test_levels_that_nobody_knows(tmp_path: Path) -> None:
    flat = SetData(seasons(), SPLIT)
    with pytest.raises(LabelError, match="has no coarser levels; give tree="):
        train("gru", flat, tmp_path, levels="plain", **QUICK)
    with pytest.raises(ArtefactError, match="convstar cannot be given label levels"):
        train("convstar", data("image"), tmp_path, levels="plain", **QUICK)


def test_a_training_goes_on_from_the_weights_of_another(tmp_path: Path) -> None:
    given = SetData(seasons(), SPLIT, batch_size=16)
    settings = QUICK | {"epochs": 3, "hidden": 8, "lr": 1e-2}
    train("gru", given, tmp_path / "first", class_weights="inverse", **settings)
    still = QUICK | {"hidden": 8, "lr": 1e-12, "weight_decay": 0.0}
    tuned = train("gru", given, tmp_path / "second", start_from=tmp_path / "first", **still)
    before, after = (load_file(tmp_path / n / "weights.safetensors") for n in ("first", "second"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=1e-5)
    # The start is part of what a training is.
    assert (
        train("gru", given, tmp_path / "second", start_from=tmp_path / "first", **still).history
        == tuned.history
    )
    with pytest.raises(ArtefactError, match="holds another training: start"):
        train("gru", given, tmp_path / "second", **still)


def test_another_model_is_no_start(tmp_path: Path) -> None:
    given = SetData(seasons(), SPLIT, batch_size=16)
    train("gru", given, tmp_path / "first", hidden=8, **QUICK)
    start = {"start_from": tmp_path / "first"}
    with pytest.raises(ArtefactError, match="architecture differ"):
        train("lstm", given, tmp_path / "b", hidden=8, **QUICK, **start)
    with pytest.raises(ArtefactError, match="weights of .* do not fit"):
        train("gru", given, tmp_path / "c", hidden=4, **QUICK, **start)
    brighter = replace(given.set, x=given.set.x * 2)
    with pytest.raises(ArtefactError, match="normalisation differ"):
        train("gru", SetData(brighter, SPLIT), tmp_path / "d", hidden=8, **QUICK, **start)


@pytest.mark.parametrize("loss", ["focal:1", "logit-adjusted"])
def test_other_losses_train_and_are_remembered(loss: str, tmp_path: Path) -> None:
    given = SetData(seasons(), SPLIT, batch_size=16)
    settings = QUICK | {"epochs": 6, "lr": 1e-2, "hidden": 16, "layers": 1, "dropout": 0.0}
    run = train("gru", given, tmp_path, loss=loss, **settings)
    assert run.metrics["val_accuracy"] > 0.9
    assert artefact.load(tmp_path).training["loss"].startswith(loss)
    with pytest.raises(ArtefactError, match="holds another training: loss"):
        train("gru", given, tmp_path, **settings)


def test_balanced_sampling_draws_classes_equally() -> None:
    samples = seasons(600)
    y = np.where(np.arange(600) % 10 == 0, 2, 1).astype(np.uint8)
    y[::7] = IGNORE
    rare = replace(samples, y=y)
    given = SetData(rare, SPLIT, batch_size=50, sampling="balanced")
    loader = given.train_dataloader()
    drawn = [torch.cat([batch["y"] for batch in loader]).numpy() for _ in range(5)]
    counts = np.bincount(np.concatenate(drawn))
    assert len(drawn[0]) == given.samples("train")
    assert len(counts) == 3  # nothing ignored
    assert counts[1] / counts.sum() == pytest.approx(0.5, abs=0.05)
    assert given.class_counts[1] > 5 * given.class_counts[2]
    again = next(iter(given.train_dataloader()))["row"]
    assert torch.equal(again, next(iter(given.train_dataloader()))["row"])
    assert given.fingerprint != SetData(rare, SPLIT, batch_size=50).fingerprint
    with pytest.raises(ValueError, match="one label per sample"):
        data("image", sampling="balanced")
