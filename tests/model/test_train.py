from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cube.errors import ArtefactError, SplitError
from model import artefact
from model.learner import Learner, Settings, one_cycle
from model.metrics import confusion_matrix, summary
from model.runtime import quiet_lightning, steady_memory
from model.train import train
from tests.model.seasons import Seasons

ROOT = Path(__file__).parents[2]
QUICK: dict[str, Any] = {
    "epochs": 4,
    "precision": "32-true",
    "accelerator": "cpu",
    "lr": 1e-2,
    "k": 3,
    "d": 8,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Arrays are too small for more, and other processes may be at work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Four epochs, uninterrupted."""
    return train("hybrid", Seasons(), tmp_path_factory.mktemp("straight") / "hybrid", **QUICK)


def evaluate(folder: Path, data: Seasons) -> dict[str, float]:
    """Score an artefact on the validation samples, without the trainer."""
    predictor = artefact.load(folder).predictor()
    truth, predicted, losses = [], [], []
    for seed in data.val_seeds:
        reflectance, label = data.sample(seed)
        probabilities = predictor.probabilities(reflectance)
        truth.append(label)
        predicted.append(probabilities.argmax(axis=0).astype(np.uint8))
        y = label[label != 255]
        losses.append(-np.log(probabilities[:, label != 255][y, np.arange(y.size)]))
    scores = summary(confusion_matrix(np.stack(truth), np.stack(predicted), data.n_classes))
    return {
        "val_loss": float(np.concatenate(losses).mean()),
        "val_accuracy": float(scores["accuracy"]),
        "val_macro_f1": float(scores["f1"]),
    }


def test_it_learns(tmp_path: Path) -> None:
    settings = QUICK | {"epochs": 12, "d": 16, "dropout": 0.1}
    run = train("hybrid", Seasons(train=40, val=4), tmp_path, **settings)
    assert run.metrics["val_macro_f1"] > 0.8  # five classes: guessing gives 0.2
    assert run.history[-1]["train_loss"] < 0.5 * run.history[0]["train_loss"]


def test_what_is_kept_is_the_best_epoch(run: Any) -> None:
    best = max(run.history, key=lambda row: row["val_macro_f1"])
    assert run.metrics["epoch"] == best["epoch"]
    again = evaluate(run.folder, Seasons())
    for name, value in again.items():
        assert run.metrics[name] == pytest.approx(value, abs=1e-5)
        assert best[name] == pytest.approx(value, abs=1e-5)


def test_best_weights_do_not_follow_the_training(tmp_path: Path) -> None:
    """With a rate that explodes after the first epochs, the kept weights stay those of the best."""
    data = Seasons()
    kept: dict[int, bytes] = {}

    def watch(done: int, total: int, what: str) -> None:
        if (tmp_path / "weights.safetensors").exists():
            kept[done] = (tmp_path / "weights.safetensors").read_bytes()

    run = train("hybrid", data, tmp_path, progress=watch, best="loss", **QUICK | {"epochs": 6})
    best = int(run.metrics["epoch"])
    assert run.metrics["val_loss"] == min(row["val_loss"] for row in run.history)
    last = (tmp_path / "weights.safetensors").read_bytes()
    steps = 2  # batches per epoch
    for done, weights in kept.items():
        if done > best * steps:
            assert weights == last


def test_history_is_written_and_rates_are_the_configured_ones(run: Any, tmp_path: Path) -> None:
    with (run.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["val_loss"]) for row in rows] == [row["val_loss"] for row in run.history]
    # Two steps per epoch, eight in all.
    expected = [1e-2 * one_cycle(step / 8) for step in (2, 4, 6, 8)]
    assert [row["lr"] for row in run.history] == pytest.approx(expected)
    constant = train("hybrid", Seasons(), tmp_path, schedule="constant", **QUICK | {"epochs": 1})
    assert constant.history[0]["lr"] == 1e-2


def test_one_cycle_shape() -> None:
    assert one_cycle(0.0) == pytest.approx(0.1)
    assert one_cycle(0.1) == pytest.approx(1.0)
    assert one_cycle(0.55) == pytest.approx(0.505)
    assert one_cycle(1.0) == pytest.approx(0.01)
    assert one_cycle(1.2) == pytest.approx(0.01)


def test_same_seed_same_weights(run: Any, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again = train("hybrid", Seasons(), tmp_path / "a", **QUICK)
    assert torch.equal(state, torch.get_rng_state())  # the caller's random numbers are untouched
    assert (again.folder / "weights.safetensors").read_bytes() == (
        run.folder / "weights.safetensors"
    ).read_bytes()
    other = train("hybrid", Seasons(), tmp_path / "b", seed=1, **QUICK)
    assert other.history[0]["train_loss"] != run.history[0]["train_loss"]


KILLED = """
import json, os, signal, sys
from model.train import train
from tests.model.seasons import Seasons

def die(done, total, what):
    if done == 5:  # first step of the third epoch
        os.kill(os.getpid(), signal.SIGKILL)

train("hybrid", Seasons(), sys.argv[1], progress=die, **json.loads(sys.argv[2]))
"""


def test_a_killed_training_continues_as_if_nothing_had_happened(run: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), json.dumps(QUICK)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(command, cwd=ROOT, env=os.environ | threads, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert artefact.load(tmp_path).metrics["epoch"] <= 2  # what there is so far can be used
    steps: list[int] = []
    continued = train(
        "hybrid", Seasons(), tmp_path, progress=lambda d, *_: steps.append(d), **QUICK
    )
    assert steps == [5, 6, 7, 8]
    without_time = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in one.history]
        for one in (run, continued)
    ]
    assert without_time[0] == without_time[1]
    mine, theirs = (load_file(r.folder / "weights.safetensors") for r in (continued, run))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_finished_training_is_returned(run: Any) -> None:
    steps: list[int] = []
    again = train("hybrid", Seasons(), run.folder, progress=lambda d, *_: steps.append(d), **QUICK)
    assert steps == []
    assert (again.metrics, again.history) == (run.metrics, run.history)


def test_another_training_in_the_folder_is_not_overwritten(run: Any) -> None:
    before = (run.folder / "model.json").read_bytes()
    with pytest.raises(ArtefactError, match=r"lr 0\.01 instead of 0\.001.*resume=False"):
        train("hybrid", Seasons(), run.folder, **QUICK | {"lr": 1e-3})
    with pytest.raises(ArtefactError, match="class_counts"):
        train("hybrid", Seasons(train=5), run.folder, **QUICK)
    assert (run.folder / "model.json").read_bytes() == before


def test_beginning_again_removes_what_was_there(tmp_path: Path) -> None:
    first = train("hybrid", Seasons(), tmp_path, **QUICK | {"epochs": 2})
    second = train("hybrid", Seasons(), tmp_path, resume=False, **QUICK | {"epochs": 1})
    assert [len(r.history) for r in (first, second)] == [2, 1]


def test_early_stopping(tmp_path: Path) -> None:
    """Training without a rate stops after the first epoch and `patience` more."""
    settings = QUICK | {"epochs": 20, "lr": 0.0, "patience": 2, "schedule": "constant"}
    settings |= {"d": 2, "dropout": 0.0}
    data = Seasons(train=2, val=1)
    run = train("hybrid", data, tmp_path, **settings)
    losses = [row["val_loss"] for row in run.history]
    best = int(np.argmin(losses))
    assert len(losses) < 20
    assert len(losses) >= best + 1 + 2 or max(losses[best:]) - losses[best] < 1e-4


def test_reference_preset_ten_bands_weights_and_bfloat16(tmp_path: Path) -> None:
    bands = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "swir16", "swir22")
    data = Seasons(bands=bands, size=24, train=2, val=1, batch_size=1)
    run = train(
        "hybrid",
        data,
        tmp_path,
        preset="reference",
        epochs=1,
        precision="bf16-mixed",
        accelerator="cpu",
        class_weights="effective",
    )
    assert artefact.load(tmp_path).options["widths"] == "reference"
    assert np.isfinite(run.metrics["val_loss"])
    weights = load_file(tmp_path / "weights.safetensors").values()
    assert all(value.dtype != torch.bfloat16 for value in weights)


def test_validation_figures_do_not_depend_on_the_batches() -> None:
    figures = [_validation_figures(batch_size) for batch_size in (1, 2, 3)]
    assert set(figures[0]) == {"val_loss", "val_accuracy", "val_macro_f1"}
    assert figures[1] == pytest.approx(figures[0], rel=1e-5)
    assert figures[2] == pytest.approx(figures[0], rel=1e-5)


def _validation_figures(batch_size: int) -> dict[str, float]:
    data = Seasons(batch_size=batch_size, val=3)
    torch.manual_seed(0)
    learner = Learner(_settings(class_weights="sqrt"), data).eval()
    logged: dict[str, float] = {}
    learner.log = lambda name, value, **_: logged.update({name: float(value)})  # type: ignore
    learner.on_validation_epoch_start()
    with torch.no_grad():
        for number, batch in enumerate(data.val_dataloader()):
            learner.validation_step(batch, number)
    learner.on_validation_epoch_end()
    return logged


def _settings(**changes: Any) -> Settings:
    fields: dict[str, Any] = {
        "architecture": "hybrid",
        "options": {"k": 3, "d": 4},
        "epochs": 1,
        "lr": 1e-3,
        "weight_decay": 0.0,
        "schedule": "one-cycle",
        "precision": "32-true",
        "patience": 3,
        "seed": 0,
        "class_weights": "none",
        "best": "loss",
    }
    return Settings(**fields | changes)


def test_labels_never_touch_inputs() -> None:
    """Another assignment of classes changes weights and scores, never what the network sees."""

    class Permuted(Seasons):
        def sample(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
            reflectance, label = super().sample(seed)
            return reflectance, np.where(label == 255, 255, (label + 1) % 5).astype(np.uint8)

    def inputs(data: Seasons) -> list[bytes]:
        seen: list[bytes] = []
        learner = Learner(_settings(), data)
        learner.network.register_forward_pre_hook(
            lambda _, args, named: seen.extend(a.numpy().tobytes() for a in named.values()),
            with_kwargs=True,
        )
        learner.log = lambda *_, **__: None  # type: ignore[method-assign]
        for number, batch in enumerate(data.train_dataloader()):
            learner.training_step(batch, number)
        return seen

    assert inputs(Seasons()) == inputs(Permuted())
    assert len(inputs(Seasons())) == 2 * 3


def test_mistakes_are_named(tmp_path: Path) -> None:
    class Unlabelled(Seasons):
        def sample(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
            reflectance, label = super().sample(seed)
            return reflectance, np.full_like(label, 255) if seed >= 100 else label

    with pytest.raises(SplitError, match="no pixel of the validation groups"):
        train("hybrid", Unlabelled(), tmp_path / "a", **QUICK)
    with pytest.raises(ArtefactError, match=r"not a number any more.*lower lr"):
        train("hybrid", Seasons(), tmp_path / "b", **QUICK | {"lr": 1e30, "schedule": "constant"})
    with pytest.raises(ArtefactError, match="did you mean 'dropout'"):
        train("hybrid", Seasons(), tmp_path / "c", **QUICK, dropot=0.1)


def test_a_stop_by_keyboard_is_a_keyboard_interrupt(tmp_path: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train("hybrid", Seasons(), tmp_path, progress=stop, **QUICK)
    assert signal.getsignal(signal.SIGINT) is handler


def test_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    levels = logging.getLogger("lightning.pytorch").level
    train("hybrid", Seasons(), tmp_path, **QUICK | {"epochs": 1})
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn if "lightning" in str(w.filename)] == []
    assert logging.getLogger("lightning.pytorch").level == levels


def test_surroundings_are_restored_after_an_error() -> None:
    def fail() -> None:
        with quiet_lightning(), steady_memory():
            torch.ones(40_000_000).add_(1)  # more than any allocator keeps by itself
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert logging.getLogger("lightning.fabric").level != logging.ERROR


def test_training_without_validation_is_refused(tmp_path):
    data = Seasons()
    data.val_seeds = []
    with pytest.raises(SplitError, match="no validation samples"):
        train("hybrid", data, tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()
