"""Maps on disk: COGs of classes and confidence, a STAC item, a preview and a table of areas."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pystac
import rasterio
import rasterio.features
import rasterio.shutil
from odc.geo.geom import Geometry
from pystac.extensions.classification import Classification, ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension

from cube.grid import PIXEL, Window
from cube.planning import GridPlan, Plan
from model import report

if TYPE_CHECKING:
    from model.artefact import Artefact

#: Value of both rasters where nothing was decided and outside of the area.
NO_DECISION = 255
HECTARES = PIXEL * PIXEL / 10_000


@dataclass(frozen=True)
class Canvas:
    """Classes and confidence of one native grid, uint8 [y, x], filled tile by tile."""

    window: Window
    classes: np.ndarray
    confidence: np.ndarray

    @classmethod
    def blank(cls, window: Window) -> Canvas:
        """Nothing decided yet."""
        shape = (window.height, window.width)
        return cls(window, *(np.full(shape, NO_DECISION, np.uint8) for _ in range(2)))

    def paste(self, window: Window, classes: np.ndarray, confidence: np.ndarray) -> None:
        """Put one tile in its place."""
        place = window.relative_to(self.window).yx
        self.classes[place], self.confidence[place] = classes, confidence


@dataclass(frozen=True)
class Extent:
    """What a map shows of one native grid: the area, and nothing that was built around it.

    Attributes
    ----------
    grid : GridPlan
    window : Window
        The smallest one that holds the area.
    inside : bool [y, x]
        Pixels of `window` in the area.
    tiles : tuple of Window
        Parts of the plan's tiles in `window`, those with a pixel of the area.
    """

    grid: GridPlan
    window: Window
    inside: np.ndarray
    tiles: tuple[Window, ...]

    @classmethod
    def of(cls, plan: Plan, grid: GridPlan) -> Extent:
        """Leave out what the plan builds around the area."""
        window, inside = grid.window, area_mask(plan, grid, grid.window)
        if inside.any():
            window, inside = shrunk(window, inside)
        parts = (tile.window.intersect(window) for tile in grid.tiles)
        tiles = tuple(p for p in parts if not p.empty and inside[p.relative_to(window).yx].any())
        return cls(grid, window, inside, tiles)

    def wanted(self, tile: Window) -> bytes | None:
        """Return the pixels of a tile that lie in the area, packed for a worker; None: all."""
        mask = self.inside[tile.relative_to(self.window).yx]
        return None if mask.all() else zlib.compress(np.packbits(mask).tobytes())


def unpacked(wanted: bytes, tile: Window) -> np.ndarray:
    """Return bool [y, x] from what `Extent.wanted` packed."""
    bits = np.frombuffer(zlib.decompress(wanted), np.uint8)
    size = tile.height * tile.width
    return np.unpackbits(bits, count=size).astype(bool).reshape(tile.height, tile.width)


def shrunk(window: Window, mask: np.ndarray) -> tuple[Window, np.ndarray]:
    """Return the smallest window that holds the true pixels of a mask (bool [y, x]), and those."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(cols[0])
    height, width = int(rows[-1]) + 1 - top, int(cols[-1]) + 1 - left
    smaller = Window(row=window.row + top, col=window.col + left, height=height, width=width)
    return smaller, mask[top : top + height, left : left + width]


@dataclass(frozen=True)
class GridMap:
    """The files of one native grid, and pixels per class (int64 [K + 1], last = no decision)."""

    granule: str
    classes: Path
    confidence: Path
    item: Path
    preview: Path
    pixels: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Maps:
    """What `predict` made.

    Attributes
    ----------
    folder : Path
        Where everything lies.
    grids : tuple of GridMap
        One pair of COGs, one STAC item and one preview per native grid.
    table : DataFrame
        ``class``, ``pixels``, ``hectares``, ``share`` of the area; the same in ``area.csv`` and
        ``area.json``.
    drift : list of dict
        Per band, how far the imagery lies from the training imagery.
    """

    folder: Path
    grids: tuple[GridMap, ...]
    table: pd.DataFrame = field(repr=False)
    drift: list[dict[str, Any]] = field(repr=False)


