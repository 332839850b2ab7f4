"""What a training minimises: one object that judges a network on a batch.

Which one follows from the network: by the loss of its logits, by the losses of its label levels, or
by how early and how rightly it decides. All return sums that add up exactly over batches of any
size, so that the loss of a validation does not depend on how it is cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from cube.errors import ArtefactError
from model.hierarchy import Tree
from model.legend import IGNORE
from model.losses import CrossEntropy, Focal, LogitAdjusted, Scheme, class_weights
from model.networks.base import SeriesNetwork
from model.networks.early import EarlyClassifier, early_reward_sums, season_read
from model.samples import inputs

LossName = Literal["cross-entropy", "focal", "logit-adjusted", "early-reward"]

#: What the figure of a loss is called, and its value in the paper that proposes it.
_FIGURE = {
    "focal": ("gamma", 2.0),
    "logit-adjusted": ("tau", 1.0),
    "early-reward": ("alpha", 0.5),
}


@dataclass(frozen=True)
class Loss:
    """Name of a loss and its one figure.

    Attributes
    ----------
    name : {"cross-entropy", "focal", "logit-adjusted", "early-reward"}
    figure : float
        gamma of ``focal``, tau of ``logit-adjusted``, alpha of ``early-reward``; 0 for
        ``cross-entropy``, which has none.
    """

    name: LossName
    figure: float = 0.0

    @classmethod
    def read(cls, text: str) -> Loss:
        """Return what ``focal`` or ``focal:1.5`` says.

        Raises
        ------
        ArtefactError
            If the loss is unknown, has no figure, or the figure is out of range.
        """
        name, colon, given = text.partition(":")
        if name not in get_args(LossName):
            known = ", ".join(get_args(LossName))
            raise ArtefactError(f"loss '{name}' is unknown; choose one of {known}")
        if name not in _FIGURE:
            if colon:
                raise ArtefactError(f"loss '{text}': {name} takes no figure; leave it out")
            return cls("cross-entropy")
        what, usual = _FIGURE[name]
        try:
            figure = float(given) if colon else usual
        except ValueError:
            figure = float("nan")
        highest = 1.0 if name == "early-reward" else float("inf")
        if not 0 <= figure <= highest:
            raise ArtefactError(
                f"loss '{text}': {what} is a number from 0 to {highest}, as in '{name}:{usual}'"
            )
        return cls(name, figure)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return the text that `read` understands."""
        return f"{self.name}:{self.figure:g}" if self.name in _FIGURE else self.name


@dataclass(frozen=True)
class Judged:
    """How a network does on a batch.

    Attributes
    ----------
    total, weight : Tensor
        float [L], summed loss and summed weight of each of the L parts of the loss.
    logits : Tensor
        float [N, K, ...], from which the class is taken.
    y : Tensor
        int64 [N, ...], the labels that belong to the logits; 255 = ignore.
    figure : Tensor
        float [2], sum and count of the figure that the objective adds to those of validation.
    """

    total: Tensor
    weight: Tensor
    logits: Tensor
    y: Tensor
    figure: Tensor


class Objective(nn.Module):
    """What judges a network on a batch.

    Attributes
    ----------
    figure : str
        Name of the figure it adds to those of validation; empty for none.
    shares : Tensor
        float [L], the weight of each part of the loss.
    """

    figure: str = ""
    shares: Tensor

    def __init__(self, shares: tuple[float, ...] = (1.0,)) -> None:
        super().__init__()
        self.register_buffer("shares", torch.tensor(shares), persistent=False)

    def forward(self, network: nn.Module, batch: dict[str, Tensor]) -> Judged:
        """Return how `network` does on a batch of `model.tiles` or `model.setdata`."""
        raise NotImplementedError

    def loss(self, total: Tensor, weight: Tensor) -> Tensor:
        """Return the loss from summed losses and weights, of one batch or of many together."""
        return (self.shares * total / weight.clamp(min=torch.finfo(weight.dtype).tiny)).sum()


class LogitObjective(Objective):
    """The loss of the logits that the network returns.

    Parameters
    ----------
    criterion : CrossEntropy
        Or one of its kind: focal, logit-adjusted.
    """

    def __init__(self, criterion: CrossEntropy) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, network: nn.Module, batch: dict[str, Tensor]) -> Judged:
        """See `Objective.forward`; networks of single pixels see those with a label only."""
        if isinstance(network, SeriesNetwork):
            *given, y = labelled_series(batch)
            logits = network(*given)
        else:
            logits, y = network(**inputs(batch)), batch["y"]
        total, weight = self.criterion.sums(logits, y)
        return Judged(total[None], weight[None], logits, y, torch.zeros(2, device=logits.device))


