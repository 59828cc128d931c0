"""Methylation's beta values, shares from 0 to 1, as M values: log2(beta / (1 - beta)) (Du et al. 2010)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from genodl_spark.core.errors import InputError
from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors


class Step(preprocessing.Step):
    """Beta values become M values."""

    least: float = Field(1e-3, gt=0, lt=0.5, description="Beta values nearer to 0 or 1 count as so far from it.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        return {}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        low, high = np.nanmin(rows.x, initial=0), np.nanmax(rows.x, initial=1)
        if low < 0 or high > 1:
            text = f"found values from {low:g} to {high:g} for beta_to_m; expected shares from 0 to 1"
            raise InputError(f"{text}, leave it out where values are M already", "quality.steps")
        x = np.clip(rows.x, self.least, 1 - self.least)
        return rows.of(np.log2(x) - np.log2(1 - x))
