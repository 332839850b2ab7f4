"""What a training minimises: names, parts, exact sums, and who may learn by what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cube.errors import ArtefactError
from model import networks
from model.hierarchy import Tree
from model.legend import IGNORE
from model.networks.early import earliness, early_reward_loss
from model.objectives import Loss, Objective, objective_for

COUNTS = np.array([0, 40, 30, 20, 10])
#: Background; 1 and 2 below A, 3 below B, 4 below none at this level.
TREE = Tree(("group",), (("background", "A", "B"),), ((0, 1, 1, 2, IGNORE),))


def batch(*, windows: bool = False, n: int = 6) -> dict[str, Tensor]:
    torch.manual_seed(3)
    places = (2, 2) if windows else ()
    y = torch.randint(1, 5, (n, *places))
    y[0] = IGNORE
    return {
        "x": torch.randn(n, 3, 5, *places),
        "valid": torch.rand(n, 5, *places) > 0.2,
        "doy": torch.arange(5).expand(n, -1) * 30 + 10,
        "y": y,
    }


def pixels(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the pixels of a batch of windows as series, one by one."""
    n, _, _, height, width = given["x"].shape
    rows = [
        {
            "x": given["x"][i, :, :, r, c],
            "valid": given["valid"][i, :, r, c],
            "doy": given["doy"][i],
            "y": given["y"][i, r, c],
        }
        for i in range(n)
        for r in range(height)
        for c in range(width)
    ]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def network(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    made = networks.create(name, c_in=3, n_classes=5, months=5, **options).eval()
    if name == "elects":
        nn.init.constant_(made.stop.bias, -1.0)
    return made


def loss_of(objective: Objective, judged: object) -> float:
    return objective.loss(judged.total, judged.weight).item()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cross-entropy", "cross-entropy"),
        ("focal", "focal:2"),
        ("focal:1.5", "focal:1.5"),
        ("logit-adjusted", "logit-adjusted:1"),
        ("early-reward:0", "early-reward:0"),
    ],
)
def test_names_of_losses(text: str, wanted: str) -> None:
    assert str(Loss.read(text)) == wanted
    assert Loss.read(wanted) == Loss.read(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dice", "loss 'dice' is unknown; choose one of cross-entropy, focal"),
        ("cross-entropy:1", "takes no figure"),
        ("focal:-1", "gamma is a number from 0"),
        ("focal:much", "gamma is a number"),
        ("early-reward:2", "alpha is a number from 0 to 1"),
        ("logit-adjusted:", "tau is a number"),
    ],
)
def test_losses_that_do_not_exist(text: str, message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        Loss.read(text)


def test_only_early_classifiers_learn_by_their_reward() -> None:
    with pytest.raises(ArtefactError, match="early-reward"):
        objective_for(network("elects"), Loss.read("focal"), COUNTS)
    with pytest.raises(ArtefactError, match="not for this network"):
        objective_for(network("gru", hidden=4), Loss.read("early-reward"), COUNTS)


@pytest.mark.parametrize("loss", ["cross-entropy", "focal", "logit-adjusted"])
@pytest.mark.parametrize("name", ["gru", "levels", "elects"])
def test_sums_add_up_over_batches(name: str, loss: str) -> None:
    if name == "levels":
        net = network("gru", hidden=4, levels=[3], heads="refined")
    else:
        net = network(name, **({"hidden": 4} if name == "gru" else {}))
    chosen = None if name == "elects" else Loss.read(loss)
    objective = objective_for(net, chosen, COUNTS, "sqrt", TREE if name == "levels" else None)
    given = batch()
    whole = objective(net, given)
    cut = [{key: value[i:j] for key, value in given.items()} for i, j in ((0, 1), (1, 3), (3, 6))]
    parts = [objective(net, part) for part in cut]
    for field in ("total", "weight", "figure"):
        together = torch.stack([getattr(part, field) for part in parts]).sum(dim=0)
        torch.testing.assert_close(together, getattr(whole, field), atol=1e-4, rtol=1e-4)


def test_levels_weigh_as_published() -> None:
    net = network("gru", hidden=4, levels=[3], heads="refined")
    given = batch()
    objective = objective_for(net, None, COUNTS, tree=TREE)
    judged = objective(net, given)
    coarse, fine, refined = (scores.detach() for scores in net.levels(**_inputs(given)))
    y = given["y"][1:]
    parents = torch.tensor(TREE.parents[0])[y]
    known = parents != IGNORE
    wanted = (
        0.5 * _entropy(coarse[1:][known], parents[known])
        + _entropy(fine[1:], y)
        + _entropy(refined[1:], y)
    )
    assert loss_of(objective, judged) == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(judged.logits, refined)


def test_consistency_counts_classes_that_have_a_parent() -> None:
    net = network("gru", hidden=4, levels=[3])
    given = batch(n=40)
    judged = objective_for(net, None, COUNTS, tree=TREE)(net, given)
    coarse, fine = (scores.argmax(dim=1).numpy() for scores in net.levels(**_inputs(given)))
    agree, counted = 0, 0
    for label, above, below in zip(given["y"].tolist(), coarse, fine, strict=True):
        parent = TREE.parents[0][below]
        if label != IGNORE and parent != IGNORE:
            counted += 1
            agree += int(parent == above)
    assert judged.figure.tolist() == [agree, counted]
    assert 0 < agree < counted


def test_convstar_learns_its_levels_with_a_tree_and_its_answer_without() -> None:
    tree = Tree(
        ("a", "b"),
        (("background", "x"), ("background", "y", "z")),
        ((0, 1, 1, 1, 1), (0, 1, 2, 2, 1)),
    )
    net = network("convstar", coarse=(2, 3), hidden=4)
    given = batch(windows=True)
    objective = objective_for(net, None, COUNTS, tree=tree)
    assert objective.shares.tolist() == pytest.approx([0.1, 0.5, 1, 1])
    first, second, fine, refined = (s.detach() for s in net.levels(**_inputs(given)))
    y = given["y"]
    labelled = y != IGNORE
    parents = [torch.tensor(p)[y[labelled]] for p in tree.parents]
    rows = [s.permute(0, 2, 3, 1)[labelled] for s in (first, second, fine, refined)]
    wanted = 0.1 * _entropy(rows[0], parents[0]) + 0.5 * _entropy(rows[1], parents[1])
    wanted += _entropy(rows[2], y[labelled]) + _entropy(rows[3], y[labelled])
    assert loss_of(objective, objective(net, given)) == pytest.approx(wanted, rel=1e-5)
    plain = objective_for(net, None, COUNTS)
    answer = _entropy(rows[3], y[labelled])
    assert loss_of(plain, plain(net, given)) == pytest.approx(answer, rel=1e-5)


def test_windows_are_that_many_early_series() -> None:
    net = network("elects")
    given = batch(windows=True)
    objective = objective_for(net, Loss.read("early-reward:0.3"), COUNTS)
    judged = objective(net, given)
    one = pixels(given)
    labelled = one["y"] != IGNORE
    one = {name: value[labelled] for name, value in one.items()}
    found = net.decisions(one["x"], one["valid"], one["doy"])
    wanted = early_reward_loss(found, one["valid"], one["y"], alpha=0.3).item()
    assert loss_of(objective, judged) == pytest.approx(wanted, rel=1e-5)
    early = earliness(net.date(found), one["valid"]).item()
    assert (judged.figure[0] / judged.figure[1]).item() == pytest.approx(early, rel=1e-5)
    assert judged.y.tolist() == one["y"].tolist()
    torch.testing.assert_close(judged.logits, net(one["x"], one["valid"], one["doy"]))


def test_class_weights_of_early_series() -> None:
    net = network("elects")
    given = batch()
    alone = []
    objective = objective_for(net, None, COUNTS, "inverse")
    for row in range(1, 6):
        part = {name: value[row : row + 1] for name, value in given.items()}
        alone.append((loss_of(objective, objective(net, part)), int(part["y"])))
    share = np.array([1 / COUNTS[label] for _, label in alone])
    wanted = float((share * [loss for loss, _ in alone]).sum() / share.sum())
    assert loss_of(objective, objective(net, given)) == pytest.approx(wanted, rel=1e-4)


def test_nothing_labelled_is_no_loss() -> None:
    for name, tree in (("gru", None), ("elects", None), ("gru", TREE)):
        options = {"levels": [3]} if tree else {}
        net = network(name, **({"hidden": 4} if name == "gru" else {}), **options)
        objective = objective_for(net, None, COUNTS, tree=tree)
        given = batch()
        given["y"] = torch.full_like(given["y"], IGNORE)
        judged = objective(net, given)
        loss = objective.loss(judged.total, judged.weight)
        loss.backward()
        assert loss.item() == 0
        assert all(p.grad is None or math.isfinite(p.grad.sum()) for p in net.parameters())


def _inputs(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: given[name] for name in ("x", "valid", "doy")}


def _entropy(logits: Tensor, y: Tensor) -> float:
    p = logits.double().softmax(dim=1).numpy()
    return float(-np.log(p[np.arange(len(y)), y.numpy()]).mean())
