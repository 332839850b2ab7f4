"""A trained model on disk: weights, and everything needed to use them honestly.

An artefact is a folder: ``model.json`` says what the model is, ``weights.safetensors`` (networks)
or ``model.ubj`` (XGBoost) holds its numbers. Nothing is pickled, so opening a stranger's artefact
runs no code of theirs. On loading, the SHA-256 of the weights and the recipe's hash are checked.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from cube.errors import ArtefactError, LabelError, RecipeError
from cube.recipe import Recipe
from model.legend import Legend
from model.samples import Normalisation

if TYPE_CHECKING:
    from torch import nn

FORMAT: Literal["cropcube-model-1"] = "cropcube-model-1"
CARD = "model.json"
WEIGHTS = {
    "network": "weights.safetensors",
    "xgboost": "model.ubj",
    "forest": "forest.safetensors",
}

Kind = Literal["network", "xgboost", "forest"]


class Predictor(Protocol):
    """What maps and scores need of a model.

    Attributes
    ----------
    halo : int
        Pixels of context per side beyond which nothing changes a pixel's result.
    stride : int
        Corners of windows are multiples of it, in the grid's own pixels.
    block : int
        Side of the blocks that it decides whole, so that it computes the same numbers wherever a
        window ends; a tile holds a whole number of them.
    """

    @property
    def halo(self) -> int: ...  # noqa: D102

    @property
    def stride(self) -> int: ...  # noqa: D102

    @property
    def block(self) -> int: ...  # noqa: D102

    def probabilities(
        self, reflectance: np.ndarray, wanted: np.ndarray | None = None
    ) -> np.ndarray:
        """Return float32 [K, y, x] from uint16 [T, B, y, x] and the pixels to decide (bool [y, x]).

        NaN where no month has a value, and where nothing is wanted.
        """
        ...


@dataclass(frozen=True)
class Run:
    """What a training leaves behind.

    Attributes
    ----------
    folder : Path
        The artefact.
    metrics : dict
        Figures of the model that was kept.
    history : list of dict
        One row per epoch, in order; empty where there are no epochs.
    """

    folder: Path
    metrics: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)


class _Card(BaseModel):
    """The JSON of an artefact, before any of it is believed."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["cropcube-model-1"]
    kind: Kind
    architecture: str
    options: dict[str, Any]
    bands: list[str]
    dates: int
    recipe: dict[str, Any] | None
    recipe_hash: str
    method_hash: str
    legend: dict[str, Any]
    normalisation: dict[str, list[float]]
    metrics: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]
    temperature: list[float] = [1.0]
    weights: str
    sha256: str


