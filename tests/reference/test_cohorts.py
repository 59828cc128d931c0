"""What the reference of small cohorts makes of held-out scores."""

from __future__ import annotations

import numpy as np
import pytest

from genodl_spark.learning import metrics
from genodl_spark.learning.metrics import HeldOut
from tests.reference import cohorts


def test_balanced_accuracy_is_that_of_the_reports() -> None:
    random = np.random.default_rng(1)
    scores, target = random.dirichlet(np.ones(3), (4, 50)), random.integers(0, 3, 50).astype(float)
    names = np.arange(50).astype(str)
    held = HeldOut(names, names, target, scores, ["a", "b", "c"])
    found = cohorts.right(held)
    assert found.balanced() == pytest.approx(metrics.metrics(held)["balanced_accuracy"])
    other = cohorts.right(HeldOut(names, names, target, scores[:, ::-1], ["a", "b", "c"]))
    value, error = cohorts.difference(found, other)
    assert value == pytest.approx(found.balanced() - other.balanced())
    draws = []
    for _ in range(2000):  # the bootstrap that the error stands for
        drawn = np.concatenate([random.choice(np.flatnonzero(target == k), (target == k).sum()) for k in range(3)])
        one, two = (cohorts.Right(of.share[drawn], of.classes[drawn]) for of in (found, other))
        draws.append(one.balanced() - two.balanced())
    assert error == pytest.approx(np.std(draws), rel=0.15)
    assert cohorts.below(found, other) == pytest.approx(1 - cohorts.below(other, found))


def test_holm_adjusts_as_published() -> None:
    assert cohorts.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
