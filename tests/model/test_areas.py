"""Areas with confidence intervals, against the published example and against repeated sampling."""

import json
from pathlib import Path

import numpy as np
import pytest

from cube.errors import ArtefactError
from model.areas import area_rows, estimate_areas, mapped_hectares, resampled_areas
from model.bootstrap import weights
from model.legend import flat_legend

#: Olofsson et al. (2014), table 8: map classes in rows there, truth in columns; hectares mapped.
MAPPED = np.array([18_000, 13_500, 288_000, 580_500])
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])


def test_published_example() -> None:
    # The paper, section 5.2: 21 158 ± 6158, 11 686 ± 3756, 285 770 ± 15 510, 581 386 ± 16 282 ha.
    found = estimate_areas(MAPPED, COUNTS.T)
    np.testing.assert_allclose(found.estimated, [21_158, 11_686, 285_770, 581_386], atol=1)
    margin = found.high - found.estimated
    np.testing.assert_allclose(margin, [6158, 3756, 15_510, 16_282], rtol=1e-3)
    assert found.estimated.sum() == pytest.approx(900_000)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    truth = random.choice(3, 40_000, p=[0.6, 0.3, 0.1])
    wrong = random.random(truth.size) < 0.25
    mapped = np.where(wrong, random.choice(3, truth.size), truth)
    areas = np.bincount(mapped)
    hits = []
    for _ in range(400):
        sample = np.zeros((3, 3), int)
        for k in range(3):
            drawn = random.choice(np.flatnonzero(mapped == k), 80, replace=False)
            sample[:, k] = np.bincount(truth[drawn], minlength=3)
        found = estimate_areas(areas, sample)
        hits.append((found.low <= np.bincount(truth)) & (np.bincount(truth) <= found.high))
    # 95 % is a normal approximation: 1200 intervals of 80 pixels come within three points.
    assert 0.92 <= np.mean(hits) <= 0.98


def test_a_perfect_map_keeps_its_areas() -> None:
    found = estimate_areas(np.array([10.0, 0.0, 30.0]), np.diag([5, 0, 5]))
    for column in ("mapped", "estimated", "low", "high"):
        np.testing.assert_array_equal(found[column], [10, 0, 30])


@pytest.mark.parametrize(
    ("sample", "message"),
    [(np.diag([5, 1]), r"classes \[1\]"), (np.ones((2, 3)), r"give \[K, K\]")],
)
def test_what_cannot_be_estimated_is_refused(sample: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_areas(np.array([1.0, 2.0]), sample)


def test_intervals_over_zones_equal_a_plain_loop() -> None:
    random = np.random.default_rng(3)
    groups = random.integers(1, 60, (6, 3, 3))
    mapped = np.array([50.0, 30.0, 20.0])
    found = resampled_areas(mapped, groups, draws=150, seed=2)
    estimates = []
    for row in np.concatenate(list(weights(6, 150, seed=2))).astype(int):
        sample = sum(times * matrix for times, matrix in zip(row, groups, strict=True))
        estimates.append(estimate_areas(mapped, sample).estimated)
    np.testing.assert_allclose(found, np.quantile(estimates, [0.025, 0.975], axis=0).T)
    whole = estimate_areas(mapped, groups.sum(axis=0))
    assert ((found[:, 0] < whole.estimated) & (whole.estimated < found[:, 1])).all()
    assert np.isnan(resampled_areas(mapped, groups[:1])).all()


def test_rows_leave_out_what_cannot_be_corrected(caplog: pytest.LogCaptureFixture) -> None:
    legend = flat_legend("three", ["wheat", "maize"])
    groups = np.zeros((2, 3, 3), int)
    groups[:, 1, 1], groups[:, 0, 1], groups[0, 2, 2] = 30, 10, 1
    rows = area_rows(np.array([0.0, 8.0, 2.0]), groups, legend)
    assert [row["class"] for row in rows] == ["background", "wheat"]
    assert [row["estimated"] for row in rows] == [2, 6]
    # Both zones are alike, so drawing them anew changes nothing.
    assert (rows[1]["zones_low"], rows[1]["zones_high"]) == pytest.approx((6, 6))
    assert "maize" in caplog.text


def test_areas_of_a_map_are_read_by_name(tmp_path: Path) -> None:
    legend = flat_legend("three", ["wheat", "maize"])
    rows = [{"class": "maize", "hectares": 2.5}, {"class": "no decision", "hectares": 9}]
    (tmp_path / "area.json").write_text(json.dumps({"classes": rows}))
    assert mapped_hectares(tmp_path, legend).tolist() == [0, 0, 2.5]
    with pytest.raises(ArtefactError, match="maize, which the model does not know"):
        mapped_hectares(tmp_path, flat_legend("one", ["wheat"]))
    with pytest.raises(ArtefactError, match="run predict first"):
        mapped_hectares(tmp_path / "none", legend)
