"""Penalties of linear models, chosen within their training rows.

Rows z (n, f), dense or sparse, have a mean squared length of 1, so that one path of penalties suits them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)  # C: with f standardised features 10 / f and so on
RIDGE_PENALTIES = np.logspace(-4, 4, 17)
INNER_FOLDS = 3
INNER_ROWS = 2000
BALANCED = "balanced"  # weights of rows, n / (K n_k), as scikit-learn calls them


def logistic(penalty: float, tolerance: float, balanced: bool = False) -> LogisticRegression:
    weights = BALANCED if balanced else None
    return LogisticRegression(C=penalty, max_iter=1000, tol=tolerance, warm_start=True, class_weight=weights)


def of_logistic(z: Any, y: np.ndarray, seed: int, balanced: bool = False) -> float:
    """The C of `path_of_logistic`."""
    return path_of_logistic(z, y, seed, balanced)[0]


def path_of_logistic(z: Any, y: np.ndarray, seed: int, balanced: bool = False) -> tuple[float, float]:
    """The C of PENALTIES with the least log loss in INNER_FOLDS folds, stratified, of at most INNER_ROWS rows, the
    smallest of equals; and this loss, summed. `balanced`: every class counts alike, in fits and losses."""
    rows, fold = dealt(y, seed, INNER_ROWS)
    z, y = z[rows], y[rows]
    models: dict[int, LogisticRegression] = {}
    best, least = PENALTIES[0], np.inf
    for penalty in PENALTIES:
        loss = 0.0
        for k in range(INNER_FOLDS):
            inside, held = fold != k, fold == k
            if not held.any() or len(np.unique(y[inside])) < 2:
                continue
            model = models.setdefault(k, logistic(penalty, 1e-4, balanced)).set_params(C=penalty)
            loss += log_loss(model.fit(z[inside], y[inside]), z[held], y[held], balanced)
        if loss < least:
            best, least = penalty, loss
        elif loss > least:
            break  # the loss has one valley along the path, as a rule, and weak penalties cost most
    return best, float(least)


def log_loss(model: LogisticRegression, z: Any, y: np.ndarray, balanced: bool = False) -> float:
    """Of a fitted model on rows z, summed, at most that of a probability of 1e-6 each; `balanced`: each class of y
    counts alike."""
    column = np.searchsorted(model.classes_, y).clip(max=len(model.classes_) - 1)
    likelihood = model.predict_proba(z)[np.arange(len(y)), column]
    losses = -np.log(np.where(model.classes_[column] == y, likelihood, 0).clip(1e-6))
    if not balanced:
        return float(losses.sum())
    _, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    return float(losses @ (len(y) / (len(counts) * counts[index])))


def of_ridge(z: Any, y: np.ndarray, seed: int) -> float:
    """The alpha of `path_of_ridge`."""
    return path_of_ridge(z, y, seed)[0]


def path_of_ridge(z: Any, y: np.ndarray, seed: int) -> tuple[float, float]:
    """The alpha of RIDGE_PENALTIES with the least leave-one-out error among at most INNER_ROWS sparse rows; and this
    error, the mean of squares."""
    rows = np.sort(dealt(y, seed, INNER_ROWS)[0])
    model = RidgeCV(alphas=RIDGE_PENALTIES).fit(z[rows].toarray(), y[rows])
    return float(model.alpha_), -float(model.best_score_)


def dealt(y: np.ndarray, seed: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many rows, by number, and the inner fold of each: dealt class by class, or from low values to high."""
    order = np.random.default_rng(seed).permutation(len(y))[:most]
    order = order[np.argsort(y[order], kind="stable")]
    return order, np.arange(len(order)) % INNER_FOLDS


def out_of_fold(
    z: Any, y: np.ndarray, fold: np.ndarray, width: int, decide: Callable[[Any, np.ndarray, Any], np.ndarray]
) -> np.ndarray:
    """What `decide(z, y, others)` says of the rows of each inner fold after the others: float64 (n, width);
    NaN where these have one class or value alone."""
    found = np.full((len(y), width), np.nan)
    for k in range(INNER_FOLDS):
        inside, held = fold != k, fold == k
        if held.any() and len(np.unique(y[inside])) > 1:
            found[held] = decide(z[inside], y[inside], z[held])
    return found
