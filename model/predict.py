"""From a trained model and an area to a crop map.

The area's cube is built with the recipe that the model was trained on, and no other. Each tile is
classified in blocks that look over their border as far as the network does (its halo), on a lattice
that the network's stride divides: a pixel's class depends on the imagery around it, never on where
a tile ends, so there is no seam to blend.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import cube.store
from cube.area import surroundings
from cube.errors import ArtefactError, ClusterLostError
from cube.grid import PIXEL, Window, cell, cells
from cube.objects import at
from cube.planning import plan
from cube.recipe import Recipe
from cube.scenes import Scenes
from model import maps
from model.artefact import Artefact, Predictor, load
from model.samples import require_periods

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
Read = Callable[[Window], tuple[np.ndarray, np.ndarray]]

#: Drift beyond these is reported: shift of a band's mean in training standard deviations, and
#: ratio of the standard deviations.
SHIFT, SPREAD = 0.5, 2.0


def predict(
    artefact: str | Path,
    area: Any,
    out: str | Path,
    *,
    provider: str | Path = "earth-search",
    year: int | None = None,
    scenes: Scenes | None = None,
    client: Client | None = None,
    progress: Progress | None = None,
) -> maps.Maps:
    """Map an area: search, build its cube, classify every pixel, write the maps.

    The cube reaches beyond the area as far as the model looks, so that a pixel at the area's border
    gets the class that it has on a map of a larger area.

    Parameters
    ----------
    artefact : path
        Folder of a trained model; every worker must be able to read it.
    area
        Anything `cube.read_area` takes: bbox, GeoJSON, GeoDataFrame, path of a file.
    out : path
        Folder of the result. A cube that is already there is resumed, not built again.
    provider : str or path
        Name of a catalogue, path of a file of items, or URL of a STAC API.
    year : int, optional
        Year in which the period starts; default the year of the training.
    scenes : Scenes, optional
        Scenes of an earlier `cube.search`, instead of a new one.
    client : distributed.Client, optional
        Cluster that builds and classifies; default this process.
    progress : callable, optional
        Called with (done, total, what).

    Returns
    -------
    Maps
        Paths of the class and confidence COGs, STAC items, previews, and the table of areas.

    Raises
    ------
    ArtefactError
        If the model is damaged, or `out` holds a cube of another recipe.
    RecipeError
        If the model's recipe is a dated series, or has no place in `year`.
    AreaError, SearchError, PlanError, ReadError
        From the steps before.
    """
    from cube.search import search  # workers classify without the catalogue clients

    model, out = load(artefact), Path(out)
    recipe = model.recipe if year is None else model.recipe.for_year(year)
    require_periods(recipe)
    halo = model.predictor().halo
    store = out / "cube.zarr"
    if store.exists():
        check_recipe(model, store)
    if scenes is None:
        scenes = search(surroundings(area, halo * PIXEL), recipe, provider=provider)
    scenes.save(out / "scenes.json")
    made = plan(area, scenes, recipe, margin=halo)
    made.save(out / "plan.json")
    cube.store.write(made, store, client=client, progress=progress)
    return predict_store(artefact, store, out, client=client, progress=progress)


def predict_store(
    artefact: str | Path,
    store: str | Path,
    out: str | Path,
    *,
    client: Client | None = None,
    progress: Progress | None = None,
) -> maps.Maps:
    """Map the area of a finished cube; see `predict`.

    Raises
    ------
    ArtefactError
        If the cube was built with another recipe than the model was trained on.
    StoreError
        If a tile is not done.
    """
    model = load(artefact)
    check_recipe(model, store)
    made = cube.store.read_plan(store)
    extents = [maps.Extent.of(made, grid) for grid in made.grids]
    total = sum(len(extent.tiles) for extent in extents)
    moments, done, grids = Moments.none(len(made.recipe.bands)), 0, []
    for extent in extents:
        canvas = maps.Canvas.blank(extent.window)
        for window, tile in _tiles(artefact, store, extent, client):
            canvas.paste(window, tile.classes, tile.confidence)
            moments += tile.moments
            done += 1
            if progress:
                progress(done, total, "classifying")
        grids.append(maps.write_grid(canvas, extent, made, model, Path(out)))
    drift = moments.drift(model)
    return maps.finish(grids, made, model, drift, Path(out))


def check_recipe(model: Artefact, store: str | Path) -> Recipe:
    """Return the recipe of a cube if the model fits it.

    Raises
    ------
    ArtefactError
        Naming every field in which the two differ. The year may.
    """
    found, wanted = cube.store.read_recipe(store), model.recipe
    if found.method_hash == wanted.method_hash:
        return found
    theirs, ours = found.model_dump(mode="json"), wanted.model_dump(mode="json")
    differ = [f"{name} {theirs[name]} instead of {ours[name]}" for name in ours]
    differ = [text for text, name in zip(differ, ours, strict=True) if theirs[name] != ours[name]]
    raise ArtefactError(
        f"{store} was built with another recipe than the model was trained on: "
        f"{'; '.join(differ)}. Build the cube with the model's recipe, or choose another folder"
    )


def predict_window(
    predictor: Predictor, read: Read, window: Window, wanted: np.ndarray | None = None
) -> np.ndarray:
    """Return the class probabilities of a window, the same whatever window a pixel is asked in.

    Parameters
    ----------
    predictor : Predictor
        Its `halo` and `stride` decide how far around each block is read.
    read : callable
        Gives (reflectance uint16 [T, C, y, x], observations uint8 [T, y, x]) of any window of the
        grid; 0 beyond the cube.
    window : Window
        Pixels of the granule's grid.
    wanted : bool [y, x], optional
        Pixels to decide, default all. Imagery is read and computed only where it matters to them.

    Returns
    -------
    float32 [K, y, x]
        NaN where no month had a clear observation (no decision), and where nothing is wanted.

    Raises
    ------
    ValueError
        If nothing is wanted.
    """
    result: np.ndarray | None = None
    for place in cells(window):
        part = cell(*place).intersect(window)
        asked = None if wanted is None else wanted[part.relative_to(window).yx]
        if asked is not None:
            if not asked.any():
                continue
            part, asked = maps.shrunk(part, asked)
        found = _predict_part(predictor, read, part, asked)
        if result is None:
            result = np.full((len(found), window.height, window.width), np.nan, np.float32)
        result[:, *part.relative_to(window).yx] = found
    if result is None:
        raise ValueError(f"nothing wanted in {window}")
    return result


def _predict_part(
    predictor: Predictor, read: Read, part: Window, wanted: np.ndarray | None
) -> np.ndarray:
    # A network sees whole blocks wherever the window ends, and so computes the same numbers.
    core = _whole_blocks(part, predictor.block)
    around = context(core, predictor.halo, predictor.stride)
    reflectance, observations = read(around)
    inside = part.relative_to(around).yx
    asked = np.zeros((around.height, around.width), bool)
    asked[inside] = observations[:, *inside].any(axis=0)
    if wanted is not None:
        asked[inside] &= wanted
    return predictor.probabilities(reflectance, asked)[:, *inside]


def context(core: Window, halo: int, stride: int) -> Window:
    """Return the pixels a network must see for `core`: its halo, grown to whole strides.

    The corner is a multiple of the stride in the granule's grid, so that every pooling cell holds
    the same pixels whatever window is asked for; it may lie outside of the grid.
    """
    row, bottom = _aligned(core.row - halo, core.row + core.height + halo, stride)
    col, right = _aligned(core.col - halo, core.col + core.width + halo, stride)
    return Window(row=row, col=col, height=bottom - row, width=right - col)


def _aligned(first: int, last: int, stride: int) -> tuple[int, int]:
    return first // stride * stride, -(-last // stride) * stride


def _whole_blocks(window: Window, block: int) -> Window:
    """Return a window grown to whole blocks of the grid's lattice."""
    row, bottom = _aligned(window.row, window.row + window.height, block)
    col, right = _aligned(window.col, window.col + window.width, block)
    return Window(row=row, col=col, height=bottom - row, width=right - col)


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of the valid values of each band; float64 [C]."""

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def none(cls, bands: int) -> Moments:
        """Nothing seen yet."""
        return cls(np.zeros(bands), np.zeros(bands), np.zeros(bands))

    @classmethod
    def of(cls, reflectance: np.ndarray) -> Moments:
        """Moments of uint16 [T, C, y, x]; 0 is no data."""
        values = reflectance.astype(np.float64)
        axes = (0, 2, 3)
        return cls((values > 0).sum(axis=axes), values.sum(axis=axes), (values**2).sum(axis=axes))

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    def drift(self, model: Artefact) -> list[dict[str, Any]]:
        """Compare with the training statistics; a band that moved too far is logged.

        Returns
        -------
        list of dict
            Per band: ``band``, ``shift`` (of the mean, in training standard deviations), ``spread``
            (ratio of standard deviations) and ``drifted``. Empty when nothing was seen.
        """
        if not self.count.all():
            return []
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        trained, deviation = np.array(model.normalisation.mean), np.array(model.normalisation.std)
        shift, spread = (mean - trained) / deviation, std / deviation
        moved = (np.abs(shift) > SHIFT) | (spread > SPREAD) | (spread < 1 / SPREAD)
        rows = zip(model.recipe.bands, shift.tolist(), spread.tolist(), moved.tolist(), strict=True)
        drift = [{"band": b, "shift": s, "spread": r, "drifted": m} for b, s, r, m in rows]
        for row in drift:
            if row["drifted"]:
                log.warning(
                    "%s is unlike the training imagery: mean %+.1f standard deviations, spread "
                    "× %.1f; look at the provider, the offset and the season before using the map",
                    row["band"],
                    row["shift"],
                    row["spread"],
                )
        return drift


@dataclass(frozen=True)
class MappedTile:
    """Classes and confidence of one tile, uint8 [y, x], 255 = no decision."""

    classes: np.ndarray
    confidence: np.ndarray
    moments: Moments


def map_tile(
    artefact: str, store: str, granule: str, window: Window, wanted: bytes | None = None
) -> MappedTile:
    """Classify one tile of a store; runs on any worker that can read both folders.

    `wanted` is from `maps.Extent.wanted`.
    """
    moments: list[Moments] = []

    def read(part: Window) -> tuple[np.ndarray, np.ndarray]:
        reflectance, observations = cube.store.read_window(store, granule, part)
        # Every eighth pixel is enough to see a drift.
        moments.append(Moments.of(reflectance[..., ::8, ::8]))
        return reflectance, observations

    predictor = _predictor(artefact, _changed(artefact))
    mask = None if wanted is None else maps.unpacked(wanted, window)
    probabilities = predict_window(predictor, read, window, mask)
    classes, confidence = decide(probabilities)
    return MappedTile(classes, confidence, _sum(moments))


def decide(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class and confidence, uint8 [y, x]: index and percent of the likeliest class.

    Both are 255 where `probabilities` (float [K, y, x]) is NaN.
    """
    undecided = np.isnan(probabilities[0])
    filled = np.where(undecided, 0, probabilities)
    classes = filled.argmax(axis=0).astype(np.uint8)
    confidence = np.rint(100 * filled.max(axis=0)).astype(np.uint8)
    classes[undecided] = confidence[undecided] = maps.NO_DECISION
    return classes, confidence


def _tiles(
    artefact: str | Path, store: str | Path, extent: maps.Extent, client: Client | None
) -> Iterator[tuple[Window, MappedTile]]:
    folder, path = str(Path(artefact).resolve()), str(at(store).absolute())
    granule = extent.grid.grid.granule
    one = partial(map_tile, folder, path, granule)
    if client is None:
        yield from ((window, one(window, extent.wanted(window))) for window in extent.tiles)
        return
    import distributed
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    futures = {
        client.submit(one, window, extent.wanted(window), pure=False, retries=2): window
        for window in extent.tiles
    }
    try:
        for future in distributed.as_completed(list(futures)):
            yield futures.pop(future), future.result()
    except (CommClosedError, FutureCancelledError) as error:
        raise ClusterLostError(
            f"the cluster went away with {len(futures)} tiles of {granule} to classify; "
            "predict again, the cube is kept"
        ) from error
    finally:
        client.cancel(list(futures))


def _sum(moments: list[Moments]) -> Moments:
    first, *rest = moments
    for more in rest:
        first += more
    return first


def _changed(folder: str) -> int:
    path = Path(folder) / "model.json"
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=2)
def _predictor(folder: str, _changed_ns: int) -> Predictor:
    return load(folder).predictor()
