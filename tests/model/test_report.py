"""Pictures: what is drawn is checked as numbers; that files come out as pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from model import report
from model.legend import Legend, load_legend

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@dataclass
class Part:
    reflectance: np.ndarray
    y: np.ndarray


@pytest.fixture(scope="module")
def legend() -> Legend:
    return load_legend(classes=["WinterWheat", "Maize", "Meadow"])


def size(path: Path) -> tuple[int, int]:
    with rasterio.open(path) as picture:
        assert picture.driver == "PNG"
        return picture.width, picture.height


def test_ndvi_by_hand() -> None:
    red = np.array([1000, 0, 500, 2000], np.uint16)
    nir = np.array([3000, 3000, 0, 1000], np.uint16)
    np.testing.assert_allclose(report.ndvi(red, nir), [0.5, np.nan, np.nan, -1 / 3])


def test_profiles_are_quartiles_per_class_and_month(legend: Legend) -> None:
    # Band 0 red, band 1 nir; two months; class 1 in both parts, class 2 never observed in May.
    first = np.zeros((4, 2, 2), np.uint16)
    first[:, 0], first[:, 1] = 1000, [[1000, 3000]] * 4
    first[3, :, 1] = 0
    second = np.array([[[1000, 1000], [3000, 9000]]], np.uint16)
    parts = [
        Part(first, np.array([1, 1, 255, 2], np.uint8)),
        Part(second, np.array([1], np.uint8)),
    ]
    profiles = report.ndvi_profiles(parts, red=0, nir=1, n_classes=4)
    np.testing.assert_array_equal(profiles.pixels, [0, 3, 1, 0])
    # Class 1: NDVI 0, 0, 0.5 in the first month; 0.5, 0.5, 0.8 in the second.
    np.testing.assert_allclose(profiles.quartiles[1], [[0, 0.5], [0, 0.5], [0.25, 0.65]])
    np.testing.assert_allclose(profiles.quartiles[2], [[0, np.nan]] * 3)
    assert np.isnan(profiles.quartiles[3]).all()


def test_classes_keep_the_colours_of_the_legend(legend: Legend) -> None:
    colours = report.coloured(np.array([[0, 2, 255]], np.uint8), legend)
    assert "#" + colours[0, 1].tobytes().hex() == legend.colours[2]
    assert colours[0, 2].tolist() == [255, 255, 255]


def test_natural_colours_stretch_and_leave_no_data_white() -> None:
    ramp = np.linspace(100, 3000, 200).astype(np.uint16).reshape(10, 20)
    ramp[0, 0] = 0
    picture = report.natural_colours(ramp, ramp, ramp)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[0, 1].max() == 0
    assert picture[-1, -1].min() == 255
    assert (np.diff(picture[1:, :, 0].ravel().astype(int)) >= 0).all()
    empty = report.natural_colours(*(np.zeros((2, 2), np.uint16),) * 3)
    assert (empty == 255).all()


@pytest.mark.parametrize("classes", [2, 30])
def test_confusion_and_shares(classes: int, tmp_path: Path) -> None:
    everything = load_legend()
    matrix = np.zeros((everything.n_classes,) * 2, np.int64)
    random = np.random.default_rng(0)
    matrix[:classes, :classes] = random.integers(0, 9999, (classes, classes))
    small, _ = size(report.confusion(matrix, everything, tmp_path / "confusion.png"))
    # The picture grows with the classes, so that labels stay readable.
    assert small > 40 * classes
    shares = report.class_shares(matrix.sum(1), matrix.sum(0), everything, tmp_path / "shares.png")
    assert size(shares)[1] > 30 * classes


@pytest.mark.filterwarnings("error")
def test_one_class_is_enough_for_every_picture(legend: Legend, tmp_path: Path) -> None:
    matrix = np.zeros((4, 4), np.int64)
    matrix[2, 2] = 7
    assert size(report.confusion(matrix, legend, tmp_path / "confusion.png"))[0] > 50
    assert size(report.class_shares(matrix[2], matrix[2], legend, tmp_path / "s.png"))[0] > 50
    part = Part(np.full((3, 2, 12), 900, np.uint16), np.full(3, 2, np.uint8))
    profiles = report.ndvi_profiles([part], 0, 1, 4)
    months = pd.date_range("2023-01", periods=12, freq="MS")
    assert size(report.ndvi_picture(profiles, months, legend, tmp_path / "ndvi.png"))[0] > 200


def test_maps_and_preview_show_the_classes(legend: Legend, tmp_path: Path) -> None:
    classes = np.full((60, 90), 255, np.uint8)
    classes[10:50, 20:70] = 2
    confidence = np.where(classes == 255, np.nan, 0.7)
    panels = {"labels": classes, "prediction": classes, "confidence": confidence}
    width, height = size(report.map_picture(panels, legend, tmp_path / "map.png"))
    assert width > 2 * height
    path = report.preview(classes, legend, tmp_path / "preview.png")
    with rasterio.open(path) as source:
        picture = source.read()[:3].reshape(3, -1).T
    wanted = np.frombuffer(bytes.fromhex(legend.colours[2][1:]), np.uint8)
    share = (picture == wanted).all(axis=1).mean()
    assert share > 0.15  # the rectangle covers 37 % of the map


def test_reliability_is_drawn(tmp_path: Path) -> None:
    bins = pd.DataFrame({"confidence": [0.3, 0.9], "accuracy": [0.4, 0.8], "pixels": [5, 50]})
    width, height = size(report.reliability(bins, tmp_path / "reliability.png"))
    assert 400 < width < height
