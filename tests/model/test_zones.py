"""Zones: chosen where a land cover raster with known fields says there is cropland."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer

from cube.errors import AreaError, SceneError
from model.zones import Layout, choose_zones
from tests.stac_api import stac_api

LAYOUT = Layout(count=3, size=2_000, gap=500, radius=8_000)
PLACE = {"Béziers": (3.215, 43.344)}


@pytest.fixture(scope="module")
def worldcover(tmp_path_factory):
    """Grass (30) with cropland (40) in the south-east quarter, in degrees at about 20 m."""
    path = tmp_path_factory.mktemp("cover") / "worldcover.tif"
    lon, lat, step, n = 3.0, 43.55, 0.0002, 2100
    classes = np.full((n, n), 30, np.uint8)
    east, south = lon + step * np.arange(n) > 3.215, lat - step * np.arange(n) < 43.344
    classes[np.ix_(south, east)] = 40
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": n, "width": n}
    transform = rasterio.transform.from_origin(lon, lat, step, step)
    with rasterio.open(path, "w", **profile, crs="EPSG:4326", transform=transform) as target:
        target.write(classes, 1)
    return path


def test_most_cropland_first_one_test_zone_and_distance_kept(worldcover):
    zones = choose_zones(worldcover, PLACE, LAYOUT)
    assert list(zones.zone) == ["Béziers-1", "Béziers-2", "Béziers-3"]
    assert zones.test.sum() == 1
    assert zones.crs.to_epsg() == 2154
    assert np.allclose(zones.area, 4e6)
    x, y = Transformer.from_crs(4326, 2154, always_xy=True).transform(3.215, 43.344)
    assert (zones.cropland > 0.99).all()
    assert (zones.centroid.x > x).all()
    assert (zones.centroid.y < y).all()
    for one, other in itertools.combinations(zones.geometry, 2):
        assert one.distance(other) >= 500 - 1e-6
    assert zones.geometry.centroid.distance(zones.geometry.centroid.iloc[0]).max() < 16_000


def test_shares_are_those_of_the_raster(worldcover):
    # All squares of the lattice: those on the border between grass and crops have about half.
    zones = choose_zones(worldcover, PLACE, Layout(count=9, size=2_000, gap=0, radius=3_000))
    shares = np.sort(zones.cropland.to_numpy())
    assert shares[-1] > 0.99
    assert (shares < 0.01).sum() >= 1
    middle = zones.cropland[zones.distance(zones.union_all().centroid) < 1].iloc[0]
    assert middle == pytest.approx(0.25, abs=0.05)


def test_seed_chooses_the_test_zone_only(worldcover):
    runs = [choose_zones(worldcover, PLACE, LAYOUT, seed=seed) for seed in range(8)]
    assert len({int(np.flatnonzero(zones.test)[0]) for zones in runs}) > 1
    assert all(zones.geometry.equals(runs[0].geometry) for zones in runs)


def test_regions_do_not_share_ground(worldcover):
    places = {"Béziers": (3.215, 43.344), "next door": (3.216, 43.344)}
    zones = choose_zones(worldcover, places, LAYOUT)
    assert zones.groupby("region").test.sum().tolist() == [1, 1]
    for one, other in itertools.combinations(zones.geometry, 2):
        assert one.distance(other) >= 500 - 1e-6


def test_too_little_land_is_said(worldcover, tmp_path):
    with pytest.raises(AreaError, match="does not cover any zone around Vitré"):
        choose_zones(worldcover, {"Vitré": (-1.2, 48.1)}, LAYOUT)
    with pytest.raises(AreaError, match="of 99 zones fit around Béziers"):
        choose_zones(worldcover, PLACE, Layout(count=99, size=2_000, gap=500, radius=8_000))
    with pytest.raises(AreaError, match="not readable"):
        choose_zones(tmp_path / "none.tif", PLACE, LAYOUT)


def test_land_cover_from_stac_items_is_that_of_the_raster(worldcover, tmp_path):
    """The raster cut in two, each half an item: from a file, and from an API."""
    with rasterio.open(worldcover) as source:
        profile, classes = source.profile, source.read(1)
    items = []
    for name, first in (("north", 0), ("south", 1050)):
        transform = profile["transform"] @ rasterio.Affine.translation(0, first)
        half = {**profile, "height": 1050, "transform": transform}
        with rasterio.open(tmp_path / f"{name}.tif", "w", **half) as target:
            target.write(classes[first : first + 1050], 1)
            box = list(target.bounds)
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": name,
                "collection": "esa-worldcover",
                "bbox": box,
                "geometry": shapely.geometry.mapping(shapely.box(*box)),
                "properties": {"datetime": "2021-01-01T00:00:00Z"},
                "links": [],
                "assets": {"map": {"href": f"{name}.tif"}},
            }
        )
    listed = tmp_path / "worldcover.json"
    listed.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    expected = choose_zones(worldcover, PLACE, LAYOUT)
    assert choose_zones(listed, PLACE, LAYOUT).equals(expected)
    # An API may not name files of this machine, and only hosts that publish WorldCover.
    for href, message in (("north.tif", "relative"), ("https://evil.example/a.tif", "not allowed")):
        items[0]["assets"]["map"]["href"] = href
        with stac_api(items[:1]) as server, pytest.raises(SceneError, match=message):
            choose_zones(f"{server.url}/collections/esa-worldcover", PLACE, LAYOUT)


def test_files_that_are_no_land_cover(tmp_path):
    (tmp_path / "items.json").write_text("{}")
    with pytest.raises(AreaError, match="neither a raster nor a file of STAC items"):
        choose_zones(tmp_path / "items.json", PLACE, LAYOUT)
