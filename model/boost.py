"""The XGBoost baseline on Dask: one pixel, one series, no neighbours.

Features are the monthly reflectances in time-major order (January's bands, February's, …), 0 = no
data becoming NaN, which XGBoost treats as missing. Chunks are the tiles: each is sampled with a cap
per class, so that a tile of wheat does not drown the rare crops and memory is bounded by tiles ×
classes × cap, whatever the size of the cubes.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xgboost as xgb

from cube.errors import SplitError
from cube.objects import at
from model import artefact
from model.artefact import Run
from model.boost_cluster import Progress, cluster, rounds_told, survive
from model.boost_data import Codes, Sampling, features, sample_tile

if TYPE_CHECKING:
    from distributed import Client

    from model.tiles import TileData

log = logging.getLogger(__name__)

#: Rows classified at once; bounds the memory of a prediction.
ROWS = 1 << 18


class BoostPredictor:
    """Class probabilities from a trained booster, pixel by pixel.

    Parameters
    ----------
    booster : xgboost.Booster
        Trained on the table of `features`.
    codes : Codes
        What its outputs mean.
    """

    halo = 0
    stride = block = 1

    def __init__(self, booster: xgb.Booster, codes: Codes) -> None:
        self.booster, self.codes = booster, codes

    @classmethod
    def from_file(cls, path: Path, classes: list[int], n_classes: int) -> BoostPredictor:
        """Read ``model.ubj``."""
        return cls(xgb.Booster(model_file=path), Codes(tuple(classes), n_classes))

    def probabilities(
        self, reflectance: np.ndarray, wanted: np.ndarray | None = None
    ) -> np.ndarray:
        """Return float32 [K, y, x] from uint16 [T, C, y, x]; NaN where every value is missing.

        Where `wanted` (bool [y, x], default everywhere) is false, the result is NaN as well.
        """
        t, c, height, width = reflectance.shape
        series = reflectance.reshape(t, c, -1)
        places = np.arange(height * width) if wanted is None else np.flatnonzero(wanted)
        full = np.full((self.codes.n_classes, height * width), np.nan, dtype=np.float32)
        for start in range(0, len(places), ROWS):
            some = places[start : start + ROWS]
            full[:, some] = self._rows(series[:, :, some].transpose(2, 1, 0)).T
        return full.reshape(-1, height, width)

    def _rows(self, series: np.ndarray) -> np.ndarray:
        table = features(series)
        found = self.booster.inplace_predict(table, missing=np.nan, strict_shape=True)
        full = self.codes.expand(found)
        full[np.isnan(table).all(axis=1)] = np.nan
        return full


@dataclass(frozen=True)
class Settings:
    """What decides the trees; everything is stored with the model.

    Attributes
    ----------
    rounds : int
        Most boosting rounds (each grows one tree per class).
    max_depth, learning_rate :
        As in XGBoost; 6 and 0.1 are the better half of the reference study's grid.
    patience : int
        Stop after so many rounds without a better validation log-loss; the best round is kept.
    subsample, colsample_bytree, min_child_weight :
        As in XGBoost. Pixels of one parcel are nearly copies of each other and months of one band
        nearly so: trees on part of both, with leaves that hold more than a few pixels, do better
        on parcels they have not seen.
    """

    rounds: int
    max_depth: int
    learning_rate: float
    patience: int
    seed: int
    subsample: float = 0.8
    colsample_bytree: float = 0.5
    min_child_weight: float = 10.0

    def parameters(self, n_codes: int) -> dict[str, Any]:
        """Return XGBoost's own parameters."""
        return {
            "objective": "multi:softprob",
            "num_class": n_codes,
            "eval_metric": "mlogloss",
            "tree_method": "hist",
            "max_depth": self.max_depth,
            "learning_rate": self.learning_rate,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample_bytree,
            "min_child_weight": self.min_child_weight,
            "seed": self.seed,
            "verbosity": 0,
        }


def boost(
    data: TileData,
    out: str | Path,
    *,
    client: Client | None = None,
    rounds: int = 200,
    max_depth: int = 6,
    learning_rate: float = 0.1,
    patience: int = 10,
    cap: int = 2000,
    prior: float = 0.5,
    seed: int = 0,
    retries: int = 3,
    progress: Progress | None = None,
) -> Run:
    """Train the XGBoost baseline on the pixels of the training groups.

    Parameters
    ----------
    data : TileData
        Tiles with labels and a split; validation pixels come from its ``val`` groups.
    out : path
        Folder of the artefact (``model.json``, ``model.ubj``).
    client : distributed.Client, optional
        Cluster that samples the tiles and grows the trees; default a temporary one in this process.
    rounds, max_depth, learning_rate, patience, seed :
        See `Settings`.
    cap : int
        Most pixels per class and tile; `prior` is the exponent of their weights (`Sampling`).
    retries : int
        How often training starts again from the same tiles after a worker was lost.
    progress : callable, optional
        Called with (rounds done, rounds at most, "boosting").

    Returns
    -------
    Run
        Folder and metrics: rounds kept, train and validation log-loss, pixels used.

    Raises
    ------
    SplitError
        If fewer than two classes have training pixels.
    ClusterLostError
        If workers are lost more than `retries` times, or none comes back.

    Notes
    -----
    XGBoost cannot go on when a worker disappears (its collective fails as a whole), so the whole
    training starts again. Seeded runs with the same workers give the same model.
    """
    codes = Codes.of(np.asarray(data.class_counts))
    sampling = Sampling(cap, prior, seed)
    settings = Settings(rounds, max_depth, learning_rate, patience, seed)
    with cluster(client) as active, rounds_told(active, rounds, progress) as callbacks:
        fit = _Fit(active, data, codes, sampling, settings, callbacks)
        booster, facts = survive(active, fit, retries)
    return _save(Path(out), data, booster, codes, sampling, settings, facts)


