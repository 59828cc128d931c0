"""Features that too few training rows have enough of are left out."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors


class Step(preprocessing.Step):
    """Features with fewer than so many counts in too many training rows are left out."""

    least: float = Field(10.0, ge=0, description="The count that a feature has to have.")
    share: float = Field(0.1, ge=0, le=1, description="Share of the training rows that have to have it.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        return {"kept": ((rows.x >= self.least).mean(0) >= self.share).astype(np.float64)}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        return rows.of(rows.x[:, tensors["kept"] > 0])

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"kept": (features,)}
