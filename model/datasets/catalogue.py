"""The data sets that `cropcube benchmark` and `cropcube ablate` know by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cube.errors import LabelError
from model.datasets import made
from model.datasets.breizhcrops import breizhcrops
from model.datasets.eurocropsml import eurocropsml
from model.datasets.pastis import pastis
from model.datasets.points import fr_rpg, us_cdl
from model.datasets.timesen2crop import timesen2crop
from model.datasets.zuericrop import zuericrop

if TYPE_CHECKING:
    from model.sampleset import SampleSet

#: Folder of the data sets, where nothing else is said.
VARIABLE = "CROPCUBE_DATA"


@dataclass(frozen=True)
class DataSet:
    """A data set that can be had by name.

    Attributes
    ----------
    load : callable
        From the folder of the data, and one to work in, to samples.
    groups : str
        What its spatial split keeps together.
    source : str
        Where it is from.
    needs_data : bool
        Whether it reads the folder of the data; the simulated one makes its own.
    """

    load: Callable[[Path, Path], SampleSet]
    groups: str
    source: str
    needs_data: bool = True


_WORLDCEREAL = "RPG points of WorldCereal, github.com/WorldCereal/worldcereal-classification"
_CDL = "USDA Cropland Data Layer 2021, github.com/chahinez26/Crop-Classification-Projet"

DATASETS: dict[str, DataSet] = {
    "simulated": DataSet(made.simulated, "zones", "simulated archive, see `cube.simulate`", False),
    "simulated-2024": DataSet(
        lambda data, work: made.simulated(data, work, 2024),
        "zones",
        "simulated archive of another year",
        False,
    ),
    "us-cdl-arkansas": DataSet(
        lambda data, work: us_cdl(data / "points" / "us-cdl-2021-arkansas.parquet"),
        "blocks of 0.1 degree",
        _CDL,
    ),
    "us-cdl-california": DataSet(
        lambda data, work: us_cdl(data / "points" / "us-cdl-2021-california.parquet"),
        "blocks of 0.1 degree",
        _CDL,
    ),
    "fr-rpg-2023": DataSet(
        lambda data, work: fr_rpg(data / "points" / "2023_FRA_LPIS_POLY_110.dekad.geoparquet"),
        "blocks of 0.1 degree",
        _WORLDCEREAL,
    ),
    "fr-rpg-2022": DataSet(
        lambda data, work: fr_rpg(data / "points" / "2022_FRA_LPIS_POLY_110.month.geoparquet"),
        "blocks of 0.1 degree",
        _WORLDCEREAL,
    ),
    "beziers": DataSet(
        made.beziers,
        "parcels",
        "Sentinel-2 and RPG 2018 of EuroCrops, github.com/rslab-ntua/cropmaps",
    ),
    # Published data sets, unpacked into a folder of their name; parts that fit into memory.
    "breizhcrops": DataSet(
        lambda data, work: breizhcrops(data / "breizhcrops", limit=5000),
        "regions",
        "Rußwurm et al. (2019), arXiv 1905.11893; 5000 parcels of each region",
    ),
    "pastis": DataSet(
        lambda data, work: pastis(data / "pastis", limit=20),
        "folds",
        "Garnot and Landrieu (2021), arXiv 2107.07933; 20 patches of each fold",
    ),
    "zuericrop": DataSet(
        lambda data, work: zuericrop(data / "zuericrop", limit=400),
        "folds",
        "Turkoglu et al. (2021), arXiv 2102.08820; 400 patches of each fold",
    ),
    "timesen2crop": DataSet(
        lambda data, work: timesen2crop(data / "timesen2crop", per_class=100),
        "tiles",
        "Weikmann et al. (2021), doi 10.1109/JSTARS.2021.3073965; 100 pixels per class and tile",
    ),
    "eurocropsml": DataSet(
        lambda data, work: eurocropsml(data / "eurocropsml", per_class=500),
        "NUTS-3 regions",
        "Reuss et al. (2024), arXiv 2407.17458; 500 parcels of each class",
    ),
}


def load_set(name: str, data: str | Path | None, work: str | Path) -> SampleSet:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        A key of `DATASETS`.
    data : path, optional
        Folder of the data; default that of the variable CROPCUBE_DATA. It is only read.
    work : path
        Folder for cubes that have to be built first; they are found again there.

    Raises
    ------
    LabelError
        If the name is unknown, or the data are not there.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise LabelError(f"unknown data set '{name}'{hint} Known: {', '.join(DATASETS)}")
    entry = DATASETS[name]
    folder = Path(data or os.environ.get(VARIABLE, ""))
    if entry.needs_data and not (data or os.environ.get(VARIABLE)):
        raise LabelError(
            f"{name}: where are the data? Give --data FOLDER, or set {VARIABLE} to the folder"
        )
    if entry.needs_data and not folder.is_dir():
        raise LabelError(f"{name}: no folder {folder}; give the folder of the data with --data")
    return entry.load(folder, Path(work))
