"""Maps of several granules that overlap: whole on disk and in a bucket, one task for each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import shapely

from cube.grid import NativeGrid
from cube.objects import at
from cube.scenes import Scenes
from deploy.jobs import plan_job, report, run_job, verify
from model.boost import boost
from model.predict import predict
from tests.deploy.jobs_kit import contents
from tests.deploy.test_jobs_map import SPEC
from tests.model.fixture_store import _lonlat, _scene, write_study

#: Two granules of one zone; 31TFJ owns what lies east of 600 000 m.
GRIDS = [
    NativeGrid(granule="31TEJ", epsg=32631, left=598_980, top=4_832_780, height=80, width=150),
    NativeGrid(granule="31TFJ", epsg=32631, left=599_980, top=4_832_780, height=80, width=140),
]
BOTH = GRIDS[0].model_copy(update={"width": 240})


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("granules")
    boost(write_study(folder / "study").data(), folder / "model", rounds=4, cap=300)
    random = np.random.default_rng(3)
    crops = np.repeat(np.repeat(random.integers(0, 4, (8, 24)), 10, axis=0), 10, axis=1)
    scenes = [
        _scene(folder, grid, month, crops[:, start : start + grid.width], 100, random)
        for grid, start in zip(GRIDS, (0, 100), strict=True)
        for month in range(3)
    ]
    Scenes(source="test", scenes=tuple(scenes)).save(folder / "scenes.json")
    (folder / "area.geojson").write_text(shapely.to_geojson(_lonlat(BOTH)))
    (folder / "job.yaml").write_text(SPEC)
    return folder / "job.yaml"


@pytest.fixture(scope="module")
def expected(spec, tmp_path_factory):
    folder = spec.parent
    scenes = Scenes.load(folder / "scenes.json")
    out = tmp_path_factory.mktemp("expected")
    return predict(folder / "model", folder / "area.geojson", out, scenes=scenes)


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def root(request, tmp_path):
    if request.param == "disk":
        return tmp_path / "run"
    return f"{request.getfixturevalue('s3').bucket()}/run"


def test_the_maps_are_those_of_predict_and_share_the_area(spec, expected, root):
    job = plan_job(spec, root)
    assert [task.id for task in job.tasks] == [
        *("31TEJ-0-0", "31TEJ-map", "31TFJ-0-0", "31TFJ-map"),
    ]
    # Shards are whole granules: none waits for another.
    for index in range(2):
        outcome = run_job(root, shard=(index, 2))
        assert (outcome.code, outcome.done) == (0, 2)
    files = contents(at(root) / "data")
    for grid in expected.grids:
        for path in (grid.classes, grid.confidence):
            assert files[f"{grid.granule}/{path.name}"] == path.read_bytes()
    hectares = dict(zip(expected.table["class"], expected.table["hectares"], strict=True))
    assert report(job).hectares == pytest.approx(hectares)
    assert sum(hectares.values()) == pytest.approx(BOTH.height * BOTH.width / 100)
    assert not [name for name in contents(at(root) / "cubes") if "/reflectance/c/" in name]
    assert verify(job) == []
    again = run_job(root)
    assert (again.code, again.done) == (0, 4)
    assert contents(at(root) / "data") == files


def test_no_pixel_is_mapped_twice(expected):
    west, east = (rasterio.open(grid.classes) for grid in expected.grids)
    with west, east:
        assert west.bounds.left == GRIDS[0].left
        assert west.bounds.right == east.bounds.left == 600_000
        assert west.width + east.width == BOTH.width


def test_items_say_how_they_were_made_and_lead_to_the_scenes(spec, expected, tmp_path):
    root, out = tmp_path / "run", tmp_path / "elsewhere"
    spec_file = spec.with_name("elsewhere.yaml")
    spec_file.write_text(SPEC + f"keep_cube: true\noutput: {{uri: {out}}}\n")
    job = plan_job(spec_file, root)
    assert run_job(root).code == 0
    ours = str(out / "31TEJ" / "31TEJ_item.json")
    tile = str(root / "cubes" / "31TEJ.zarr" / ".cropcube" / "31TEJ-0-0.json")
    for path, level in ((ours, "L4"), (tile, "L3")):
        item = pystac.Item.from_file(path)
        facts = item.properties
        assert facts["processing:software"] == {"cropcube": job.lock.versions["cropcube"]}
        assert facts["processing:level"] == level
        assert facts["processing:lineage"].startswith("3 scenes of Sentinel-2 L2A")
        assert facts["proj:code"] == "EPSG:32631"
        assert any("/processing/v1.2.0/" in name for name in item.stac_extensions)
        links = [link.get_absolute_href() for link in item.get_links("processing-expression")]
        leads = {Path(href).name: Path(href).read_text() for href in links}
        scenes = json.loads(leads["plan.json"])["grids"][0]["scenes"]
        assert [scene["id"] for scene in scenes] == facts["cropcube:scenes"]
        if level == "L4":
            assert json.loads(leads["job.lock.json"])["spec_hash"] == job.lock.spec_hash
            assert facts["processing:datetime"] == facts["created"]
    # A kept cube is looked after too.
    shard = root / "cubes" / "31TFJ.zarr" / "31TFJ" / "reflectance" / "c" / "0" / "0" / "0" / "0"
    shard.unlink()
    assert verify(job) == ["31TFJ-0-0: the shard of reflectance is missing"]
    assert run_job(root).code == 0
    assert verify(job) == []