@dataclass(frozen=True)
class Artefact:
    """A trained model, read from its folder.

    Attributes
    ----------
    folder : Path
        Where it lies.
    kind : {"network", "xgboost", "forest"}
        What kind of weights it has.
    architecture : str
        Name in `model.networks`, ``xgboost`` or ``random-forest``.
    options : dict
        Every option of the architecture, defaults included.
    bands : tuple of str
        Names of axis C of its inputs.
    dates : int
        T, the dates of its inputs; the most of them where they vary.
    source : Recipe or None
        How the cube of the training was made; None for samples that are from no cube. See `recipe`.
    legend : Legend
        Meaning of the outputs.
    normalisation : Normalisation
        Mean and standard deviation of each band over the training groups.
    metrics, training : dict
        Validation figures of the weights, and the settings they came from.
    versions : dict
        Of cropcube and of the libraries that wrote it.
    temperature : tuple of float
        What confidence is calibrated by, see `model.calibrate`: of each level of the class tree,
        the classes' own last.
    """

    folder: Path
    kind: Kind
    architecture: str
    options: dict[str, Any]
    bands: tuple[str, ...]
    dates: int
    source: Recipe | None
    legend: Legend
    normalisation: Normalisation
    metrics: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]
    temperature: tuple[float, ...] = (1.0,)

    @property
    def recipe(self) -> Recipe:
        """How the cube of the training was made; predictions need the same `method_hash`.

        Raises
        ------
        ArtefactError
            If the model was trained on samples that are from no cube.
        """
        if self.source is None:
            raise ArtefactError(
                f"{self.folder} was trained on samples that are from no cube ({self.legend.name}): "
                "it has no recipe to build a cube with, so it draws no maps; train on a cube"
            )
        return self.source

    @property
    def weights(self) -> Path:
        """The file with the weights."""
        return self.folder / WEIGHTS[self.kind]

    def network(self) -> nn.Module:
        """Return the network with its weights, in evaluation mode, on the CPU.

        Raises
        ------
        ArtefactError
            If the artefact is not a network's, or its weights do not fit its architecture.
        """
        from safetensors.torch import load_file

        from model import networks

        if self.kind != "network":
            raise ArtefactError(f"{self.folder} holds a model of kind {self.kind}, not a network")
        network = networks.create(
            self.architecture,
            c_in=len(self.bands),
            n_classes=len(self.legend.classes),
            months=self.dates,
            **self.options,
        )
        try:
            network.load_state_dict(load_file(self.weights))
        except RuntimeError as error:
            raise ArtefactError(
                f"{self.weights}: the weights do not fit {self.architecture} with {self.options}; "
                f"the folder was mixed up or edited, train again. {error}"
            ) from error
        return network.eval()

    def predictor(self, device: str = "cpu") -> Predictor:
        """Return the model, calibrated, ready to classify windows; `device` as in PyTorch.

        Raises
        ------
        ArtefactError
            If weights and architecture do not fit.
        """
        from model.temperature import TemperedPredictor

        found = self._predictor(device)
        sharp = self.temperature[-1]
        return found if sharp == 1 else TemperedPredictor(found, sharp)

    def _predictor(self, device: str) -> Predictor:
        if self.kind == "network":
            from model.networks.predictor import NetworkPredictor

            return NetworkPredictor(self.network(), self.recipe, self.normalisation, device)
        if "months" in self.options:
            from model.trees import SeriesTrees

            return SeriesTrees.of(self)
        from model.boost import BoostPredictor

        classes = self.options.get("classes")
        if not isinstance(classes, list):
            raise ArtefactError(f"{self.folder / CARD}: options.classes is missing; boost again")
        return BoostPredictor.from_file(self.weights, classes, len(self.legend.classes))


def set_temperature(folder: str | Path, temperature: Sequence[float]) -> None:
    """Store what `model.calibrate` found in an artefact; see `Artefact.temperature`."""
    folder = Path(folder)
    card = _read_card(folder).model_copy(update={"temperature": [float(t) for t in temperature]})
    _write_card(folder, card)
    (folder / f"new-{CARD}").replace(folder / CARD)


def _write_card(folder: Path, card: _Card) -> None:
    """Write the card beside the old one, for its caller to put in place."""
    text = json.dumps(card.model_dump(), indent=1, ensure_ascii=False)
    (folder / f"new-{CARD}").write_text(text + "\n", encoding="utf-8")


def save(
    folder: str | Path,
    *,
    kind: Kind,
    architecture: str,
    options: Mapping[str, Any],
    recipe: Recipe | None,
    legend: Legend,
    normalisation: Normalisation,
    metrics: Mapping[str, Any],
    weights_writer: Callable[[str], object],
    training: Mapping[str, Any] | None = None,
    bands: Sequence[str] | None = None,
    dates: int | None = None,
) -> Path:
    """Write an artefact, replacing one that is there.

    Parameters
    ----------
    folder : path
        Created if needed.
    weights_writer : callable
        Writes the weights to the path it is given (its suffix names the format).
    kind, architecture, options, recipe, legend, normalisation, metrics, training
        See `Artefact`.
    bands, dates
        See `Artefact`; only for samples that are from no cube, else the recipe knows.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If there is neither a recipe nor bands and dates.
    """
    if recipe is not None:
        bands, dates = bands or recipe.bands, dates or len(recipe.periods)
    if bands is None or dates is None:
        raise ValueError("without a recipe, say which bands and how many dates the model takes")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS[kind]
    # Written beside and renamed: a process killed here leaves the old artefact or the new one.
    fresh = folder / f"new-{weights.name}"
    weights_writer(str(fresh))
    card = _Card(
        format=FORMAT,
        kind=kind,
        architecture=architecture,
        options=dict(options),
        bands=list(bands),
        dates=dates,
        recipe=None if recipe is None else recipe.model_dump(mode="json"),
        recipe_hash="" if recipe is None else recipe.hash,
        method_hash="" if recipe is None else recipe.method_hash,
        legend=legend.to_dict(),
        normalisation=normalisation.to_dict(),
        metrics=dict(metrics),
        training=dict(training or {}),
        versions=_versions(kind),
        weights=weights.name,
        sha256=_sha256(fresh),
    )
    _write_card(folder, card)
    fresh.replace(weights)
    (folder / f"new-{CARD}").replace(folder / CARD)
    return folder


