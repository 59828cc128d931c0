"""Effective library sizes by the trimmed mean of M values (Robinson and Oshlack 2010), as edgeR's calcNormFactors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from genodl_spark.core.errors import InputError
from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors, not_negative


class Step(preprocessing.Step):
    """Finds for every row by how much its composition differs from that of a training row, the reference, which is
    kept in the model; log_cpm after it takes the effective library sizes."""

    scales = True
    log_ratio_trim: float = Field(0.3, ge=0, lt=0.5, description="Share of the features left out at either end of M.")
    sum_trim: float = Field(0.05, ge=0, lt=0.5, description="Share of the features left out at either end of A.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        not_negative(rows.x, "tmm")
        x = np.nan_to_num(rows.x)
        size = x.sum(1)
        if (size <= 0).any():
            text = f"found {int((size <= 0).sum())} training rows without a count; expected none"
            raise InputError(f"{text}, put outliers before tmm", "quality.steps")
        counted = x[:, (x > 0).any(0)]
        upper = np.quantile(counted, 0.75, axis=1) / size
        chosen = np.sqrt(counted).sum(1).argmax() if np.median(upper) < 1e-20 else np.abs(upper - upper.mean()).argmin()
        reference = rows.x[chosen]
        found = factors(rows.x, reference, self.log_ratio_trim, self.sum_trim)
        return {"reference": reference, "centre": np.array([np.exp(np.log(found).mean())])}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        not_negative(rows.x, "tmm")
        found = factors(rows.x, tensors["reference"], self.log_ratio_trim, self.sum_trim)
        return replace(rows, sizes=np.nansum(rows.x, 1) * found / tensors["centre"][0])

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"reference": (features,), "centre": (1,)}


def factors(x: np.ndarray, reference: np.ndarray, log_ratio_trim: float, sum_trim: float) -> np.ndarray:
    """Factor of every row of counts x (n, F), NaN missing, against a reference row (F,); 1 where nothing is shared."""
    from scipy.stats import rankdata

    size, of_reference = np.nansum(x, 1)[:, None], np.nansum(reference)
    with np.errstate(invalid="ignore", divide="ignore"):
        share, other = x / size, reference / of_reference
        ratio = np.log2(share / other)
        level = (np.log2(share) + np.log2(other)) / 2
        weight = 1 / ((size - x) / size / x + (of_reference - reference) / of_reference / reference)
    usable = np.isfinite(ratio) & np.isfinite(level)
    n = usable.sum(1, keepdims=True)

    def inside(values: np.ndarray, trim: float) -> np.ndarray:
        ranks = rankdata(np.where(usable, values, np.inf), axis=1)
        low = np.floor(n * trim) + 1
        found: np.ndarray = (ranks >= low) & (ranks <= n + 1 - low)
        return found

    kept = usable & inside(ratio, log_ratio_trim) & inside(level, sum_trim)
    weight = np.where(kept & ~np.isnan(weight), weight, 0)
    total = weight.sum(1)
    with np.errstate(invalid="ignore"):  # a feature that is all of a row has no variance: its weight is infinite
        mean = (weight * np.where(kept, ratio, 0)).sum(1) / np.where(total > 0, total, 1)
    mean[(np.abs(np.where(usable, ratio, 0)).max(1, initial=0) < 1e-6) | np.isnan(mean)] = 0
    return np.exp2(mean)
