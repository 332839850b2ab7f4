"""STAC items as Earth Search v1 writes them, of acquisitions as the calendar gives them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from shapely.geometry import Polygon, mapping

from cube.grid import PIXEL, NativeGrid
from cube.simulate.rng import stream
from cube.simulate.settings import Region, Settings

EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
    "https://stac-extensions.github.io/mgrs/v1.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/view/v1.0.0/schema.json",
]
#: Band → file name, title, centre wavelength and width (µm), as in the items of Earth Search.
FILES: dict[str, tuple[str, str, float, float]] = {
    "blue": ("B02", "Blue (band 2) - 10m", 0.49, 0.098),
    "green": ("B03", "Green (band 3) - 10m", 0.56, 0.045),
    "red": ("B04", "Red (band 4) - 10m", 0.665, 0.038),
    "rededge1": ("B05", "Red edge 1 (band 5) - 20m", 0.704, 0.019),
    "rededge2": ("B06", "Red edge 2 (band 6) - 20m", 0.74, 0.018),
    "rededge3": ("B07", "Red edge 3 (band 7) - 20m", 0.783, 0.028),
    "nir": ("B08", "NIR 1 (band 8) - 10m", 0.842, 0.145),
    "nir08": ("B8A", "NIR 2 (band 8A) - 20m", 0.865, 0.033),
    "swir16": ("B11", "SWIR 1 (band 11) - 20m", 1.61, 0.143),
    "swir22": ("B12", "SWIR 2 (band 12) - 20m", 2.19, 0.242),
}
#: Steps of the golden ratio spread good and bad weather evenly over the months.
_GOLDEN = 0.6180339887498949
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_PERCENTAGES = {
    0: "nodata_pixel", 2: "dark_features", 3: "cloud_shadow", 4: "vegetation",
    5: "not_vegetated", 6: "water", 7: "unclassified", 8: "medium_proba_clouds",
    9: "high_proba_clouds", 10: "thin_cirrus", 11: "snow_ice",
}  # fmt: skip


@dataclass(frozen=True)
class Acquisition:
    """One overpass over one region, in one processing.

    `partial` orbits see a part of the region only. In `collection1` pixels carry the offset of
    +1000 and the item declares it; otherwise the catalogue subtracted it and says so with a flag.
    `luck` (0-1) says how clear the sky is.
    """

    region: Region
    time: dt.datetime
    satellite: str
    orbit: int
    partial: bool
    collection1: bool
    luck: float = 0.5
    sequence: int = 0
    baseline: str = "05.09"

    @property
    def day(self) -> float:
        """Day of the year, 1 on 1 January."""
        return float(self.time.timetuple().tm_yday)

    @property
    def datatake(self) -> str:
        """Names the overpass, the same for all granules and processings."""
        return f"{self.region.name}-{self.time:%Y%m%dT%H%M%S}"

    @property
    def offset(self) -> int:
        """What the pixels carry in DN."""
        return 1000 if self.collection1 else 0

    def reprocessed(self) -> Acquisition:
        """Return the same overpass as a later baseline made it."""
        return replace(self, sequence=self.sequence + 1, baseline="05.10")

    def item_id(self, granule: str) -> str:
        """Return the item's id in the manner of its collection."""
        if self.collection1:
            return f"{self.satellite}_T{granule}_{self.time:%Y%m%dT%H%M%S}_L2A"
        return f"{self.satellite}_{granule}_{self.time:%Y%m%d}_{self.sequence}_L2A"


def calendar(region: Region, settings: Settings) -> list[Acquisition]:
    """Return the year's acquisitions of a region in order of time.

    Satellites alternate; every third pass comes from the orbit that sees half of the region.
    """
    rng = stream(settings.seed, region.name, "calendar")
    start = dt.datetime(settings.year, 1, 1, 10, 30, tzinfo=dt.UTC)
    start += dt.timedelta(seconds=int(rng.integers(1500)))
    first = rng.uniform(0, settings.revisit_days)
    days = dt.date(settings.year, 12, 31).timetuple().tm_yday
    orbits = rng.choice(np.arange(1, 144), 2, replace=False)
    luck = rng.random()
    passes = []
    for i in range(int(np.ceil((days - first) / settings.revisit_days))):
        day = int(first + i * settings.revisit_days)
        partial = i % 3 == 2
        passes.append(
            Acquisition(
                region,
                start + dt.timedelta(days=day, seconds=int(rng.integers(8)), minutes=10 * partial),
                "S2A" if i % 2 == 0 else "S2B",
                int(orbits[int(partial)]),
                partial,
                bool(rng.random() < settings.offset_share),
                luck=float((luck + i * _GOLDEN) % 1),
            )
        )
    return passes


def _names(passed: Acquisition, granule: str) -> dict[str, str]:
    """Return product names as ESA builds them."""
    sensed = f"{passed.time:%Y%m%dT%H%M%S}"
    wait = dt.timedelta(hours=5) if passed.sequence == 0 else dt.timedelta(days=320)
    made = passed.time + wait
    absolute = (passed.time - dt.datetime(2015, 6, 23, tzinfo=dt.UTC)).days * 143 // 10
    number = passed.baseline.replace(".", "")
    return {
        "s2:product_uri": f"{passed.satellite}_MSIL2A_{sensed}_N{number}_R{passed.orbit:03d}"
        f"_T{granule}_{made:%Y%m%dT%H%M%S}.SAFE",
        "s2:generation_time": f"{made:%Y-%m-%dT%H:%M:%S}.000000Z",
        "s2:datatake_id": f"G{passed.satellite}_{sensed}_{absolute:06d}_N{passed.baseline}",
        "s2:datastrip_id": f"{passed.satellite}_OPER_MSI_L2A_DS_SIMU_{made:%Y%m%dT%H%M%S}"
        f"_S{sensed}_N{passed.baseline}",
        "s2:datatake_type": "INS-NOBS",
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": passed.baseline,
    }


