"""Discriminants against the formulas that define them, written out row by row; and what networks start from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genodl_spark.learning import models, shrunken_discriminant
from genodl_spark.learning.heads import Head
from genodl_spark.learning.shrunken_discriminant import STRENGTHS, TEMPERATURES, fit
from genodl_spark.learning.training import starts


def rows(n: int, p: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of unequal sizes; their first features differ."""
    draw = np.random.default_rng(seed)
    y = np.sort(np.array([0] * (n // 2) + [1] * (n // 3) + [2] * (n - n // 2 - n // 3)))
    x = draw.normal(size=(n, p)) @ (np.eye(p) + 0.3 * draw.normal(size=(p, p)) / np.sqrt(p))
    x[:, 0] += 1.5 * y
    return x + 3, y


def by_definition(x: np.ndarray, y: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights and intercepts before any temperature, and scores of each row by all others, with whole matrices."""
    n, p = x.shape
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    within = x - means[y]
    size = (within**2).sum() / n / p
    inverse = np.linalg.inv((1 - share) * within.T @ within / n + share * size * np.eye(p))
    others, own = [], []
    for i in range(n):
        left = np.arange(n) != i
        means_i = np.stack([x[left & (y == k)].mean(0) for k in range(3)])
        within_i = x[left] - means_i[y[left]]
        inverse_i = np.linalg.inv((1 - share) * within_i.T @ within_i / n + share * size * np.eye(p))
        away = x[i] - means_i
        others.append(np.einsum("kp,pq,kq->k", away, inverse_i, away))
        n_k = (y == y[i]).sum()
        own.append((n_k - 1) / n_k * others[-1][y[i]])
    trace = np.mean(own)
    counts = np.bincount(y)
    without = counts - np.eye(3, dtype=int)[y]
    weight = inverse @ means.T
    bias = 0.5 * trace / counts - 0.5 * np.einsum("kp,pq,kq->k", means, inverse, means)
    return weight, bias, 0.5 * (trace / without - np.array(others))


@pytest.mark.parametrize(("n", "p"), [(30, 8), (24, 60)])
def test_of_all_shrinkages_the_one_that_tells_rows_left_out_best(n: int, p: int) -> None:
    x, y = rows(n, p)
    weights = 1 / np.bincount(y)[y]
    found = []
    for share in STRENGTHS / (1 + STRENGTHS):
        weight, bias, scores = by_definition(x, y, share)
        for t in TEMPERATURES:
            logs = scores / t - np.log(np.exp((scores - scores.max(1, keepdims=True)) / t).sum(1, keepdims=True))
            logs -= scores.max(1, keepdims=True) / t
            found.append((-(weights @ logs[np.arange(n), y]) / weights.sum(), share, t, weight, bias))
    loss, share, t, weight, bias = min(found, key=lambda one: one[0])
    made = fit(x, y, 3)
    assert (made.shrinkage, made.temperature) == pytest.approx((share, t))
    assert made.loss == pytest.approx(loss, abs=1e-9)
    logits = x @ made.weight + made.bias
    expected = (x @ weight + bias) / t
    np.testing.assert_allclose(
        logits - logits.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=1e-8
    )


def test_classes_without_rows_and_labels_of_noise() -> None:
    x, y = rows(24, 60)
    made = fit(x, np.where(y == 1, 0, y), 3)
    assert made.bias[1] == shrunken_discriminant.UNSEEN and made.weight[:, 1].tolist() == [0.0] * 60
    same = fit(x, np.zeros(24, int), 3)
    assert np.isfinite(same.weight).all() and same.temperature == 1.0
    losses = [fit(rows(30, 100, seed)[0][:, 1:], rows(30, 100)[1], 3).loss for seed in range(5)]
    assert np.mean(losses) > 1.0  # what knows nothing has log(3)


def test_networks_of_blocks_start_at_discriminants_of_the_rows_that_have_them() -> None:
    x, y = rows(40, 9)
    z = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    z[:6, 2:5] = 0  # some lack the second block
    z[4:38, 5:] = 0  # and all but two of those who have it the third
    learns = np.ones((2, 40), bool)
    learns[1, ::4] = False
    target = y[:, None].astype(float)
    target[7] = np.nan
    network = models.build({"kind": "late", "sizes": [2, 3, 4]}, [1, 2, 3, 4], (9,), 3)
    heads = [Head("label", "classes", ("a", "b", "c"))]
    starts.begin(network, lambda chosen, s: z[chosen], target, learns, heads, np.tile([0.0, 1.0], (2, 1)), 0)
    own = learns[1] & (np.arange(40) != 7)
    for number, (layer, columns) in enumerate(network.linear_models()):
        has = own & np.all([(z[:, block] != 0).any(1) for block in columns], axis=0)
        if has.sum() < starts.FEW:
            assert network.known[2:, number].tolist() == [0.0, 0.0]
            continue
        made = fit(z[has][:, np.concatenate(columns)].astype(float), y[has], 3)
        for m in (2, 3):
            np.testing.assert_allclose(layer.weight[m].detach(), made.weight, atol=1e-6)
            np.testing.assert_allclose(layer.bias[m, 0].detach(), made.bias, atol=1e-6)
    assert network.known[0].tolist() != network.known[2].tolist() or network.known[2, 5] == 0
    values = models.build({"kind": "late", "sizes": [9]}, [1], (9,), 1)
    full = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    starts.begin(
        values, lambda chosen, s: full[chosen], 5 + 2 * full[:, :1], learns[:1], [Head("v", "value")],
        np.array([[5.0, 2.0]]), 0,
    )  # fmt: skip
    np.testing.assert_allclose(values(torch.from_numpy(full)[None])[0, :, 0].detach(), full[:, 0], atol=0.05)
