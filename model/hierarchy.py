"""Class trees: which class of a coarser level each class belongs to, as data.

A network with several levels (`model.networks.hierarchical`, convSTAR) learns all of them from the
labels of the finest; a map may fall back on the parent of a class it is not sure of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cube.errors import LabelError
from model.legend import BACKGROUND, IGNORE, Legend, parents_table

#: Weights of the coarser levels in the loss, the finest counting 1 (Turkoglu et al., 2021).
LEVEL_WEIGHTS = (0.1, 0.5)


@dataclass(frozen=True)
class Tree:
    """The coarser levels above the classes of a legend.

    Attributes
    ----------
    levels : tuple of str
        Names of the coarser levels, coarsest first.
    names : tuple of tuple of str
        Per level its classes; 0 is background.
    parents : tuple of tuple of int
        Per level the class that each class of the legend belongs to; 255 where it has none there.
    """

    levels: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.levels) <= len(LEVEL_WEIGHTS):
            raise LabelError(
                f"a tree has one or two levels above the classes, not {len(self.levels)}; leave "
                "out the others"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Classes of each coarser level, background included."""
        return tuple(len(names) for names in self.names)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each coarser level in the loss, the finest counting 1."""
        return LEVEL_WEIGHTS[-len(self.levels) :]

    def table(self, level: int) -> np.ndarray:
        """Return int64 [256]: label of the finest level → label of a coarser one; 255 stays."""
        table = np.full(256, IGNORE, np.int64)
        table[: len(self.parents[level])] = self.parents[level]
        return table

    def counts(self, level: int, counts: np.ndarray) -> np.ndarray:
        """Return labels per class of a coarser level, int64, from those of the finest, int [K]."""
        parents = np.asarray(self.parents[level])
        known = parents != IGNORE
        out = np.zeros(self.sizes[level], np.int64)
        np.add.at(out, parents[known], np.asarray(counts)[known])
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, ready for JSON."""
        return {
            "levels": list(self.levels),
            "names": [list(names) for names in self.names],
            "parents": [list(parents) for parents in self.parents],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Tree:
        """Return the tree that `to_dict` described."""
        return cls(
            tuple(fields["levels"]),
            tuple(tuple(names) for names in fields["names"]),
            tuple(tuple(parents) for parents in fields["parents"]),
        )


def tree_of(legend: Legend) -> Tree | None:
    """Return the tree above a legend from its table; None where that has no coarser level.

    Raises
    ------
    LabelError
        If a class stands below two parents.
    """
    table = parents_table(legend.name, legend.level, legend.year)
    return None if table is None else tree_from_table(table, legend, legend.title)


def read_tree(path: str | Path, legend: Legend) -> Tree:
    """Read a tree from a CSV: a column ``class`` and one per coarser level, coarsest first.

    An empty cell says that the class belongs to no class of that level. Background need not be
    named.

    Raises
    ------
    LabelError
        If the file cannot be read, has no such columns, or leaves out a class of the legend.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LabelError(f"{path} is no CSV of a class tree: {error}") from error
    if "class" not in table or len(table.columns) < 2:
        raise LabelError(
            f"{path}: give a column 'class' and one per coarser level, coarsest first; it has "
            f"{', '.join(table.columns)}"
        )
    coarser = table.set_index("class")
    return tree_from_table(coarser, legend, str(path))


def tree_from_table(table: pd.DataFrame, legend: Legend, source: str) -> Tree:
    """Return the tree of a table: index = classes, a column per coarser level, coarsest first.

    Raises
    ------
    LabelError
        If a class of the legend is missing, or has two parents.
    """
    table = table.reset_index(names="class").drop_duplicates().set_index("class")
    crops = [name for name in legend.classes if name != BACKGROUND]
    missing = [name for name in crops if name not in table.index]
    if missing:
        raise LabelError(f"{source}: no row for {', '.join(missing)} of the legend; add it")
    twice = sorted(set(table.index[table.index.duplicated()]) & set(crops))
    if twice:
        raise LabelError(f"{source}: {', '.join(twice)} stands below two parents; keep one")
    names, parents = [], []
    for level in table.columns:
        above = [BACKGROUND, *(str(parent) for parent in table.loc[crops, level])]
        known = tuple(dict.fromkeys(name for name in above if name))
        number = {name: index for index, name in enumerate(known)}
        by_class = dict(zip((BACKGROUND, *crops), above, strict=True))
        names.append(known)
        parents.append(tuple(number.get(by_class[name], IGNORE) for name in legend.classes))
    return Tree(tuple(str(level) for level in table.columns), tuple(names), tuple(parents))


def consistency(fine: np.ndarray, coarse: np.ndarray, parents: Sequence[int]) -> float:
    """Return the share of pixels whose predicted class lies below the predicted coarser class.

    Parameters
    ----------
    fine, coarse : int, any shape
        Predictions of the finest and of a coarser level; 255 = no decision, not counted.
    parents : sequence of int
        Of each class of the finest level, see `Tree.parents`; classes without one do not count.
    """
    table = np.full(256, IGNORE, np.int64)
    table[: len(parents)] = parents
    wanted = table[np.asarray(fine)]
    counted = (wanted != IGNORE) & (np.asarray(coarse) != IGNORE)
    return float((wanted == coarse)[counted].mean()) if counted.any() else float("nan")
