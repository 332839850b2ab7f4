"""Writes the archive: landscapes first, then scenes in threads, then the vectors beside them."""

from __future__ import annotations

import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cube.simulate import vectors
from cube.simulate.layout import layout
from cube.simulate.scene import Progress, Studio, write_pass
from cube.simulate.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """Where the parts of an archive lie, and how much there is.

    `truth` holds what really grows in each parcel; it is for checks and never for training.
    """

    folder: Path
    items: Path
    parcels: Path
    truth: Path
    zones: Path
    worldcover: Path
    new_area: Path
    n_items: int
    n_parcels: int


def simulate(
    out: str | Path, settings: Settings, progress: Progress | None = None, *, workers: int = 2
) -> Archive:
    """Write an offline Sentinel-2 archive with crop labels; return where its parts lie.

    Parameters
    ----------
    out : path
        Folder to write into; made when missing. Files of the same name are overwritten.
    settings : Settings
        Decides every byte: the same settings give the same files.
    progress : callable, optional
        Called with (done, total, what) after every landscape and every acquisition.
    workers : int
        Threads that draw and write scenes; changes nothing but the time it takes.

    Raises
    ------
    OSError
        If a file cannot be written; no thread is left behind.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    studios = _studios(settings, progress)
    items = _write_scenes(studios, folder, progress, workers)
    places, lands = [s.place for s in studios], [s.land for s in studios]
    parcels, truth, n_parcels = vectors.write_parcels(places, lands, settings, folder)
    archive = Archive(
        folder=folder,
        items=_write_items(items, folder),
        parcels=parcels,
        truth=truth,
        zones=vectors.write_zones(places, settings, folder),
        worldcover=vectors.write_worldcover(places, lands, folder),
        new_area=vectors.write_new_area(places[0], folder),
        n_items=len(items),
        n_parcels=n_parcels,
    )
    log.info("wrote %d scenes and %d parcels to %s", len(items), n_parcels, folder)
    return archive


def _studios(settings: Settings, progress: Progress | None) -> list[Studio]:
    studios = []
    for region in settings.regions:
        studios.append(Studio(layout(region, settings), settings))
        if progress:
            progress(len(studios), len(settings.regions), "landscapes")
    return studios


def _write_scenes(
    studios: list[Studio], folder: Path, progress: Progress | None, workers: int
) -> list[dict[str, Any]]:
    """Write all scenes of all regions; return their items in order of region, time and granule.

    One acquisition of the first region is catalogued twice, as Earth Search does after a
    reprocessing.
    """
    twice = studios[0].reprocessed
    jobs = [(studio, i) for studio in studios for i in range(len(studio.passes))]
    with ThreadPoolExecutor(workers, thread_name_prefix="simulate") as pool:
        tasks: list[Future[list[dict[str, Any]]]] = [
            pool.submit(write_pass, studio, i, folder, studio is studios[0] and i == twice)
            for studio, i in jobs
        ]
        try:
            for done, task in enumerate(as_completed(tasks), start=1):
                task.result()
                if progress:
                    progress(done, len(tasks), "acquisitions")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [item for task in tasks for item in task.result()]


def _write_items(items: list[dict[str, Any]], folder: Path) -> Path:
    """Write every item beside its rasters, and all of them to `items.json`."""
    features = []
    for item in items:
        own = folder / item["id"] / f"{item['id']}.json"
        own.write_text(json.dumps(item, indent=1) + "\n", encoding="utf-8")
        assets = {
            name: {**asset, "href": f"./{item['id']}/{asset['href'].removeprefix('./')}"}
            for name, asset in item["assets"].items()
        }
        features.append({**item, "assets": assets})
    path = folder / "items.json"
    collection = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(collection) + "\n", encoding="utf-8")
    return path
