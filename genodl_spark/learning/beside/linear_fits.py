"""What a linear part beside a network (linear.py) learns from training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from genodl_spark.learning import penalties, string_kernels
from genodl_spark.learning.beside.linear import DEGREE, WAYS, of_places, width
from genodl_spark.learning.heads import Head, labelled, places, targets

ROWS = 50_000  # that it is fitted to at most


def fit(
    codes: np.ndarray, target: np.ndarray, heads: Sequence[Head], ways: Sequence[str], merged: bool, seed: int
) -> dict[str, np.ndarray]:
    """Fits it to base codes int8 (rows, length) with targets (rows, numbers), NaN where there is no label.

    L2-penalised logistic regression of classes, ridge of values, standardised. Of `ways`, names of WAYS, each head has
    the one of least loss in inner folds of at most 2,000 rows, with the penalty that was best there; none but k-mers
    where strands are `merged`. Returns bias (outputs,) and the weights of kmers and positions (f, outputs), float32,
    but of a block that no head took. One thread, so that the number of cores changes no bit.
    """
    with threadpool_limits(1):
        made = {block: _scaled(block, codes, merged) for block in _blocks(ways, merged)}
        sizes = [head.scores for head in heads]
        found = {block: np.zeros((width(block, codes.shape[1]), sum(sizes)), np.float32) for block in made}
        bias, taken = np.zeros(sum(sizes), np.float32), set()
        for head, own, out in zip(heads, targets(heads), places(sizes), strict=True):
            rows = np.flatnonzero(labelled(target[:, own]))
            y = target[rows, own.start]
            if len(np.unique(y)) < 2:
                continue  # nothing to tell apart: the network has it alone
            choices = ["kmers"] if merged else list(dict.fromkeys(ways))
            fitted = [_fitted(head, [made[block] for block in WAYS[way]], rows, y, seed) for way in choices]
            best = min(range(len(choices)), key=lambda i: fitted[i].loss)
            chosen = WAYS[choices[best]]
            weights, bias[out] = fitted[best].weights()
            ends = np.cumsum([0, *(made[block].z.shape[1] for block in chosen)])
            for block, start, end in zip(chosen, ends[:-1], ends[1:], strict=True):
                found[block][:, out] = weights[start:end] * made[block].scale[:, None] / np.sqrt(len(chosen))
            taken |= set(chosen)
    return {"bias": bias, **{block: value for block, value in found.items() if block in taken}}


def _blocks(ways: Sequence[str], merged: bool) -> list[str]:
    asked = ["kmers"] if merged else list(ways)
    return [block for block in WAYS["both"] if any(block in WAYS[way] for way in asked)]


class _Block:
    """Features z of training rows with a mean squared length of 1, sparse, and what each was multiplied by."""

    def __init__(self, z: Any, factors: np.ndarray) -> None:
        size = float(np.sqrt(z.power(2).sum() / max(z.shape[0], 1))) or 1.0
        self.z, self.scale = z / size, factors / size


def _scaled(block: str, codes: np.ndarray, merged: bool) -> _Block:
    if block == "kmers":
        z = string_kernels.kmer_counts(codes, merged).log1p()
        return _Block(z, np.ones(z.shape[1]))
    beta = [2 * (DEGREE - k + 1) / (DEGREE * (DEGREE + 1)) for k in range(1, DEGREE + 1)]
    factors = np.sqrt(np.repeat(beta, of_places(codes.shape[1])))
    return _Block(string_kernels.weighted_degree(codes, DEGREE), factors)


class _fitted:
    """A linear model of one head over some blocks; its loss within the training rows comes first."""

    def __init__(self, head: Head, blocks: Sequence[_Block], rows: np.ndarray, y: np.ndarray, seed: int) -> None:
        self.head, self.seed = head, seed
        self.z = sparse.hstack([block.z for block in blocks], "csr")[rows] / np.sqrt(len(blocks))
        if head.classes:
            self.y = y.astype(np.int64)
            self.penalty, self.loss = penalties.path_of_logistic(self.z, self.y, seed)
        else:
            self.y = (y - y.mean()) / (y.std() or 1.0)
            self.penalty, self.loss = penalties.path_of_ridge(self.z, self.y, seed)

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (f, outputs) and bias (outputs,), fitted to all rows."""
        if not self.head.classes:
            ridge = Ridge(self.penalty, solver="sparse_cg", tol=1e-8).fit(self.z, self.y)
            return ridge.coef_[:, None], np.array([ridge.intercept_])
        model = penalties.logistic(self.penalty, 1e-5).fit(self.z, self.y)
        weights, bias = model.coef_.T, model.intercept_
        if len(model.classes_) == 2:  # one number for both: half of it each, of opposite signs
            weights, bias = np.concatenate([-weights, weights], 1) / 2, np.array([-bias[0], bias[0]]) / 2
        known = model.classes_
        found = np.zeros((weights.shape[0], len(self.head.classes)))
        # a class without any row is as rare as one in all that were seen
        rest = np.full(len(self.head.classes), bias.min() - np.log(len(self.y) + 1.0))
        found[:, known], rest[known] = weights, bias
        return found, rest
