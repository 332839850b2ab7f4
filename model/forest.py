"""A Random Forest as plain arrays: grown by scikit-learn, stored and applied without it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba as nb
import numpy as np
from safetensors.numpy import load_file, save_file

from cube.errors import ArtefactError

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

_LEAF = -1


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees, one after the other in the same arrays.

    Follows Breiman (2001), Machine Learning 45(1). A row goes left where its feature is at most the
    threshold; the answer is the mean over trees of the class shares of the leaves.

    Attributes
    ----------
    root : int32 [trees]
        First node of each tree.
    feature : int32 [nodes]
        Column that a node asks for; -1 at leaves.
    threshold : float32 [nodes]
    left, right : int32 [nodes]
        Next node.
    share : float32 [nodes, K]
        Share of each class among the training rows of a leaf; 0 at other nodes.
    """

    root: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, grown: RandomForestClassifier) -> Forest:
        """Return the trees of a fitted forest; its classes must be 0 to K - 1."""
        trees = [estimator.tree_ for estimator in grown.estimators_]
        root = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
        feature = np.concatenate([tree.feature for tree in trees])
        leaf = feature < 0

        def child(name: str) -> np.ndarray:
            nodes = [getattr(tree, name) + first for tree, first in zip(trees, root, strict=True)]
            return np.where(leaf, _LEAF, np.concatenate(nodes)).astype(np.int32)

        share = np.concatenate([tree.value[:, 0] for tree in trees])
        share = np.where(leaf[:, None], share / share.sum(axis=1, keepdims=True), 0)
        return cls(
            root=root.astype(np.int32),
            feature=np.where(leaf, _LEAF, feature).astype(np.int32),
            threshold=_floor32(np.concatenate([tree.threshold for tree in trees])),
            left=child("children_left"),
            right=child("children_right"),
            share=share.astype(np.float32),
        )

    @property
    def nodes(self) -> int:
        """Nodes of all trees, leaves included."""
        return len(self.feature)

    def probabilities(self, table: np.ndarray) -> np.ndarray:
        """Return class probabilities float32 [N, K] of rows float32 [N, features]."""
        table = np.ascontiguousarray(table, np.float32)
        out = np.zeros((len(table), self.share.shape[1]), np.float64)
        nodes = (self.feature, self.threshold, self.left, self.right, self.share)
        _walk(table, self.root, *nodes, out)
        found: np.ndarray = (out / len(self.root)).astype(np.float32)
        return found

    def save(self, path: str | Path) -> None:
        """Write all arrays to one safetensors file."""
        save_file({one.name: getattr(self, one.name) for one in fields(self)}, str(path))

    @classmethod
    def load(cls, path: str | Path) -> Forest:
        """Read a file that `save` wrote.

        Raises
        ------
        ArtefactError
            If it is no forest, or a node points outside of it.
        """
        arrays: dict[str, Any] = load_file(str(path))
        names = {one.name for one in fields(cls)}
        if set(arrays) != names:
            raise ArtefactError(
                f"{path} holds {', '.join(sorted(arrays))}, not the arrays of a forest; train again"
            )
        forest = cls(**arrays)
        forest._check(path)
        return forest

    def _check(self, path: str | Path) -> None:
        """Refuse arrays that the walk, which checks nothing, would run out of or turn round in."""
        inner = self.feature >= 0
        place = np.arange(self.nodes)
        children = (self.left, self.right)
        lengths = {len(a) for a in (self.feature, self.threshold, *children, self.share)}
        # A child lies behind its parent, so every walk ends.
        ahead = all((c[inner] > place[inner]).all() and (c < self.nodes).all() for c in children)
        rooted = bool(len(self.root)) and 0 <= self.root.min() <= self.root.max() < self.nodes
        if len(lengths) != 1 or not ahead or not rooted:
            raise ArtefactError(f"{path}: the trees are damaged; copy the folder again")


@nb.njit(nogil=True, cache=True)
def _walk(
    table: np.ndarray,
    root: np.ndarray,
    feature: np.ndarray,
    threshold: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    share: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add the shares of the leaves that each row reaches to out [N, K]."""
    # Tree by tree: the nodes of one fit the cache, those of all do not.
    for tree in range(len(root)):
        for row in range(len(table)):
            node = root[tree]
            while feature[node] >= 0:
                below = table[row, feature[node]] <= threshold[node]
                node = left[node] if below else right[node]
            for k in range(out.shape[1]):
                out[row, k] += share[node, k]


def _floor32(threshold: np.ndarray) -> np.ndarray:
    """Return the largest float32 that is not above each float64: float32 rows go the same way."""
    rounded = threshold.astype(np.float32)
    above = rounded > threshold
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return rounded
