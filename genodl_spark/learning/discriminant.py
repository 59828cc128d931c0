"""Linear discriminants of few rows and many features: shrunken covariance, in the space that the rows span.

Nothing here is of the size features x features: n rows of p features cost n * n * p. Pure NumPy.

Two of them. `scores` has the covariance of scikit-learn's LinearDiscriminantAnalysis(shrinkage="auto"), for a baseline.
`fit` is what a network starts from: one covariance within classes, shrunk towards a multiple of the identity, and what
a classifier of few rows needs beside it: an intercept that does not punish rare classes, and probabilities that mean
something, both from what is said of rows that had no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TEMPERATURES = np.exp(np.linspace(-2.0, 10.0, 121))
UNSEEN = -20.0  # log odds of a class that no row has


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


@dataclass(frozen=True)
class Discriminant:
    """Logits x @ axes @ weight + bias: `axes` float64 (p, r), in which the covariance within classes is the identity;
    `weight` (r, k), `bias` (k,), UNSEEN below the others for classes without rows.

    `left_out` (n, k): logits of the rows it is of, each by all others. `shrinkage`: the share of the identity;
    `temperature`: what scores were divided by.
    """

    axes: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    left_out: np.ndarray
    shrinkage: float
    temperature: float


def fit(x: np.ndarray, y: np.ndarray, classes: int, features: int) -> Discriminant:
    """Linear discriminant of rows x float64 (n, p) with classes y (n,), equal priors.

    `features`: how many these rows have, more than p where x are their coordinates in an orthogonal system.

    - One covariance within classes, (1 - a) S + a tr(S) / features I, with Ledoit and Wolf's a.
    - The squared distance to the mean of n_k rows is too long by tr(S^-1 C) / n_k, C the true covariance: with many
      features the rarest class would never be told. That is taken off (Moran and Murphy 1979, Appl. Statist. 28);
      the trace from rows that are left out.
    - Scores are divided by a temperature, that of least log loss of each row by all others, every class weighted alike:
      with more features than rows they are far too sure. Closed in the eigenvectors of S.
    """
    counts = np.bincount(y, minlength=classes)
    origin = x.mean(0)
    x = x - origin
    means = np.stack([x[y == k].mean(0) if counts[k] else np.zeros(x.shape[1]) for k in range(classes)])
    within = x - means[y]
    size, vectors = spectrum(within, x)
    share = shrinkage(within @ within.T, features)
    mean_square = float((within**2).mean() or (x**2).mean() or 1.0) * x.shape[1] / features
    axes = vectors / np.sqrt((1 - share) * size + max(share, 1e-9) * mean_square)
    rows = _Rows(x @ axes, within @ axes, means @ axes, y, counts, share)
    there = counts > 0
    left_out = rows.left_out()
    temperature = best_temperature(left_out, y, counts)
    left_out = (left_out - left_out[:, there].max(1, keepdims=True)) / temperature
    weight = rows.means.T / temperature
    bias = 0.5 * (rows.trace() / np.maximum(counts, 1) - (rows.means**2).sum(1)) / temperature
    bias = np.where(there, bias, bias[there].max() + UNSEEN) - origin @ axes @ weight
    return Discriminant(axes, weight, bias, np.where(there, left_out, UNSEEN), share, temperature)


def best_temperature(scores: np.ndarray, y: np.ndarray, counts: np.ndarray) -> float:
    """Of TEMPERATURES the one of least log loss of scores (n, k), each class with two rows or more weighted alike; 1
    where there is none.

    A row of n_k counts as one of its class by (n_k + 1) / (n_k + 2), as by Platt (1999): scores that tell all rows
    apart would else be worth any certainty.
    """
    used, there = np.flatnonzero(counts[y] > 1), counts > 0
    if not len(used) or there.sum() < 2:
        return 1.0
    own = counts[y[used]]
    other = 1 / (own + 2) / (there.sum() - 1)
    target = np.repeat(other[:, None], len(counts), 1)
    target[np.arange(len(used)), y[used]] = (own + 1) / (own + 2)
    z, target, weight = scores[used][:, there], target[:, there], 1 / own
    z = z - z.max(1, keepdims=True)
    losses = [weight @ (np.log(np.exp(z / t).sum(1)) - (target * z).sum(1) / t) for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


@dataclass(frozen=True)
class _Rows:
    """Rows where the shrunken covariance within classes is the identity: `along` and, less the means of their classes,
    `within`, float64 (n, r); `means` (k, r); classes y (n,), `counts` (k,); `shrinkage`.

    Without row i of n_k its class has n_k / (n_k - 1) of its distance to the mean, and n S is less by that much of the
    product of the row with itself: the inverse follows by Sherman and Morrison.
    """

    along: np.ndarray
    within: np.ndarray
    means: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    shrinkage: float

    def _without(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each row n_k / (n_k - 1), 1 where it is alone, its squared distance to its class, and what its going adds
        to a squared distance, per square of the product with it: (n,) each."""
        own = self.counts[self.y]
        grown = own / np.maximum(own - 1, 1)
        distance = (self.within**2).sum(1)
        factor = (1 - self.shrinkage) / len(self.y) * grown
        return grown, distance, factor / np.maximum(1 - factor * distance, 1e-12)

    def trace(self) -> float:
        """Of the true covariance here: by each row that is not alone in its class, left out of all else."""
        grown, distance, added = self._without()
        found = (grown * (distance + added * distance**2))[self.counts[self.y] > 1]
        return float(found.mean()) if len(found) else 0.0

    def left_out(self) -> np.ndarray:
        """Scores (n, k) of each row by all others, the shrinkage and the trace aside."""
        grown, distance, added = self._without()
        means = self.means.T
        lengths = (self.along**2).sum(1)[:, None] - 2 * self.along @ means + (means**2).sum(0)
        with_own = (self.within * self.along).sum(1)[:, None] - self.within @ means
        squares = lengths + added[:, None] * with_own**2
        of_class = np.tile(self.counts.astype(np.float64), (len(self.y), 1))
        at = np.arange(len(self.y)), self.y
        squares[at] = grown**2 * (distance + added * distance**2)
        of_class[at] -= 1
        return 0.5 * (self.trace() / np.maximum(of_class, 1) - squares)


def spectrum(within: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (r,) and eigenvectors (p, r) of the covariance of `within` (n, p) in the span of x (n, p)."""
    n, p = x.shape
    basis = np.eye(p)
    if p > n:
        size, vectors = np.linalg.eigh(x @ x.T)
        kept = size > 1e-10 * max(size[-1], 1e-300)
        basis = x.T @ (vectors[:, kept] / np.sqrt(size[kept]))
    inside = within @ basis
    size, vectors = np.linalg.eigh(inside.T @ inside / n)
    return np.maximum(size, 0), basis @ vectors
