"""A network while it learns: loss, validation figures, optimiser and learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from cube.errors import SplitError
from model import networks
from model.hierarchy import Tree
from model.losses import IGNORE, Scheme
from model.metrics import summary
from model.objectives import Judged, Loss, objective_for

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from cube.recipe import Recipe
    from model.legend import Legend
    from model.networks.catalogue import Input
    from model.samples import Batch, Normalisation

Schedule = Literal["one-cycle", "constant"]


@dataclass(frozen=True)
class Settings:
    """What decides the weights, apart from the data; see `model.train.train`.

    ``loss`` is empty for the network's own, ``tree`` a `Tree` as plain types, ``start`` the hash of
    the weights that the training begins with.
    """

    architecture: str
    options: dict[str, Any]
    epochs: int
    lr: float
    weight_decay: float
    schedule: Schedule
    precision: str
    patience: int
    seed: int
    class_weights: Scheme
    best: Literal["macro_f1", "loss"]
    loss: str = ""
    tree: dict[str, Any] | None = None
    start: str = ""


class TrainingData(Protocol):
    """What a training asks of its data; see `TileData` and `SetData`."""

    seed: int

    @property
    def kind(self) -> Input: ...  # noqa: D102
    @property
    def recipe(self) -> Recipe | None: ...  # noqa: D102
    @property
    def legend(self) -> Legend: ...  # noqa: D102
    @property
    def bands(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def n_classes(self) -> int: ...  # noqa: D102
    @property
    def months(self) -> int: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def class_counts(self) -> np.ndarray: ...  # noqa: D102
    @property
    def normalisation(self) -> Normalisation: ...  # noqa: D102
    def samples(self, stage: str) -> int: ...  # noqa: D102
    def train_dataloader(self) -> DataLoader[Batch]: ...  # noqa: D102
    def val_dataloader(self) -> DataLoader[Batch]: ...  # noqa: D102


class Learner(L.LightningModule):
    """A network with its loss and optimiser.

    Parameters
    ----------
    settings : Settings
    data : TrainingData
        Gives bands, months, classes and their counts.
    steps : int, optional
        Batches per epoch. Without it the learning rate moves once per epoch, not at every step.
    """

    def __init__(self, settings: Settings, data: TrainingData, steps: int | None = None) -> None:
        super().__init__()
        self.settings, self.steps = settings, steps
        self.n_classes = data.n_classes
        self.network: nn.Module = networks.create(
            settings.architecture,
            c_in=len(data.bands),
            n_classes=data.n_classes,
            months=data.months,
            **settings.options,
        )
        self.objective = objective_for(
            self.network,
            Loss.read(settings.loss) if settings.loss else None,
            data.class_counts,
            settings.class_weights,
            None if settings.tree is None else Tree.from_dict(settings.tree),
        )

    def forward(self, batch: dict[str, Tensor]) -> Judged:
        """Return how the network does on a batch."""
        judged: Judged = self.objective(self.network, batch)
        return judged

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        """Return the loss of a batch."""
        judged = self(batch)
        loss = self.objective.loss(judged.total, judged.weight)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["x"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        k, parts = self.n_classes, len(self.objective.shares)
        self._matrix = torch.zeros(k * k, dtype=torch.int64, device=self.device)
        self._loss = torch.zeros(2, parts, dtype=torch.float64, device=self.device)
        self._figure = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        """Add a batch to the confusion matrix and the loss; exact for batches of any size."""
        judged = self(batch)
        self._loss += torch.stack([judged.total, judged.weight]).to(self._loss)
        self._figure += judged.figure.to(self._figure)
        labelled = judged.y != IGNORE
        predicted = judged.logits.argmax(dim=1)[labelled]
        pairs = judged.y[labelled] * self.n_classes + predicted
        self._matrix += torch.bincount(pairs, minlength=len(self._matrix))

    def on_validation_epoch_end(self) -> None:
        """Log loss, accuracy and macro-F1 over the classes that occur."""
        matrix = self._matrix.reshape(self.n_classes, -1).cpu().numpy()
        if not matrix.any():
            raise SplitError(
                "no pixel of the validation groups is labelled; move groups with parcels to val"
            )
        scores = summary(matrix)
        self.log("val_loss", self.objective.loss(*self._loss))
        self.log("val_accuracy", scores["accuracy"])
        self.log("val_macro_f1", scores["f1"])
        if self.objective.figure:
            total, count = self._figure.tolist()
            self.log(self.objective.figure, total / max(count, 1))

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule."""
        settings = self.settings
        undecayed = getattr(self.network, "undecayed", ())
        apart = [p for name, p in self.network.named_parameters() if name in undecayed]
        others = [p for name, p in self.network.named_parameters() if name not in undecayed]
        groups: list[dict[str, Any]] = [{"params": others}]
        if apart:
            groups.append({"params": apart, "weight_decay": 0.0})
        optimiser = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
        if settings.schedule == "constant":
            return optimiser
        total = settings.epochs * (self.steps or 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: one_cycle(n / total))
        interval = "step" if self.steps else "epoch"
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": interval},
        }


def one_cycle(progress: float) -> float:
    """Return the factor on the learning rate after a share `progress` of all steps.

    From 0.1 up to 1 during the first tenth, then half a cosine down to 0.01.
    """
    warm_up = 0.1
    if progress < warm_up:
        return 0.1 + 0.9 * progress / warm_up
    falling = min(1.0, (progress - warm_up) / (1 - warm_up))
    return 0.01 + 0.99 * (1 + float(np.cos(np.pi * falling))) / 2