def write_grid(canvas: Canvas, extent: Extent, plan: Plan, model: Artefact, out: Path) -> GridMap:
    """Clip one grid's map to the area and write its files into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    grid, inside = extent.grid, extent.inside
    for layer in (canvas.classes, canvas.confidence):
        layer[~inside] = NO_DECISION
    granule, legend = grid.grid.granule, model.legend
    paths = {
        name: out / f"{granule}_{name}"
        for name in ("classes.tif", "confidence.tif", "preview.png", "item.json")
    }
    box = grid.grid.geobox(canvas.window)
    write_cog(paths["classes.tif"], canvas.classes, box, "mode", legend.colours, legend.classes)
    write_cog(paths["confidence.tif"], canvas.confidence, box, "average")
    report.preview(canvas.classes, legend, paths["preview.png"])
    item = stac_item(paths, grid, plan, model, canvas.window)
    paths["item.json"].write_text(json.dumps(item.to_dict(), indent=1), encoding="utf-8")
    counts = np.bincount(canvas.classes[inside], minlength=256)
    pixels = np.append(counts[: len(legend.classes)], counts[NO_DECISION])
    return GridMap(
        granule=granule,
        classes=paths["classes.tif"],
        confidence=paths["confidence.tif"],
        item=paths["item.json"],
        preview=paths["preview.png"],
        pixels=pixels,
    )


def finish(
    grids: list[GridMap], plan: Plan, model: Artefact, drift: list[dict[str, Any]], out: Path
) -> Maps:
    """Write the table of areas over all grids, and return what was made."""
    table = area_table(sum(grid.pixels for grid in grids), model.legend.classes)
    table.to_csv(out / "area.csv", index=False, float_format="%.4f")
    facts = {
        "recipe": plan.recipe.model_dump(mode="json"),
        "classes": json.loads(table.to_json(orient="records")),
        "drift": drift,
    }
    (out / "area.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return Maps(out, tuple(grids), table, drift)


def area_table(pixels: np.ndarray | int, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return hectares per class, largest first, "no decision" last.

    Parameters
    ----------
    pixels : int [K + 1]
        Pixels of 10 m (0.01 ha) per class, then those without decision.
    """
    counts = np.asarray(pixels)
    table = pd.DataFrame({"class": [*classes, "no decision"], "pixels": counts})
    table["hectares"] = table["pixels"] * HECTARES
    table["share"] = table["pixels"] / max(1, int(counts.sum()))
    decided = table.iloc[:-1].sort_values("pixels", ascending=False, kind="stable")
    return pd.concat([decided[decided["pixels"] > 0], table.iloc[-1:]], ignore_index=True)


def area_mask(plan: Plan, grid: GridPlan, window: Window) -> np.ndarray:
    """Return which pixel centres lie in the area (bool [y, x]), and in the grid's UTM zone.

    Areas too thin to contain a centre take the pixels they touch.
    """
    box = grid.grid.geobox(window)
    shape = Geometry(plan.area, "EPSG:4326").to_crs(box.crs, resolution=0.005)
    inside = rasterio.features.geometry_mask(
        [shape.json],
        out_shape=box.shape,
        transform=box.transform,
        invert=True,
        all_touched=shape.area < PIXEL * PIXEL,
    )
    return inside & grid.owned(window)


