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
from cube.errors import ArtefactError, ClusterLostError
from cube.grid import Window
from cube.objects import at
from cube.planning import GridPlan, plan
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

#: Side of the blocks that are classified at once, pixels; tiles are a whole number of them.
BLOCK = 256
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
    store = out / "cube.zarr"
    if store.exists():
        check_recipe(model, store)
    if scenes is None:
        scenes = search(area, recipe, provider=provider)
    scenes.save(out / "scenes.json")
    made = plan(area, scenes, recipe)
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
    moments, done, grids = Moments.none(len(made.recipe.bands)), 0, []
    for grid in made.grids:
        canvas = maps.Canvas.blank(grid.window)
        for window, tile in _tiles(artefact, store, grid, client):
            canvas.paste(window, tile.classes, tile.confidence)
            moments += tile.moments
            done += 1
            if progress:
                progress(done, made.n_tiles, "classifying")
        grids.append(maps.write_grid(canvas, grid, made, model, Path(out)))
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
        Blocks of the window without a wanted pixel are skipped and stay NaN.

    Returns
    -------
    float32 [K, y, x]
        NaN where no month had a clear observation: no decision.
    """
    result: np.ndarray | None = None
    for block in _blocks(window):
        part = block.intersect(window)
        inside = part.relative_to(window).yx
        if wanted is not None and not wanted[inside].any():
            continue
        # A network sees whole blocks wherever the window ends, and so computes the same numbers.
        core = block if predictor.halo else part
        around = context(core, predictor.halo, predictor.stride)
        reflectance, observations = read(around)
        crop = part.relative_to(around).yx
        found = predictor.probabilities(reflectance)[:, *crop]
        if result is None:
            result = np.full((len(found), window.height, window.width), np.nan, np.float32)
        seen = observations[:, *crop].any(axis=0)
        result[:, *inside] = np.where(seen, found, np.nan)
    if result is None:
        raise ValueError(f"nothing wanted in {window}")
    return result


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


def _blocks(window: Window) -> Iterator[Window]:
    """Yield the blocks of the grid's lattice that meet a window, whole."""
    for row in range(window.row // BLOCK, -(-(window.row + window.height) // BLOCK)):
        for col in range(window.col // BLOCK, -(-(window.col + window.width) // BLOCK)):
            yield Window(row=row * BLOCK, col=col * BLOCK, height=BLOCK, width=BLOCK)


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


def map_tile(artefact: str, store: str, granule: str, window: Window) -> MappedTile:
    """Classify one tile of a store; runs on any worker that can read both folders."""
    moments: list[Moments] = []

    def read(part: Window) -> tuple[np.ndarray, np.ndarray]:
        reflectance, observations = cube.store.read_window(store, granule, part)
        # Every eighth pixel is enough to see a drift.
        moments.append(Moments.of(reflectance[..., ::8, ::8]))
        return reflectance, observations

    probabilities = predict_window(_predictor(artefact, _changed(artefact)), read, window)
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
    artefact: str | Path, store: str | Path, grid: GridPlan, client: Client | None
) -> Iterator[tuple[Window, MappedTile]]:
    folder, path = str(Path(artefact).resolve()), str(at(store).absolute())
    one = partial(map_tile, folder, path, grid.grid.granule)
    windows = [tile.window for tile in grid.tiles]
    if client is None:
        yield from ((window, one(window)) for window in windows)
        return
    import distributed
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    futures = {client.submit(one, window, pure=False, retries=2): window for window in windows}
    try:
        for future in distributed.as_completed(list(futures)):
            yield futures.pop(future), future.result()
    except (CommClosedError, FutureCancelledError) as error:
        raise ClusterLostError(
            f"the cluster went away with {len(futures)} tiles of {grid.grid.granule} to classify; "
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
