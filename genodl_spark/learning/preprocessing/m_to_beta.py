"""Methylation's M values as beta values: 2**M / (2**M + 1)."""

from __future__ import annotations

import numpy as np

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import Rows, Tensors


class Step(preprocessing.Step):
    """M values become beta values."""

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        return rows.of(1 / (1 + np.exp2(-rows.x)))
