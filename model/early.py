"""How early crops are known: accuracy as the season goes on, and the days of decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cube.errors import ArtefactError
from model import report
from model.artefact import Artefact, load
from model.legend import IGNORE
from model.metrics import confusion_matrix, summary
from model.networks.base import SERIES, SeriesNetwork
from model.networks.early import EarlyClassifier, season_read
from model.objectives import labelled_series
from model.samples import Normalisation, inputs

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from model.samples import Batch

Model = str | Path | Artefact | nn.Module
Stage = Literal["val", "test"]

#: Last day of each month of two years without a leap day, counted on from the first January.
MONTH_ENDS = np.cumsum([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] * 2)


class SeasonData(Protocol):
    """What is asked of the data; see `TileData` and `SetData`."""

    @property
    def n_classes(self) -> int: ...  # noqa: D102
    @property
    def normalisation(self) -> Normalisation: ...  # noqa: D102
    def val_dataloader(self) -> DataLoader[Batch]: ...  # noqa: D102
    def test_dataloader(self) -> DataLoader[Batch]: ...  # noqa: D102


@dataclass(frozen=True)
class Timing:
    """When an early classifier decides, and what that costs.

    Attributes
    ----------
    accuracy, macro_f1 : float
        Of its decisions.
    season : float
        Mean share of the season before a decision, over samples with any date: 0 at the first
        date, 1 at the last.
    day : float
        Median day of the year of a decision.
    accuracy_all, macro_f1_all : float
        Of the same network when it reads every date.
    """

    accuracy: float
    macro_f1: float
    season: float
    day: float
    accuracy_all: float
    macro_f1_all: float


def accuracy_by_month(
    model: Model,
    data: SeasonData,
    stage: Stage = "test",
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Return how well crops are known after each month of the season.

    Later dates are hidden as if they had not come yet. A sample counts in every month, also where
    it has no date yet: the network answers what it answers without having seen anything.

    Parameters
    ----------
    model : path, Artefact or nn.Module
        A causal network, see `model.networks.describe`.
    data : SeasonData
        `SetData` or `TileData`.
    stage : {"test", "val"}
    progress : callable, optional
        Called with (batches done, 0, what).

    Returns
    -------
    DataFrame
        From the month of the first date to that of the last: ``month`` (1 = January, 13 = the
        January after), ``until`` (its last day), ``dates`` (mean number of valid dates so far),
        ``accuracy`` and ``macro_f1`` of the labelled pixels.

    Raises
    ------
    ArtefactError
        If the model is not causal, or was trained with another normalisation.
    """
    network = _network(model, data)
    if not getattr(network, "causal", False):
        raise ArtefactError(
            "accuracy by month needs a causal network, which reads the dates once and in order; "
            "`cropcube models --json` says which are, elects, lstm and gru are among them"
        )
    k, months = data.n_classes, len(MONTH_ENDS)
    matrices = np.zeros((months, k, k), np.int64)
    dates, first, last = np.zeros((months, 2)), months, 0
    for done, batch in enumerate(_batches(network, data, stage), start=1):
        day = season_days(batch["doy"])
        seen_at_all = _samples_valid(batch)
        first = min(first, int(np.searchsorted(MONTH_ENDS, int(day[seen_at_all].min()))))
        last = max(last, int(np.searchsorted(MONTH_ENDS, int(day[seen_at_all].max()))))
        found: tuple[np.ndarray, float] | None = None
        for month, end in enumerate(MONTH_ENDS):
            fresh = (day <= end) & (day > (MONTH_ENDS[month - 1] if month else -1)) & seen_at_all
            if found is None or bool(fresh.any()):
                found = _until(network, batch, day <= int(end), k)
            matrices[month] += found[0]
            dates[month] += found[1], found[0].sum()
        if progress:
            progress(done, 0, "batches")
    rows = [
        {
            "month": month + 1,
            "until": int(MONTH_ENDS[month]),
            "dates": dates[month, 0] / max(1, dates[month, 1]),
            "accuracy": summary(matrices[month])["accuracy"],
            "macro_f1": summary(matrices[month])["f1"],
        }
        for month in range(first, last + 1)
    ]
    return pd.DataFrame(rows)


def timing(model: Model, data: SeasonData, stage: Stage = "test") -> Timing:
    """Return when an early classifier decides, and what that costs against reading every date.

    Raises
    ------
    ArtefactError
        If the model is no early classifier, or was trained with another normalisation.
    """
    network = early_classifier(_network(model, data))
    k = data.n_classes
    matrices = np.zeros((2, k, k), np.int64)
    read, days = [], []
    for batch in _batches(network, data, stage):
        x, valid, doy, y = labelled_series(batch)
        found = network.decisions(x, valid, doy)
        date = network.date(found)
        last = torch.where(valid, torch.arange(valid.shape[1]), 0).amax(dim=1)
        for matrix, dates in zip(matrices, (date, last), strict=True):
            predicted = found.logits_at(dates).argmax(dim=1)
            matrix += confusion_matrix(y.numpy(), predicted.numpy(), k)
        seen = valid.any(dim=1)
        read.append(season_read(date, valid)[seen])
        days.append(season_days(doy).gather(1, date[:, None]).squeeze(1)[seen])
    early, whole = (summary(matrix) for matrix in matrices)
    return Timing(
        accuracy=float(early["accuracy"]),
        macro_f1=float(early["f1"]),
        season=float(torch.cat(read).mean()),
        day=float(np.median(torch.cat(days).numpy())),
        accuracy_all=float(whole["accuracy"]),
        macro_f1_all=float(whole["f1"]),
    )


