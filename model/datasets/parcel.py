"""Parcels of a cube as samples: as images, as means and deviations, and as sets of pixels.

A parcel is what its labels trust of it: pixels of the ring that erosion took are left out. Of a
parcel that the border of a zone or granule cuts, the largest part is the sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cube.errors import LabelError
from cube.grid import PIXEL, Window
from cube.objects import Place
from model.datasets.choose import compacted
from model.datasets.labelled import LabelledCube, lonlat
from model.legend import IGNORE
from model.networks.catalogue import Input
from model.networks.garnot import SIDE
from model.sampleset import SampleSet


@dataclass(frozen=True)
class Facts:
    """What is known of a parcel besides its pixels."""

    label: int
    zone: int
    parcel: int
    doy: np.ndarray  # int16 [T]
    lonlat: np.ndarray  # float64 [2], middle of its box


@dataclass(frozen=True)
class Piece:
    """A parcel in its bounding box.

    Attributes
    ----------
    x : ndarray of uint16 [C, T, y, x]
        DN, 0 where not valid.
    valid : ndarray of bool [T, y, x]
        Where the parcel is and every band has a value.
    inside : ndarray of bool [y, x]
        Which pixels are the parcel's.
    facts : Facts
    """

    x: np.ndarray
    valid: np.ndarray
    inside: np.ndarray
    facts: Facts


#: What a parcel becomes: x [C, T, *S] and valid [T, *S].
Sample = tuple[np.ndarray, np.ndarray]


def parcel_images(
    store: Place,
    labels: str | Path,
    *,
    per_class: int | None = None,
    seed: int = 0,
    name: str = "parcel images",
) -> SampleSet:
    """Return each parcel as an image of 32 × 32 pixels, zero and invalid outside of it.

    Its bounding box is resized to 32 × 32 by the nearest pixel, whether it is larger or smaller,
    after Garnot et al. (2019), hal-02386701.

    Parameters
    ----------
    store, labels : path
        Cube store, of composites or a dated series, and the label store of the same cube.
    per_class : int, optional
        Parcels of each class drawn at random; default all. With twelve months of four bands a
        thousand parcels take 98 MB.
    seed : int
        Draws the parcels.
    name : str
        Of the data set.

    Returns
    -------
    SampleSet
        Kind ``parcel-image``, x uint16 [N, C, T, 32, 32]; group = zone.

    Raises
    ------
    LabelError, StoreError
        As for `LabelledCube`, or if no labelled parcel lies in a zone.
    """
    cube = LabelledCube(store, labels)
    found = [(piece.facts, _image(piece)) for piece in _pieces(cube, per_class, seed)]
    return _assembled(name, "parcel-image", cube, found, cube.recipe.bands)


def parcel_means(
    store: Place,
    labels: str | Path,
    *,
    per_class: int | None = None,
    seed: int = 0,
    name: str = "parcel means",
) -> SampleSet:
    """Return mean and standard deviation of each band and date over each parcel.

    Parameters
    ----------
    store, labels, per_class, seed, name
        As for `parcel_images`.

    Returns
    -------
    SampleSet
        Kind ``pixel``, x float32 [N, 2 C, T]: bands ``blue mean``, …, then ``blue std``, … (divided
        by the number of pixels; 0 for a single one). A date counts when a pixel is valid.

    Raises
    ------
    LabelError, StoreError
        As for `parcel_images`.
    """
    cube = LabelledCube(store, labels)
    found = [(piece.facts, _statistics(piece)) for piece in _pieces(cube, per_class, seed)]
    bands = [f"{band} {what}" for what in ("mean", "std") for band in cube.recipe.bands]
    return _assembled(name, "pixel", cube, found, bands)


def parcel_pixels(
    store: Place,
    labels: str | Path,
    *,
    pixels: int = 64,
    per_class: int | None = None,
    seed: int = 0,
    name: str = "parcel pixels",
) -> SampleSet:
    """Return each parcel as a set of pixels drawn once, after Garnot et al. (2020), 1911.07757.

    Different here: a parcel with fewer pixels is not filled up with repetitions; its other places
    are invalid.

    Parameters
    ----------
    store, labels, per_class, name
        As for `parcel_images`.
    pixels : int
        S, the pixels drawn of each parcel.
    seed : int
        Draws the parcels and their pixels.

    Returns
    -------
    SampleSet
        Kind ``parcel-pixels``, x uint16 [N, C, T, S], with the `geometry` of each parcel.

    Raises
    ------
    LabelError, StoreError
        As for `parcel_images`.
    """
    cube = LabelledCube(store, labels)
    random = np.random.default_rng([seed, pixels])
    found, shapes = [], []
    for piece in _pieces(cube, per_class, seed):
        found.append((piece.facts, _drawn(piece, pixels, random)))
        shapes.append(geometry(piece.inside))
    samples = _assembled(name, "parcel-pixels", cube, found, cube.recipe.bands)
    return replace(samples, geometry=np.stack(shapes))


def geometry(inside: np.ndarray) -> np.ndarray:
    """Return what is told about a parcel's shape.

    Parameters
    ----------
    inside : ndarray of bool [y, x]
        The parcel in its bounding box, pixels of 10 m.

    Returns
    -------
    ndarray of float32 [4]
        Logarithm of the perimeter in units of 100 m, logarithm of the area in ha, share of the box
        that is covered, perimeter / area in 1/10 m. The logarithms make all of them numbers of
        order one without statistics of the training set, which the source standardises with and
        a model would have to keep.
    """
    framed = np.pad(inside, 1).astype(np.int8)
    edges = int(sum(np.abs(np.diff(framed, axis=axis)).sum() for axis in (0, 1)))
    perimeter, area = PIXEL * edges, PIXEL**2 * int(inside.sum())
    return np.array(
        [np.log(perimeter / 100), np.log(area / 10_000), inside.mean(), 10 * perimeter / area],
        np.float32,
    )


def _image(piece: Piece) -> Sample:
    height, width = piece.inside.shape
    rows, cols = _nearest(height)[:, None], _nearest(width)
    valid = piece.valid[:, rows, cols]
    return piece.x[:, :, rows, cols] * valid, valid


def _nearest(length: int) -> np.ndarray:
    """Return which of `length` pixels is nearest to the middle of each of the image's."""
    return ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)


