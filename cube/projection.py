"""The 10 m grid that an item states, in any form of the STAC projection extension.

Items say it on the item or on each asset, as `proj:epsg` or `proj:code`, with six or nine numbers
of transform, with or without shape. What they say is compared with the known MGRS tile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cube.errors import SceneError
from cube.grid import PIXEL, NativeGrid, square_origin
from cube.providers import Provider
from cube.recipe import BANDS

_FULL = 10_980
_OVERLAP = 20_000.0


def native_grid(
    item: Mapping[str, Any], provider: Provider, bands: Sequence[str], granule: str
) -> NativeGrid:
    """Return the 10 m grid of an item's granule, or of the clip of it that the item is.

    Any 10 m band tells it, asked for or not: a 20 m grid can be one row longer than the 10 m one.

    Raises
    ------
    SceneError
        If no band states its place, or it is not one of the granule's.
    """
    for size in (10, 20):
        for band in (*bands, *BANDS):
            asset = item["assets"].get(provider.assets.get(band))
            if BANDS[band] != size or not isinstance(asset, Mapping):
                continue
            place = _placed(item, asset, size)
            if place is None:
                continue
            left, top, height, width = place
            factor = size // int(PIXEL)
            return _plausible(
                NativeGrid(
                    granule=granule,
                    epsg=_epsg(item, asset),
                    left=left,
                    top=top,
                    height=height * factor,
                    width=width * factor,
                )
            )
    raise SceneError("no 10 m or 20 m band states its transform and shape (projection extension)")


def _placed(
    item: Mapping[str, Any], asset: Mapping[str, Any], size: int
) -> tuple[float, float, int, int] | None:
    """Return left, top, height and width of an asset with pixels of `size` metres, if stated."""
    properties = item["properties"]
    bounds = _numbers(asset.get("proj:bbox"), 4)
    transform = _numbers(asset.get("proj:transform"), 6)
    shape = _numbers(asset.get("proj:shape"), 2)
    if transform is None:
        transform = _numbers(properties.get("proj:transform"), 6)
        shape = shape or _numbers(properties.get("proj:shape"), 2)
    if transform is None and bounds is not None:
        transform = [size, 0.0, bounds[0], 0.0, -size, bounds[3]]
    if transform is None:
        return None
    if [*transform[:2], *transform[3:5]] != [size, 0.0, 0.0, -size]:
        return None
    if shape is None and bounds is not None:
        shape = [(bounds[3] - bounds[1]) / size, (bounds[2] - bounds[0]) / size]
    if shape is None or any(value != int(value) for value in shape):
        return None
    return transform[2], transform[5], int(shape[0]), int(shape[1])


def _numbers(value: object, least: int) -> list[float] | None:
    if not isinstance(value, (list, tuple)) or len(value) < least:
        return None
    if not all(isinstance(number, (int, float)) and abs(number) < 1e9 for number in value):
        return None
    return [float(number) for number in value]


def _epsg(item: Mapping[str, Any], asset: Mapping[str, Any]) -> int:
    codes: set[int] = set()
    for holder in (item["properties"], asset):
        for key in ("proj:epsg", "proj:code"):
            text = str(holder.get(key) or "").removeprefix("EPSG:")
            if text.isdecimal():
                codes.add(int(text))
    if len(codes) != 1:
        raise SceneError(f"its CRS is {' or '.join(map(str, sorted(codes))) or 'not stated'}")
    return codes.pop()


def _plausible(grid: NativeGrid) -> NativeGrid:
    """Compare a published grid with the known one of its MGRS tile."""
    west, south = square_origin(grid.granule)
    zone = int(grid.granule[:2])
    epsg = (32600 if grid.granule[2] >= "N" else 32700) + zone
    if grid.epsg != epsg:
        raise SceneError(f"tile {grid.granule} lies in EPSG:{epsg}, but it states {grid.epsg}")
    if not (0 < grid.height <= _FULL and 0 < grid.width <= _FULL):
        raise SceneError(f"its grid of {grid.height} × {grid.width} pixels is not a granule's")
    right = grid.left + grid.width * PIXEL
    bottom = grid.top - grid.height * PIXEL
    beyond = max(west - grid.left, right - west - 1e5, south - bottom, grid.top - south - 1e5)
    if beyond > _OVERLAP:
        raise SceneError(
            f"its grid starts at {grid.left:.0f}, {grid.top:.0f}, outside of tile {grid.granule}"
        )
    return grid
