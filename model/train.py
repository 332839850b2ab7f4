"""The trainer of the networks: Lightning's loop, our bookkeeping.

What a training leaves in its folder:

``model.json``, ``weights.safetensors``
    The artefact of the best epoch so far, replaced whenever a better one is found.
``history.csv``
    One row per epoch; ``tensorboard/`` beside it where TensorBoard is installed.
``last.ckpt``, ``training.json``
    What a killed training continues from, and the settings that it must continue with.

All random numbers of a step follow from the seed and the step's number, so a training that was
killed and continued equals one that was not.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from cube.errors import ArtefactError, SplitError
from model import artefact, networks
from model.artefact import Run
from model.hierarchy import Tree
from model.learner import Learner, Schedule, Settings
from model.losses import Scheme
from model.objectives import Loss
from model.preparation import (
    Levels,
    check_start,
    choose_tree,
    copy_weights,
    decides_early,
    level_options,
    require_kind,
)
from model.runtime import native_precision, quiet_lightning, steady_memory

if TYPE_CHECKING:
    from model.learner import TrainingData

__all__ = ["Run", "train"]

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]

CHECKPOINT, SETTINGS, HISTORY = "last.ckpt", "training.json", "history.csv"


def train(
    name: str,
    data: TrainingData,
    out: str | Path,
    *,
    preset: str | None = None,
    epochs: int = 30,
    lr: float = 2e-3,
    weight_decay: float = 1e-2,
    schedule: Schedule = "one-cycle",
    class_weights: Scheme = "none",
    loss: str | None = None,
    levels: Levels = "none",
    tree: Tree | None = None,
    start_from: str | Path | None = None,
    best: Literal["macro_f1", "loss"] | None = None,
    patience: int = 8,
    precision: Precision = "auto",
    seed: int = 0,
    resume: bool = True,
    accelerator: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Train a network.

    Parameters
    ----------
    name : str
        Architecture, see `model.networks.names`; `preset` and `options` choose its variant.
    data : TrainingData
        Training and validation samples with legend and normalisation: `TileData` over a cube,
        `SetData` over points, parcels or windows in memory.
    out : path
        Folder of the artefact, the logs and the checkpoint.
    epochs : int
        At most; fewer when the validation loss has not fallen for `patience` epochs.
    lr : float
        Highest learning rate of AdamW.
    weight_decay : float
        Of AdamW.
    schedule : {"one-cycle", "constant"}
        One cycle: a tenth of the steps up to `lr`, then half a cosine down to a hundredth of it.
    class_weights : {"none", "sqrt", "effective", "inverse"}
        Weights of the loss, see `model.losses.class_weights`.
    loss : str, optional
        ``cross-entropy``, ``focal`` (also ``focal:1`` for gamma = 1), ``logit-adjusted`` (tau) or
        ``early-reward`` (alpha), see `model.objectives`. Default: the network's own, which is
        ``early-reward`` for early classifiers and ``cross-entropy`` for all others.
    levels : {"none", "plain", "refined"}
        Whether the network learns the coarser levels of the legend as well, with heads of its own
        and perhaps a refinement, see `model.networks.hierarchical`. ``convstar`` has them in any
        case, and learns from them where there is a tree.
    tree : Tree, optional
        The coarser levels; default those of the legend, see `model.hierarchy`.
    start_from : path, optional
        Folder of a trained model of the same architecture, classes and normalisation whose weights
        are trained further.
    best : {"macro_f1", "loss"}, optional
        What chooses the epoch that is kept: macro-F1 over the classes of the validation groups,
        which tells rare crops, or their loss. Default macro-F1, but the loss for early classifiers,
        whose macro-F1 is best while they wait for the end of the season.
    patience : int
        See `epochs`.
    precision : {"auto", "32-true", "bf16-mixed", "16-mixed"}
        "auto" is bfloat16 where the processor computes with it, which is twice as fast, else
        float32. Weights are float32 in any case.
    seed : int
        Same seed, data, precision and machine: same weights (on CPU).
    resume : bool
        Continue a training of the same settings and data that is in `out`, or return it when it
        was finished. False begins again and removes what is there.
    accelerator : str
        As in Lightning; "auto" takes a GPU when there is one.
    progress : callable, optional
        Called with (steps done, steps at most, what).

    Returns
    -------
    Run
        Folder, figures of the epoch that was kept, and a row per epoch.

    Raises
    ------
    ArtefactError
        If the architecture or an option is unknown or not for such samples, `out` holds another
        training, `start_from` holds another model, or the loss is no longer a number.
    LabelError
        If levels are asked for and the legend has none.
    SplitError
        If no pixel of the validation groups is labelled.
    """
    require_kind(name, data.kind)
    tree = choose_tree(name, levels, tree, data.legend)
    if tree is not None:
        options |= level_options(name, levels, tree)
    settings = Settings(
        architecture=name,
        options=networks.options(name, preset=preset, **options),
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        precision=native_precision(accelerator) if precision == "auto" else precision,
        patience=patience,
        seed=seed,
        class_weights=class_weights,
        best=best or ("loss" if decides_early(name) else "macro_f1"),
        loss="" if loss is None else str(Loss.read(loss)),
        tree=None if tree is None else tree.to_dict(),
        start="" if start_from is None else check_start(start_from, name, data),
    )
    folder = Path(out)
    if not data.samples("val"):
        raise SplitError(
            "the split has no validation samples, which choose the epoch that is kept; give "
            "validation groups with labels, or make fewer folds"
        )
    checkpoint = _begin(folder, settings, data, resume)
    if _finished(folder):
        log.info("%s holds this training, finished; nothing to do", folder)
    else:
        _fit(folder, settings, data, start_from, checkpoint, accelerator, progress)
        _write_json(folder / SETTINGS, _identity(settings, data) | {"finished": True})
    return Run(folder, artefact.load(folder).metrics, _read_history(folder))


