"""A whole study on a small archive: every output, resuming, and refusing what does not fit."""

from __future__ import annotations

import json
import shutil

import pytest

from cube.errors import AreaError, StudyError
from cube.simulate import demo_settings, simulate
from deploy.study import run_study

STUDY = """\
name: small
provider: items.json
recipe:
  bands: [blue, green, red, nir]
  start: 2023-01
  end: 2023-12
zones:
  file: zones.gpkg
labels:
  parcels: parcels.gpkg
  erosion: 5
split:
  folds: 2
network:
  epochs: 2
  batch_size: 4
boost:
  rounds: 5
map:
  area: new_area.geojson
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    region = demo_settings().regions[2]
    settings = demo_settings(
        regions=(region,), zones_per_region=6, zone_metres=640, revisit_days=16, seed=6
    )
    simulate(folder, settings)
    (folder / "small.yaml").write_text(STUDY)
    run_study(folder / "small.yaml", folder / "out")
    return folder


def test_every_part_is_there(study):
    out = study / "out"
    frozen = ("study.json", "scenes.json", "plan.json", "zones.gpkg", "split.json", "labels.txt")
    assert all((out / name).is_file() for name in frozen)
    for name in ("hybrid", "xgboost"):
        assert (out / "runs" / name / "model.json").is_file()
        assert len(list((out / "scores" / name).glob("*.png"))) == 5
        folds = json.loads((out / "scores" / f"{name}-folds" / "folds.json").read_text())
        assert len(folds["folds"]) == 2
    rows = json.loads((out / "scores" / "comparison.json").read_text())
    assert {"hybrid", "xgboost"} <= rows.keys()
    assert list((out / "map").glob("*_classes.tif"))


@pytest.mark.slow
def test_a_second_run_changes_nothing_and_trains_nothing(study):
    out = study / "out"
    kept = [
        *out.glob("zones.zarr/**/*"),
        *out.glob("runs/hybrid/weights.safetensors"),
        out / "plan.json",
    ]
    before = {path: path.stat().st_mtime_ns for path in kept}
    rows = run_study(study / "small.yaml", out).comparison.rows
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert rows == json.loads((out / "scores" / "comparison.json").read_text())


def test_a_changed_study_needs_a_folder_of_its_own(study, tmp_path):
    changed = study / "changed.yaml"
    changed.write_text(STUDY.replace("epochs: 2", "epochs: 3"))
    with pytest.raises(StudyError, match="another version of this study"):
        run_study(changed, study / "out")
    elsewhere = tmp_path / "elsewhere.yaml"
    shutil.copy(study / "small.yaml", elsewhere)
    with pytest.raises(AreaError, match=r"zones\.gpkg: not readable as zones"):
        run_study(elsewhere, tmp_path / "out")
