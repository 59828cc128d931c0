"""Layouts by neighbours against scikit-learn's measure of them, and memberships against the equations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness

from genodl_spark.report import umap
from genodl_spark.report.clouds import cloud_of, principal


def groups(n: int = 20, count: int = 15, features: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Rows in groups whose centres lie in all directions, and which is whose."""
    generator = np.random.default_rng(3)
    centres = generator.normal(scale=1.5, size=(count, features))
    of = np.repeat(np.arange(count), n)
    return centres[of] + generator.normal(size=(count * n, features)), of


def test_memberships_are_those_of_the_equations() -> None:
    """Membership of a pair, each sigma found by a root finder: a + b - a b."""
    x = np.random.default_rng(5).normal(size=(30, 4))
    k, d = 6, cdist(x, x)
    one = np.zeros((30, 30))
    for i, row in enumerate(d):
        near = np.argsort(row)[1:k]
        over = row[near] - row[near].min()
        sigma = brentq(lambda s, over=over: np.exp(-over / s).sum() - np.log2(k), 1e-6, 1e3)
        one[i, near] = np.exp(-over / sigma)
    found = umap.memberships(*umap.neighbours(x, k)).toarray()
    np.testing.assert_allclose(found, one + one.T - one * one.T, atol=1e-9)


def test_groups_that_two_components_lay_over_each_other_lie_apart() -> None:
    x, of = groups()
    found = cloud_of("", "person", [str(i) for i in range(len(x))], x)
    assert found.neighbours is not None

    def own(points: np.ndarray) -> float:
        return float((of[umap.neighbours(points, 6)[0][:, 1:]] == of[:, None]).mean())

    assert own(found.neighbours) == 1.0 and own(found.points[:, :2]) < 0.8
    kept = [trustworthiness(x, points, n_neighbors=15) for points in (found.neighbours, found.points[:, :2])]
    assert kept[0] > kept[1] + 0.01


def test_the_same_again_and_whatever_the_unit() -> None:
    x, _ = groups(10, 3)
    start = principal(x)[0]
    found = umap.layout(x, start)
    np.testing.assert_array_equal(found, umap.layout(x, start))
    np.testing.assert_allclose(found, umap.layout(4 * x, 4 * start), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_few_rows_and_equal_ones(n: int) -> None:
    x = np.random.default_rng(1).normal(size=(n, 3))
    x[n // 2 :] = x[n // 2]
    found = umap.layout(x, x[:, :2] - x[:, :2].mean(0))
    assert found.shape == (n, 2) and np.isfinite(found).all()
    assert not umap.layout(np.ones((n, 3)), np.zeros((n, 0))).any()
    assert cloud_of("", "person", [str(i) for i in range(3)], np.eye(3)).neighbours is None
