"""Scores of a stage: counted twice, by zone, region and parcel, against a plain computation."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from sklearn import metrics as sk

import cube.store
from cube.errors import ArtefactError, SplitError
from model import artefact
from model.boost import boost
from model.compare import compare
from model.evaluate import evaluate
from model.labels import write_labels
from model.labelstore import LabelStore
from model.legend import load_legend
from model.splits import Split, split_zones
from model.tiles import TileData
from model.trials import cross_validate, held_out
from tests.model.fixture_store import Study, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("evaluate"), height=160, width=320, noise=900)


@pytest.fixture(scope="module")
def data(study: Study) -> TileData:
    # Small samples: windows that touch two sets serve one alone, and these zones are small.
    return study.data(sample=16)


@pytest.fixture(scope="module")
def boosted(data: TileData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boost(data, tmp_path_factory.mktemp("boosted"), rounds=10, cap=500).folder


def test_scores_equal_a_plain_computation(data: TileData, boosted: Path) -> None:
    told: list[tuple[int, int, str]] = []
    scores = evaluate(boosted, data, progress=lambda *event: told.append(event))
    assert told == [(1, 1, "evaluating test")]
    truth, found, parcel = _plain(data, boosted, "test")
    answer = found.argmax(axis=1)
    np.testing.assert_array_equal(
        scores.confusion, sk.confusion_matrix(truth, answer, labels=range(4))
    )
    everything = scores.whole["pixel"]["all"]
    assert everything["accuracy"] == pytest.approx(sk.accuracy_score(truth, answer))
    loss = sk.log_loss(truth, found.astype(np.float64), labels=range(4))
    assert everything["loss"] == pytest.approx(loss, rel=1e-4)
    crops = truth > 0
    f1 = sk.f1_score(truth[crops], answer[crops], labels=np.unique(truth[crops]), average="macro")
    assert scores.whole["pixel"]["crops"]["f1"] == pytest.approx(f1)
    votes, means = _parcels(truth, found, parcel)
    assert scores.whole["parcel_vote"]["all"]["accuracy"] == pytest.approx(votes)
    assert scores.whole["parcel_mean"]["all"]["accuracy"] == pytest.approx(means)


def _plain(data: TileData, folder: Path, stage: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, probabilities and parcel of the stage's pixels, straight from the labelled pixels."""
    predictor = artefact.load(folder).predictor()
    parts = list(data.pixels(stage))
    found = np.concatenate(
        [
            predictor.probabilities(p.reflectance.transpose(2, 1, 0)[..., None])[:, :, 0].T
            for p in parts
        ]
    )
    truth, parcel = (np.concatenate([getattr(p, n) for p in parts]) for n in ("y", "parcel"))
    return truth, found, parcel


def _parcels(truth: np.ndarray, found: np.ndarray, parcel: np.ndarray) -> tuple[float, float]:
    votes, means = [], []
    for number in np.unique(parcel[parcel > 0]):
        mine = parcel == number
        right = truth[mine][0]
        votes.append(np.bincount(found[mine].argmax(axis=1)).argmax() == right)
        means.append(found[mine].mean(axis=0).argmax() == right)
    return float(np.mean(votes)), float(np.mean(means))


def test_zones_add_up_and_unobserved_pixels_are_reported(data: TileData, boosted: Path) -> None:
    scores = evaluate(boosted, data, stage="train")
    assert set(scores.zones) <= {"west-1", "east-1", "east-2"}
    assert set(scores.regions) == {"west", "east"}
    pixels = [zone["pixel"]["all"]["pixels"] for zone in scores.zones.values()]
    assert sum(pixels) == scores.whole["pixel"]["all"]["pixels"] == np.sum(scores.confusion)
    # The corner of zone west-1 was never clear: 32 × 32 labelled pixels without an answer.
    assert scores.whole["undecided"] == scores.zones["west-1"]["undecided"] == 32 * 32
    labelled = data.class_counts.sum()
    assert labelled == scores.whole["pixel"]["all"]["pixels"] + 32 * 32


def test_background_switch_changes_only_what_it_says(data: TileData, boosted: Path) -> None:
    scores = evaluate(boosted, data)
    pixel = scores.whole["pixel"]
    matrix = np.array(scores.confusion)
    assert pixel["all"]["pixels"] - pixel["crops"]["pixels"] == matrix[0].sum() > 0
    assert pixel["all"]["classes"] - pixel["crops"]["classes"] == 1
    assert pixel["crops"]["accuracy"] == pytest.approx(np.trace(matrix[1:, 1:]) / matrix[1:].sum())


