"""How far apart groups lie: zones by their outlines, parcels by pixels, samples by coordinates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from scipy.spatial import cKDTree

from cube.errors import SplitError
from cube.grid import PIXEL, NativeGrid, Window
from model.labelstore import LabelBlock, LabelStore

_PIXEL_AREA = PIXEL * PIXEL
#: Mean radius of the Earth, metres.
_RADIUS = 6_371_008.8


def label_blocks(store: LabelStore) -> Iterator[tuple[NativeGrid, Window, LabelBlock]]:
    """Yield every tile of a label store with its labels."""
    for grid in store.grids:
        for window in store.windows[grid.granule]:
            yield grid, window, store.read(grid.granule, window)


def zone_distances(
    store: LabelStore, groups: frozenset[int], to: frozenset[int]
) -> dict[int, float]:
    """Return each zone's distance (m) to the nearest of others, between outlines.

    Raises
    ------
    SplitError
        If one of the first shares ground with one of the others.
    """
    metres = store.zones.to_crs(store.grids[0].epsg)
    shapes = np.asarray(metres.geometry)
    others = sorted(to)
    tree = shapely.STRtree(shapes[[group - 1 for group in others]])
    result = {}
    for group in sorted(groups):
        shape = shapes[group - 1]
        for hit in (others[int(i)] for i in tree.query(shape, predicate="intersects")):
            # Neighbours may share an edge, not ground; a pixel is 100 m².
            if shape.intersection(shapes[hit - 1]).area > _PIXEL_AREA:
                names = f"'{metres.zone[group - 1]}' and '{metres.zone[hit - 1]}'"
                raise SplitError(f"zones {names} overlap but are in different sets: a leak")
        nearest = shapes[others[int(tree.nearest(shape))] - 1]
        result[group] = float(shape.distance(nearest))
    return result


def sample_distances(lonlat: np.ndarray, group: np.ndarray, to: np.ndarray) -> dict[int, float]:
    """Return each group's distance (m) to the nearest of other samples.

    Parameters
    ----------
    lonlat : float [N, 2]
        Degrees.
    group : int [N]
        Group of each sample, 0 = none.
    to : bool [N]
        The other samples.

    Notes
    -----
    Along great circles of a sphere: half a percent off at most.
    """
    points = _on_sphere(lonlat)
    mine = group > 0
    chord, _ = cKDTree(points[to]).query(points[mine])
    metres = 2 * _RADIUS * np.arcsin(np.minimum(chord / 2, 1))
    numbers, where = np.unique(group[mine], return_inverse=True)
    nearest = np.full(len(numbers), np.inf)
    np.minimum.at(nearest, where, metres)
    return dict(zip(numbers.tolist(), nearest.tolist(), strict=True))


def _on_sphere(lonlat: np.ndarray) -> np.ndarray:
    """Return points [N, 3] on the unit sphere."""
    lon, lat = np.radians(np.asarray(lonlat, float)).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def parcel_distances(
    store: LabelStore, groups: frozenset[int], to: frozenset[int]
) -> dict[int, float]:
    """Return each parcel's distance (m) to the nearest of others, between pixel centres.

    Parcels are compared inside one UTM zone; zones are far enough apart not to matter.
    """
    result: dict[int, float] = {}
    targets, sources = _edge_pixels(store, to), _edge_pixels(store, groups)
    for epsg in sources.keys() & targets.keys():
        points, parcels = sources[epsg]
        distance, _ = cKDTree(targets[epsg][0]).query(points)
        for parcel in np.unique(parcels):
            nearest = float(distance[parcels == parcel].min())
            result[int(parcel)] = min(nearest, result.get(int(parcel), float("inf")))
    return result


def _edge_pixels(
    store: LabelStore, groups: frozenset[int]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return UTM coordinates [N, 2] and parcel [N] of the parcels' edge pixels, by EPSG code."""
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for grid, window, block in label_blocks(store):
        parcel = block.parcel
        framed = np.pad(parcel, 1)
        inside = np.ones(parcel.shape, bool)
        for near in (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]):
            inside &= near == parcel
        row, col = np.nonzero(np.isin(parcel, sorted(groups)) & ~inside)
        if row.size:
            x = grid.left + PIXEL * (window.col + col + 0.5)
            y = grid.top - PIXEL * (window.row + row + 0.5)
            found.setdefault(grid.epsg, []).append((np.stack([x, y], 1), parcel[row, col]))
    return {
        epsg: (np.concatenate([p for p, _ in parts]), np.concatenate([g for _, g in parts]))
        for epsg, parts in found.items()
    }
