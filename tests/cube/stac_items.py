"""Items as Earth Search v1, the Planetary Computer and CDSE publish them, with facts to choose."""

from __future__ import annotations

from typing import Any

_KEYS = {
    "blue": ("B02", 10),
    "green": ("B03", 10),
    "red": ("B04", 10),
    "nir": ("B08", 10),
    "swir16": ("B11", 20),
    "scl": ("SCL", 20),
}


def _footprint(bbox: tuple[float, float, float, float]) -> dict[str, Any]:
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _projection(corner: tuple[int, int], size: int) -> dict[str, Any]:
    return {
        "proj:shape": [109_800 // size, 109_800 // size],
        "proj:transform": [size, 0, corner[0], 0, -size, corner[1]],
    }


def earth_search(
    *,
    tile: str = "31TEJ",
    corner: tuple[int, int] = (499_980, 4_900_020),
    epsg: int = 32631,
    day: str = "20180826",
    satellite: str = "A",
    sequence: int = 0,
    baseline: str = "02.08",
    flag: bool | None = False,
    offset: float | None = 0,
    strip: str | None = None,
    generated: str = "20180826T150000",
    bbox: tuple[float, float, float, float] = (3.0, 43.25, 4.36, 44.25),
) -> dict[str, Any]:
    """Return an item of collection sentinel-2-l2a."""
    name = f"S2{satellite}_{tile}_{day}_{sequence}_L2A"
    start = f"{day}T104021"
    number = f"N{baseline.replace('.', '')}"
    root = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs"
    place = f"{int(tile[:2])}/{tile[2]}/{tile[3:]}/{day[:4]}/{int(day[4:6])}"
    properties: dict[str, Any] = {
        "datetime": f"{day[:4]}-{day[4:6]}-{day[6:]}T10:43:29.027000Z",
        "platform": f"sentinel-2{satellite.lower()}",
        "proj:epsg": epsg,
        "grid:code": f"MGRS-{tile}",
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": baseline,
        "s2:product_uri": f"S2{satellite}_MSIL2A_{start}_{number}_R008_T{tile}_{generated}.SAFE",
        "s2:datatake_id": f"GS2{satellite}_{start}_016588_N{baseline}",
        "s2:datastrip_id": (
            f"S2{satellite}_OPER_MSI_L2A_DS_EPA__{generated}_S{strip or day + 'T104501'}"
            f"_N{baseline}"
        ),
        "s2:generation_time": (
            f"{generated[:4]}-{generated[4:6]}-{generated[6:8]}T{generated[9:11]}:00:00Z"
        ),
    }
    if flag is not None:
        properties["earthsearch:boa_offset_applied"] = flag
    assets = {}
    for key, (band, size) in _KEYS.items():
        raster: dict[str, Any] = {"nodata": 0, "data_type": "uint16"}
        if key != "scl" and offset is not None:
            raster |= {"scale": 0.0001, "offset": offset}
        assets[key] = {
            "href": f"{root}/{place}/{name}/{band}.tif",
            "raster:bands": [raster],
            **_projection(corner, size),
        }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "bbox": list(bbox),
        "geometry": _footprint(bbox),
        "properties": properties,
        "assets": assets,
        "links": [],
    }


def planetary_computer(
    *, baseline: str = "02.12", day: str = "20190516", generated: str = "20201007T100000"
) -> dict[str, Any]:
    """Return an item as the Planetary Computer writes it: nothing but the baseline."""
    start = f"{day}T105659"
    name = f"S2A_MSIL2A_{start}_R051_T31UES_{generated}"
    root = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/31/U/ES"
    assets = {
        band: {"href": f"{root}/T31UES_{start}_{band}_{size}m.tif", **_projection(CORNER_UES, size)}
        for band, size in _KEYS.values()
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "bbox": list(BBOX_UES),
        "geometry": _footprint(BBOX_UES),
        "properties": {
            "datetime": f"{day[:4]}-{day[4:6]}-{day[6:]}T10:56:59.024000Z",
            "platform": "Sentinel-2A",
            "proj:epsg": 32631,
            "s2:mgrs_tile": "31UES",
            "s2:product_type": "S2MSI2A",
            "s2:processing_baseline": baseline,
        },
        "assets": assets,
        "links": [],
    }


def cdse(
    *, baseline: str = "05.00", offset: float | None = -0.1, day: str = "20200516"
) -> dict[str, Any]:
    """Return an item as CDSE writes it (STAC 1.1): everything about the grid on the assets."""
    start, number = f"{day}T105659", f"N{baseline.replace('.', '')}"
    name = f"S2A_MSIL2A_{start}_{number}_R051_T31UES_20230613T212700"
    root = f"s3://eodata/Sentinel-2/MSI/L2A_{number}/{name}.SAFE"
    assets: dict[str, Any] = {}
    for band, size in _KEYS.values():
        for shown in (10, 20, 60):
            if shown < size:
                continue
            role = "sampling:original" if shown == size else "sampling:downsampled"
            assets[f"{band}_{shown}m"] = {
                "href": f"{root}/R{shown}m/T31UES_{start}_{band}_{shown}m.jp2",
                "roles": ["data", role],
                "nodata": 0,
                "proj:code": "EPSG:32631",
                **_projection(CORNER_UES, shown),
            }
            if band != "SCL" and offset is not None:
                assets[f"{band}_{shown}m"] |= {"raster:scale": 0.0001, "raster:offset": offset}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "bbox": list(BBOX_UES),
        "geometry": _footprint(BBOX_UES),
        "properties": {
            "datetime": f"{day[:4]}-{day[4:6]}-{day[6:]}T10:56:59.024Z",
            "platform": "sentinel-2a",
            "grid:code": "MGRS-31UES",
            "product:type": "S2MSI2A",
            "processing:version": baseline,
            "processing:datetime": "2023-06-13T21:27:00.000000Z",
            "eopf:datatake_id": f"GS2A_{start}_025601_N{baseline}",
            "eopf:datastrip_id": (
                f"S2A_OPER_MSI_L2A_DS_S2RP_20230613T212700_S{day}T105701_N{baseline}"
            ),
        },
        "assets": assets,
        "links": [],
    }


CORNER_UES = (499_980, 5_700_000)
BBOX_UES = (3.0, 50.46, 4.58, 51.45)
