"""The season as it goes on: accuracy by month, decisions, and their days on a map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from torch import Tensor, nn

import cube.store
from cube.errors import ArtefactError
from cube.grid import Window
from model import artefact
from model.decisionmap import decision_maps
from model.early import accuracy_by_month, decision_days, season_days, sweep, timing
from model.legend import flat_legend
from model.networks.base import SeriesNetwork
from model.networks.early import EarlyClassifier
from model.predict import predict_store
from model.samples import Normalisation, days_of_year
from model.sampleset import SampleSet
from model.setdata import SetData
from model.splits import Split
from model.train import train
from tests.model.fixture_store import Study, write_study
from tests.model.seasons import Seasons

SPLIT = Split("zone", frozenset({1}), frozenset({2}), frozenset({3}))
#: Mid-month days, from September to August.
DAYS = np.array([258, 288, 319, 349, 380, 411, 439, 470, 500, 531, 561, 592], np.int16)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Arrays are too small for more, and other processes may be at work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def crops(told: int = 7, n: int = 90) -> SampleSet:
    """Return two crops that are alike until the date `told`, and then far apart."""
    random = np.random.default_rng(0)
    y = np.arange(n).astype(np.uint8) % 2 + 1
    x = np.full((n, 1, 12), 1000, np.uint16)
    x[:, :, told:] += (2000 * (y == 2)).astype(np.uint16)[:, None, None]
    valid = random.random((n, 12)) < 0.8
    valid[:, [0, told, 11]] = True
    return SampleSet(
        name="crops",
        kind="pixel",
        bands=("nir",),
        legend=flat_legend("crops", ["early", "late"]),
        x=np.where(valid[:, None], x, 0).astype(np.uint16),
        valid=valid,
        doy=np.where(valid, DAYS, 0).astype(np.int16),
        y=y,
        group=np.arange(n, dtype=np.int32) // 2 % 3 + 1,
    )


def data_of(samples: SampleSet) -> SetData:
    """Return the data with 1500 DN as 0, so that a sign tells the crops apart."""
    return SetData(samples, SPLIT, batch_size=7, normalisation=Normalisation((1500,), (500,)))


class LastDate(SeriesNetwork):
    """Says class 2 where the highest value so far is above 0; knows no later date."""

    causal = True

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        high = x.masked_fill(~valid[:, None], -9).amax(dim=(1, 2))
        return torch.stack([torch.full_like(high, -5), -high, high], dim=1)


class Watcher(nn.Module):
    """Sees the highest value so far, as the encoder of an early classifier."""

    width = 1

    def forward(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        return x.masked_fill(~valid[:, None], -9).cummax(dim=2).values.transpose(1, 2)


def watching() -> EarlyClassifier:
    """Return a network that stops as soon as it sees class 2, else at the end."""
    network = EarlyClassifier(Watcher(), n_classes=3).eval()
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([[0.0], [-1.0], [1.0]]))
        network.head.bias.copy_(torch.tensor([-5.0, 0.0, 0.0]))
        network.stop.weight.fill_(20.0)
        network.stop.bias.zero_()
    return network


def test_accuracy_rises_in_the_month_that_tells_the_crops_apart() -> None:
    data = data_of(crops(told=7))
    curve = accuracy_by_month(LastDate(), data)
    assert curve["month"].tolist() == list(range(9, 21))  # September to the August after
    assert curve["until"].tolist()[:5] == [273, 304, 334, 365, 396]
    known = curve["month"] > 9 + 6
    np.testing.assert_allclose(curve["accuracy"][~known], 0.5)
    np.testing.assert_allclose(curve["accuracy"][known], 1.0)
    np.testing.assert_allclose(curve["macro_f1"][known], 1.0)
    rows = data.stage_rows["test"]
    seen = np.cumsum(data.set.valid[rows], axis=1).mean(axis=0)
    np.testing.assert_allclose(curve["dates"], seen)


def test_windows_give_the_curve_of_their_pixels() -> None:
    class Tested(Seasons):
        def test_dataloader(self):
            return self.val_dataloader()

    class Early(LastDate):
        def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
            peak = x[:, 1].masked_fill(~valid, -9).argmax(dim=1)  # month of most near infrared
            months = torch.tensor([-9, 4, 6, 9, 11])
            return -(peak[:, None] - months).abs().float()

    data = Tested()
    curve = accuracy_by_month(Early(), data)
    assert curve["month"].tolist() == list(range(1, 13))
    assert curve["accuracy"].iloc[-1] > 0.7
    right, labelled = 0, 0
    for seed in data.val_seeds:  # by hand, until July
        reflectance, label = data.sample(seed)
        peak = reflectance[:7, 1].argmax(axis=0)
        answer = np.abs(peak[..., None] - [-9, 4, 6, 9, 11]).argmin(axis=-1)
        right += (answer == label)[label != 255].sum()
        labelled += (label != 255).sum()
    assert curve["accuracy"][6] == pytest.approx(right / labelled)
    assert (curve["dates"] == range(1, 13)).all()


def test_networks_that_look_ahead_have_no_curve() -> None:
    class Ahead(LastDate):
        causal = False

    with pytest.raises(ArtefactError, match="needs a causal network"):
        accuracy_by_month(Ahead(), data_of(crops()))


def test_timing_by_hand() -> None:
    data = data_of(crops(told=6))
    found = timing(watching(), data)
    rows = data.stage_rows["test"]
    valid, late = data.set.valid[rows], data.set.y[rows] == 2
    before = valid[:, :6].sum(axis=1) / (valid.sum(axis=1) - 1)
    assert found.season == pytest.approx(np.where(late, before, 1).mean())
    assert found.accuracy == found.accuracy_all == 1
    assert found.day == np.median(np.where(late, DAYS[6], DAYS[11]))
    with pytest.raises(ArtefactError, match="LastDate reads the whole series"):
        timing(LastDate(), data)


def test_stopping_too_soon_costs_accuracy() -> None:
    network = watching()
    nn.init.constant_(network.stop.bias, 100.0)  # at the first date
    found = timing(network, data_of(crops(told=6)))
    assert (found.season, found.accuracy, found.accuracy_all) == (0, 0.5, 1)


def test_another_normalisation_is_refused(tmp_path: Path) -> None:
    samples = crops()
    train("elects", SetData(samples, SPLIT), tmp_path, epochs=1, precision="32-true")
    with pytest.raises(ArtefactError, match="another normalisation"):
        accuracy_by_month(tmp_path, data_of(samples))
    kept = artefact.load(tmp_path).normalisation
    curve = accuracy_by_month(tmp_path, SetData(samples, SPLIT, normalisation=kept))
    assert len(curve) == 12


def test_days_go_on_over_the_new_year() -> None:
    doy = torch.tensor([[258, 349, 15, 46], [10, 100, 0, 0], [300, 349, 380, 0]])
    wanted = [[258, 349, 380, 411], [10, 100, 0, 0], [300, 349, 380, 0]]
    assert season_days(doy).tolist() == wanted


def test_a_sweep_has_a_row_and_a_training_per_alpha(tmp_path: Path) -> None:
    data = data_of(crops())
    settings = {"epochs": 2, "precision": "32-true"}
    table = sweep(data, tmp_path, alphas=(0.2, 1.0), **settings)
    assert table["alpha"].tolist() == [0.2, 1.0]
    for alpha in ("0.2", "1"):
        model = artefact.load(tmp_path / f"alpha-{alpha}")
        assert model.training["loss"] == f"early-reward:{alpha}"
    found = timing(tmp_path / "alpha-1", data)
    assert table["accuracy"][1] == found.accuracy
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "sweep.csv"), table, atol=1e-3)
    assert (tmp_path / "sweep.png").stat().st_size > 1000


def test_decision_days_of_a_window() -> None:
    random = np.random.default_rng(1)
    window = random.integers(1, 1400, (4, 1, 5, 6)).astype(np.uint16)
    window[2, 0, 1:3] = 3000  # decided in the third month
    window[0, 0, 4] = 3000
    window[:, :, 0] = 0  # never seen
    window[3, 0, 3] = 0  # last seen in the third month
    doy = np.array([15, 46, 74, 105])
    found = decision_days(watching(), Normalisation((1500,), (500,)), doy, window)
    assert found.dtype == np.uint16
    assert found.tolist() == [[0] * 6, [74] * 6, [74] * 6, [74] * 6, [15] * 6]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("early"), height=96, width=256)


def test_days_of_decisions_lie_on_the_map(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    train("elects", study.data(), folder, epochs=1, precision="32-true", accelerator="cpu")
    maps = predict_store(folder, study.store, tmp_path)
    (path,) = decision_maps(folder, study.store, maps)
    with rasterio.open(path) as source, rasterio.open(maps.grids[0].classes) as classes:
        days, shown = source.read(1), classes.read(1)
        assert (source.nodata, source.dtypes[0]) == (0, "uint16")
        assert source.transform == classes.transform
        assert source.crs == classes.crs
    assert ((days == 0) == (shown == 255)).all()
    model = artefact.load(folder)
    whole = Window(row=0, col=0, height=96, width=256)
    reflectance, _ = cube.store.read_window(study.store, "31TEJ", whole)
    doy = days_of_year(model.recipe.periods)
    wanted = decision_days(model.network(), model.normalisation, doy, reflectance)
    assert set(np.unique(days)) <= {0, *doy}
    np.testing.assert_array_equal(days[shown != 255], wanted[shown != 255])
    assert '"decision"' in maps.grids[0].item.read_text()


def test_maps_of_other_networks_have_no_days(study: Study, tmp_path: Path) -> None:
    train("gru", study.data(), tmp_path, epochs=1, precision="32-true", hidden=4)
    maps = predict_store(tmp_path, study.store, tmp_path / "maps")
    with pytest.raises(ArtefactError, match="train 'elects'"):
        decision_maps(tmp_path, study.store, maps)
