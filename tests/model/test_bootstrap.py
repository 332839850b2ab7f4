"""Intervals against a loop that draws groups and counts them one by one."""

import numpy as np
import pytest

from model.bootstrap import groups_of_parcels, groups_of_tallies, intervals, weights
from model.metrics import summary
from model.tally import Tally

K = 3


def tallies(groups: int = 7, pixels: int = 40, seed: int = 0) -> list[Tally]:
    random = np.random.default_rng(seed)
    found = []
    for number in range(groups):
        tally = Tally(K)
        truth = random.integers(0, K, pixels)
        share = random.dirichlet(np.ones(K) * 0.5, pixels)
        share[np.arange(pixels), truth] += random.random()
        parcel = number * 100 + truth + K * (np.arange(pixels) % 4) + 1
        tally.add(truth, share / share.sum(axis=1, keepdims=True), parcel)
        found.append(tally)
    return found


def test_intervals_over_zones_equal_a_plain_loop() -> None:
    found = tallies()
    drawn = np.concatenate(list(weights(7, 200, seed=5)))
    assert (drawn.sum(axis=1) == 7).all()
    values: dict[str, list[float]] = {"OA": [], "crops F1": [], "min F1": [], "parcel OA": []}
    for row in drawn.astype(int):
        pixels = sum(times * tally.matrix for times, tally in zip(row, found, strict=True))
        parcels = sum(
            times * tally.parcels.matrices()["mean"]
            for times, tally in zip(row, found, strict=True)
        )
        values["OA"].append(summary(pixels)["accuracy"])
        crops = summary(pixels, background=False)
        values["crops F1"].append(crops["f1"])
        values["min F1"].append(crops["minimum_f1"])
        values["parcel OA"].append(summary(parcels, background=False)["accuracy"])
    told = intervals(groups_of_tallies(found), draws=200, seed=5)
    for name, figures in values.items():
        np.testing.assert_allclose(told[name], np.quantile(figures, [0.025, 0.975]), atol=1e-12)


def test_parcels_hold_the_pixels_of_the_zones() -> None:
    whole = Tally(K)
    for tally in tallies():
        whole = whole + tally
    groups = groups_of_parcels(whole.parcels)
    assert len(groups) == len(whole.parcels) == 7 * K * 4
    np.testing.assert_array_equal(groups.pixels.sum(axis=0).reshape(K, K), whole.matrix)
    expected = whole.parcels.matrices()["mean"]
    np.testing.assert_array_equal(groups.parcels.sum(axis=0).reshape(K, K), expected)


def test_equal_groups_leave_no_doubt_and_one_group_says_nothing() -> None:
    one = tallies(1)[0]
    told = intervals(groups_of_tallies([one] * 5), draws=50)
    assert told["OA"] == pytest.approx((summary(one.matrix)["accuracy"],) * 2)
    assert intervals(groups_of_tallies([one])) == {}


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Zones with an accuracy of their own around 0.7: the interval must hold 0.7."""
    random = np.random.default_rng(1)
    held = 0
    for trial in range(60):
        found = []
        for accuracy in random.beta(14, 6, 30):
            tally = Tally(2)
            right = int(random.binomial(500, accuracy))
            tally.matrix[1] = (500 - right, right)
            found.append(tally)
        low, high = intervals(groups_of_tallies(found), draws=300, seed=trial)["crops OA"]
        held += low <= 0.7 <= high
    assert held >= 50
