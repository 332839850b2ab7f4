"""Map jobs: the map that `predict` makes, the cube let go of, the model kept with the run."""

from __future__ import annotations

import shutil

import pystac
import pytest
import shapely

from cube.errors import ArtefactError
from cube.objects import at
from cube.scenes import Scenes
from deploy.jobs import open_job, plan_job, report, run_job, status, verify
from model.boost import boost
from model.predict import predict
from tests.model.fixture_store import _lonlat, write_study
from tests.model.test_predict import random_hybrid

SPEC = """
apiVersion: cropcube/v1
kind: CropMap
name: map
area: area.geojson
scenes: scenes.json
model: model
run: {at_once: 2, lease_s: 60, retries: {transient: 2, backoff_s: 0.01}}
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    # Wider than a tile of 1024 pixels: two tiles.
    study = write_study(folder / "study", height=150, width=1100)
    boost(study.data(), folder / "model", rounds=4, cap=300)
    Scenes(source="test", scenes=study.plan.grids[0].scenes).save(folder / "scenes.json")
    area = shapely.from_geojson(str(study.plan.area).replace("'", '"'))
    (folder / "area.geojson").write_text(shapely.to_geojson(area))
    (folder / "job.yaml").write_text(SPEC)
    return folder


@pytest.fixture(scope="module")
def expected(inputs, tmp_path_factory):
    scenes = Scenes.load(inputs / "scenes.json")
    out = tmp_path_factory.mktemp("expected")
    return predict(inputs / "model", inputs / "area.geojson", out, scenes=scenes)


@pytest.fixture(scope="module")
def mapped(inputs, tmp_path_factory):
    root = tmp_path_factory.mktemp("mapped") / "run"
    job = plan_job(inputs / "job.yaml", root)
    return job, run_job(root)


def test_the_map_is_that_of_predict(mapped, expected):
    job, outcome = mapped
    assert (outcome.code, outcome.done) == (0, 3)
    assert [task.id for task in job.tasks] == ["31TEJ-0-0", "31TEJ-0-1", "31TEJ-map"]
    (grid,), out = expected.grids, job.folder / "data" / "31TEJ"
    assert out.get(grid.classes.name) == grid.classes.read_bytes()
    assert out.get(grid.confidence.name) == grid.confidence.read_bytes()
    table = dict(zip(expected.table["class"], expected.table["hectares"], strict=True))
    assert report(job).hectares == pytest.approx(table)


def test_a_network_sees_what_lies_around_the_area(tmp_path):
    study = write_study(tmp_path / "study", height=150, width=1100)
    model = random_hybrid(tmp_path / "model", study)
    scenes = Scenes(source="test", scenes=study.plan.grids[0].scenes)
    scenes.save(tmp_path / "scenes.json")
    inner = study.grid.model_copy(
        update={"left": study.grid.left + 9510, "top": study.grid.top - 390}
        | {"width": 105, "height": 80}
    )
    (tmp_path / "area.geojson").write_text(shapely.to_geojson(_lonlat(inner)))
    (tmp_path / "job.yaml").write_text(SPEC)
    (grid,) = predict(model, tmp_path / "area.geojson", tmp_path / "maps", scenes=scenes).grids
    job = plan_job(tmp_path / "job.yaml", tmp_path / "run")
    assert run_job(tmp_path / "run").code == 0
    out = at(job.maps["31TEJ"].out)
    for path in (grid.classes, grid.confidence):
        assert out.get(path.name) == path.read_bytes()


def test_its_item_stands_for_itself(mapped):
    job, _ = mapped
    path = job.folder.place / "data" / "31TEJ" / "31TEJ_item.json"
    item = pystac.Item.from_file(str(path))
    assert item.properties["cropcube:task_hash"] == job.maps["31TEJ"].hash
    for asset in item.assets.values():
        assert (path.parent / asset.href).exists()


def test_the_cube_is_gone_and_the_job_still_done(mapped):
    job, _ = mapped
    names = (job.folder / "cubes").listing()
    assert not [name for name in names if "/c/0/" in name and "spatial" not in name]
    assert status(job).counts["done"] == 3
    assert verify(job) == []
    assert run_job(job.folder.place).done == 3
    assert report(job).attempts == {"done": 3}


def test_a_changed_map_is_found_and_a_lost_one_is_made_again(mapped, expected, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(mapped[0].folder.place, root)
    job = open_job(root)
    out = at(job.maps["31TEJ"].out)
    classes = expected.grids[0].classes
    out.put(classes.name, classes.read_bytes()[:-1] + b"x")
    out.delete("31TEJ_confidence.tif")
    assert sorted(verify(job)) == [
        "31TEJ-map: 31TEJ_classes.tif was changed",
        "31TEJ-map: 31TEJ_confidence.tif is missing",
    ]
    out.delete("31TEJ_item.json")
    assert status(job).counts == {"done": 0, "running": 0, "failed": 0, "waiting": 3}
    assert run_job(root, tasks=["31TEJ-map"]).done == 3
    assert verify(job) == []
    assert out.get(classes.name) == classes.read_bytes()


def test_the_cube_stays_where_it_is_wanted_and_the_model_is_the_runs_own(
    inputs, expected, tmp_path
):
    here = tmp_path / "inputs"
    shutil.copytree(inputs, here, ignore=shutil.ignore_patterns("cube.zarr", "labels.zarr"))
    (here / "job.yaml").write_text(SPEC + "keep_cube: true\n")
    root = tmp_path / "run"
    job = plan_job(here / "job.yaml", root)
    shutil.rmtree(here / "model")
    assert run_job(root).code == 0
    (store, made), (grid,) = job.stores()[0], expected.grids
    assert len(made.grids[0].tiles) == 2
    assert [name for name in store.listing() if "reflectance/c/" in name]
    assert at(job.maps["31TEJ"].out).get(grid.classes.name) == grid.classes.read_bytes()
    with pytest.raises(ArtefactError):
        plan_job(here / "job.yaml", tmp_path / "other")


def test_a_map_whose_tile_failed_fails_with_it(inputs, tmp_path):
    text = (inputs / "scenes.json").read_text().replace("nir.tif", "gone.tif")
    (tmp_path / "scenes.json").write_text(text)
    for name in ("area.geojson", "job.yaml"):
        shutil.copy(inputs / name, tmp_path / name)
    (tmp_path / "job.yaml").write_text(
        SPEC.replace("model: model", f"model: {inputs}/model")
        .replace("at_once: 2", "at_once: 1")
        .replace("run: {", "run: {max_failed_fraction: 1, ")
    )
    plan_job(tmp_path / "job.yaml", tmp_path / "run")
    outcome = run_job(tmp_path / "run")
    assert (outcome.code, outcome.done) == (65, 0)
    assert set(outcome.failed) == {"31TEJ-0-0", "31TEJ-0-1", "31TEJ-map"}
