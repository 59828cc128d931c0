"""Linear discriminants of few rows and many features: shrunken covariance, in the space that the rows span.

Nothing here is of the size features x features: n rows of p features cost n * n * p. Pure NumPy.
"""

from __future__ import annotations

import numpy as np


def shrinkage(products: np.ndarray, features: int) -> float:
    """Ledoit and Wolf's (2004, J. Multivariate Anal. 88) share of a multiple of the identity in the covariance of
    centred rows, float64, out of their inner products (n, n); 0 where rows do not differ."""
    squares, n = np.diag(products), len(products)
    mean = squares.sum() / n / features
    whole = (products**2).sum() / n**2
    noise = ((squares**2).sum() / n - whole) / (features * n)
    distance = (whole - features * mean**2) / features
    return float(min(noise, distance) / distance) if noise > 0 and distance > 0 else 0.0


def scores(x: np.ndarray, y: np.ndarray, others: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """Log posterior, up to a constant of the row, of each class for rows `others`, float64 (m, k).

    x (n, p), others (m, p): float64, no missing. y (n,): classes 0 to k - 1, all present. priors (k,).
    The covariance is the mean over classes, by their shares, of Ledoit and Wolf's, each on features scaled by the
    class's own standard deviations: low rank beside a diagonal, which the identity of Woodbury inverts in n * n * p.
    """
    n, p = x.shape
    counts = np.bincount(y)
    means = np.stack([x[y == k].mean(0) for k in range(len(counts))])
    low, diagonal = np.zeros((n, p)), np.zeros(p)
    for k, count in enumerate(counts):
        rows = np.flatnonzero(y == k)
        centred = x[rows] - means[k]
        spread = np.sqrt((centred**2).mean(0))
        spread[spread <= 1e-12 * np.abs(means[k])] = 1
        scaled = centred / spread
        products = scaled @ scaled.T
        share = shrinkage(products, p)
        diagonal += count / n * share * np.trace(products) / count / p * spread**2
        low[rows] = centred * np.sqrt((1 - share) / n)
    diagonal = np.maximum(diagonal, 1e-10 * max(float(diagonal.max(initial=0.0)), 1e-300))
    weighted = low / diagonal
    inner = np.linalg.solve(np.eye(n) + weighted @ low.T, weighted @ means.T)
    weights = means / diagonal - inner.T @ weighted
    return others @ weights.T - 0.5 * (weights * means).sum(1) + np.log(priors)
