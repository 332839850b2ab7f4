"""Random Forest and XGBoost on samples in memory: the baselines of every comparison.

Both learn from monthly medians that are filled linearly (`model.features`). `model.boost` is the
same for cubes that are larger than memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cube.errors import ArtefactError, LabelError
from model import artefact
from model.artefact import Artefact, Run
from model.boost_data import Codes
from model.features import Months
from model.forest import Forest
from model.legend import IGNORE
from model.samples import days_of_year

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

    from model.sampleset import SampleSet
    from model.setdata import SetData

#: Series that are turned into a table at once.
ROWS = 1 << 16


class _Trees(Protocol):
    def probabilities(self, table: np.ndarray) -> np.ndarray: ...


def train_forest(
    data: SetData,
    out: str | Path,
    *,
    trees: int = 300,
    min_leaf: int = 1,
    stages: Sequence[str] = ("train",),
    most: int = 200_000,
    seed: int = 0,
) -> Run:
    """Train a Random Forest on series.

    Follows Breiman (2001), Machine Learning 45(1), as scikit-learn grows it: each tree from as many
    rows drawn with replacement, the best of √features at each node.

    Parameters
    ----------
    data : SetData
        Series, or windows, whose labelled pixels are series.
    out : path
        Folder of the artefact (``model.json``, ``forest.safetensors``).
    trees : int
    min_leaf : int
        Least rows of a leaf.
    stages : sequence of str
        Which stages it learns from. It chooses nothing by validation samples, so it may have them.
    most : int
        Most series; of more, so many are drawn.
    seed : int
        Decides rows and features of each tree, and which series are drawn.

    Returns
    -------
    Run
        Folder; ``series`` learned from and ``nodes`` of the trees.

    Raises
    ------
    SplitError
        If fewer than two classes are labelled.
    LabelError
        If the samples are not series or windows.
    """
    from sklearn.ensemble import RandomForestClassifier

    months, table, codes, y = _training(data, stages, most, seed)
    grown: RandomForestClassifier = RandomForestClassifier(
        trees, min_samples_leaf=min_leaf, random_state=seed, n_jobs=_threads()
    ).fit(table, y)
    forest = Forest.of(grown)
    return _save(
        out,
        data,
        months,
        codes,
        kind="forest",
        writer=forest.save,
        metrics={"series": len(table), "nodes": forest.nodes},
        training={"trees": trees, "min_leaf": min_leaf, "seed": seed, "stages": list(stages)},
    )


def boost_set(
    data: SetData,
    out: str | Path,
    *,
    rounds: int = 300,
    max_depth: int = 6,
    learning_rate: float = 0.1,
    stages: Sequence[str] = ("train",),
    most: int = 200_000,
    seed: int = 0,
) -> Run:
    """Train XGBoost on series, all rounds; other parameters and errors as for `train_forest`.

    Follows Chen and Guestrin (2016), arXiv 1603.02754.

    Parameters
    ----------
    data, out, stages, most, seed
        See `train_forest`; without sampling of rows or columns the seed draws series only.
    rounds, max_depth, learning_rate
        As in XGBoost.

    Returns
    -------
    Run
        Folder; ``series`` learned from and ``nodes`` of the trees.
    """
    import xgboost as xgb

    months, table, codes, y = _training(data, stages, most, seed)
    settings = {
        "objective": "multi:softprob",
        "num_class": len(codes.classes),
        "max_depth": max_depth,
        "learning_rate": learning_rate,
        "tree_method": "hist",
        "seed": seed,
        "nthread": _threads(),
    }
    booster = xgb.train(settings, xgb.DMatrix(table, y), rounds)
    nodes = sum(tree.count("\n") for tree in booster.get_dump())
    return _save(
        out,
        data,
        months,
        codes,
        kind="xgboost",
        writer=booster.save_model,
        metrics={"series": len(table), "nodes": nodes},
        training=settings | {"rounds": rounds, "stages": list(stages)},
    )


def predict_trees(trained: Artefact, data: SetData, stage: str) -> np.ndarray:
    """Return class probabilities of the samples of a stage; see `model.evaluate_set.predict_set`.

    Returns
    -------
    float32 [N, K], or [N, K, H, W] for windows
        NaN where no date is valid.

    Raises
    ------
    ArtefactError
        If the model is not one of series, or knows other bands.
    """
    rows = data.stage_rows[stage]
    samples = data.set
    if trained.bands != samples.bands:
        raise ArtefactError(
            f"{trained.folder} knows the bands {', '.join(trained.bands)}, and {samples.name} has "
            f"{', '.join(samples.bands)}; give it the bands of its training"
        )
    predictor = SeriesTrees.of(trained)
    found = np.concatenate(
        [
            predictor.series(*_series(samples, rows[start : start + 256]))
            for start in range(0, len(rows), 256)
        ]
        or [np.zeros((0, samples.n_classes), np.float32)]
    )
    places = samples.x.shape[3:]
    return np.moveaxis(found.reshape(len(rows), *places, -1), -1, 1)


class SeriesTrees:
    """Trees on series as a predictor of windows, see `model.artefact.Predictor`.

    Parameters
    ----------
    trees : Forest or booster
        Gives probabilities of rows.
    codes : Codes
        What its outputs mean.
    months : Months
        Columns of its rows.
    doy : int [T], optional
        Day of each date of the windows that `probabilities` is given.
    """

    halo = 0
    stride = block = 1

    def __init__(
        self, trees: _Trees, codes: Codes, months: Months, doy: np.ndarray | None = None
    ) -> None:
        self.trees, self.codes, self.months, self.doy = trees, codes, months, doy

    @classmethod
    def of(cls, trained: Artefact) -> SeriesTrees:
        """Return the predictor of an artefact.

        Raises
        ------
        ArtefactError
            If the model is not one of series.
        """
        options = trained.options
        if "months" not in options or "classes" not in options:
            raise ArtefactError(
                f"{trained.folder} holds no trees on series of samples; score it with "
                "`cropcube evaluate`, or train it by `train_forest` or `boost_set`"
            )
        trees: _Trees = (
            Forest.load(trained.weights) if trained.kind == "forest" else _Boosted(trained.weights)
        )
        recipe = trained.source
        return cls(
            trees,
            Codes(tuple(options["classes"]), len(trained.legend.classes)),
            Months(*options["months"]),
            None if recipe is None else np.asarray(days_of_year(recipe.periods)),
        )

    def series(self, x: np.ndarray, valid: np.ndarray, doy: np.ndarray) -> np.ndarray:
        """Return float32 [N, K] from x [N, C, T], valid [N, T] and doy [N, T]."""
        parts = []
        for start in range(0, len(x), ROWS):
            part = slice(start, start + ROWS)
            found = self.codes.expand(
                self.trees.probabilities(self.months.table(x[part], valid[part], doy[part]))
            )
            found[~valid[part].any(axis=1)] = np.nan
            parts.append(found)
        return np.concatenate(parts)

    def probabilities(
        self, reflectance: np.ndarray, wanted: np.ndarray | None = None
    ) -> np.ndarray:
        """Return float32 [K, y, x] from uint16 [T, C, y, x]; NaN without data or not wanted."""
        if self.doy is None:
            raise ArtefactError("these trees learned from samples of no cube: they draw no map")
        _, _, height, width = reflectance.shape
        pixels = reflectance.reshape(*reflectance.shape[:2], -1)
        chosen = np.arange(height * width) if wanted is None else np.flatnonzero(wanted)
        x = pixels[:, :, chosen].transpose(2, 1, 0)
        valid = (x != 0).all(axis=1)
        found = np.full((self.codes.n_classes, height * width), np.nan, np.float32)
        if len(chosen):
            found[:, chosen] = self.series(x, valid, np.broadcast_to(self.doy, valid.shape)).T
        return found.reshape(-1, height, width)


class _Boosted:
    def __init__(self, path: Path) -> None:
        import xgboost as xgb

        self.booster = xgb.Booster({"nthread": _threads()}, model_file=str(path))

    def probabilities(self, table: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.booster.inplace_predict(table, strict_shape=True)
        return found


def _training(
    data: SetData, stages: Sequence[str], most: int, seed: int
) -> tuple[Months, np.ndarray, Codes, np.ndarray]:
    """Return the months, the table, the classes and the codes of the training series."""
    samples = data.set
    rows = np.sort(np.concatenate([data.stage_rows[stage] for stage in stages]))
    months = Months.of(samples.take(rows))
    x, valid, doy = _series(samples, rows)
    y = samples.y[rows].ravel()
    usable = np.flatnonzero((y != IGNORE) & valid.any(axis=1))
    if len(usable) > most:
        usable = np.sort(np.random.default_rng(seed).choice(usable, most, replace=False))
    codes = Codes.of(np.bincount(y[usable], minlength=samples.n_classes))
    return (
        months,
        months.table(x[usable], valid[usable], doy[usable]),
        codes,
        codes.encode(y[usable]),
    )


def _series(samples: SampleSet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x [M, C, T], valid [M, T], doy [M, T] of some samples, windows as their pixels."""
    if samples.kind not in ("pixel", "image"):
        raise LabelError(
            f"{samples.name}: a sample is a {samples.kind}, trees take series; make parcel means "
            "of them first"
        )
    x, valid, doy = samples.x[rows], samples.valid[rows], samples.doy[rows]
    if samples.kind == "pixel":
        return x, valid, doy
    n, c, t, h, w = x.shape
    return (
        x.transpose(0, 3, 4, 1, 2).reshape(n * h * w, c, t),
        valid.transpose(0, 2, 3, 1).reshape(n * h * w, t),
        np.repeat(doy, h * w, axis=0),
    )


def _save(
    out: str | Path,
    data: SetData,
    months: Months,
    codes: Codes,
    *,
    kind: artefact.Kind,
    writer: Any,
    metrics: dict[str, int],
    training: dict[str, Any],
) -> Run:
    folder = artefact.save(
        out,
        kind=kind,
        architecture={"forest": "random-forest"}.get(kind, kind),
        options={"classes": list(codes.classes), "months": [months.first, months.last]},
        recipe=data.recipe,
        bands=data.bands,
        dates=data.months,
        legend=data.legend,
        normalisation=data.normalisation,
        metrics=metrics,
        weights_writer=writer,
        training=training,
    )
    return Run(folder, metrics)


def _threads() -> int:
    """Return the cores that this process may use, as the networks do."""
    import torch

    return torch.get_num_threads()