def sweep(
    data: Any,
    out: str | Path,
    alphas: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0),
    *,
    stage: Stage = "test",
    **settings: Any,
) -> pd.DataFrame:
    """Train an early classifier per alpha, and return what each trades between right and early.

    Parameters
    ----------
    data : SetData or TileData
    out : path
        Folder with a training per alpha, ``sweep.csv`` and ``sweep.png``. Finished trainings are
        not done again.
    alphas : sequence of float
        Weight of being right against being early; 1 rewards no earliness.
    stage : {"test", "val"}
        What the figures are of.
    **settings
        Of `model.train`.

    Returns
    -------
    DataFrame
        ``alpha`` and the fields of `Timing`, a row per alpha.
    """
    from model.train import train

    out, rows = Path(out), []
    for alpha in alphas:
        loss = f"early-reward:{alpha:g}"
        run = train("elects", data, out / f"alpha-{alpha:g}", loss=loss, **settings)
        rows.append({"alpha": alpha, **asdict(timing(run.folder, data, stage))})
    table = pd.DataFrame(rows)
    table.to_csv(out / "sweep.csv", index=False, float_format="%.4f")
    report.sweep_picture(table, out / "sweep.png")
    return table


def decision_days(
    network: EarlyClassifier, normalisation: Normalisation, doy: np.ndarray, window: np.ndarray
) -> np.ndarray:
    """Return the day of the year at which each pixel of a window is decided.

    Parameters
    ----------
    network : EarlyClassifier
    normalisation : Normalisation
        Of its training.
    doy : int [T]
        Day of the year of each date.
    window : uint16 [T, B, y, x]
        DN, 0 = no data.

    Returns
    -------
    uint16 [y, x]
        0 where no date is valid.
    """
    x, valid = normalisation.apply(window)
    there = valid.any(axis=0)
    out = np.zeros(there.shape, np.uint16)
    series = torch.from_numpy(np.ascontiguousarray(x[:, :, there].transpose(2, 0, 1)))
    seen = torch.from_numpy(np.ascontiguousarray(valid[:, there].T))
    day = torch.as_tensor(doy)
    with torch.inference_mode():
        parts = [
            network.date(network.decisions(a, b, day.expand(len(a), -1)))
            for a, b in zip(series.split(SERIES), seen.split(SERIES), strict=True)
            if len(a)
        ]
    out[there] = doy[torch.cat(parts).numpy()] if parts else 0
    return out


def early_classifier(network: nn.Module) -> EarlyClassifier:
    """Return the network if it decides by date.

    Raises
    ------
    ArtefactError
        If it does not.
    """
    if not isinstance(network, EarlyClassifier):
        raise ArtefactError(
            f"{type(network).__name__} reads the whole series and has no date of decision; train "
            "'elects'"
        )
    return network


def season_days(doy: Tensor) -> Tensor:
    """Return days [N, T] that go on from 366 where a season crosses the new year."""
    turned = (doy.diff(dim=1) < 0) & (doy[:, 1:] > 0)
    years = torch.nn.functional.pad(turned.cumsum(dim=1), (1, 0))
    return doy + 365 * years


def _network(model: Model, data: SeasonData) -> nn.Module:
    """Return the network in evaluation mode, once it is sure that it fits the data."""
    if isinstance(model, nn.Module):
        return model.eval()
    found = model if isinstance(model, Artefact) else load(model)
    if found.normalisation != data.normalisation:
        raise ArtefactError(
            f"{found.folder} was trained with another normalisation than the data have; give them "
            "normalisation=load(folder).normalisation"
        )
    return found.network()


def _batches(network: nn.Module, data: SeasonData, stage: Stage) -> Iterator[Batch]:
    """Yield the batches with labels; windows as series where the network takes single pixels."""
    loader = data.test_dataloader() if stage == "test" else data.val_dataloader()
    with torch.inference_mode():
        for batch in loader:
            if not bool((batch["y"] != IGNORE).any()):
                continue
            if isinstance(network, SeriesNetwork):
                names = ("x", "valid", "doy", "y")
                yield dict(zip(names, labelled_series(batch), strict=True))
            else:
                yield batch


def _samples_valid(batch: Batch) -> Tensor:
    """Return bool [B, T], the dates at which a sample holds anything valid."""
    valid = batch["valid"]
    return valid.flatten(2).any(dim=2) if valid.ndim > 2 else valid


def _until(network: nn.Module, batch: Batch, known: Tensor, k: int) -> tuple[np.ndarray, float]:
    """Return the confusion of a batch when only the `known` [B, T] dates are, and their number."""
    valid, y = batch["valid"], batch["y"]
    valid = valid & known.reshape(*known.shape, *(1,) * (valid.ndim - 2))
    predicted = network(**inputs(batch | {"valid": valid})).argmax(dim=1)
    dates = (valid if y.ndim > 1 else _samples_valid({"valid": valid})).sum(dim=1)
    total = float(dates[y != IGNORE].sum())
    return confusion_matrix(y.numpy(), predicted.numpy(), k), total
