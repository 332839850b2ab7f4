"""Reflectance of a canopy from its leaf area, leaf angle, soil and brown leaves.

The shipped table holds 6,000 runs of PROSAIL (Jacquemoud et al. 2009,
doi:10.1016/j.rse.2008.01.026) seen through Sentinel-2's bands; `make_table.py` made it. A query
takes the nearest runs. Because an archive asks millions of times, the answers are laid out once on
a regular lattice and interpolated.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numba
import numpy as np
from scipy.spatial import KDTree

BAND_NAMES = (
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "swir16",
    "swir22",
)
TABLE = Path(__file__).parent / "spectra.npz"

#: Distance that counts as one, per axis: leaf area, leaf angle, soil brightness, wetness, brown.
SCALES = np.array([1.5, 12.0, 0.3, 0.3, 0.25])
NEIGHBOURS = 6
#: Nodes of the lattice, in the same order; dense in leaf area where reflectance bends most.
NODES = (
    np.array([0.0, 0.15, 0.3, 0.5, 0.75, 1.0, 1.4, 1.8, 2.3, 2.9, 3.6, 4.4, 5.3, 6.3, 7.5]),
    np.array([36.0, 43.0, 50.0, 57.0, 64.0, 71.0]),
    np.array([0.5, 0.75, 1.0, 1.25, 1.5]),
    np.array([0.0, 0.25, 0.5, 0.75, 1.0]),
    np.array([0.0, 0.2, 0.45, 0.8]),
)


@functools.cache
def _table() -> tuple[KDTree, np.ndarray]:
    with np.load(TABLE, allow_pickle=False) as file:
        return KDTree(file["canopy"] / SCALES), file["reflectance"] / np.float64(1e4)


def nearest(canopies: np.ndarray) -> np.ndarray:
    """Return reflectance [n, 10 bands] as the weighted mean of the nearest runs of the table.

    Parameters
    ----------
    canopies : array [n, 5]
        Leaf area index, mean leaf angle (degrees), soil brightness, soil wetness (0-1), brown
        pigment.
    """
    tree, reflectance = _table()
    distance, index = tree.query(np.asarray(canopies) / SCALES, k=NEIGHBOURS)
    weight = 1 / (distance + 0.05) ** 2
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkb->nb", weight, reflectance[index])


@functools.cache
def _lattice() -> np.ndarray:
    corners = np.stack(np.meshgrid(*NODES, indexing="ij"), axis=-1)
    values = nearest(corners.reshape(-1, len(NODES)))
    return values.reshape(-1, values.shape[1]).astype(np.float32)


def _position(values: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each value and how far into it (0-1); values outside go to the edge."""
    inside = np.clip(values, nodes[0], nodes[-1])
    cell = np.clip(np.searchsorted(nodes, inside, side="right") - 1, 0, len(nodes) - 2)
    fraction = (inside - nodes[cell]) / (nodes[cell + 1] - nodes[cell])
    return cell.astype(np.int64), fraction.astype(np.float32)


@numba.njit(nogil=True)
def _multilinear(
    cells: np.ndarray, fractions: np.ndarray, strides: np.ndarray, lattice: np.ndarray
) -> np.ndarray:
    axes, n = cells.shape
    bands = lattice.shape[1]
    out = np.zeros((n, bands), np.float32)
    for i in range(n):
        for corner in range(1 << axes):
            weight, at = np.float32(1), 0
            for axis in range(axes):
                high = (corner >> axis) & 1
                weight *= fractions[axis, i] if high else 1 - fractions[axis, i]
                at += (cells[axis, i] + high) * strides[axis]
            if weight > 0:
                for band in range(bands):
                    out[i, band] += weight * lattice[at, band]
    return out


def reflectance(
    lai: np.ndarray,
    angle: np.ndarray,
    brightness: np.ndarray,
    wetness: np.ndarray,
    brown: np.ndarray,
) -> np.ndarray:
    """Return reflectance float32 [..., 10 bands] of canopies given as arrays that broadcast."""
    arrays = np.broadcast_arrays(lai, angle, brightness, wetness, brown)
    shape = arrays[0].shape
    placed = [_position(a.ravel(), nodes) for a, nodes in zip(arrays, NODES, strict=True)]
    sizes = [len(nodes) for nodes in NODES]
    strides = np.array([int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))])
    cells, fractions = (np.stack(parts) for parts in zip(*placed, strict=True))
    return _multilinear(cells, fractions, strides, _lattice()).reshape(*shape, -1)
