"""Honest scores: groups never trained on, with and without background, per pixel and per parcel.

The pixels of the stage are predicted by the function that makes maps (`predict.predict_window`), in
whole tiles with their surroundings, so a score says what a map of that place would have been worth.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import cube.store
from cube.errors import ArtefactError, SplitError
from cube.grid import Window
from model import report
from model.areas import area_rows, mapped_hectares
from model.artefact import Artefact, load
from model.backoff import BackOff
from model.evaluate_set import predict_set, score_set
from model.leakage import audit
from model.legend import IGNORE
from model.maps import HECTARES
from model.predict import check_recipe, decide, predict_window
from model.scorecard import write_card
from model.scores import Place, Scores, score
from model.setdata import SetData
from model.tally import Tally
from model.temperature import tempered

if TYPE_CHECKING:
    from model.tiles import TileData

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class StageTile:
    """One tile with labels of the stage; ``truth`` is 255 outside of the stage's groups."""

    granule: str
    window: Window
    truth: np.ndarray
    parcel: np.ndarray
    zone: np.ndarray


def evaluate(
    artefact: str | Path | Artefact,
    data: TileData | SetData,
    stage: str = "test",
    out: str | Path | None = None,
    *,
    buffer: float = 0,
    map_folder: str | Path | None = None,
    target_confidence: float | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a model on the groups of a stage.

    Parameters
    ----------
    artefact : path or Artefact
        The trained model.
    data : TileData or SetData
        Cube, labels, legend and split, or samples in memory with theirs.
    stage : {"test", "val", "train"}
        Which groups.
    out : path, optional
        Folder for ``metrics.json``, ``scores.md`` and the pictures; default none are written.
    buffer : float
        Metres that must lie between any two sets.
    map_folder : path, optional
        A map that `predict` made, of land that the zones of the stage stand for: its areas are
        estimated. Default the zones of the stage themselves, as the model maps them.
    target_confidence : float, optional
        Count what is answered at which level of the class tree when a pixel must reach it, see
        `model.backoff`.
    progress : callable, optional
        Called with (done, total, what).

    Returns
    -------
    Scores

    Raises
    ------
    ArtefactError
        If recipe or legend differ from the model's.
    SplitError
        If the split leaks, or the stage has no labelled pixels.
    """
    model = artefact if isinstance(artefact, Artefact) else load(artefact)
    _check_legend(model, data)
    back_off = None
    if target_confidence is not None:
        back_off = BackOff.of(model.legend, target_confidence, model.temperature)
    if isinstance(data, SetData):
        scores = _score_samples(model, data, stage, buffer, back_off)
        if out is not None:
            write_card(scores, data.legend, Path(out))
        return scores
    mapped = None if map_folder is None else mapped_hectares(map_folder, model.legend)
    check_recipe(model, data.store)
    leakage = asdict(audit(data.split, data.labels, buffer))
    found = _count_tiles(model, data, stage, back_off, progress)
    scores = score(
        found.tallies,
        _places(data),
        legend=data.legend,
        training_counts=data.class_counts,
        stage=stage,
        audit=leakage,
        model=_named(model),
    )
    if mapped is None and data.split.by == "zone":
        mapped = found.mapped * HECTARES
    if mapped is not None:
        matrices = [tally.matrix for _, tally in sorted(found.tallies.items())]
        scores = replace(scores, areas=area_rows(mapped, np.stack(matrices), model.legend))
    if back_off is not None:
        scores = replace(scores, back_off=back_off.rows())
    if out is not None:
        write_report(scores, data, found.panels(data), Path(out))
    return scores


def _count_tiles(
    model: Artefact,
    data: TileData,
    stage: str,
    back_off: BackOff | None,
    progress: Progress | None,
) -> _Found:
    found = _Found(len(data.legend.classes))
    predictor = model.predictor()
    tiles = list(stage_tiles(data, stage))
    zones = sorted(data.split.groups(stage)) if data.split.by == "zone" else []
    for done, tile in enumerate(tiles, start=1):
        read = partial(cube.store.read_window, data.store, tile.granule)
        inside = np.isin(tile.zone, zones)
        wanted = inside | (tile.truth != IGNORE)
        probabilities = predict_window(predictor, read, tile.window, wanted=wanted)
        found.add(tile, inside, probabilities, back_off)
        if progress:
            progress(done, len(tiles), f"evaluating {stage}")
    if not found.tallies:
        raise SplitError(f"no labelled pixel in the groups of '{stage}'; look at the split")
    return found


def stage_tiles(data: TileData, stage: str) -> Iterator[StageTile]:
    """Yield the tiles of the store that hold labelled pixels of the stage's groups."""
    for number, tile in enumerate(data.index.tiles):
        labelled, block = data.index.labelled(stage, number)
        if labelled.any():
            truth = np.where(labelled, block.label, IGNORE).astype(np.uint8)
            yield StageTile(tile.granule, tile.window, truth, block.parcel, block.zone)


def _score_samples(
    model: Artefact, data: SetData, stage: str, buffer: float, back_off: BackOff | None
) -> Scores:
    if model.bands != data.bands:
        raise ArtefactError(
            f"the model takes {', '.join(model.bands)}, {data.set.name} has {', '.join(data.bands)}"
            "; choose the model's bands, in its order"
        )
    data = data.with_normalisation(model.normalisation)
    found = tempered(predict_set(model.network(), data, stage), model.temperature[-1])
    scores = score_set(found, data, stage, buffer=buffer, model=_named(model))
    if back_off is None:
        return scores
    rows = np.moveaxis(found, 1, -1).reshape(-1, found.shape[1])
    back_off.add(data.set.y[data.stage_rows[stage]].ravel(), rows)
    return replace(scores, back_off=back_off.rows())


def _places(data: TileData) -> dict[int, Place]:
    """Return the names of the zones; 0 is the land outside of them."""
    places = {0: Place("outside zones", "outside zones")}
    pairs = zip(data.zones["zone"], data.zones["region"], strict=True)
    for number, (zone, region) in enumerate(pairs, start=1):
        places[number] = Place(str(zone), str(region))
    return places


def _named(model: Artefact) -> dict[str, str]:
    return {"architecture": model.architecture, "kind": model.kind}


def _check_legend(model: Artefact, data: TileData | SetData) -> None:
    if tuple(model.legend.classes) != tuple(data.legend.classes):
        raise ArtefactError(
            f"the model knows {len(model.legend.classes)} classes of legend {model.legend.name}, "
            f"the labels hold {len(data.legend.classes)} of {data.legend.name}; write the labels "
            "with the model's legend, or train on these labels"
        )


def write_report(
    scores: Scores, data: TileData, panels: dict[str, np.ndarray], out: Path
) -> list[Path]:
    """Write ``metrics.json``, ``scores.md`` and the pictures into `out`; return their paths."""
    legend = data.legend
    written = [
        *write_card(scores, legend, out),
        report.map_picture(panels, legend, out / "map.png"),
    ]
    bands = list(data.recipe.bands)
    if {"red", "nir"} <= set(bands):
        profiles = report.ndvi_profiles(
            data.pixels(scores.stage), bands.index("red"), bands.index("nir"), len(legend.classes)
        )
        months = list(data.recipe.periods)
        written.append(report.ndvi_picture(profiles, months, legend, out / "ndvi.png"))
    return written


class _Found:
    """What is counted tile by tile, and the tile with most labelled pixels, for the picture."""

    def __init__(self, n_classes: int) -> None:
        self.tallies: dict[int, Tally] = {}
        self.mapped = np.zeros(n_classes, np.int64)
        self._best: tuple[int, StageTile, np.ndarray, np.ndarray] | None = None

    def add(
        self,
        tile: StageTile,
        inside: np.ndarray,
        probabilities: np.ndarray,
        back_off: BackOff | None,
    ) -> None:
        """Count a tile: probabilities float [K, y, x]; `inside`, bool [y, x], is mapped."""
        labelled = tile.truth != IGNORE
        truth, parcel, zone = (a[labelled] for a in (tile.truth, tile.parcel, tile.zone))
        rows = probabilities[:, labelled].T
        for number in np.unique(zone):
            here = zone == number
            tally = self.tallies.setdefault(int(number), Tally(len(self.mapped)))
            tally.add(truth[here], rows[here], parcel[here])
        if back_off is not None:
            back_off.add(truth, rows)
        classes, confidence = decide(probabilities)
        self.mapped += np.bincount(classes[inside], minlength=256)[: len(self.mapped)]
        if self._best is None or len(truth) > self._best[0]:
            self._best = (len(truth), tile, classes, confidence)

    def panels(self, data: TileData) -> dict[str, np.ndarray]:
        """Return the panels of `report.map_picture`, cut to the labelled part of the tile."""
        if self._best is None:
            return {}
        _, tile, classes, confidence = self._best
        crop = _bounds(tile.truth != IGNORE)
        percent = confidence[crop].astype(np.float32)
        panels: dict[str, np.ndarray] = {
            "labels": tile.truth[crop],
            "prediction": classes[crop],
            "confidence": np.where(percent == IGNORE, np.nan, percent / 100),
        }
        bands = list(data.recipe.bands)
        if {"red", "green", "blue"} <= set(bands):
            reflectance, _ = cube.store.read_window(data.store, tile.granule, tile.window)
            month = len(data.recipe.periods) // 2
            rgb = [reflectance[month, bands.index(b)][crop] for b in ("red", "green", "blue")]
            title = f"imagery, {data.recipe.periods[month]:%B %Y}"
            panels[title] = report.natural_colours(*rgb)
        return panels


def _bounds(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
