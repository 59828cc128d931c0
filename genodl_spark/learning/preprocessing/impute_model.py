"""A missing value becomes its expectation, given the values that a row has, under a low-rank Gaussian model
(probabilistic principal components: Tipping and Bishop 1999; fitted as regularised iterative principal components,
Josse and Husson 2012)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors


class Step(preprocessing.Step):
    """Missing values become what a low-rank Gaussian model of the training rows expects of them,
    given the row's other values."""

    rank: int = Field(5, ge=1, le=100, description="Components of the model.")
    rounds: int = Field(100, ge=1, description="Rounds of fitting, at most.")
    tolerance: float = Field(1e-5, gt=0, description="Relative change of the filled-in values at which fitting ends.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        known = ~np.isnan(rows.x)
        count = known.sum(0)
        start = np.where(known, rows.x, 0).sum(0) / np.maximum(count, 1)
        filled = np.where(known, rows.x, start)
        for _ in range(self.rounds):
            mean, loadings, noise = components(filled, self.rank)
            expected = mean + _expected(filled - mean, np.ones_like(known), loadings, noise)
            made = np.where(known, rows.x, expected)
            moved = np.square(made - filled).sum() / max(np.square(filled - mean).sum(), 1e-300)
            filled = made
            if moved < self.tolerance**2:
                break
        mean, loadings, noise = components(filled, self.rank)
        return {
            "mean": np.where(count > 0, mean, np.nan),
            "loadings": loadings,
            "noise": np.array([noise]),
        }

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        mean, known = tensors["mean"], ~np.isnan(rows.x)
        if known.all():
            return rows
        centred = np.where(known, rows.x - mean, 0)
        expected = mean + _expected(np.nan_to_num(centred), known, tensors["loadings"], float(tensors["noise"][0]))
        return rows.of(np.where(known, rows.x, expected))

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"mean": (features,), "loadings": (features, None), "noise": (1,)}


def components(x: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean (F,), loadings W (F, rank or fewer) and noise s of the Gaussian with covariance W W' + s I
    that makes rows x (n, F) likeliest."""
    n, features = x.shape
    mean = x.mean(0)
    centred = x - mean
    rank = min(rank, n - 1, features)
    if n <= features:
        size, vectors = np.linalg.eigh(centred @ centred.T / n)
        size, vectors = size[::-1], vectors[:, ::-1]
        axes = centred.T @ vectors[:, :rank] / np.sqrt(np.maximum(size[:rank] * n, 1e-300))
    else:
        size, vectors = np.linalg.eigh(centred.T @ centred / n)
        size, axes = size[::-1], vectors[:, ::-1][:, :rank]
    noise = float(np.maximum(size[rank:], 0).sum() / max(features - rank, 1))
    return mean, axes * np.sqrt(np.maximum(size[:rank] - noise, 0)), noise


def _expected(centred: np.ndarray, known: np.ndarray, loadings: np.ndarray, noise: float) -> np.ndarray:
    """What the model expects of every value, less the mean, given those that are `known`, (n, F);
    `centred` is 0 elsewhere."""
    rank = loadings.shape[1]
    products = (loadings[:, :, None] * loadings[:, None, :]).reshape(len(loadings), -1)
    inner = (known @ products).reshape(-1, rank, rank)
    # where there is no noise the ridge is what keeps rows with few values solvable
    ridge = noise + 1e-9 * max(float(np.square(loadings).sum()), 1e-300)
    found = np.linalg.solve(inner + ridge * np.eye(rank), (centred @ loadings)[:, :, None])[:, :, 0]
    expected: np.ndarray = found @ loadings.T
    return expected
