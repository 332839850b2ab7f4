import json

import numpy as np
import pytest
import shapely
from pydantic import ValidationError

from cube.simulate import FRENCH_REGIONS, Settings, demo_settings
from cube.simulate.layout import granule_extent, layout


def by_name(name):
    return next(region for region in FRENCH_REGIONS if region.name == name)


@pytest.mark.real
def test_granule_extents_are_those_of_published_items(real_data):
    compared = 0
    for path in sorted((real_data / "stac-items/items").glob("ESv1__sentinel-2-*l2a__*.json")):
        item = json.loads(path.read_text())
        code = item["properties"].get("grid:code")
        asset = item["assets"].get("red", {})
        if code is None or asset.get("proj:shape") != [10980, 10980]:
            continue
        left, bottom, right, top = granule_extent(code.removeprefix("MGRS-"))
        assert [left, top] == [asset["proj:transform"][2], asset["proj:transform"][5]], path.name
        assert right - left == top - bottom == 109_800
        compared += 1
    assert compared >= 20


@pytest.mark.parametrize(
    ("granule", "corner"), [("13TDE", (399_960, 4_500_000)), ("31TEJ", (499_980, 4_900_020))]
)
def test_granule_corner(granule, corner):
    left, _, _, top = granule_extent(granule)
    assert (left, top) == corner


@pytest.mark.parametrize("region", FRENCH_REGIONS, ids=lambda r: r.name)
@pytest.mark.parametrize("settings", [Settings(), demo_settings()], ids=["default", "demo"])
def test_clips_lie_on_their_granules_lattice_and_partition_the_region(region, settings):
    place = layout(region, settings)
    assert len(place.clips) == 2
    owned = 0
    for clip in place.clips:
        left, _, _, top = granule_extent(clip.granule)
        assert (clip.left - left) % 10 == (top - clip.top) % 10 == 0
        assert clip.left % 20 == clip.top % 20 == clip.height % 2 == clip.width % 2 == 0
        owned += clip.owned.height * clip.owned.width
    assert (place.clips[0].height, place.clips[0].width) == (place.grid.height, place.grid.width)
    assert owned == place.grid.height * place.grid.width


@pytest.mark.parametrize("name", ["chartres", "auch", "colmar", "beziers"])
def test_regions_on_a_border_are_owned_by_two_granules(name):
    place = layout(by_name(name), Settings())
    assert all(not clip.owned.empty for clip in place.clips)


def test_the_second_granule_of_saint_quentin_owns_nothing():
    place = layout(by_name("saint-quentin"), demo_settings())
    assert place.clips[1].owned.empty
    assert 0 < place.clips[1].width < place.grid.width


def test_windows_of_64_pixels_fit_the_zones_on_both_sides_of_the_border():
    place = layout(by_name("auch"), demo_settings())
    for clip in place.clips:
        for zone in place.zones:
            left, _, _, top = zone.bounds
            if left >= clip.left:
                assert (left - clip.left) % 640 == (clip.top - top) % 640 == 0


def test_zones_and_new_area_do_not_meet():
    settings = Settings()
    place = layout(FRENCH_REGIONS[0], settings)
    assert len(place.zones) == 5
    for i, zone in enumerate(place.zones):
        assert zone.area == settings.zone_metres**2
        assert zone.distance(place.new_area) >= settings.gap_metres
        for other in place.zones[i + 1 :]:
            assert zone.distance(other) >= settings.gap_metres
    g = place.grid
    region = shapely.box(g.left, g.top - 10 * g.height, g.left + 10 * g.width, g.top)
    assert all(region.covers(part) for part in (*place.zones, place.new_area))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"zone_metres": 1930}, "20 m"),
        ({"bands": ("blue", "ultraviolet")}, "bands"),
        ({"regions": (FRENCH_REGIONS[0],) * 2}, "twice"),
        ({"speed": 3}, "speed"),
        ({"label_noise": 0.9}, "label_noise"),
    ],
)
def test_wrong_settings_are_refused(change, word):
    with pytest.raises(ValidationError, match=word):
        demo_settings(**change)


def test_a_tilt_for_an_unknown_crop_is_refused():
    fields = FRENCH_REGIONS[0].model_dump() | {"tilt": {"XYZ": 2.0}}
    with pytest.raises(ValidationError, match="XYZ"):
        type(FRENCH_REGIONS[0])(**fields)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Settings().seed = 5  # type: ignore[misc]
    assert np.isclose(Settings().label_noise, 0.03)