def write_cog(
    path: Path,
    values: np.ndarray,
    box: Any,
    overviews: str,
    colours: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
    nodata: int = NO_DECISION,
) -> None:
    """Write uint8 or uint16 [y, x] as a cloud-optimised GeoTIFF; `overviews`: resampling."""
    profile = {
        "driver": "GTiff",
        "dtype": values.dtype.name,
        "count": 1,
        "nodata": nodata,
        "height": values.shape[0],
        "width": values.shape[1],
        "crs": str(box.crs),
        "transform": box.transform,
    }
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain, cog = Path(folder, "plain.tif"), Path(folder, path.name)
        with rasterio.open(plain, "w", **profile) as target:
            target.write(values, 1)
            if colours:
                target.write_colormap(1, colour_table(colours))
                target.update_tags(1, **{f"class_{i}": name for i, name in enumerate(names)})
        rasterio.shutil.copy(
            plain, cog, driver="COG", compress="DEFLATE", overview_resampling=overviews
        )
        cog.replace(path)


def colour_table(colours: tuple[str, ...]) -> dict[int, tuple[int, int, int, int]]:
    """Return GDAL's colour table of a legend (``#rrggbb``); 255 is transparent."""
    table = {NO_DECISION: (0, 0, 0, 0)}
    for index, colour in enumerate(colours):
        red, green, blue = bytes.fromhex(colour.lstrip("#"))
        table[index] = (red, green, blue, 255)
    return table


def stac_item(
    paths: dict[str, Path],
    grid: GridPlan,
    plan: Plan,
    model: Artefact,
    window: Window,
) -> pystac.Item:
    """Describe one grid's map: where, when, what the values mean, from which model and scenes."""
    box = grid.grid.geobox(window)
    lonlat = box.extent.to_crs("EPSG:4326")
    recipe = plan.recipe
    item = pystac.Item(
        id=f"{grid.grid.granule}-{recipe.start}-{recipe.end}-crops",
        geometry=lonlat.json,
        bbox=list(lonlat.boundingbox),
        datetime=None,
        start_datetime=datetime.fromisoformat(recipe.datetime[0]),
        end_datetime=datetime.fromisoformat(recipe.datetime[1]),
        properties={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "cropcube:version": version("cropcube"),
            "cropcube:recipe": recipe.model_dump(mode="json"),
            "cropcube:recipe_hash": recipe.hash,
            "cropcube:model": model.architecture,
            "cropcube:model_sha256": hashlib.sha256(model.weights.read_bytes()).hexdigest(),
            "cropcube:legend": model.legend.name,
            "cropcube:scenes": [scene.id for scene in grid.scenes],
        },
    )
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.apply(
        code=f"EPSG:{grid.grid.epsg}", shape=list(box.shape), transform=list(box.transform)[:6]
    )
    _add_assets(item, paths, model)
    return item


def _add_assets(item: pystac.Item, paths: dict[str, Path], model: Artefact) -> None:
    titles = {
        "classes.tif": ("classes", "crop class", pystac.MediaType.COG, ["data"]),
        "confidence.tif": (
            "confidence",
            "probability of the class, percent",
            pystac.MediaType.COG,
            ["data"],
        ),
        "preview.png": ("preview", "picture of the map", pystac.MediaType.PNG, ["overview"]),
    }
    for name, (key, title, kind, roles) in titles.items():
        path = paths[name]
        item.add_asset(key, pystac.Asset(f"./{path.name}", title, media_type=kind, roles=roles))
        described = FileExtension.ext(item.assets[key], add_if_missing=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        # Multihash (STAC file extension): 12 = SHA-256, 20 = 32 bytes.
        described.apply(checksum=f"1220{digest}", size=path.stat().st_size)
    for key, href in (("area", "./area.csv"), ("scenes", "./scenes.json"), ("plan", "./plan.json")):
        item.add_asset(key, pystac.Asset(href, roles=["metadata"]))
    classes = ClassificationExtension.ext(item.assets["classes"], add_if_missing=True)
    classes.apply(classes=_classes(model))


def _classes(model: Artefact) -> list[Classification]:
    legend = model.legend
    entries = [
        Classification.create(value=i, name=name, color_hint=colour.lstrip("#").upper())
        for i, (name, colour) in enumerate(zip(legend.classes, legend.colours, strict=True))
    ]
    nothing = Classification.create(value=NO_DECISION, name="no-decision", nodata=True)
    return [*entries, nothing]
