"""Linear discriminants beside scikit-learn's and beside rows that are left out one by one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

from genodl_spark.learning import discriminant


def rows_of(counts: tuple[int, ...], features: int, seed: int = 0, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    means = shift * random.normal(size=(len(counts), 6))
    x = random.normal(size=(len(y), features)) + random.normal(size=(len(y), 3)) @ random.normal(size=(3, features))
    x[:, :6] += means[y]
    return x, y


def trace_by_hand(x: np.ndarray, y: np.ndarray, share: float, scale: float) -> float:
    """Mean over rows of what a squared distance to a mean is too long by, times its rows; each row left out."""
    found = []
    for i in range(len(x)):
        mine = np.flatnonzero((y == y[i]) & (np.arange(len(x)) != i))
        if not len(mine):
            continue
        inverse = np.linalg.inv(covariance_without(x, y, i, share, scale))
        away = x[i] - x[mine].mean(0)
        found.append(away @ inverse @ away * len(mine) / (len(mine) + 1))
    return float(np.mean(found))


def covariance_without(x: np.ndarray, y: np.ndarray, i: int, share: float, scale: float) -> np.ndarray:
    others = np.arange(len(x)) != i
    within = np.concatenate([x[others & (y == k)] - x[others & (y == k)].mean(0) for k in np.unique(y[others])])
    return (1 - share) * within.T @ within / len(x) + share * scale * np.eye(x.shape[1])


@pytest.mark.parametrize("features", [10, 60])
def test_discriminants_are_those_of_scikit_learn_but_for_their_intercepts(features: int) -> None:
    x, y = rows_of((20, 14, 6), features)
    found = discriminant.fit(x, y, 3, features)
    within = np.concatenate([x[y == k] - x[y == k].mean(0) for k in range(3)])
    assert found.shrinkage == pytest.approx(ledoit_wolf_shrinkage(within, assume_centered=True), rel=1e-9)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=found.shrinkage).fit(x, y)
    trace = trace_by_hand(x, y, found.shrinkage, (within**2).mean())
    others = np.random.default_rng(5).normal(size=(9, features))
    expected = oracle.decision_function(others) - np.log(oracle.priors_) + 0.5 * trace / np.bincount(y)
    logits = (others @ found.axes @ found.weight + found.bias) * found.temperature
    # logits are told up to a number of each row
    assert logits - logits[:, :1] == pytest.approx(expected - expected[:, :1], abs=1e-8)
    # in the axes the shrunken covariance within classes is the identity
    shrunken = (1 - found.shrinkage) * within.T @ within / len(x) + found.shrinkage * (within**2).mean() * np.eye(
        features
    )
    assert found.axes.T @ shrunken @ found.axes == pytest.approx(np.eye(found.axes.shape[1]), abs=1e-8)

    # the same in the coordinates of a rotation, in which there are no more axes than rows
    _, _, turned = np.linalg.svd(x - x.mean(0), full_matrices=False)
    again = discriminant.fit(x @ turned.T, y, 3, features)
    inside = others @ turned.T
    if features > len(x):  # outside of the span of the rows a weight is 0
        assert inside @ again.axes @ again.weight + again.bias == pytest.approx(logits / found.temperature, abs=1e-8)
    order = np.random.default_rng(2).permutation(len(x))
    other = discriminant.fit(x[order], y[order], 3, features)
    assert others @ other.axes @ other.weight + other.bias == pytest.approx(logits / found.temperature, abs=1e-8)


@pytest.mark.parametrize("features", [10, 60])
def test_rows_are_left_out_as_if_they_were_not_there(features: int) -> None:
    x, y = rows_of((20, 14, 6, 1), features)
    found = discriminant.fit(x, y, 5, features)
    within = np.concatenate([x[y == k] - x[y == k].mean(0) for k in range(4)])
    scale = (within**2).mean()
    trace = trace_by_hand(x, y, found.shrinkage, scale)
    for i in (0, 25, 36):
        inverse = np.linalg.inv(covariance_without(x, y, i, found.shrinkage, scale))
        expected = []
        for k in range(4):
            mine = np.flatnonzero((y == k) & (np.arange(len(x)) != i))
            away = x[i] - x[mine].mean(0)
            expected.append((trace / len(mine) - away @ inverse @ away) / 2 / found.temperature)
        assert found.left_out[i, :4] == pytest.approx(np.array(expected) - max(expected), abs=1e-8)
    assert (found.left_out[:, 4] == discriminant.UNSEEN).all()
    assert ((x @ found.axes @ found.weight + found.bias).argmax(1) < 4).all()


def test_a_rare_class_is_told_though_its_mean_is_of_few_rows() -> None:
    x, y = rows_of((300, 300), 500, seed=3, shift=1.5)
    train = np.concatenate([np.arange(60), np.arange(300, 304)])
    test = np.setdiff1d(np.arange(600), train)
    found = discriminant.fit(x[train], y[train], 2, 500)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=found.shrinkage).fit(x[train], y[train])
    naive = balanced_accuracy_score(y[test], oracle.predict(x[test]))
    logits = x[test] @ found.axes @ found.weight + found.bias
    assert naive < 0.65 and balanced_accuracy_score(y[test], logits.argmax(1)) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_logits_of_noise_say_little_and_those_of_signal_much(seed: int) -> None:
    losses = []
    for shift in (0.0, 4.0):
        x, y = rows_of((140, 260), 400, seed, shift)
        train = np.arange(400) % 5 == 0
        found = discriminant.fit(x[train], y[train], 2, 400)
        logits = x[~train] @ found.axes @ found.weight + found.bias
        of_rows = (
            np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1))
            - (logits - logits.max(1, keepdims=True))[np.arange(320), y[~train]]
        )
        losses.append(np.mean([of_rows[y[~train] == k].mean() for k in range(2)]))
    assert losses[0] < np.log(2) + 0.06 and losses[1] < 0.35


def test_rows_that_do_not_differ_and_classes_of_one_row() -> None:
    same = discriminant.fit(np.ones((6, 4)), np.array([0, 0, 0, 1, 1, 1]), 2, 4)
    assert np.isfinite(same.weight).all() and same.bias[0] == pytest.approx(same.bias[1])
    alone = discriminant.fit(np.eye(3, 8), np.arange(3), 3, 8)
    told = np.eye(3, 8) @ alone.axes @ alone.weight + alone.bias
    assert (told.argmax(1) == np.arange(3)).all() and alone.temperature == 1
    one = discriminant.fit(np.random.default_rng(0).normal(size=(5, 3)), np.ones(5, int), 3, 3)
    assert (one.bias[[0, 2]] == one.bias[1] + discriminant.UNSEEN).all()
