"""The XGBoost baseline: sampling by hand, training on a real Dask cluster, a worker that dies."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

import cube.store
from cube.errors import SplitError
from model import artefact
from model.boost import boost
from model.boost_data import Codes, Sampling, features
from model.splits import split_zones
from model.tiles import TileData
from tests.model.fixture_store import Study, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("boost"), noise=500)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_features_are_time_major_with_gaps_missing() -> None:
    reflectance = np.arange(1, 13, dtype=np.uint16).reshape(1, 2, 6)
    reflectance[0, 1, 2] = 0
    table = features(reflectance)
    # Month 0: bands 0, 1; month 1: bands 0, 1; ...
    expected = [1, 7, 2, 8, 3, np.nan, 4, 10, 5, 11, 6, 12]
    np.testing.assert_array_equal(table[0], expected)
    assert table.dtype == np.float32


def test_codes_are_contiguous_and_absent_classes_have_probability_zero() -> None:
    codes = Codes.of(np.array([9, 4, 0, 0, 7]))
    assert codes.classes == (0, 1, 4)
    np.testing.assert_array_equal(codes.encode(np.array([4, 2, 0, 255, 1])), [2, -1, 0, -1, 1])
    expanded = codes.expand(np.array([[0.2, 0.3, 0.5]]))
    np.testing.assert_allclose(expanded, [[0.2, 0.3, 0, 0, 0.5]])


def test_one_class_is_refused() -> None:
    with pytest.raises(SplitError, match="hold 1 class"):
        Codes.of(np.array([0, 12, 0]))


def test_sampling_caps_each_class_and_weighs_what_was_left_out() -> None:
    codes = np.array([0] * 100 + [1] * 3 + [-1] * 50)
    rows, weights = Sampling(cap=25, prior=1.0, seed=3).rows(codes, chunk=0)
    kept = codes[rows]
    assert (kept == 0).sum() == 25
    assert (kept == 1).sum() == 3
    assert (kept == -1).sum() == 0
    # With prior 1 the weights give the shares of the land again.
    assert weights[kept == 0].sum() == pytest.approx(100)
    assert weights[kept == 1].sum() == pytest.approx(3)
    again, _ = Sampling(cap=25, prior=0.0, seed=3).rows(codes, chunk=0)
    np.testing.assert_array_equal(rows, again)
    other, _ = Sampling(cap=25, prior=0.0, seed=3).rows(codes, chunk=1)
    assert not np.array_equal(rows, other)


def test_trains_stops_early_and_predicts(study: Study, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    run = boost(
        study.data(),
        tmp_path / "model",
        rounds=120,
        learning_rate=0.4,
        patience=5,
        cap=400,
        progress=lambda *event: told.append(event),
    )
    # Early stopping must have triggered, and only the best rounds are kept.
    assert run.metrics["rounds_tried"] == run.metrics["rounds"] + 5 < 120
    model: Any = artefact.load(run.folder).predictor()
    assert model.booster.num_boosted_rounds() == run.metrics["rounds"]
    assert told[0] == (1, 120, "boosting")
    reflectance, _ = cube.store.read_window(study.store, "31TEJ", study.grid.window)
    found = model.probabilities(reflectance)
    assert found.shape == (4, 192, 256)
    assert found.dtype == np.float32
    seen = (reflectance > 0).any(axis=(0, 1))
    assert not seen[:32, :32].any()
    np.testing.assert_array_equal(np.isnan(found[0]), ~seen)
    np.testing.assert_allclose(found[:, seen].sum(axis=0), 1, atol=1e-5)
    right = found[:, seen].argmax(axis=0) == study.truth[seen]
    share = np.bincount(study.truth[seen]).max() / seen.sum()
    assert right.mean() > 0.85 > share + 0.3


def test_an_absent_class_has_probability_zero(study: Study, tmp_path: Path) -> None:
    # The label store knows the class; the training pixels of it are taken away.
    labels = _changed_labels(study, tmp_path, lambda label: np.where(label == 2, 255, label))
    data = TileData(study.store, labels, None, split_zones(labels))
    assert data.class_counts[2] == 0
    run = boost(data, tmp_path / "model", rounds=3, cap=200)
    found = artefact.load(run.folder).predictor().probabilities(_corner(study))
    assert (found[2] == 0).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_same_seed_same_bytes(study: Study, tmp_path: Path) -> None:
    first, second = (
        boost(study.data(), tmp_path / name, rounds=4, cap=200).folder / "model.ubj"
        for name in "ab"
    )
    assert first.read_bytes() == second.read_bytes()


def test_ignored_pixels_change_nothing(study: Study, tmp_path: Path) -> None:
    """Imagery under label 255 is rewritten; the model stays the same to the byte."""
    ignore = lambda label: np.where(np.indices(label.shape).sum(0) % 7 == 0, 255, label)  # noqa: E731
    labels = _changed_labels(study, tmp_path, ignore)
    other = tmp_path / "other.zarr"
    shutil.copytree(study.store, other)
    array = zarr.open_group(other / "31TEJ", mode="r+")["reflectance"]
    values = array[:]
    values[..., np.indices(values.shape[2:]).sum(0) % 7 == 0] = 9000
    array[:] = values
    one, two = (
        boost(
            TileData(store, labels, None, split_zones(labels)),
            tmp_path / store.stem,
            rounds=3,
            cap=200,
        ).folder
        for store in (study.store, other)
    )
    assert (one / "model.ubj").read_bytes() == (two / "model.ubj").read_bytes()


@pytest.mark.timeout(300)
def test_survives_a_killed_worker(study: Study, tmp_path: Path, cluster: Client) -> None:
    pids = list(cluster.run(os.getpid).values())
    assert len(pids) == 2
    told: list[int] = []

    def kill_one(done: int, total: int, what: str) -> None:
        if done == 3 and 3 not in told:
            os.kill(pids[0], signal.SIGKILL)
        told.append(done)

    run = boost(
        study.data(),
        tmp_path / "model",
        client=cluster,
        rounds=40,
        learning_rate=0.2,
        cap=400,
        progress=kill_one,
    )
    assert told.count(1) == 2, "training must have started again"
    assert 1400 < run.metrics["train_pixels"] <= 4 * 400
    model: Any = artefact.load(run.folder).predictor()
    assert model.booster.num_boosted_rounds() == run.metrics["rounds"]


def _corner(study: Study) -> np.ndarray:
    return cube.store.read_window(study.store, "31TEJ", study.grid.window)[0][:, :, 50:90, 50:90]


def _changed_labels(study: Study, folder: Path, change: Any) -> Path:
    labels = folder / "labels.zarr"
    shutil.copytree(study.labels, labels)
    shutil.copy(study.labels.parent / "parcels.csv", folder)
    array = zarr.open_group(labels, mode="r+")["31TEJ/label"]
    array[:] = change(array[:])
    return labels
