"""Probabilities at a temperature, at which they are as often right as they say. Pure NumPy and SciPy."""

from __future__ import annotations

import numpy as np


def temperature(probabilities: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The T that minimises the log loss of `sharpen(probabilities, T)` (Guo et al. 2017), between e**-3 and e**3.

    probabilities: (N, C); target: (N,) class index; weights: (N,). Rows with NaN do not count.
    1.0 without rows or with rows of one class only, where the best T says nothing.
    """
    from scipy.optimize import minimize_scalar

    weight = np.ones(len(target)) if weights is None else np.asarray(weights, np.float64)
    used = ~np.isnan(probabilities).any(1) & (weight > 0)
    index, weight = np.asarray(target)[used].astype(np.int64), weight[used]
    if len(np.unique(index)) < 2:
        return 1.0
    # A class at probability 0 has no finite loss at any T.
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64)[used], 1e-12))

    def loss(log_t: float) -> float:
        z = logs * np.exp(-log_t)
        z -= z.max(1, keepdims=True)
        return float(weight @ (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), index]) / weight.sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-6}).x))


def sharpen(probabilities: np.ndarray, t: float) -> np.ndarray:
    """probabilities ** (1 / t), renormalised over the last axis; float64 of the same shape. NaN rows stay NaN."""
    with np.errstate(divide="ignore"):
        z = np.log(np.asarray(probabilities, np.float64)) / t
    z = np.exp(z - z.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)


def calibrated(scores: np.ndarray, target: np.ndarray, folds: np.ndarray, registered: float) -> np.ndarray:
    """Probabilities (R, N, C) at the `registered` temperature, or, where `folds` (R, N) is not -1,
    at one fitted on the other folds."""
    out = scores.copy()
    for repeat in range(len(scores)):
        inside = folds[repeat] >= 0
        if not inside.any():
            out[repeat] = sharpen(scores[repeat], registered)
            continue
        for k in np.unique(folds[repeat][inside]):
            own, others = folds[repeat] == k, inside & (folds[repeat] != k)
            t = temperature(scores[repeat][others], target[others])
            out[repeat][own] = sharpen(scores[repeat][own], t)
    return out
