"""Standard scores of every feature."""

from __future__ import annotations

import warnings

import numpy as np

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors
from genodl_spark.learning.scaling import CONSTANT


class Step(preprocessing.Step):
    """Values become their distance from the feature's mean in training, in standard deviations;
    a constant feature becomes 0."""

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of features without any value
            mean, deviation = np.nanmean(rows.x, 0), np.nanstd(rows.x, 0)
        varies = deviation > CONSTANT * np.maximum(np.abs(mean), 1)
        return {"mean": mean, "inverse": np.where(varies, 1 / np.where(varies, deviation, 1), 0)}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        return rows.of((rows.x - tensors["mean"]) * tensors["inverse"])

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"mean": (features,), "inverse": (features,)}
