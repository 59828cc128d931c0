"""Linear discriminants of few rows and many features, with the shrinkage that tells rows that are left out best.

Friedman (1989, J. Am. Stat. Assoc. 84) chose how much of the identity a covariance needs by rows that are left out.
That costs no more than one fit: in the eigenvectors of the covariance within classes, what is known of a row without
itself follows from what is known with it (Sherman and Morrison 1950). Of n rows of p features, n fewer, nothing of
size p x p is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genodl_spark.learning.discriminant import TEMPERATURES, UNSEEN, spectrum

STRENGTHS = 10.0 ** np.arange(-2.0, 2.01, 0.5)  # a / (1 - a) of the shrinkages a that are tried
_EVEN = 1e-6  # losses as near as this, in nats, are equal: of such the strongest shrinkage is taken


@dataclass(frozen=True)
class Discriminant:
    """Logits x @ weight + bias: `weight` float64 (p, K), `bias` (K,). `shrinkage`: the share of the identity;
    `temperature`: what scores were divided by; `loss`: mean log loss of rows that are left out, classes alike."""

    weight: np.ndarray
    bias: np.ndarray
    shrinkage: float
    temperature: float
    loss: float


def fit(x: np.ndarray, y: np.ndarray, classes: int) -> Discriminant:
    """Discriminant of rows x float64 (n, p), no missing, of classes y (n,), 0 to `classes` - 1, with equal priors.

    - The covariance within classes is (1 - a) S + a tr(S) / p I, a and the temperature those of least log loss of every
      row by the others, each class weighing alike.
    - The squared distance to the mean of n_k rows is too long by tr(inverse C) / n_k, C the true covariance, so that
      with many features a rare class would never be told. That is taken off (Moran and Murphy 1979, Appl. Stat. 28),
      the trace by rows that are left out.
    """
    counts, origin = np.bincount(y, minlength=classes), x.mean(0)
    x = x - origin
    means = np.stack([x[y == k].mean(0) if counts[k] else np.zeros(x.shape[1]) for k in range(classes)])
    within = x - means[y]
    size, axes = spectrum(within, x)
    rows = _Rows(x @ axes, within @ axes, means @ axes, y, counts)
    mean_square = max(float((within**2).sum()) / within.size, 1e-300)
    best: tuple[float, float, float, float, np.ndarray] | None = None
    for share in sorted((STRENGTHS / (1 + STRENGTHS)).tolist(), reverse=True):
        inverse = 1 / ((1 - share) * size + share * mean_square)
        trace = rows.trace(inverse, share)
        loss, temperature = _calibrated(rows.left_out(inverse, share, trace), y, counts)
        if best is None or loss < best[0] - _EVEN:
            best = loss, share, temperature, trace, inverse
    assert best is not None
    loss, share, temperature, trace, inverse = best
    weight = axes @ (inverse[:, None] * rows.means.T) / temperature
    bias = (0.5 * trace / np.maximum(counts, 1) - 0.5 * rows.means**2 @ inverse) / temperature - origin @ weight
    return Discriminant(weight, np.where(counts > 0, bias, UNSEEN), share, temperature, loss)


@dataclass(frozen=True)
class _Rows:
    """Rows in the eigenvectors of their covariance within classes: `along` and, less the means of their classes,
    `within`, float64 (n, r); `means` (K, r); classes y (n,), `counts` (K,)."""

    along: np.ndarray
    within: np.ndarray
    means: np.ndarray
    y: np.ndarray
    counts: np.ndarray

    def _alone(self, inverse: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) each: by what a row's distance to its class grows without it, n_k / (n_k - 1), 1 where it has no other;
        the squared distance to its class with it; and what the covariance without it adds to a squared distance, for
        each square of the product with the row."""
        own = self.counts[self.y]
        grown = own / np.maximum(own - 1, 1)
        distance = self.within**2 @ inverse
        factor = (1 - share) / len(self.y) * grown
        return grown, distance, factor / np.maximum(1 - factor * distance, 1e-12)

    def trace(self, inverse: np.ndarray, share: float) -> float:
        """tr(inverse C) of the true covariance C, by each row that has others of its class, left out of all else."""
        grown, distance, added = self._alone(inverse, share)
        several = self.counts[self.y] > 1
        return float((grown * (distance + added * distance**2))[several].mean()) if several.any() else 0.0

    def left_out(self, inverse: np.ndarray, share: float, trace: float) -> np.ndarray:
        """Scores (n, K) of each row by all others."""
        grown, distance, added = self._alone(inverse, share)
        scaled = self.along * inverse
        squares = (self.along * scaled).sum(1)[:, None] - 2 * scaled @ self.means.T + self.means**2 @ inverse
        across = (self.within * scaled).sum(1)[:, None] - (self.within * inverse) @ self.means.T
        squares = squares + added[:, None] * across**2
        others = np.tile(self.counts.astype(np.float64), (len(self.y), 1))
        own = np.arange(len(self.y)), self.y
        squares[own] = grown**2 * (distance + added * distance**2)
        others[own] -= 1
        return 0.5 * (trace / np.maximum(others, 1) - squares)


def _calibrated(scores: np.ndarray, y: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Least mean log loss of scores (n, K), at any of TEMPERATURES, and that one. Classes of two rows or more count,
    each alike; without two such classes the loss is 0 and the temperature 1."""
    used, there = np.flatnonzero(counts[y] > 1), counts > 0
    if not len(used) or there.sum() < 2:
        return 0.0, 1.0
    index = (np.cumsum(there) - 1)[y[used]]
    weight = 1 / counts[y[used]]
    z = scores[used][:, there]
    z = z - z.max(1, keepdims=True)
    told = z[np.arange(len(used)), index]
    losses = [float(weight @ (np.log(np.exp(z / t).sum(1)) - told / t) / weight.sum()) for t in TEMPERATURES]
    least = int(np.argmin(losses))
    return losses[least], float(TEMPERATURES[least])
