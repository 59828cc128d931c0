"""Features that too many training rows lack are left out."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors


class Step(preprocessing.Step):
    """Features that a larger share of the training rows lacks are left out."""

    most: float = Field(0.2, ge=0, le=1, description="Share of the training rows that may lack a feature.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        return {"kept": (np.isnan(rows.x).mean(0) <= self.most).astype(np.float64)}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        return rows.of(rows.x[:, tensors["kept"] > 0])

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"kept": (features,)}