def save_network(folder: str | Path, network: nn.Module, **facts: Any) -> Path:
    """Write the artefact of a network; `facts` as in `save`, without kind and writer."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    # Convolutions lie in channels_last memory; the file format knows plain order only.
    state = {name: value.contiguous() for name, value in state.items()}
    return save(folder, kind="network", weights_writer=lambda path: save_file(state, path), **facts)


def load(folder: str | Path) -> Artefact:
    """Read and check an artefact.

    Parameters
    ----------
    folder : path
        What `train` or `boost` wrote.

    Returns
    -------
    Artefact

    Raises
    ------
    ArtefactError
        If the folder is no artefact, was written by a newer version, was damaged or edited, or
        names an architecture that does not exist.
    """
    folder = Path(folder)
    card = _read_card(folder)
    weights = folder / WEIGHTS[card.kind]
    if not weights.is_file() or _sha256(weights) != card.sha256:
        state = "differs from the one model.json was written for" if weights.exists() else "is gone"
        raise ArtefactError(f"{weights} {state}; copy the whole folder again, or train again")
    if card.kind == "network":
        from model import networks

        networks.options(card.architecture)
    recipe, legend = _recipe(card, folder), _legend(card, folder)
    return Artefact(
        folder=folder,
        kind=card.kind,
        architecture=card.architecture,
        options=card.options,
        bands=tuple(card.bands),
        dates=card.dates,
        source=recipe,
        legend=legend,
        normalisation=_normalisation(card, folder),
        metrics=card.metrics,
        training=card.training,
        versions=card.versions,
        temperature=tuple(card.temperature),
    )


def _read_card(folder: Path) -> _Card:
    path = folder / CARD
    if not path.is_file():
        raise ArtefactError(f"{folder} holds no model ({CARD} is missing); train one into it first")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtefactError(f"{path} is not JSON ({error}); copy the folder again") from error
    found = fields.get("format") if isinstance(fields, dict) else None
    if found != FORMAT:
        raise ArtefactError(
            f"{path} has format {found!r}, this version reads {FORMAT!r}; "
            "use the version of cropcube that wrote it, or train again"
        )
    try:
        return _Card.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtefactError(f"{path}, {where}: {first['msg']}; train again") from error


def _recipe(card: _Card, folder: Path) -> Recipe | None:
    if card.recipe is None:
        return None
    try:
        recipe = Recipe(**card.recipe)
    except RecipeError as error:
        raise ArtefactError(f"{folder / CARD}: {error}; restore the file") from error
    if (recipe.hash, recipe.method_hash) != (card.recipe_hash, card.method_hash):
        raise ArtefactError(
            f"{folder / CARD}: the recipe has hash {recipe.hash}, {card.recipe_hash} is stored: it "
            "was edited after the training. Restore the file; another recipe needs another model"
        )
    if tuple(card.bands) != recipe.bands:
        raise ArtefactError(
            f"{folder / CARD}: bands {card.bands} are not the recipe's {recipe.bands}; restore the "
            "file"
        )
    return recipe


def _legend(card: _Card, folder: Path) -> Legend:
    try:
        return Legend.from_dict(card.legend)
    except LabelError as error:
        raise ArtefactError(f"{folder / CARD}: {error}; restore the file") from error


def _normalisation(card: _Card, folder: Path) -> Normalisation:
    lengths = {key: len(values) for key, values in card.normalisation.items()}
    if lengths != {"mean": len(card.bands), "std": len(card.bands)}:
        raise ArtefactError(
            f"{folder / CARD}: normalisation has {lengths} values for {len(card.bands)} bands; "
            "restore the file, or train again"
        )
    return Normalisation.from_dict(card.normalisation)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions(kind: Kind) -> dict[str, str]:
    library = {"network": "torch", "xgboost": "xgboost", "forest": "scikit-learn"}[kind]
    found = {"python": platform.python_version()}
    for name in ("cropcube", "numpy", library):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"  # run from a checkout
    return found