def test_report_files(data: TileData, boosted: Path, tmp_path: Path) -> None:
    scores = evaluate(boosted, data, out=tmp_path)
    names = ("confusion.png", "class_shares.png", "ndvi.png", "map.png")
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert saved == json.loads(json.dumps(scores.to_dict()))
    assert saved["audit"]["train_test"] is not None
    assert saved["baseline"]["all"]["accuracy"] < saved["whole"]["pixel"]["all"]["accuracy"]


def test_labels_never_reach_the_inputs(data: TileData, study: Study, boosted: Path) -> None:
    """What is read for a prediction is the store's imagery, whatever the labels say."""
    before = [p.reflectance for p in data.pixels("test")]
    whole, _ = cube.store.read_window(study.store, "31TEJ", study.grid.window)
    for part, reflectance in zip(data.pixels("test"), before, strict=True):
        np.testing.assert_array_equal(
            reflectance, whole[:, :, part.row, part.col].transpose(2, 1, 0)
        )


def test_a_leaking_split_is_refused(data: TileData, study: Study, boosted: Path) -> None:
    leaking = Split("zone", frozenset({1, 2}), frozenset({3}), frozenset({2}))
    with pytest.raises(SplitError, match="both train and test"):
        evaluate(boosted, data.with_split(leaking))


def test_a_stage_without_pixels_is_named(data: TileData, boosted: Path) -> None:
    nothing = Split("zone", frozenset({1, 2}), frozenset({3}), frozenset())
    with pytest.raises(SplitError, match="no labelled pixel in the groups of 'test'"):
        evaluate(boosted, data.with_split(nothing))


def test_another_legend_is_refused(
    data: TileData, boosted: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = write_study(tmp_path_factory.mktemp("other"), height=64, width=128)
    store = LabelStore(other.labels)
    box = other.grid.geobox(other.grid.window).boundingbox
    parcels = gpd.GeoDataFrame(
        {"id": ["1"], "code": ["SOJ"]},
        geometry=[shapely.box(box.left, box.bottom, box.right, box.top)],
        crs=32631,
    )
    legend = load_legend(classes=["Soy"])
    labels = other.labels.parent / "soy" / "labels.zarr"
    write_labels(parcels, other.store, legend, store.zones, labels)
    with pytest.raises(ArtefactError, match="knows 4 classes"):
        evaluate(boosted, TileData(other.store, labels, None, split_zones(labels)))


def test_cross_validation_holds_out_every_zone_once(data: TileData, tmp_path: Path) -> None:
    seen: list[Split] = []

    def train(fold: TileData, out: Path):
        seen.append(fold.split)
        return boost(fold, out, rounds=3, cap=200)

    found = cross_validate(train, data, tmp_path, k=3)
    tested = [group for split in seen for group in split.test]
    assert sorted(tested) == [1, 3, 4]  # zone 2 is the test zone of the study
    for split in seen:
        assert not split.train & split.test
        assert not split.val & (split.train | split.test)
    accuracy = [fold["whole"]["pixel"]["all"]["accuracy"] for fold in found["folds"]]
    assert found["mean"]["OA"] == pytest.approx(np.mean(accuracy))
    assert found["spread"]["OA"] == pytest.approx(np.std(accuracy, ddof=1))
    assert json.loads((tmp_path / "folds.json").read_text()) == found


def test_held_out_never_stops_early_on_what_it_scores() -> None:
    fold = Split("zone", frozenset(range(1, 11)), frozenset({11, 12}), frozenset({20}))
    made = held_out(fold)
    assert made.test == fold.val
    assert len(made.val) == 2
    assert made.val | made.train == fold.train


def test_comparison_shows_models_and_the_majority(
    data: TileData, boosted: Path, tmp_path: Path
) -> None:
    weak = boost(data, tmp_path / "weak", rounds=1, cap=50).folder
    scores = {"ten rounds": evaluate(boosted, data), "one round": evaluate(weak, data)}
    table = compare(scores)
    assert list(table.rows) == ["ten rounds", "one round", "always background / WinterWheat"]
    text, markdown = table.text(), table.markdown()
    accuracy = scores["ten rounds"].whole["pixel"]["all"]["accuracy"]
    for shown in (text, markdown):
        assert f"{accuracy:.3f}" in shown
        assert "always background / WinterWheat" in shown
    table.save(tmp_path)
    assert json.loads((tmp_path / "comparison.json").read_text()) == table.rows
    different = {"test": scores["ten rounds"], "train": evaluate(boosted, data, stage="train")}
    with pytest.raises(ValueError, match="different pixels"):
        compare(different)