def _percentages(scl: np.ndarray) -> dict[str, float]:
    """Return shares of the SCL in percent: nodata of all pixels, the others of those with data."""
    counts = np.bincount(scl.ravel(), minlength=12)
    seen = max(int(counts[1:].sum()), 1)
    shares = {
        f"s2:{name}_percentage": round(100 * int(counts[value]) / seen, 6)
        for value, name in _PERCENTAGES.items()
    }
    shares["s2:nodata_pixel_percentage"] = round(100 * int(counts[0]) / scl.size, 6)
    shares["eo:cloud_cover"] = round(100 * int(counts[8:11].sum()) / seen, 6)
    return shares


def _asset(band: str, grid: NativeGrid, gsd: int) -> dict[str, Any]:
    shape = [grid.height * 10 // gsd, grid.width * 10 // gsd]
    transform = [float(gsd), 0.0, grid.left, 0.0, -float(gsd), grid.top]
    common: dict[str, Any] = {
        "type": _COG, "gsd": gsd, "proj:shape": shape, "proj:transform": transform,
    }  # fmt: skip
    if band == "scl":
        kept = {"nodata": 0, "data_type": "uint8", "spatial_resolution": gsd}
        return {
            **common,
            "href": "./SCL.tif",
            "title": "Scene classification map (SCL)",
            "raster:bands": [kept],
            "roles": ["data"],
        }
    name, title, centre, width = FILES[band]
    facts = {"name": band, "common_name": "rededge" if "rededge" in band else band}
    stored = {"nodata": 0, "data_type": "uint16", "bits_per_sample": 15}
    return {
        **common,
        "href": f"./{name}.tif",
        "title": title,
        "eo:bands": [{**facts, "center_wavelength": centre, "full_width_half_max": width}],
        "raster:bands": [{**stored, "spatial_resolution": gsd, "scale": 0.0001, "offset": -0.1}],
        "roles": ["data", "reflectance"],
    }


def footprint(grid: NativeGrid, swath: Polygon) -> Polygon:
    """Return the ground that was seen, EPSG:4326, from the swath in the grid's own metres."""
    to_lonlat = Transformer.from_crs(grid.epsg, 4326, always_xy=True)
    return shapely.transform(
        swath, lambda xy: np.round(np.column_stack(to_lonlat.transform(*xy.T)), 8)
    )


def build_item(
    passed: Acquisition, grid: NativeGrid, swath: Polygon, bands: tuple[str, ...],
    scl: np.ndarray, sun: tuple[float, float],
) -> dict[str, Any]:  # fmt: skip
    """Return the item as a dict, hrefs relative to the item's own file."""
    granule = grid.granule
    outline = footprint(grid, swath)
    collection = "sentinel-2-c1-l2a" if passed.collection1 else "sentinel-2-l2a"
    names = _names(passed, granule)
    properties: dict[str, Any] = {
        "datetime": f"{passed.time:%Y-%m-%dT%H:%M:%S}.{27_000 + passed.orbit:06d}Z",
        "created": names["s2:generation_time"],
        "updated": names["s2:generation_time"],
        "platform": f"sentinel-2{passed.satellite[-1].lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "proj:epsg": grid.epsg,
        "mgrs:utm_zone": int(granule[:-3]),
        "mgrs:latitude_band": granule[-3],
        "mgrs:grid_square": granule[-2:],
        "grid:code": f"MGRS-{granule}",
        "view:sun_elevation": round(sun[0], 4),
        "view:sun_azimuth": round(sun[1], 4),
        **_percentages(scl),
        **names,
    }
    if not passed.collection1:
        properties |= {"s2:sequence": str(passed.sequence), "earthsearch:boa_offset_applied": True}
    gsd = {band: 10 if band in ("blue", "green", "red", "nir") else 20 for band in bands}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": EXTENSIONS,
        "id": passed.item_id(granule),
        "collection": collection,
        "geometry": mapping(outline),
        "bbox": [round(v, 8) for v in outline.bounds],
        "properties": properties,
        "links": [],
        "assets": {
            **{band: _asset(band, grid, gsd[band]) for band in bands},
            "scl": _asset("scl", grid, 20),
        },
    }


def swath_edge(passed: Acquisition, grid: NativeGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return a point of the swath's western edge and its inward normal, in metres.

    A descending orbit leans about 12° from north. Partial orbits have their edge near the middle
    of the region's `grid`, the others far outside.
    """
    width = PIXEL * grid.width
    drift = stream(0, passed.datatake, "edge").uniform(-0.05, 0.05)
    shift = drift * width if passed.partial else -10 * width
    middle = (grid.left + width / 2, grid.top - PIXEL * grid.height / 2)
    lean = np.radians(12)
    return np.array([middle[0] + shift, middle[1]]), np.array([np.cos(lean), -np.sin(lean)])
