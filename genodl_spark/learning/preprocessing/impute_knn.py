"""A missing value becomes the mean over the nearest training rows that have it (Troyanskaya et al. 2001)."""

from __future__ import annotations

import warnings

import numpy as np
from pydantic import Field

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors


class Step(preprocessing.Step):
    """Missing values become the mean over the nearest training rows that have them, by the mean squared difference
    of the features that both rows have. Those rows are kept in the model."""

    neighbours: int = Field(5, ge=1, description="Training rows that a missing value is the mean of.")
    donors: int = Field(2000, ge=1, description="Training rows, evenly spaced, that are looked at, at most.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        chosen = np.unique(np.linspace(0, len(rows.x) - 1, min(self.donors, len(rows.x))).astype(np.int64))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of features without any value
            return {"mean": np.nanmean(rows.x, 0), "donors": rows.x[chosen]}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        x, donors = rows.x.copy(), tensors["donors"]
        known, given = ~np.isnan(x), ~np.isnan(donors)
        lacking = np.flatnonzero(~known.all(1))
        if not len(lacking):
            return rows
        a, b = np.nan_to_num(x[lacking]), np.nan_to_num(donors)
        ka, kb = known[lacking].astype(float), given.astype(float)
        shared = ka @ kb.T
        with np.errstate(invalid="ignore", divide="ignore"):
            squares = np.maximum((a * a) @ kb.T - 2 * (a @ b.T) + ka @ (b * b).T, 0) / shared
        nearest = np.argsort(np.where(shared > 0, squares, np.inf), 1, kind="stable")
        # one step per row with a missing value, over all donors and features that it lacks at once
        for row, order, near in zip(lacking, nearest, shared, strict=True):
            at = np.flatnonzero(~known[row])
            order = order[near[order] > 0]
            there = given[np.ix_(order, at)]
            there &= there.cumsum(0) <= self.neighbours
            count = there.sum(0)
            means = (donors[np.ix_(order, at)] * 1.0).sum(0, where=there) / np.maximum(count, 1)
            x[row, at] = np.where(count > 0, means, tensors["mean"][at])
        return rows.of(x)

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"mean": (features,), "donors": (None, features)}
