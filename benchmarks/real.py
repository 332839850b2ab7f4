"""The main job on a real archive: Béziers 2018, split by parcel, 10 and 4 bands.

Needs CROPCUBE_DATA. A split by parcel is kinder than one by zone: neighbouring parcels look alike.
With 120 parcels the choice of test parcels decides much, so several splits are shown.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

import cube
import model

FOUR = ("blue", "green", "red", "nir")
TEN = (*FOUR, "rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22")
SPLITS = (0, 1, 2)
AREA = (3.2915, 43.6155, 3.3215, 43.648)


def prepare(archive: Path, bands: tuple[str, ...], folder: Path) -> tuple[Path, Path]:
    recipe = cube.Recipe(bands=bands, start="2018-01", end="2018-12")
    scenes = cube.search(AREA, recipe, archive / "items.json")
    plan = cube.plan(AREA, scenes, recipe)
    store = cube.store.write(plan, folder / "cube.zarr")
    # The parcels carry EuroCrops' names; codes only where one fits.
    known = model.load_legend("turkoglu", "hcat3_name", 2018)
    parcels = model.read_parcels(archive / "parcels.gpkg", AREA, known)
    labels = folder / "labels.zarr"
    model.write_labels(parcels, plan, known.compact(parcels), None, labels, erosion=10)
    return store, labels


def scores(store: Path, labels: Path, seed: int, folder: Path) -> dict[str, model.Scores]:
    split = model.split_parcels(labels, seed=seed)
    data = model.TileData(store, labels, None, split, batch_size=4, augment=True)
    model.boost(data, folder / "xgboost")
    model.train("hybrid", data, folder / "hybrid", epochs=60, patience=60, class_weights="sqrt")
    return {name: model.evaluate(folder / name, data) for name in ("xgboost", "hybrid")}


def main() -> None:
    if "CROPCUBE_DATA" not in os.environ:
        print("set CROPCUBE_DATA to the folder of the real archives", file=sys.stderr)
        return
    archive = Path(os.environ["CROPCUBE_DATA"]).resolve() / "archive" / "beziers-2018"
    for bands in (TEN, FOUR):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            store, labels = prepare(archive, bands, folder)
            found = [scores(store, labels, seed, folder / str(seed)) for seed in SPLITS]
        print(f"Béziers 2018, {len(bands)} bands, {len(SPLITS)} splits by parcel")
        print("  mean (range)   OA               macro-F1")
        for name in found[0]:
            row([one[name] for one in found], name)
        majority = [one["hybrid"].baseline["all"] for one in found]
        print(
            f"  majority  {spread(m['accuracy'] for m in majority)}  "
            f"{spread(m['f1'] for m in majority)}",
            flush=True,
        )


def row(runs: list[model.Scores], name: str) -> None:
    pixel = [run.whole["pixel"]["all"] for run in runs]
    parcel = [run.whole["parcel_mean"]["all"] for run in runs]
    print(
        f"  {name:<8}  {spread(p['accuracy'] for p in pixel)}  {spread(p['f1'] for p in pixel)}"
        f"  per parcel {spread(p['accuracy'] for p in parcel)}",
        flush=True,
    )


def spread(values: object) -> str:
    figures = [100 * value for value in values]  # type: ignore[attr-defined]
    return f"{statistics.mean(figures):5.1f} ({min(figures):.0f}–{max(figures):.0f})"
