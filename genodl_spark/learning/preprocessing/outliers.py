"""Training rows of low quality: nothing is learnt from them. Rows that are scored are never left out."""

from __future__ import annotations

import warnings

import numpy as np
from pydantic import Field

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors

_NORMAL = 1.4826  # median absolute deviations of a normal distribution that make its standard deviation


class Step(preprocessing.Step):
    """Training rows that are far from the others are not learnt from: by the logarithm of their sum, by how many
    features they have, or by their correlation with the median row."""

    deviations: float = Field(
        5.0, gt=0, description="Median absolute deviations, as standard deviations, from the median of a measure."
    )

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of features without any value
            centre = np.nan_to_num(np.nanmedian(rows.x, 0))
        found = measures(rows.x, centre)
        middle = np.median(found, 0)
        spread = _NORMAL * np.median(np.abs(found - middle), 0)
        # measures that half of the rows share to the last digit have no spread, and say nothing
        reach = np.where(spread > 1e-9, self.deviations * spread, np.inf)
        return {"centre": centre, "low": middle - reach, "high": middle + reach}

    def dropped(self, rows: Rows, tensors: Tensors) -> np.ndarray:
        found = measures(rows.x, tensors["centre"])
        outside: np.ndarray = ((found < tensors["low"]) | (found > tensors["high"])).any(1)
        return outside

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"centre": (features,), "low": (3,), "high": (3,)}


def measures(x: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Of rows x (n, F), NaN missing: log of the sum of sizes, share of features that are there and not 0,
    and Fisher's z of the correlation with `centre` (F,); float64 (n, 3)."""
    known = ~np.isnan(x)
    values = np.where(known, x, centre)
    total = np.log1p(np.abs(np.where(known, x, 0)).sum(1))
    detected = (known & (values != 0)).mean(1)
    a, b = values - values.mean(1, keepdims=True), centre - centre.mean()
    size = np.sqrt(np.square(a).sum(1) * np.square(b).sum())
    r = np.divide(a @ b, size, out=np.zeros(len(x)), where=size > 0)
    return np.stack([total, detected, np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))], 1)