def _statistics(piece: Piece) -> Sample:
    count = np.maximum(piece.valid.sum(axis=(1, 2)), 1)
    mean = (piece.x * piece.valid).sum(axis=(2, 3), dtype=np.float64) / count
    apart = (piece.x - mean[..., None, None]) * piece.valid
    std = np.sqrt(np.square(apart).sum(axis=(2, 3)) / count)
    seen = np.asarray(piece.valid.any(axis=(1, 2)))
    return np.concatenate([mean, std]).astype(np.float32), seen


def _drawn(piece: Piece, pixels: int, random: np.random.Generator) -> Sample:
    row, col = np.nonzero(piece.inside)
    chosen = random.permutation(len(row))[:pixels]
    row, col, lacking = row[chosen], col[chosen], (0, pixels - len(chosen))
    x = np.pad(piece.x[:, :, row, col], ((0, 0), (0, 0), lacking))
    return x, np.pad(piece.valid[:, row, col], ((0, 0), lacking))


def _pieces(cube: LabelledCube, per_class: int | None, seed: int) -> Iterator[Piece]:
    """Yield the parcels in order of granule and place."""
    table = _parcels(cube)
    if per_class is not None:
        keys = np.random.default_rng(seed).random(len(table))
        table = table.assign(key=keys).sort_values("key").groupby("label").head(per_class)
    grids = {tile.granule: tile.grid for tile in cube.tiles}
    for one in table.sort_values(["granule", "top", "left"]).to_dict("records"):
        height, width = one["bottom"] - one["top"] + 1, one["right"] - one["left"] + 1
        window = Window(row=one["top"], col=one["left"], height=height, width=width)
        x, valid = cube.read(one["granule"], window)
        block = cube.read_labels(one["granule"], window)
        inside = (block.parcel == one["parcel"]) & (block.zone == one["zone"])
        inside &= block.label != IGNORE
        row, col = np.array([one["top"] + height / 2]), np.array([one["left"] + width / 2])
        facts = Facts(
            label=one["label"],
            zone=one["zone"],
            parcel=one["parcel"],
            doy=cube.doy(one["granule"]),
            lonlat=lonlat(grids[one["granule"]], row, col)[0],
        )
        yield Piece(x, valid & inside, inside, facts)


def _parcels(cube: LabelledCube) -> pd.DataFrame:
    """Return granule, zone, parcel, label, bounding box and size of the parts of parcels."""
    parts = []
    for tile in cube.tiles:
        block = cube.read_labels(tile.granule, tile.window)
        row, col = np.nonzero((block.label != IGNORE) & (block.parcel > 0))
        pixels = pd.DataFrame(
            {
                "parcel": block.parcel[row, col],
                "zone": block.zone[row, col],
                "label": block.label[row, col],
                "row": row + tile.window.row,
                "col": col + tile.window.col,
            }
        )
        parts.append(_boxes(pixels).assign(granule=tile.granule))
    merged = pd.concat(parts).groupby(["granule", "zone", "parcel", "label"], as_index=False)
    whole = merged.agg(
        {"top": "min", "bottom": "max", "left": "min", "right": "max", "size": "sum"}
    )
    if whole.empty:
        raise LabelError(f"{cube.labels.path}: no labelled parcel lies in a zone")
    return whole.sort_values("size", kind="stable").drop_duplicates("parcel", keep="last")


def _boxes(pixels: pd.DataFrame) -> pd.DataFrame:
    grouped = pixels.groupby(["zone", "parcel", "label"], as_index=False)
    return grouped.agg(
        top=("row", "min"),
        bottom=("row", "max"),
        left=("col", "min"),
        right=("col", "max"),
        size=("row", "size"),
    )


def _assembled(
    name: str,
    kind: Input,
    cube: LabelledCube,
    found: list[tuple[Facts, Sample]],
    bands: Sequence[str],
) -> SampleSet:
    samples = SampleSet(
        name=name,
        kind=kind,
        bands=tuple(bands),
        legend=cube.legend,
        x=np.stack([x for _, (x, _) in found]),
        valid=np.stack([valid for _, (_, valid) in found]),
        doy=np.stack([facts.doy for facts, _ in found]),
        y=np.array([facts.label for facts, _ in found], np.uint8),
        group=np.array([facts.zone for facts, _ in found], np.int32),
        parcel=np.array([facts.parcel for facts, _ in found], np.int32),
        lonlat=np.stack([facts.lonlat for facts, _ in found]),
    )
    return compacted(samples) if cube.dated else samples