def _fit(
    folder: Path,
    settings: Settings,
    data: TrainingData,
    start_from: str | Path | None,
    checkpoint: Path | None,
    accelerator: str,
    progress: Progress | None,
) -> None:
    with torch.random.fork_rng(), quiet_lightning(), steady_memory():
        torch.manual_seed(settings.seed)
        steps = _steps(data)
        learner = Learner(settings, data, steps)
        if start_from is not None:
            copy_weights(start_from, learner.network)
        trainer = L.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=settings.precision,
            max_epochs=settings.epochs,
            callbacks=[
                EarlyStopping("val_loss", patience=settings.patience, min_delta=1e-4),
                _Record(folder, settings, data, steps, progress),
                ModelCheckpoint(
                    folder,
                    filename=Path(CHECKPOINT).stem,
                    save_on_train_epoch_end=True,
                    enable_version_counter=False,
                ),
            ],
            logger=_tensorboard(folder),
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        trainer.fit(learner, datamodule=data, ckpt_path=checkpoint, weights_only=True)


def _steps(data: TrainingData) -> int | None:
    """Return the batches of an epoch; None for a stream that does not know.

    Lightning could tell (`estimated_stepping_batches`), but makes the loaders to find out, before a
    resumed training knows its epoch: their order would start again from the first.
    """
    try:
        return len(data.train_dataloader())
    except TypeError:
        return None


