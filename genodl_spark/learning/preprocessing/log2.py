"""Logarithm to base 2 of values with a small number added."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors, not_negative


class Step(preprocessing.Step):
    """Values become the logarithm to base 2 of themselves and a number added."""

    offset: float = Field(1.0, gt=0, description="What is added, so that 0 may stand.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        not_negative(rows.x, "log2")
        return {}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        not_negative(rows.x, "log2")
        return rows.of(np.log2(rows.x + self.offset))
