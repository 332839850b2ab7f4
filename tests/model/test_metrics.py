"""Scores against values worked by hand and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from model.metrics import (
    ParcelVotes,
    always,
    calibration_error,
    class_scores,
    confusion_matrix,
    log_loss,
    majority_class,
    reliability,
    summary,
)

# Five classes: 0 background, 4 absent from the truth but predicted once.
TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 255], dtype=np.uint8)
GUESS = np.array([0, 0, 1, 0, 1, 1, 0, 2, 4, 2, 1], dtype=np.uint8)
MATRIX = np.array(
    [
        [3, 1, 0, 0, 0],
        [1, 2, 0, 0, 0],
        [0, 0, 1, 0, 1],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]
)


def test_confusion_matrix_by_hand() -> None:
    matrix = confusion_matrix(TRUTH, GUESS, 5)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, MATRIX)


def test_scores_by_hand() -> None:
    scores = class_scores(MATRIX)
    np.testing.assert_allclose(scores["precision"], [3 / 4, 2 / 3, 1 / 2, 0, 0])
    np.testing.assert_allclose(scores["recall"], [3 / 4, 2 / 3, 1 / 2, 0, 0])
    np.testing.assert_array_equal(scores["support"], [4, 3, 2, 1, 0])
    everything = summary(MATRIX)
    assert everything["accuracy"] == pytest.approx(6 / 10)
    # Class 4 never occurs: four classes share the mean, the confused one (3) counts as 0.
    assert everything["classes"] == 4
    assert everything["recall"] == pytest.approx((3 / 4 + 2 / 3 + 1 / 2 + 0) / 4)


def test_without_background_drops_truth_zero_and_nothing_else() -> None:
    crops = summary(MATRIX, background=False)
    assert crops["pixels"] == 6
    # Class 3 is never found; without it the worst would be class 2 of F1 2 · 1 / (2 + 2).
    assert crops["minimum_f1"] == 0
    assert summary(MATRIX[:3, :3])["minimum_f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert crops["accuracy"] == pytest.approx(3 / 6)  # the crop called background is an error
    assert crops["classes"] == 3
    # The background pixel called class 1 no longer spoils the precision of class 1.
    assert crops["precision"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert crops["recall"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert MATRIX[0, 0] == 3  # the argument is untouched


labels = arrays(np.uint8, st.integers(1, 60), elements=st.integers(0, 5))


@given(labels, st.randoms(use_true_random=False))
def test_scores_equal_scikit_learn(truth: np.ndarray, random) -> None:
    guess = np.array([random.randrange(6) for _ in truth], dtype=np.uint8)
    matrix = confusion_matrix(truth, guess, 6)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(truth, guess, labels=range(6)))
    present = np.unique(truth)
    ours = summary(matrix)
    theirs = sk.precision_recall_fscore_support(
        truth, guess, labels=present, average="macro", zero_division=0
    )
    np.testing.assert_allclose([ours["precision"], ours["recall"], ours["f1"]], theirs[:3])
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(truth, guess))


@given(labels)
def test_changing_ignored_pixels_changes_nothing(guess: np.ndarray) -> None:
    truth = np.arange(guess.size) % 6
    truth[::3] = 255
    other = guess.copy()
    other[::3] = 5 - other[::3]
    np.testing.assert_array_equal(
        confusion_matrix(truth, guess, 6), confusion_matrix(truth, other, 6)
    )


def test_log_loss_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(4), 50).astype(np.float32)
    truth = rng.integers(0, 4, 50)
    total, count = log_loss(truth, probabilities)
    assert count == 50
    expected = sk.log_loss(truth, probabilities.astype(np.float64), labels=range(4))
    assert total / count == pytest.approx(expected, rel=1e-5)


def test_log_loss_leaves_out_no_decision_and_bounds_the_impossible() -> None:
    probabilities = np.array([[0.5, 0.5], [np.nan, np.nan], [1, 0], [0.25, 0.75]], np.float32)
    total, count = log_loss(np.array([0, 1, 1, 255]), probabilities)
    assert count == 2
    assert total == pytest.approx(np.log(2) - np.log(1e-7))


def test_parcels_vote_and_mean_probability_may_disagree() -> None:
    votes = ParcelVotes(3)
    # Parcel 7, truth 1: two weak votes for 0, one strong vote for 1.
    first = np.array([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1]], np.float32)
    votes.add(np.array([7, 7]), np.array([1, 1]), first)
    # The parcel goes on in the next tile; parcel 9 is truth 2; pixels without parcel do not count.
    rest = np.array([[0.05, 0.9, 0.05], [0.1, 0.1, 0.8], [1, 0, 0], [np.nan] * 3], np.float32)
    votes.add(np.array([7, 9, 0, 9]), np.array([1, 2, 1, 2]), rest)
    assert len(votes) == 2
    matrices = votes.matrices()
    np.testing.assert_array_equal(matrices["vote"], [[0, 0, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(matrices["mean"], [[0, 0, 0], [0, 1, 0], [0, 0, 1]])
    # By area parcel 7 weighs its three pixels, parcel 9 the one that was decided.
    np.testing.assert_array_equal(matrices["area"], [[0, 0, 0], [0, 3, 0], [0, 0, 1]])


def test_reliability_against_scikit_learn() -> None:
    random = np.random.default_rng(3)
    probabilities = random.dirichlet([0.4, 0.3, 0.5], 4000)
    truth = random.integers(0, 3, 4000)
    found = reliability(truth, probabilities)
    right = probabilities.argmax(axis=1) == truth
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=10)
    np.testing.assert_allclose(found.accuracy, accuracy)
    np.testing.assert_allclose(found.confidence, confidence)
    assert found.pixels.sum() == 4000
    assert found.index.min() >= 3  # the likeliest of three classes has a third at least


def test_calibration_error_by_hand() -> None:
    table = pd.DataFrame({"confidence": [0.6, 0.9], "accuracy": [0.5, 1.0], "pixels": [30, 10]})
    assert calibration_error(table) == pytest.approx(0.75 * 0.1 + 0.25 * 0.1)
    assert np.isnan(calibration_error(table.iloc[:0]))


def test_reliability_counts_decisions_on_labelled_pixels() -> None:
    probabilities = np.array([[1.0, 0], [0, 1.0], [0.8, 0.2], [np.nan, np.nan]], np.float32)
    found = reliability(np.array([0, 255, 1, 0]), probabilities, bins=5)
    assert found.to_dict("index") == {
        4: {"confidence": pytest.approx(0.9), "accuracy": 0.5, "pixels": 2}
    }


def test_no_parcels_is_an_empty_matrix() -> None:
    votes = ParcelVotes(2)
    votes.add(np.zeros(3, int), np.zeros(3, int), np.full((3, 2), 0.5))
    assert votes.matrices()["mean"].sum() == 0
    assert np.isnan(summary(votes.matrices()["mean"])["accuracy"])


def test_majority_baseline() -> None:
    assert majority_class([50, 10, 20]) == 0
    assert majority_class([50, 10, 20], background=False) == 2
    assert majority_class([50, 0, 0], background=False) == 0
    assert summary(always(MATRIX, 0))["accuracy"] == pytest.approx(4 / 10)


@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [([0, 1], [0], "differ in shape"), ([0, 7], [0, 1], "truth holds classes 0 to 7")],
)
def test_mistakes_are_named(truth: list[int], guess: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(truth), np.array(guess), 5)