class LevelsObjective(Objective):
    """The losses of all label levels, for networks with a method `levels`.

    Follows Turkoglu et al. (2021), arXiv 2102.08820: the finest level and its refinement count 1,
    the level above 0.5, the one above that 0.1. Different here: background is a class of every
    level, and a pixel whose class has no parent at a level is ignored there alone.

    Parameters
    ----------
    tree : Tree
    coarse : list of CrossEntropy
        Loss of each coarser level, coarsest first.
    fine : CrossEntropy
        Loss of the finest level and of its refinement.
    refined : bool
        Whether the network refines its finest logits.
    """

    figure = "val_consistency"
    tables: Tensor

    def __init__(
        self, tree: Tree, coarse: list[CrossEntropy], fine: CrossEntropy, refined: bool
    ) -> None:
        super().__init__((*tree.weights, *(1.0 for _ in range(1 + refined))))
        self.criteria = nn.ModuleList([*coarse, *(fine for _ in range(1 + refined))])
        tables = np.stack([tree.table(level) for level in range(len(tree.levels))])
        self.register_buffer("tables", torch.from_numpy(tables), persistent=False)

    def forward(self, network: nn.Module, batch: dict[str, Tensor]) -> Judged:
        """See `Objective.forward`."""
        logits = network.levels(**inputs(batch))  # type: ignore[operator]
        y = batch["y"]
        truths = [*(table[y] for table in self.tables)]
        truths += [y] * (len(logits) - len(truths))
        pairs = zip(self.criteria, logits, truths, strict=True)
        parts = [criterion.sums(scores, truth) for criterion, scores, truth in pairs]  # type: ignore[operator]
        total, weight = (torch.stack([part[i] for part in parts]) for i in (0, 1))
        return Judged(total, weight, logits[-1], y, self._consistency(logits, y))

    def _consistency(self, logits: tuple[Tensor, ...], y: Tensor) -> Tensor:
        """Return labelled pixels whose class lies below the class of the level above, and all."""
        above = len(self.tables) - 1
        parent = self.tables[above][logits[-1].argmax(dim=1)]
        counted = (y != IGNORE) & (parent != IGNORE)
        agree = (parent == logits[above].argmax(dim=1)) & counted
        return torch.stack([agree.sum(), counted.sum()]).float()


class EarlyObjective(Objective):
    """The reward for being right and early, for early classifiers; see `early_reward_loss`.

    Labelled pixels of windows count as series; others are not looked at.

    Parameters
    ----------
    alpha : float
        Weight of being right against being early.
    weights : ndarray, optional
        float [K], of the classes.
    """

    figure = "val_earliness"
    weights: Tensor | None

    def __init__(self, alpha: float, weights: np.ndarray | None = None) -> None:
        super().__init__()
        self.alpha = alpha
        tensor = None if weights is None else torch.as_tensor(weights, dtype=torch.float32)
        self.register_buffer("weights", tensor, persistent=False)

    def forward(self, network: nn.Module, batch: dict[str, Tensor]) -> Judged:
        """See `Objective.forward`."""
        x, valid, doy, y = labelled_series(batch)
        early = cast(EarlyClassifier, network)
        found = early.decisions(x, valid, doy)
        total, weight = early_reward_sums(found, valid, y, self.alpha, weights=self.weights)
        date = early.date(found)
        read = season_read(date, valid)[(y != IGNORE) & valid.any(dim=1)]
        figure = torch.stack([(1 - read).sum(), read.new_tensor(len(read))])
        return Judged(total[None], weight[None], found.logits_at(date), y, figure)


def labelled_series(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x [N, C, T], valid [N, T], doy [N, T] and y [N] of the labelled samples or pixels.

    One that is ignored stands for them where nothing is labelled: recurrent layers take no empty
    batch.
    """
    x, valid, doy, y = (batch[name] for name in ("x", "valid", "doy", "y"))
    labelled = y != IGNORE
    if not bool(labelled.any()):
        labelled = torch.zeros_like(labelled)
        labelled.view(-1)[0] = True
    if y.ndim == 1:
        return x[labelled], valid[labelled], doy[labelled], y[labelled]
    window = labelled.nonzero()[:, 0]
    x = x.permute(0, 3, 4, 1, 2)[labelled]
    return x, valid.permute(0, 2, 3, 1)[labelled], doy[window], y[labelled]


def objective_for(
    network: nn.Module,
    loss: Loss | None,
    counts: np.ndarray,
    scheme: Scheme = "none",
    tree: Tree | None = None,
) -> Objective:
    """Return what a network is judged by.

    Parameters
    ----------
    network : nn.Module
    loss : Loss or None
        None: ``early-reward`` for early classifiers, ``cross-entropy`` for others.
    counts : int [K]
        Training labels per class, for weights and priors.
    scheme : {"none", "sqrt", "effective", "inverse"}
        Class weights, at each level those of its own counts.
    tree : Tree, optional
        Levels above the classes; makes a network with a method `levels` learn them all.

    Raises
    ------
    ArtefactError
        If the loss is not for such a network.
    """
    early = isinstance(network, EarlyClassifier)
    loss = loss or Loss.read("early-reward" if early else "cross-entropy")
    if early != (loss.name == "early-reward"):
        raise ArtefactError(
            f"loss '{loss}' is not for this network: early classifiers learn by 'early-reward', "
            "and only they"
        )
    if early:
        return EarlyObjective(loss.figure, _weights(counts, scheme))
    fine = _criterion(loss, counts, scheme)
    if tree is None or not hasattr(network, "levels"):
        return LogitObjective(fine)
    coarse = [
        _criterion(loss, tree.counts(level, counts), scheme) for level in range(len(tree.levels))
    ]
    refined = getattr(network, "refine", None) is not None
    return LevelsObjective(tree, coarse, fine, refined)


def _criterion(loss: Loss, counts: np.ndarray, scheme: Scheme) -> CrossEntropy:
    weights = _weights(counts, scheme)
    if loss.name == "focal":
        return Focal(loss.figure, weights)
    if loss.name == "logit-adjusted":
        return LogitAdjusted(counts, loss.figure, weights)
    return CrossEntropy(weights)


def _weights(counts: np.ndarray, scheme: Scheme) -> np.ndarray | None:
    return None if scheme == "none" else class_weights(counts, scheme)
