"""Label rasters on disk, on the same grid as the cube.

Layout of ``labels.zarr``, with ``parcels.csv`` beside it::

    labels.zarr/31TEJ/label    uint8 [y, x]   class, 255 = ignore
    labels.zarr/31TEJ/parcel   int32 [y, x]   row of parcels.csv + 1, 0 = none
    labels.zarr/31TEJ/zone     int16 [y, x]   row of the zones + 1, 0 = none

The attributes are written last: a store without them was interrupted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import zarr
import zarr.codecs
import zarr.errors

from cube.errors import LabelError
from cube.grid import TILE, NativeGrid, Window
from model.legend import IGNORE, Legend

FORMAT = "cropcube-labels-1"
_ARRAYS = {"label": ("uint8", IGNORE), "parcel": ("int32", 0), "zone": ("int16", 0)}


@dataclass(frozen=True)
class LabelBlock:
    """Labels of one window; ``label`` uint8, ``parcel`` int32, ``zone`` int16, all [y, x]."""

    label: np.ndarray
    parcel: np.ndarray
    zone: np.ndarray


class LabelStore:
    """A label store opened for reading.

    Parameters
    ----------
    path : str or Path
        ``labels.zarr``.

    Attributes
    ----------
    legend : Legend
        The legend it was written with.
    zones : GeoDataFrame
        ``zone``, ``region``, ``test`` and geometry (EPSG:4326); row i has the raster value i + 1.

    Raises
    ------
    LabelError
        If it is not a finished label store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        attributes = _attributes(self.path)
        if attributes.get("format") != FORMAT:
            raise LabelError(f"{self.path} is not a finished label store; write the labels again")
        self._attributes = attributes
        self.legend = Legend.from_dict(attributes["legend"])
        self.erosion = float(attributes["erosion"])
        self.grids = [NativeGrid.model_validate(grid) for grid in attributes["grids"]]
        self.windows: dict[str, list[Window]] = {
            granule: [Window.model_validate(window) for window in windows]
            for granule, windows in attributes["windows"].items()
        }
        rows = attributes["zones"]
        self.zones = gpd.GeoDataFrame(
            {key: [row[key] for row in rows] for key in ("zone", "region", "test")},
            geometry=[shapely.from_wkt(row["wkt"]) for row in rows],
            crs=4326,
        )

    @cached_property
    def parcels(self) -> pd.DataFrame:
        """``index`` (raster value), ``id``, ``code``, ``class`` (255 = ignore), one row each.

        Raises
        ------
        LabelError
            If ``parcels.csv`` is missing or belongs to another label store.
        """
        table = parcel_table(self.path)
        if not table.exists() or _digest(table) != self._attributes["parcels_sha256"]:
            raise LabelError(f"{table} is not the table of {self.path}; write the labels again")
        return pd.read_csv(table, dtype={"id": str, "code": str}, keep_default_na=False)

    def read(self, granule: str, window: Window) -> LabelBlock:
        """Read a window; what lies outside of the grid is 255, 0 and 0.

        Raises
        ------
        LabelError
            If the store has no such granule.
        """
        inside = self._inside(granule, window)
        group = _group(str(self.path), self._attributes["token"])
        target = inside.relative_to(window).yx
        arrays = {}
        for name, (dtype, fill) in _ARRAYS.items():
            values = np.full((window.height, window.width), fill, dtype)
            values[target] = group[f"{granule}/{name}"][inside.yx]
            arrays[name] = values
        return LabelBlock(**arrays)

    def require(self, granule: str, window: Window) -> None:
        """Raise LabelError unless the labels of this tile were written."""
        if window not in self.windows.get(granule, []):
            raise LabelError(
                f"{self.path} has no labels for {granule} row {window.row}, col {window.col}; "
                "write the labels for this cube"
            )

    def _inside(self, granule: str, window: Window) -> Window:
        grid = next((grid for grid in self.grids if grid.granule == granule), None)
        if grid is None:
            known = ", ".join(grid.granule for grid in self.grids)
            raise LabelError(f"{self.path} has no labels of granule {granule}; it has {known}")
        return window.intersect(grid.window)


class LabelWriter:
    """A label store being written; `finish` makes it readable."""

    def __init__(self, path: Path, grids: list[NativeGrid]) -> None:
        self.path, self._grids = path, grids
        if path.exists() and any(path.iterdir()) and not (path / "zarr.json").exists():
            raise LabelError(f"{path} exists and is not a label store; choose another path")
        self._root = zarr.create_group(path, zarr_format=3, overwrite=True)
        self._windows: dict[str, list[Window]] = {grid.granule: [] for grid in grids}
        for grid in grids:
            for name, (dtype, fill) in _ARRAYS.items():
                self._root.create_array(
                    f"{grid.granule}/{name}",
                    shape=(grid.height, grid.width),
                    dtype=dtype,
                    chunks=(TILE, TILE),
                    fill_value=fill,
                    compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                    dimension_names=("y", "x"),
                )

    def write(self, granule: str, window: Window, block: LabelBlock) -> None:
        """Write the labels of one tile."""
        for name in _ARRAYS:
            self._root[f"{granule}/{name}"][window.yx] = getattr(block, name)
        self._windows[granule].append(window)

    def finish(
        self,
        legend: Legend,
        zones: gpd.GeoDataFrame,
        parcels: pd.DataFrame,
        **more: Any,
    ) -> None:
        """Write ``parcels.csv`` and the attributes that say the store is complete."""
        table = parcel_table(self.path)
        parcels.to_csv(table, index=False, lineterminator="\n")
        shapes = zones.to_crs(4326).geometry
        rows = [
            {"zone": str(name), "region": str(region), "test": bool(test), "wkt": shape.wkt}
            for name, region, test, shape in zip(
                zones.zone, zones.region, zones.test, shapes, strict=True
            )
        ]
        digest = _digest(table)
        self._root.attrs.update(
            {
                "format": FORMAT,
                "legend": legend.to_dict(),
                "zones": rows,
                "grids": [grid.model_dump() for grid in self._grids],
                "windows": {g: [w.model_dump() for w in ws] for g, ws in self._windows.items()},
                "parcels_sha256": digest,
                "token": digest[:16],
                **more,
            }
        )


def parcel_table(path: str | Path) -> Path:
    """Return where the table of parcels of a label store lies."""
    return Path(path).parent / "parcels.csv"


def _attributes(path: Path) -> dict[str, Any]:
    try:
        return dict(zarr.open_group(path, mode="r").attrs)
    except (OSError, ValueError, zarr.errors.BaseZarrError) as error:
        raise LabelError(f"{path} is not a label store ({error})") from error


@lru_cache(maxsize=8)
def _group(path: str, _token: str) -> zarr.Group:
    return zarr.open_group(path, mode="r")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
