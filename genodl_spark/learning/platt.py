"""Probabilities of decision values by Platt's method (1999), fitted on rows that did not shape the decisions."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression


def sigmoid(decision: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic function that says how likely rows of some decision values are positive.

    Maximum likelihood with Platt's targets, which are never 0 or 1: (p + 1) / (p + 2) for the p positive rows, and
    1 / (n + 2) for the n others. Where the slope would be negative it is 0, and the shares alone count: a decision
    that misleads says nothing. 1 and 0 without rows.
    """
    if not len(decision):
        return 1.0, 0.0
    p, n = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (p + 1) / (p + 2), 1 / (n + 2))
    mean, spread = float(decision.mean()), float(decision.std())
    if spread > 0:
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
        rows = np.tile((decision - mean) / spread, 2)[:, None]
        model.fit(rows, np.repeat([1, 0], len(decision)), np.concatenate([target, 1 - target]))
        slope = float(model.coef_[0, 0]) / spread
        if slope > 0:
            return slope, float(model.intercept_[0]) - slope * mean
    share = float(target.mean())
    return 0.0, float(np.log(share / (1 - share)))


def probabilities(decisions: np.ndarray, held: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Probabilities (rows, k) of decision values (rows, k) for each class against the others, by those `held` (n, k)
    of rows of the classes y (n,); NaN where a decision knew nothing of a class."""
    found = np.empty(decisions.shape)
    for k in range(decisions.shape[1]):
        known = ~np.isnan(held[:, k])
        slope, intercept = sigmoid(held[known, k], y[known] == k)
        found[:, k] = expit(slope * decisions[:, k] + intercept)
    total = found.sum(1, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1), 1 / found.shape[1])
