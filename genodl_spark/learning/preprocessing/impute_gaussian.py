"""A missing value becomes its conditional mean, given the values that a row has, under a Gaussian of the training rows
whose correlations are shrunk towards 0 (Schaefer and Strimmer 2005, doi:10.2202/1544-6115.1175). The same Gaussian says
how far the missing values may lie from their means, so that a model can tell what they could do to its answer.

The covariance is W W' + D, W (F, rank) and D diagonal: with the standardised rows Z (n, F) and the shrinkage s, W is
the square root of (1 - s) Z'Z / (n - 1), as far as its first `rank` axes go, and D what is left of each variance.
All of it is found in the space of rows, (n, n), however many features there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from genodl_spark.core.errors import InputError
from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors

_LEAST = 1e-3  # share of a feature's variance that is its own at least, so that nothing is divided by 0
_PARTS = 10  # of the training rows: each is filled, and measured, by a Gaussian of the others
_HIDDEN = 0.2  # share of the values that are hidden of a part to see how far off their means are


class Step(preprocessing.Step):
    """Missing values become their conditional means under a shrunk Gaussian of the training rows, given the row's
    other values; predictions get an interval of what the missing values may do to them."""

    draws: ClassVar[bool] = True

    rank: int = Field(20, ge=1, le=200, description="Axes of the covariance beside its diagonal, at most.")
    rounds: int = Field(5, ge=1, description="Rounds of filling, where training rows lack values themselves.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        x = rows.x
        known = ~np.isnan(x)
        filled = np.where(known, x, _moments(x, known)[0])
        part = np.arange(len(x)) % min(len(x), _PARTS)
        hidden = np.random.default_rng(0).random(x.shape) < _HIDDEN
        for _ in range(1 if known.all() else self.rounds):
            made, errors = filled.copy(), []
            for one in range(part.max() + 1):
                others, mine = part != one, part == one
                beside = self._gaussian(x[others], known[others], filled[others])
                errors.append(_error(filled[mine], known[mine], hidden[mine], beside))
                made[mine] = np.where(known[mine], x[mine], beside.filled(filled[mine], known[mine]))
            filled = made
        found = self._gaussian(x, known, filled)
        total, counted = np.sum(errors, axis=0)
        return {
            "mean": found.mean,
            "loadings": found.loadings,
            "noise": found.noise,
            # means and variances are estimates, too, and rows may lie farther out than a Gaussian says
            "stretch": np.array([(total / counted if counted else 1.0) * (1 + 1 / len(x))]),
            "degrees": np.array([len(x) - 1.0]),
        }

    def _gaussian(self, x: np.ndarray, known: np.ndarray, filled: np.ndarray) -> Gaussian:
        """That of rows x (n, F), where missing values are as in `filled`. Moments and shrinkage are those of the values
        known alone: what is filled in is more alike than what it stands for."""
        n = len(x)
        mean, spread = _moments(x, known)
        z = (filled - mean) / spread
        share = 1 - shrinkage(np.where(known, z, 0.0)) if n > 1 else 0.0
        _, vectors = np.linalg.eigh(z @ z.T)
        axes = z.T @ (vectors[:, ::-1][:, : self.rank] * np.sqrt(share / max(n - 1, 1)))
        own = np.maximum(1 - np.square(axes).sum(1), _LEAST)
        return Gaussian(mean, axes * spread[:, None], own * spread**2)

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        known = ~np.isnan(rows.x)
        if known.all():
            return rows
        return rows.of(np.where(known, rows.x, _stored(tensors).filled(rows.x, known)))

    def draw(self, rows: Rows, tensors: Tensors) -> Rows:
        """Missing values drawn from what they may be, those of row k by draw k; all rows lack the same values.
        The draws are of Student's t distribution, as the covariance is an estimate, and go in pairs about the mean."""
        from scipy.stats import chi2

        lacking = np.isnan(rows.x[0])
        if (np.isnan(rows.x) != lacking).any():
            raise ValueError("found rows that lack different values; expected draws of one row")
        if not lacking.any():
            return rows
        filled = self.apply(rows, tensors).x
        gaussian = _stored(tensors)
        loadings, noise = gaussian.loadings[lacking], gaussian.noise[lacking]
        size, axes = np.linalg.eigh(gaussian.inner(~lacking))
        half, generator = -(-len(filled) // 2), np.random.default_rng(0)
        within = generator.standard_normal((half, len(size))) / np.sqrt(size)
        own = generator.standard_normal((half, len(noise))) * np.sqrt(noise)
        degrees = float(tensors["degrees"][0])
        wide = chi2.ppf((generator.permutation(half) + 0.5) / half, degrees) / degrees
        moved = (within @ (loadings @ axes).T + own) * np.sqrt(float(tensors["stretch"][0]) / wide)[:, None]
        filled[:, lacking] += np.concatenate([moved, -moved])[: len(filled)]
        return rows.of(filled)

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        free = {"mean": (features,), "loadings": (features, None), "noise": (features,)}
        return {**free, "stretch": (1,), "degrees": (1,)}


@dataclass(frozen=True)
class Gaussian:
    """`mean` float64 (F,); covariance W W' + D: `loadings` W float64 (F, rank), `noise` float64 (F,), the diagonal
    of D, above 0."""

    mean: np.ndarray
    loadings: np.ndarray
    noise: np.ndarray

    def inner(self, known: np.ndarray) -> np.ndarray:
        """I + W' D^-1 W over the features that are `known` bool (F,): (rank, rank). Its inverse is the covariance of
        the axes given these."""
        seen = self.loadings[known]
        made: np.ndarray = np.eye(self.loadings.shape[1]) + seen.T @ (seen / self.noise[known, None])
        return made

    def filled(self, x: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Conditional means of the values of rows x (n, F) that are missing, given those that are `known` bool (n, F);
        of these only numbers of no use."""
        centred = np.where(known, x - self.mean, 0.0)
        projected = (centred / self.noise) @ self.loadings
        axes = np.zeros_like(projected)
        inverses: dict[bytes, np.ndarray] = {}
        # one step per row that lacks a value; rows that lack the same ones share an inverse
        for row in np.flatnonzero(~known.all(1)):
            key = known[row].tobytes()
            if key not in inverses:
                inverses[key] = np.linalg.inv(self.inner(known[row]))
            axes[row] = inverses[key] @ projected[row]
        made: np.ndarray = self.mean + axes @ self.loadings.T
        return made

    def spread(self, known: np.ndarray) -> np.ndarray:
        """Conditional variance of every value that is missing, float64 (F,), given those that are `known` bool (F,);
        0 of these."""
        axes = self.loadings @ np.linalg.inv(self.inner(known))
        return np.where(known, 0.0, (axes * self.loadings).sum(1) + self.noise)


def _moments(x: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every feature, float64 (F,), over the values known. Of a feature that no row has
    they are those of all values. To the others' variances one more value of the median variance is added: two values
    that happen to be the same do not make a feature that never varies."""
    count = known.sum(0)
    if not known.any():
        raise InputError("found no value in any training row before impute_gaussian; expected some", "quality.steps")
    whole = x[known]
    mean = np.where(count > 0, np.where(known, x, 0.0).sum(0) / np.maximum(count, 1), whole.mean())
    squares = np.square(np.where(known, np.nan_to_num(x) - mean, 0.0)).sum(0)
    several = count > 1
    usual = float(np.median((squares / np.maximum(count - 1, 1))[several])) if several.any() else float(whole.var())
    variance = np.where(count > 0, (squares + usual) / np.maximum(count, 1), whole.var())
    return mean, np.sqrt(np.where(variance > 0, variance, 1.0))


def _stored(tensors: Tensors) -> Gaussian:
    return Gaussian(tensors["mean"], tensors["loadings"], tensors["noise"])


def shrinkage(z: np.ndarray) -> float:
    """How far correlations of standardised rows z (n, F), 0 missing, are to be shrunk, from 0 to 1, for the least mean
    squared error."""
    n, gram = len(z), z @ z.T
    squares = np.square(z)
    apart = np.square(gram).sum() / (n - 1) ** 2 - np.square(squares.sum(0) / (n - 1)).sum()
    products = np.square(np.diag(gram)).sum() - np.square(squares).sum()
    variance = n / (n - 1) ** 3 * (products - apart * (n - 1) ** 2 / n)
    return float(np.clip(variance / apart, 0, 1)) if apart > 0 else 1.0


def _error(x: np.ndarray, known: np.ndarray, hidden: np.ndarray, beside: Gaussian) -> tuple[float, int]:
    """Sum over hidden values of the squared distance from their conditional means, over the conditional variance; and
    how many they are."""
    left, asked = known & ~hidden, known & hidden
    away, total = np.square(x - beside.filled(x, left)), 0.0
    for row, at in enumerate(asked):
        total += float((away[row, at] / beside.spread(left[row])[at]).sum())
    return total, int(asked.sum())
