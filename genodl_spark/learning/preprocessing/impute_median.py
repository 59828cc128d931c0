"""A missing value becomes the median of its feature in training."""

from __future__ import annotations

import warnings

import numpy as np

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors


class Step(preprocessing.Step):
    """Missing values become the feature's median among training rows; a feature without any stays missing."""

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of features without any value
            return {"median": np.nanmedian(rows.x, 0)}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        return rows.of(np.where(np.isnan(rows.x), tensors["median"], rows.x))

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"median": (features,)}
