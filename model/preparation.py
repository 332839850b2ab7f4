"""What a training checks and chooses before it begins: samples, label levels, first weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cube.errors import ArtefactError, LabelError
from model import artefact, networks
from model.hierarchy import Tree, tree_of
from model.networks.catalogue import ARCHITECTURES, Input

if TYPE_CHECKING:
    from torch import nn

    from model.learner import TrainingData
    from model.legend import Legend

#: Whether a network learns coarser label levels too, and by what heads; see `HierarchicalHead`.
Levels = Literal["none", "plain", "refined"]


def require_kind(name: str, kind: Input) -> None:
    """Refuse an architecture that does not take such samples.

    Networks for pixels take windows too, pixel by pixel.

    Raises
    ------
    ArtefactError
        Naming the architectures that do; also if the architecture is unknown.
    """
    networks.options(name)
    wanted = ARCHITECTURES[name].input
    if wanted == kind or (wanted, kind) == ("pixel", "image"):
        return
    fit = {kind, "pixel"} if kind == "image" else {kind}
    others = [other for other in networks.names() if ARCHITECTURES[other].input in fit]
    raise ArtefactError(
        f"{name} takes samples of kind '{wanted}' and the data are '{kind}'; choose one of "
        f"{', '.join(others)}, or other data"
    )


def decides_early(name: str) -> bool:
    """Return whether an architecture decides by date."""
    return hasattr(ARCHITECTURES[name].network, "decisions")


def choose_tree(name: str, levels: Levels, tree: Tree | None, legend: Legend) -> Tree | None:
    """Return the tree that a network learns from, None for none.

    Parameters
    ----------
    name : str
        Architecture. One with levels of its own learns from them where there is a tree.
    levels : {"none", "plain", "refined"}
        Heads that it is given.
    tree : Tree or None
        Default that of the legend.
    legend : Legend

    Raises
    ------
    ArtefactError
        If the architecture cannot be given levels.
    LabelError
        If levels are asked for and there is no tree.
    """
    entry = ARCHITECTURES[name]
    if levels == "none":
        if not hasattr(entry.network, "levels"):
            return None
        tree = tree or tree_of(legend)
        return tree if tree is not None and len(tree.levels) == 2 else None
    if not entry.takes_levels:
        raise ArtefactError(f"{name} cannot be given label levels; leave levels out")
    tree = tree or tree_of(legend)
    if tree is None:
        raise LabelError(
            f"legend {legend.title} has no coarser levels; give tree=, for example that of "
            "model.hierarchy.read_tree"
        )
    return tree


def level_options(name: str, levels: Levels, tree: Tree) -> dict[str, Any]:
    """Return the options that make a network of the levels of a tree."""
    if "coarse" in ARCHITECTURES[name].options:
        return {"coarse": list(tree.sizes)}
    return {"levels": list(tree.sizes), "heads": levels}


def check_start(start_from: str | Path, name: str, data: TrainingData) -> str:
    """Check that a model can be trained further on `data`; return the hash of its weights.

    Raises
    ------
    ArtefactError
        If architecture, bands, classes or normalisation differ.
    """
    model = artefact.load(start_from)
    ours = (name, tuple(data.bands), data.legend.classes, data.normalisation)
    theirs = (model.architecture, model.bands, model.legend.classes, model.normalisation)
    names = ("architecture", "bands", "classes", "normalisation")
    differ = [what for what, a, b in zip(names, ours, theirs, strict=True) if a != b]
    if differ:
        raise ArtefactError(
            f"{start_from} cannot be trained further on these data: {', '.join(differ)} differ; "
            "data take over a normalisation with normalisation=load(folder).normalisation"
        )
    return hashlib.sha256(model.weights.read_bytes()).hexdigest()


def copy_weights(start_from: str | Path, network: nn.Module) -> None:
    """Give a network the weights of a trained one.

    Raises
    ------
    ArtefactError
        If they do not fit.
    """
    model = artefact.load(start_from)
    try:
        network.load_state_dict(model.network().state_dict())
    except RuntimeError as error:
        raise ArtefactError(
            f"the weights of {start_from} do not fit this network; give the options that it was "
            f"trained with, {model.options}. {error}"
        ) from error
