"""Explore: scenes as a lazy cube, one layer per scene, on any grid, through odc-stac or stackstac.

For the same pixels as a build, for another CRS or resolution, or to look at single dates. The
functions of `cube.composite` turn it into a monthly cube: same masks, same medians as
`cube.build`, slower, because every scene is a task of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import shapely
import xarray as xr
from odc.geo import CRS
from odc.geo.crs import CRSError
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, multigeom
from odc.geo.xr import xr_coords

from cube.area import read_area
from cube.errors import CropcubeError, PlanError
from cube.grid import PIXEL, NativeGrid
from cube.kernels import MAX_DN
from cube.recipe import KEEP
from cube.scenes import Scene

Loader = Literal["odc", "stackstac"]
Resampling = Literal["nearest", "bilinear"]


def load(
    scenes: Iterable[Scene],
    bands: Sequence[str],
    *,
    loader: Loader = "odc",
    area: Any = None,
    crs: Any = None,
    resolution: float | None = None,
    resampling: Resampling = "nearest",
    chunks: int = 1024,
    keep: Sequence[int] = KEEP,
) -> xr.Dataset:
    """Return scenes as a lazy cube with one time per scene.

    ::

        cube_of_scenes = cube.load(scenes, bands=["red", "nir"])
        clear = cube.mask_scl(cube_of_scenes.reflectance, cube_of_scenes.scl)
        monthly = cube.monthly_median(clear)

    Parameters
    ----------
    scenes : Scenes or iterable of Scene
        From `cube.search`, or those of a plan (``plan.grids[0].scenes``), whose offsets are
        decided.
    bands : sequence of str
        Common names. Bands of 20 and 60 m are replicated unless `resampling` says otherwise.
    loader : {"odc", "stackstac"}
        Which library opens and warps the files.
    area : optional
        Anything `cube.read_area` takes; default all the scenes cover.
    crs : optional
        Anything odc-geo takes for a CRS, with an EPSG code; default the scenes' own.
    resolution : float, optional
        Side of a pixel in units of the CRS; default 10 m. With neither `crs` nor `resolution` the
        grid is the scenes' own and nothing is resampled.
    resampling : {"nearest", "bilinear"}
        For reflectance; the scene classification is always nearest. ``bilinear`` mixes pixels
        before the mask is applied, so edges of clouds leak into their clear neighbours.
    chunks : int
        Side of a chunk in pixels. A whole number of the files' blocks (512 or 1024) reads each
        block once.
    keep : sequence of int
        Classes that count as clear where parts of one pass overlap: as in a build, the part first
        in order of id is the observation where it is clear; there the others say no data (0).

    Returns
    -------
    Dataset
        ``reflectance`` uint16 [time, band, y, x]: × 10 000, harmonised to the scale before
        baseline 04.00 with a floor of 1, 0 = no data. ``scl`` uint8 [time, y, x]. ``time`` is
        the sensing time (UTC); ``id`` [time] the items.

    Raises
    ------
    PlanError
        For no scenes, a scene whose offset is not decided or that lacks a band, or an area that
        no scene covers; for scenes of several UTM zones without `crs`.
    ReadError
        While computing: names item and asset.
    """
    scenes = _usable(scenes, bands)
    if loader not in ("odc", "stackstac"):
        raise PlanError(f"unknown loader '{loader}'; choose odc or stackstac")
    if resampling not in ("nearest", "bilinear"):
        raise PlanError(f"unknown resampling '{resampling}'; choose nearest or bilinear")
    box = _grid({scene.grid for scene in scenes}, area, crs, resolution)
    loaders = _import_loaders()
    fetch = loaders.load_with_odc if loader == "odc" else loaders.load_with_stackstac
    coords: dict[str, Any] = dict(xr_coords(box, "spatial_ref"))
    stamps = pd.DatetimeIndex([pd.Timestamp(s.datetime).tz_convert("UTC") for s in scenes])
    coords |= {
        "time": stamps.tz_localize(None).as_unit("ns"),
        "id": ("time", [scene.id for scene in scenes]),
        "band": np.array(bands, dtype=str),
    }
    y, x = box.dimensions
    dn = fetch(scenes, bands, box, resampling, chunks)
    scl = fetch(scenes, ("scl",), box, "nearest", chunks)[:, 0]
    cube = xr.Dataset(
        {"reflectance": (("time", "band", y, x), dn), "scl": (("time", y, x), scl)}, coords
    )
    cube["reflectance"] = _harmonised(cube.reflectance, scenes).assign_attrs(
        grid_mapping="spatial_ref", long_name="surface reflectance × 10 000", nodata=0
    )
    cube["scl"] = _one_look_per_pass(cube.scl, scenes, keep).assign_attrs(
        grid_mapping="spatial_ref", long_name="scene classification", nodata=0
    )
    return cube


def _usable(scenes: Iterable[Scene], bands: Sequence[str]) -> list[Scene]:
    found = list(scenes)
    if not found:
        raise PlanError("no scenes to load; search again")
    if isinstance(bands, str) or not bands:
        raise PlanError(f"bands must be a list such as ['red', 'nir'], got {bands!r}")
    for scene in found:
        missing = [band for band in (*bands, "scl") if band not in scene.hrefs]
        if missing:
            raise PlanError(
                f"{scene.id}: no asset for {', '.join(missing)} (it has "
                f"{', '.join(scene.hrefs)}); search with these bands in the recipe"
            )
        if scene.subtract is None:
            raise PlanError(
                f"{scene.id}: whether ESA's offset is in its pixels is not decided ({scene.why}); "
                "plan first, which looks at the pixels, and load the scenes of the plan"
            )
    return found


def _import_loaders() -> Any:
    try:
        from cube import loaders
    except ImportError as error:
        raise CropcubeError(
            f"loading scenes needs odc-stac and stackstac ({error}): "
            "pip install 'cropcube[explore]'"
        ) from error
    return loaders


def _harmonised(dn: xr.DataArray, scenes: Sequence[Scene]) -> xr.DataArray:
    subtract = xr.DataArray(np.array([s.subtract for s in scenes], np.uint16), dims="time")
    # Above MAX_DN are traces of an unsigned underflow; the floor keeps dark pixels from 0.
    valid = (dn > 0) & (dn <= MAX_DN)
    return (dn.clip(min=subtract + np.uint16(1)) - subtract).where(valid, np.uint16(0))


def _one_look_per_pass(
    scl: xr.DataArray, scenes: Sequence[Scene], keep: Sequence[int]
) -> xr.DataArray:
    passes: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(scenes)), key=lambda index: scenes[index].id):
        passes[scenes[index].acquisition].append(index)
    if len(passes) == len(scenes):
        return scl
    layers = [scl[index] for index in range(len(scenes))]
    for parts in passes.values():
        seen = layers[parts[0]].isin(keep)
        for index in parts[1:]:
            layers[index] = layers[index].where(~seen, np.uint8(0))
            seen = seen | layers[index].isin(keep)
    return xr.concat(layers, scl.time)


# --- the grid ----------------------------------------------------------------------------------


def _grid(grids: set[NativeGrid], area: Any, crs: Any, resolution: float | None) -> GeoBox:
    zones = sorted({grid.epsg for grid in grids})
    if crs is None and len(zones) > 1:
        names = ", ".join(f"EPSG:{epsg}" for epsg in zones)
        raise PlanError(f"the scenes lie in several UTM zones ({names}); give crs")
    if crs is None and resolution is None:
        return _own_grid(grids, area)
    wanted = _crs(f"EPSG:{zones[0]}" if crs is None else crs)
    if resolution is None and not wanted.projected:
        raise PlanError(f"{wanted} counts in degrees: give resolution, 0.0001 for about 10 m")
    footprint = multigeom([grid.geobox(grid.window).extent.to_crs(wanted) for grid in grids])
    extent = footprint if area is None else _shape(area).to_crs(wanted)
    if not extent.intersects(footprint):
        raise PlanError("no scene covers the area; search it again")
    return GeoBox.from_geopolygon(extent, resolution=resolution or PIXEL)


def _crs(text: Any) -> CRS:
    try:
        wanted = CRS(text)
    except CRSError as error:
        raise PlanError(f"crs: {text!r} is not a CRS ({error})") from error
    if wanted.epsg is None:
        raise PlanError(f"crs: {text!r} has no EPSG code; choose one that has")
    return wanted


def _shape(area: Any) -> Geometry:
    # Straight edges in longitude and latitude are curved elsewhere: 0.005° keeps within 1 m.
    return Geometry(shapely.segmentize(read_area(area), 0.005), "EPSG:4326")


def _own_grid(grids: set[NativeGrid], area: Any) -> GeoBox:
    first, *others = sorted(grids, key=lambda grid: grid.granule)
    for other in others:
        if (other.left - first.left) % PIXEL or (other.top - first.top) % PIXEL:
            raise PlanError(
                f"granules {first.granule} and {other.granule} do not share a 10 m lattice; give "
                "resolution, or load scenes of one of them"
            )
    left, top = min(grid.left for grid in grids), max(grid.top for grid in grids)
    right = max(grid.left + grid.width * PIXEL for grid in grids)
    bottom = min(grid.top - grid.height * PIXEL for grid in grids)
    height, width = round((top - bottom) / PIXEL), round((right - left) / PIXEL)
    whole = NativeGrid(
        granule=first.granule, epsg=first.epsg, left=left, top=top, height=height, width=width
    )
    window = whole.window
    if area is not None:
        bounds = _shape(area).to_crs(f"EPSG:{whole.epsg}").boundingbox
        window = whole.window_of(*bounds.bbox)
        if window.empty:
            raise PlanError("no scene covers the area; search it again")
        window = window.even().intersect(whole.window)
    return whole.geobox(window)
