"""Labelled points: series and classes as the files say, and the published reference figures."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cube.errors import LabelError
from model.benchmark import Budget, benchmark
from model.datasets.catalogue import load_set
from model.datasets.points import BANDS, blocks, fr_rpg, us_cdl
from model.legend import IGNORE

DATA = Path(os.environ.get("CROPCUBE_DATA", "nowhere"))
real = pytest.mark.skipif(not (DATA / "points").is_dir(), reason="needs CROPCUBE_DATA")


def us_file(folder: Path) -> Path:
    """Write two points of Arkansas with four windows each; the second one lacks a window."""
    starts = pd.to_datetime(["2021-01-01", "2021-01-11", "2021-01-21", "2021-02-21"]).date
    rows = pd.DataFrame(
        {
            "point_id": np.repeat(["b", "a"], 4),
            "zone": np.repeat(["Z1", "Z0"], 4),
            "lon": np.repeat([-90.05, -91.95], 4),
            "lat": np.repeat([34.01, 35.02], 4),
            "cdl_name": np.repeat(["Rice", "Sorghum"], 4),
            "start_date": [*starts, *starts],
        }
    )
    for number, band in enumerate(BANDS):
        rows[band] = np.arange(8) + 100.0 * number
    rows.loc[5, list(BANDS)] = np.nan
    path = folder / "us-cdl-2021-arkansas.parquet"
    rows.to_parquet(path)
    return path


def test_us_points_keep_their_order_days_and_gaps(tmp_path) -> None:
    samples = us_cdl(us_file(tmp_path))
    assert samples.x.shape == (2, 10, 4)
    assert samples.x[0, 3].tolist() == [300, 301, 302, 303]
    assert samples.x[1, 0].tolist() == [4, 0, 6, 7]
    assert samples.valid.tolist() == [[True] * 4, [True, False, True, True]]
    # Days 1 to 10, 11 to 20, 21 to 31, and 21 to 28 February.
    assert samples.doy[0].tolist() == [5, 15, 26, 31 + 24]
    assert [samples.legend.classes[k] for k in samples.y] == ["rice", "others"]
    assert samples.group.tolist() == [2, 1]
    assert us_cdl(tmp_path / "us-cdl-2021-arkansas.parquet", group="zone").group.tolist() == [2, 1]


def test_a_dark_value_of_0_is_data(tmp_path) -> None:
    path = us_file(tmp_path)
    table = pd.read_parquet(path)
    table.loc[0, "B02"] = 0
    table.to_parquet(path)
    assert us_cdl(path).valid[0].all()


def test_blocks_are_cells_of_a_tenth_of_a_degree() -> None:
    points = np.array([[-0.05, 45.01], [0.05, 45.01], [-0.01, 45.09], [-0.05, 45.11]])
    one, other, same, north = blocks(points)
    assert one == same
    assert len({one, other, north}) == 3
    assert min(blocks(points)) == 1


def fr_file(folder: Path) -> Path:
    """Write points over two months that cross the new year, and the table of classes."""
    kinds = {"1": "maize", "2": "barley", "3": "no_crop"}
    (folder / "worldcereal_class_mappings.json").write_text(json.dumps({"CROPTYPE24": kinds}))
    codes = np.repeat([1, 2, 3, 4], [12, 2, 1, 1])
    n = len(codes)
    rows = pd.DataFrame(
        {
            "sample_id": np.repeat([f"p{i}" for i in range(n)], 2),
            "timestamp": pd.to_datetime(["2022-12-01", "2023-01-01"] * n),
            "lon": np.repeat(np.linspace(1, 3, n), 2),
            "lat": 45.0,
            "ewoc_code": np.repeat(codes, 2),
            "year": 2023,
        }
    )
    for band in BANDS:
        rows[f"S2-L2A-{band}"] = np.uint16(500)
    rows.loc[1, "S2-L2A-B04"] = 65535
    path = folder / "2023_x.month.geoparquet"
    rows.to_parquet(path)
    return path


def test_french_points_have_classes_days_and_gaps_of_their_own(tmp_path) -> None:
    samples = fr_rpg(fr_file(tmp_path))
    assert samples.x.shape == (16, 9, 2)
    assert samples.legend.classes == ("background", "maize", "others")
    assert samples.y.tolist() == [1] * 12 + [2, 2, 0, IGNORE]
    # The middle of December, and of January counted on from the first year.
    assert samples.doy[0].tolist() == [334 + 16, 365 + 16]
    assert samples.valid[:2].tolist() == [[True, False], [True, True]]


def test_a_file_that_is_not_there_or_not_of_a_known_state_is_named(tmp_path) -> None:
    with pytest.raises(LabelError, match="no table of points"):
        us_cdl(tmp_path / "us-cdl-2021-arkansas.parquet")
    other = us_file(tmp_path).rename(tmp_path / "us-cdl-2021-texas.parquet")
    with pytest.raises(LabelError, match="of which state"):
        us_cdl(other)
    path = fr_file(tmp_path)
    (tmp_path / "worldcereal_class_mappings.json").unlink()
    with pytest.raises(LabelError, match="belongs beside"):
        fr_rpg(path)


@real
@pytest.mark.slow
def test_published_counts_and_forest_of_arkansas(tmp_path) -> None:
    samples = load_set("us-cdl-arkansas", DATA, tmp_path)
    found = samples.class_counts(np.arange(len(samples)))
    counts = dict(zip(samples.legend.classes, found, strict=True))
    assert counts == {
        "background": 0,
        "soybeans": 4680,
        "rice": 2420,
        "corn": 1520,
        "cotton": 760,
        "others": 620,
    }
    assert len(np.unique(samples.group)) == 422
    assert 1 - samples.valid.mean() == pytest.approx(0.21, abs=0.005)
    table = benchmark(
        samples, ["random-forest"], tmp_path, seeds=(0,), budget=Budget(trees=30), random=False
    )
    # With 300 trees .954 and .926.
    assert table.rows[0].accuracy == pytest.approx(0.954, abs=0.01)
    assert table.rows[0].macro_f1 == pytest.approx(0.926, abs=0.015)


@real
def test_published_counts_of_france(tmp_path) -> None:
    samples = load_set("fr-rpg-2023", DATA, tmp_path)
    found = samples.class_counts(np.arange(len(samples)))
    counts = dict(zip(samples.legend.classes, found, strict=True))
    assert (counts["maize"], counts["sunflower"], counts["background"]) == (88, 21, 48)
    assert counts["others"] == 17
    assert (samples.y == IGNORE).sum() == 182
    assert samples.x.shape == (500, 9, 51)