class _Record(Callback):
    """Seeds each step, tells the progress, writes the history, keeps the best epoch."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        data: TrainingData,
        steps: int | None,
        progress: Progress | None,
    ) -> None:
        self.folder, self.settings, self.data = folder, settings, data
        self.steps, self.progress = steps, progress
        self.history: list[dict[str, float]] = []
        self.best = -float("inf")
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.best = list(state_dict["history"]), state_dict["best"]

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Lightning saves at the end of an epoch with the epoch processed but not yet "completed",
        # and its `current_epoch`, from which loaders take their order, counts the completed ones.
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        epoch["completed"] = epoch["processed"]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, number: int
    ) -> None:
        # Here and not per epoch: making a loader draws from the same generator, and happens at
        # another moment when a training is resumed.
        torch.manual_seed((self.settings.seed + 1) * 1_000_003 + trainer.global_step)
        if number == 0:
            self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *unused: object
    ) -> None:
        if self.progress is None:
            return
        done, total = trainer.current_epoch, self.settings.epochs
        if self.steps is not None:
            done, total = trainer.global_step, total * self.steps
        self.progress(done, total, self._what(trainer.current_epoch))

    def _what(self, epoch: int) -> str:
        text = f"epoch {epoch + 1}/{self.settings.epochs}"
        if self.history:
            last = self.history[-1]
            text += f" · loss {last['val_loss']:.3f} · macro-F1 {last['val_macro_f1']:.3f}"
        return text

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
        row = {
            "epoch": float(trainer.current_epoch + 1),
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            **{key: figures[key] for key in (*_FIGURES, *_MORE) if key in figures},
            "seconds": round(time.monotonic() - self._started, 3),
        }
        if not np.isfinite([row["train_loss"], row["val_loss"]]).all():
            raise ArtefactError(
                f"epoch {row['epoch']:.0f}: the loss is not a number any more (training "
                f"{row['train_loss']}, validation {row['val_loss']}); lower lr ({self.settings.lr})"
            )
        self.history.append(row)
        _write_history(self.folder, self.history)
        score = row["val_macro_f1"] if self.settings.best == "macro_f1" else -row["val_loss"]
        if score > self.best:
            self.best = score
            self._keep(pl_module, row)
        log.info("%s", self._what(trainer.current_epoch))

    def _keep(self, learner: L.LightningModule, row: dict[str, float]) -> None:
        artefact.save_network(
            self.folder,
            learner.network,
            architecture=self.settings.architecture,
            options=self.settings.options,
            recipe=self.data.recipe,
            bands=self.data.bands,
            dates=self.data.months,
            legend=self.data.legend,
            normalisation=self.data.normalisation,
            metrics={key: row[key] for key in ("epoch", *_FIGURES, *_MORE) if key in row},
            training=asdict(self.settings),
        )


_FIGURES = ("train_loss", "val_loss", "val_accuracy", "val_macro_f1")
#: What the objectives of some networks add.
_MORE = ("val_consistency", "val_earliness")


def _begin(folder: Path, settings: Settings, data: TrainingData, resume: bool) -> Path | None:
    """Prepare the folder; return the checkpoint to continue from, if any."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = _identity(settings, data)
    found = _read_json(folder / SETTINGS)
    if resume and found is not None:
        differ = [key for key in wanted if found.get(key) != wanted[key]]
        if differ:
            parts = [f"{key} {found.get(key)} instead of {wanted[key]}" for key in differ]
            raise ArtefactError(
                f"{folder} holds another training: {'; '.join(parts)}. Choose another folder, or "
                "begin again with resume=False"
            )
        return folder / CHECKPOINT if (folder / CHECKPOINT).exists() else None
    for name in (CHECKPOINT, HISTORY, artefact.CARD, *artefact.WEIGHTS.values()):
        (folder / name).unlink(missing_ok=True)
    _write_json(folder / SETTINGS, wanted | {"finished": False})
    return None


def _identity(settings: Settings, data: TrainingData) -> dict[str, Any]:
    """Return everything that a continued training must share with its first part."""
    facts = {
        "data": data.fingerprint,
        "classes": list(data.legend.classes),
        "class_counts": np.asarray(data.class_counts).tolist(),
    }
    return json.loads(json.dumps(asdict(settings) | facts))


def _finished(folder: Path) -> bool:
    found = _read_json(folder / SETTINGS)
    return bool(found and found.get("finished"))


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtefactError(f"{path} is not JSON ({error}); begin with resume=False") from error
    return found if isinstance(found, dict) else None


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    fresh = path.with_name(f"new-{path.name}")
    fresh.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def _write_history(folder: Path, history: list[dict[str, float]]) -> None:
    fresh = folder / f"new-{HISTORY}"
    with fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    fresh.replace(folder / HISTORY)


def _read_history(folder: Path) -> list[dict[str, float]]:
    with (folder / HISTORY).open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _tensorboard(folder: Path) -> Any:
    """Return a TensorBoard logger, or False where TensorBoard is not installed."""
    with contextlib.suppress(ModuleNotFoundError):
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="", version="tensorboard")
    return False