@dataclass(frozen=True)
class _Fit:
    """One attempt: sample the tiles, build the matrices, grow the trees."""

    client: Client
    data: TileData
    codes: Codes
    sampling: Sampling
    settings: Settings
    callbacks: list[xgb.callback.TrainingCallback]

    def __call__(self) -> tuple[xgb.Booster, dict[str, Any]]:
        from xgboost import dask as dxgb

        train, n_train = self.matrix("train")
        if train is None:
            raise SplitError("the training groups hold no labelled pixel with data")
        val, n_val = self.matrix("val", ref=train)
        callbacks = list(self.callbacks)
        evals = [(train, "train")]
        if val is not None:
            evals.append((val, "val"))
            callbacks.append(self.stop())
        else:
            log.warning("no validation pixels: all %d rounds are kept", self.settings.rounds)
        # XGBoost hands its global settings to the workers; their chatter is not for stderr.
        with xgb.config_context(verbosity=0):
            result = dxgb.train(
                self.client,
                self.settings.parameters(len(self.codes.classes)),
                train,
                num_boost_round=self.settings.rounds,
                evals=evals,
                callbacks=callbacks,
                verbose_eval=False,
            )
        pixels = {"train_pixels": n_train, "val_pixels": n_val}
        return result["booster"], pixels | _losses(result["history"])

    def stop(self) -> xgb.callback.EarlyStopping:
        """Early stopping on the validation groups; only the best rounds are kept."""
        return xgb.callback.EarlyStopping(
            rounds=self.settings.patience,
            metric_name="mlogloss",
            data_name="val",
            save_best=True,
        )

    def matrix(self, stage: str, ref: Any = None) -> tuple[Any, int]:
        """Return a DaskQuantileDMatrix of the sampled pixels of `stage`, and their number."""
        import dask.array as da
        from xgboost import dask as dxgb

        chunks = self.chunks(stage)
        if not chunks:
            return None, 0
        width = chunks[0][1][1]
        table = da.concatenate(
            [da.from_delayed(future, shape, dtype=np.float32) for future, shape in chunks]
        )
        matrix = dxgb.DaskQuantileDMatrix(
            self.client,
            table[:, : width - 2],
            table[:, width - 2],
            weight=table[:, width - 1],
            missing=np.nan,
            ref=ref,
        )
        return matrix, sum(shape[0] for _, shape in chunks)

    def chunks(self, stage: str) -> list[tuple[Any, tuple[int, int]]]:
        """Return each tile's sample, held by a worker, and its shape; empty ones are left out."""
        index = self.client.scatter(self.data.index, broadcast=True, hash=False)
        store = at(self.data.store).absolute().place
        tiles = {int(number) for number in self.data.index.entries[stage][:, 0]}
        # Tasks, not scattered arrays: what a lost worker held is sampled again.
        futures = [
            self.client.submit(
                sample_tile, store, index, stage, number, self.codes, self.sampling, pure=False
            )
            for number in sorted(tiles)
        ]
        shapes = self.client.gather(self.client.map(np.shape, futures, pure=False))
        return [(f, shape) for f, shape in zip(futures, shapes, strict=True) if shape[0]]


def _losses(history: dict[str, dict[str, list[float]]]) -> dict[str, float | int]:
    """Return the losses of the round that is kept: the best one, or the last without validation."""
    train = history["train"]["mlogloss"]
    if "val" not in history:
        return {"rounds": len(train), "train_loss": float(train[-1])}
    val = history["val"]["mlogloss"]
    best = int(np.argmin(val))
    return {
        "rounds": best + 1,
        "rounds_tried": len(val),
        "train_loss": float(train[best]),
        "val_loss": float(val[best]),
    }


def _save(
    out: Path,
    data: TileData,
    booster: xgb.Booster,
    codes: Codes,
    sampling: Sampling,
    settings: Settings,
    metrics: dict[str, Any],
) -> Run:
    artefact.save(
        out,
        kind="xgboost",
        architecture="xgboost",
        options={"classes": list(codes.classes)},
        recipe=data.recipe,
        legend=data.legend,
        normalisation=data.normalisation,
        metrics=metrics,
        weights_writer=booster.save_model,
        training=asdict(settings) | asdict(sampling),
    )
    return Run(out, metrics)
