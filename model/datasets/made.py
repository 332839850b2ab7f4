"""Data sets that need a cube first: built once into a folder, and found again there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.datasets.cube import window_set
from model.datasets.parcel import parcel_means
from model.legend import load_legend

if TYPE_CHECKING:
    import geopandas as gpd

    from model.legend import Legend
    from model.sampleset import SampleSet

_FOUR = ("blue", "green", "red", "nir")
_TEN = (*_FOUR, "rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22")
#: The ground that the ten scenes of Béziers share: west, south, east, north.
_BEZIERS = (3.2915, 43.6155, 3.3215, 43.648)
#: Written last: the folder is complete.
_DONE = "done"


def simulated(data: Path, work: Path, year: int = 2023) -> SampleSet:
    """Return labelled windows of a simulated archive: eight regions of two zones.

    Parameters
    ----------
    data : path
        Not read.
    work : path
        Folder of archive, cube and labels.
    year : int
        Year of imagery and declarations; other years have other fields and other weather.

    Returns
    -------
    SampleSet
        Kind ``image``, windows of 32 pixels, four bands, twelve months; groups are zones. Says how
        the software works, nothing about agriculture.
    """
    from cube.simulate import Settings, simulate
    from model.zones import read_zones

    name = f"simulated-{year}"
    folder = work / name
    if not (folder / _DONE).exists():
        settings = Settings(
            seed=year, year=year, zones_per_region=2, zone_metres=1280, revisit_days=6.5
        )
        archive = simulate(folder / "archive", settings)
        zones = read_zones(archive.zones)
        known = load_legend("turkoglu", "level3_fr_ext", year)
        _build(folder, zones, archive.items, archive.parcels, known, zones, year, _FOUR, 5)
    return window_set(folder / "cube.zarr", folder / "labels.zarr", 32, name=name)


def beziers(data: Path, work: Path) -> SampleSet:
    """Return the parcels of Béziers 2018: mean and deviation of ten bands over twelve months.

    Parameters
    ----------
    data : path
        Folder that holds ``archive/beziers-2018``.
    work : path
        Folder of cube and labels.

    Returns
    -------
    SampleSet
        Kind ``pixel``; groups are the parcels. Neighbouring parcels look alike, so scores are
        kinder than those by zone.
    """
    archive = data / "archive" / "beziers-2018"
    folder = work / "beziers"
    if not (folder / _DONE).exists():
        # The parcels carry EuroCrops' names; codes only where one fits.
        known = load_legend("turkoglu", "hcat3_name", 2018)
        items, parcels = archive / "items.json", archive / "parcels.gpkg"
        _build(folder, _BEZIERS, items, parcels, known, None, 2018, _TEN, 10)
    samples = parcel_means(folder / "cube.zarr", folder / "labels.zarr", name="beziers")
    number = np.arange(1, len(samples) + 1, dtype=np.int32)
    return replace(samples, group=number)


def _build(
    folder: Path,
    area: gpd.GeoDataFrame | tuple[float, float, float, float],
    items: Path,
    register: Path,
    known: Legend,
    zones: gpd.GeoDataFrame | None,
    year: int,
    bands: tuple[str, ...],
    erosion: float,
) -> None:
    """Build the cube of an area and the labels of its parcels."""
    import cube
    from model.labels import write_labels
    from model.parcels import read_parcels

    folder.mkdir(parents=True, exist_ok=True)
    recipe = cube.Recipe(bands=bands, start=f"{year}-01", end=f"{year}-12")
    plan = cube.plan(area, cube.search(area, recipe, items), recipe)
    cube.store.write(plan, folder / "cube.zarr")
    parcels = read_parcels(register, area, known)
    legend = known.compact(parcels)
    write_labels(parcels, plan, legend, zones, folder / "labels.zarr", erosion=erosion)
    (folder / _DONE).touch()
