"""Counts over size factors: the median ratio to the geometric mean of the training rows (Anders and Huber 2010),
as DESeq2's estimateSizeFactors."""

from __future__ import annotations

import warnings

import numpy as np
from pydantic import Field

from genodl_spark.core.errors import InputError
from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors, not_negative


class Step(preprocessing.Step):
    """Counts are divided by the row's size factor: the median of their ratios to the geometric means of training."""

    positive: bool = Field(
        False,
        description="Geometric means count values above 0 alone (DESeq2's poscounts), for data without a feature "
        "that all rows have.",
    )

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        not_negative(rows.x, "median_of_ratios")
        with np.errstate(divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of features without any value
            logs = np.log(rows.x)
            if self.positive:
                logs[np.isneginf(logs)] = 0
            means = np.nanmean(logs, 0)
            means[~(np.nansum(rows.x, 0) > 0)] = -np.inf
        if not np.isfinite(means).any():
            raise InputError(
                "found a 0 in every feature; expected one without, set positive for the step median_of_ratios",
                "quality.options",
            )
        return {"log_means": means}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        not_negative(rows.x, "median_of_ratios")
        return rows.of(rows.x / factors(rows.x, tensors["log_means"])[:, None])

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"log_means": (features,)}


def factors(x: np.ndarray, log_means: np.ndarray) -> np.ndarray:
    """Size factor of every row of counts x (n, F), NaN missing, float64 (n,); NaN of a row that shares nothing."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        usable = np.isfinite(log_means) & (x > 0)
        return np.exp(np.nanmedian(np.where(usable, np.log(x) - log_means, np.nan), 1))
