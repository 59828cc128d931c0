"""Logarithm of counts per million, as edgeR's cpm(log=TRUE) has it: a prior count in proportion to the library size."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors, not_negative


class Step(preprocessing.Step):
    """Counts become log2 counts per million of the row's sum, or of the effective size that tmm before it found."""

    scaled = True
    prior: float = Field(2.0, gt=0, description="Count that is added, for a row of the mean size in training.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        not_negative(rows.x, "log_cpm")
        return {"size": np.array([rows.library().mean()])}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        not_negative(rows.x, "log_cpm")
        size = rows.library()[:, None]
        added = self.prior * size / tensors["size"][0]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.log2((rows.x + added) / (size + 2 * added) * 1e6)
        return rows.of(np.where(size > 0, found, np.nan))  # of a row without a count nothing is known

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"size": (1,)}
