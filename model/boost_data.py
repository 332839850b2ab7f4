"""The pixels that trees learn from: a table of series, contiguous classes, a sample per tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cube.errors import SplitError
from cube.grid import Window
from cube.objects import Place
from cube.store import read_recipe, read_window

if TYPE_CHECKING:
    from model.samples import SampleIndex


def features(reflectance: np.ndarray) -> np.ndarray:
    """Return pixels as rows of a table: uint16 [N, C, T] → float32 [N, T × C], NaN = no data.

    Time-major: column t × C + c is band c of month t.
    """
    n = reflectance.shape[0]
    table = reflectance.transpose(0, 2, 1).reshape(n, -1).astype(np.float32)
    table[table == 0] = np.nan
    return table


@dataclass(frozen=True)
class Codes:
    """Contiguous codes for the classes seen in training: XGBoost accepts no gaps.

    Attributes
    ----------
    classes : tuple of int
        Class index of code 0, 1, …, ascending.
    n_classes : int
        K, all classes of the legend.
    """

    classes: tuple[int, ...]
    n_classes: int

    @classmethod
    def of(cls, counts: np.ndarray) -> Codes:
        """Return codes for the classes that have training pixels; counts int [K].

        Raises
        ------
        SplitError
            If fewer than two classes have pixels.
        """
        seen = tuple(int(k) for k in np.flatnonzero(counts))
        if len(seen) < 2:
            raise SplitError(
                f"the training groups hold {len(seen)} class(es), two are the least; "
                "add groups to train or use a coarser legend level"
            )
        return cls(seen, len(counts))

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Return codes int16 [N]; -1 for classes that training never saw, and for 255."""
        table = np.full(256, -1, dtype=np.int16)
        table[list(self.classes)] = np.arange(len(self.classes))
        return table[y]

    def expand(self, probabilities: np.ndarray) -> np.ndarray:
        """Return columns of all K classes from columns of codes; absent classes get 0."""
        full = np.zeros((len(probabilities), self.n_classes), dtype=np.float32)
        full[:, list(self.classes)] = probabilities
        return full


@dataclass(frozen=True)
class Sampling:
    """How many pixels of a chunk are kept, and what each stands for.

    Attributes
    ----------
    cap : int
        Most pixels per class and chunk.
    prior : float
        Exponent on (pixels found / pixels kept), the weight of a kept pixel: 0 trains on balanced
        classes, 1 on the shares of the land, values between on something between.
    seed : int
        Same seed, same chunk: same pixels.
    """

    cap: int
    prior: float
    seed: int

    def rows(self, codes: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the kept row numbers, ascending (int [M]), and their weights (float32 [M])."""
        random = np.random.default_rng([self.seed, chunk])
        kept, weights = [], []
        for code in np.unique(codes[codes >= 0]):
            found = np.flatnonzero(codes == code)
            chosen = found
            if found.size > self.cap:
                chosen = random.choice(found, self.cap, replace=False, shuffle=False)
            kept.append(chosen)
            weights.append(np.full(chosen.size, (found.size / chosen.size) ** self.prior))
        if not kept:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        rows = np.concatenate(kept)
        order = np.argsort(rows)
        return rows[order], np.concatenate(weights)[order].astype(np.float32)


def sample_tile(
    store: Place, index: SampleIndex, stage: str, number: int, codes: Codes, sampling: Sampling
) -> np.ndarray:
    """Return the sample of one tile as float32 [M, T × C + 2]: features, code, weight.

    Pixels are chosen from the labels, before imagery is read. Those without any value are left out.
    """
    tile = index.tiles[number]
    mask, block = index.labelled(stage, number)
    y = codes.encode(block.label[mask])
    kept, weights = sampling.rows(y, number)
    recipe = read_recipe(store)
    if not kept.size:
        return np.empty((0, len(recipe.periods) * len(recipe.bands) + 2), np.float32)
    row, col = (axis[kept] for axis in np.nonzero(mask))
    near = Window(
        row=tile.window.row + int(row.min()),
        col=tile.window.col + int(col.min()),
        height=int(np.ptp(row)) + 1,
        width=int(np.ptp(col)) + 1,
    )
    reflectance, _ = read_window(store, tile.granule, near)
    table = features(reflectance[:, :, row - row.min(), col - col.min()].transpose(2, 1, 0))
    chunk = np.column_stack([table, y[kept].astype(np.float32), weights])
    return chunk[~np.isnan(table).all(axis=1)]
