"""Back-off by hand: who is answered at which level."""

import numpy as np
import pytest

from model.backoff import BackOff, back_off, level_probabilities
from model.legend import flat_legend, load_legend

# Background; wheat and barley are cereals, beet a row crop; all three are field crops; grass.
PARENTS = (np.array([0, 1, 1, 1, 2]), np.array([0, 1, 1, 2, 3]))
FOUND = np.array(
    [
        [0.0, 0.9, 0.1, 0.0, 0.0],  # wheat
        [0.0, 0.5, 0.4, 0.1, 0.0],  # a cereal, 0.9
        [0.1, 0.3, 0.2, 0.4, 0.0],  # field crop, 0.9; the likeliest single class is beet
        [0.3, 0.2, 0.1, 0.1, 0.3],  # nothing
        [np.nan] * 5,
    ],
    np.float32,
)
TRUTH = np.array([1, 2, 2, 4, 1])


def test_levels_by_hand() -> None:
    cereals = level_probabilities(FOUND[:3], PARENTS[1])
    np.testing.assert_allclose(cereals[2], [0.1, 0.5, 0.4, 0.0], atol=1e-6)
    level, answer, confidence = back_off(FOUND, PARENTS, 0.8)
    assert level.tolist() == [2, 1, 0, 255, 255]
    assert answer.tolist() == [1, 1, 1, 255, 255]
    np.testing.assert_allclose(confidence, [0.9, 0.9, 0.9, 0.4, 0], atol=1e-6)


def test_a_class_without_a_parent_is_not_answered_above() -> None:
    orphan = (np.array([0, 1, 1, 255, 2]),)
    found = np.array([[0.1, 0.0, 0.1, 0.7, 0.1]], np.float32)
    assert back_off(found, orphan, 0.6)[0].tolist() == [1]
    assert back_off(found, orphan, 0.75)[0].tolist() == [255]


def test_a_temperature_moves_what_is_sure_enough() -> None:
    assert back_off(FOUND[1:2], PARENTS, 0.8, (1.0, 4.0))[0].tolist() == [0]


def counted(target: float) -> BackOff:
    return BackOff(
        ("level1", "level2", "crops"), PARENTS, target, (1.0,) * 3, np.zeros((4, 2), int)
    )


def test_counts_add_up_and_say_who_is_right() -> None:
    found = counted(0.8)
    found.add(TRUTH[:2], FOUND[:2])
    found.add(TRUTH[2:], FOUND[2:])
    rows = found.rows()
    assert [row["level"] for row in rows] == ["crops", "level2", "level1", "no decision"]
    assert [row["share"] for row in rows] == [0.2, 0.2, 0.2, 0.4]
    assert [row["accuracy"] for row in rows[:3]] == [1, 1, 1]
    asked_little = counted(0.1)
    asked_little.add(TRUTH, FOUND)
    assert asked_little.rows()[0] == {"level": "crops", "share": 0.8, "accuracy": 0.25}


def test_the_tree_comes_with_the_legend() -> None:
    legend = load_legend(classes=["WinterWheat", "WinterBarley", "Meadow"])
    found = BackOff.of(legend, 0.9)
    assert found.levels == ("level1", "level2", legend.level)
    wheat, barley, meadow = (legend.index(n) for n in ("WinterWheat", "WinterBarley", "Meadow"))
    for parents in found.parents:
        assert parents[wheat] == parents[barley] != parents[meadow]
    flat = BackOff.of(flat_legend("flat", ["a", "b"]), 0.9)
    assert flat.levels == ("flat",)
    with pytest.raises(ValueError, match="give a probability"):
        BackOff.of(legend, 90)
