"""Areas in every form a person may have, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from cube.area import MAX_VERTICES, read_area, surroundings
from cube.errors import AreaError

BOX = (3.29, 43.61, 3.33, 43.65)
SQUARE = shapely.box(*BOX)


def _feature(geometry: shapely.Geometry) -> dict:
    return {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(geometry)}


@pytest.mark.parametrize(
    "area",
    [
        BOX,
        list(BOX),
        np.array(BOX),
        SQUARE,
        shapely.MultiPolygon([SQUARE]),
        shapely.force_3d(SQUARE, 5.0),
        shapely.geometry.mapping(SQUARE),
        _feature(SQUARE),
        {"type": "FeatureCollection", "features": [_feature(SQUARE)]},
        gpd.GeoDataFrame(geometry=[SQUARE], crs=4326),
        gpd.GeoSeries([SQUARE, None], crs=4326),
    ],
    ids=lambda area: type(area).__name__,
)
def test_every_form_gives_the_same_square(area: object) -> None:
    found = read_area(area)
    assert found.equals(SQUARE)
    assert not found.has_z


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_files_in_another_projection(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"area{suffix}"
    gpd.GeoDataFrame(geometry=[SQUARE], crs=4326).to_crs(2154).to_file(path)
    found = read_area(str(path))
    assert found.symmetric_difference(SQUARE).area / SQUARE.area < 1e-3
    assert read_area(path).equals(found)


def test_edges_of_a_projected_square_stay_straight_in_it() -> None:
    lambert = shapely.box(700_000, 6_600_000, 800_000, 6_700_000)
    found = read_area(gpd.GeoDataFrame(geometry=[lambert], crs=2154))
    back = Transformer.from_crs(4326, 2154, always_xy=True)
    # The middle of each part of the boundary, which a chord in degrees would miss.
    points = shapely.get_coordinates(shapely.segmentize(found.exterior, 0.004))
    x, y = back.transform(points[:, 0], points[:, 1])
    assert shapely.distance(lambert.exterior, shapely.points(x, y)).max() < 0.1


def test_several_features_are_one_area() -> None:
    left, right = shapely.box(0, 45, 1, 46), shapely.box(1, 45, 2, 46)
    collection = {"type": "FeatureCollection", "features": [_feature(left), _feature(right)]}
    assert read_area(collection).equals(shapely.box(0, 45, 2, 46))


@given(
    west=st.floats(-179, 170),
    south=st.floats(-79, 75),
    width=st.floats(0.001, 9),
    height=st.floats(0.001, 8),
)
def test_a_box_comes_back_as_it_is(west, south, width, height) -> None:
    bounds = (west, south, west + width, south + height)
    assert read_area(bounds).bounds == bounds


#: 178° E to 178° W in Fiji, in every form that a person may have.
FIJI = shapely.MultiPolygon([shapely.box(178, -18, 180, -16), shapely.box(-180, -18, -178, -16)])
ACROSS = {
    "box of RFC 7946": (178, -18, -178, -16),
    "box beyond 180": (178, -18, 182, -16),
    "box beyond -180": (-182, -18, -178, -16),
    "split polygon": FIJI,
    "split GeoJSON": shapely.geometry.mapping(FIJI),
    "two features": {
        "type": "FeatureCollection",
        "features": [_feature(part) for part in FIJI.geoms],
    },
    "polygon beyond 180": shapely.box(178, -18, 182, -16),
    "polygon beyond -180": shapely.box(-182, -18, -178, -16),
    "table": gpd.GeoSeries([shapely.box(178, -18, 182, -16)], crs=4326),
}


@pytest.mark.parametrize("area", ACROSS.values(), ids=ACROSS.keys())
def test_an_area_across_the_antimeridian_is_split_there(area: object) -> None:
    assert read_area(area).normalize() == FIJI.normalize()


def test_a_projected_area_across_the_antimeridian() -> None:
    # UTM zone 60 south: 180° lies at easting 820 km or so at this latitude.
    to_utm = Transformer.from_crs(4326, 32760, always_xy=True)
    x, y = to_utm.transform(180.0, -17.0)
    square = shapely.box(x - 5000, y - 5000, x + 5000, y + 5000)
    found = read_area(gpd.GeoSeries([square], crs=32760))
    assert -180 == found.bounds[0] < found.bounds[2] == 180
    west, east = sorted(found.geoms, key=lambda part: part.bounds[0])
    assert west.bounds[2] < -179.9
    assert east.bounds[0] > 179.9
    back = shapely.transform(found, to_utm.transform, interleaved=False)
    assert shapely.union_all(back.buffer(0.1)).symmetric_difference(square).area < 20_000


def test_a_hole_stays_a_hole_on_both_sides_of_the_antimeridian() -> None:
    ring = shapely.box(178, -18, 182, -16) - shapely.box(179, -17.5, 181, -16.5)
    found = read_area(ring)
    assert found.area == pytest.approx(ring.area)
    assert not found.intersects(shapely.Point(179.5, -17))
    assert not found.intersects(shapely.Point(-179.5, -17))


@pytest.mark.parametrize(
    "point",
    [
        shapely.Point(3.2, 43.6),
        shapely.MultiPoint([(3.2, 43.6)]),
        {"type": "Point", "coordinates": [3.2, 43.6]},
        gpd.GeoSeries([shapely.Point(3.2, 43.6)], crs=4326).to_crs(2154),
    ],
    ids=["point", "points", "GeoJSON", "projected"],
)
def test_a_point_is_a_surface_far_smaller_than_a_pixel(point: object) -> None:
    found = read_area(point)
    assert found.centroid.distance(shapely.Point(3.2, 43.6)) < 1e-8
    assert 0 < found.area < 1e-11


BOWTIE = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
REFUSED = [
    (None, "cannot be a NoneType"),
    (12, "cannot be a int"),
    ((1, 2, 3), "four numbers"),
    (("a", 2, 3, 4), "four numbers"),
    ((3, 43, 3, 44), "is empty"),
    ((3, 44, 4, 43), "is empty"),
    ((float("nan"), 43, 4, 44), "not finite"),
    ((500_000, 4_800_000, 510_000, 4_810_000), "not degrees"),
    ((-179, -10, 179, -8), "antimeridian"),
    ((3.4, 43.6, 3.3, 43.7), "more than half around the Earth"),
    ((10, 80, 11, 86), "latitude"),
    ((-60, -20, 60, 60), "km²"),
    (BOWTIE, "Self-intersection"),
    (shapely.LineString([(0, 0), (1, 1)]), "no surface"),
    (shapely.Polygon(), "empty"),
    ({}, "malformed"),
    ({"type": "Polygon"}, "malformed"),
    ({"type": "Polygon", "coordinates": "x"}, "malformed"),
    ({"type": "Feature", "geometry": None}, "without a geometry"),
    ({"type": "FeatureCollection"}, "no list of features"),
    ({"type": "FeatureCollection", "features": []}, "empty"),
    ({"type": "FeatureCollection", "features": [{"type": "Feature"}] * 10_001}, "more than"),
    ({**shapely.geometry.mapping(SQUARE), "crs": {"name": "EPSG:2154"}}, "another CRS"),
    (gpd.GeoDataFrame(geometry=[SQUARE]), "not stated"),
    (gpd.GeoDataFrame(geometry=[], crs=4326), "empty"),
    ("area.shp", "read from"),
    ("no-such-file.geojson", "no such file"),
]


@pytest.mark.parametrize(("area", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_what_is_no_area_is_refused_with_a_reason(area: object, message: str) -> None:
    with pytest.raises(AreaError, match=message):
        read_area(area)


def test_too_many_vertices_are_refused() -> None:
    angles = np.linspace(0, 2 * np.pi, MAX_VERTICES + 10)
    circle = shapely.Polygon(np.column_stack([np.cos(angles), np.sin(angles)]))
    with pytest.raises(AreaError, match="vertices"):
        read_area(circle)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    for name, content in (("a.geojson", "{"), ("b.gpkg", "no database"), ("c.json", "[1, 2]")):
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(AreaError, match=name):
            read_area(path)


def test_a_file_of_several_layers_is_ambiguous(tmp_path: Path) -> None:
    path = tmp_path / "two.gpkg"
    for layer in ("north", "south"):
        gpd.GeoDataFrame(geometry=[SQUARE], crs=4326).to_file(path, layer=layer)
    with pytest.raises(AreaError, match="north, south"):
        read_area(path)


def test_the_size_limit_is_in_square_kilometres_on_the_ground() -> None:
    france = (-4.8, 42.3, 8.2, 51.1)
    square_km = abs(Geod(ellps="WGS84").geometry_area_perimeter(shapely.box(*france))[0]) / 1e6
    assert 900_000 < square_km < 1_100_000
    assert read_area(france).bounds == france


@pytest.mark.real
def test_the_real_parcels_lie_inside_their_archive(real_data: Path) -> None:
    folder = real_data / "archive" / "beziers-2018"
    parcels = read_area(folder / "parcels.gpkg")
    items = json.loads((folder / "items.json").read_text())["features"]
    assert shapely.box(*items[0]["bbox"]).buffer(0.001).contains(parcels)


@pytest.mark.parametrize(("lon", "lat", "epsg"), [(3.3, 43.6, 32631), (20.9, 69.0, 32634)])
def test_surroundings_hold_the_margin_in_rows_and_columns(
    lon: float, lat: float, epsg: int
) -> None:
    area = shapely.box(lon, lat, lon + 0.1, lat + 0.05)
    grown = gpd.GeoSeries([surroundings(area, 1220)], crs=4326).to_crs(epsg).iloc[0]
    dense = gpd.GeoSeries([area.segmentize(0.001)], crs=4326).to_crs(epsg).iloc[0]
    steps = [(x, y) for x in (-1220, 1220) for y in (-1220, 1220)]
    assert all(grown.covers(shapely.affinity.translate(dense, *step)) for step in steps)
    assert grown.area < shapely.box(*dense.bounds).buffer(3 * 1220).area


def test_surroundings_across_the_antimeridian_and_at_the_limits() -> None:
    grown = surroundings((179.9, -17.0, -179.9, -16.9), 1000)
    west, south, east, north = grown.bounds
    assert (west, east) == (-180, 180)
    assert grown.covers(shapely.Point(179.89, -17.005))
    assert grown.covers(shapely.Point(-179.89, -16.895))
    assert not grown.covers(shapely.Point(0, -17))
    assert surroundings((10, 83.99, 10.1, 84.0), 5000).bounds[3] == 84
