"""Features that vary least among training rows are left out."""

from __future__ import annotations

import warnings

import numpy as np
from pydantic import Field

from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors


class Step(preprocessing.Step):
    """Features whose variance among training rows is small are left out."""

    least: float = Field(0.0, ge=0, description="Variances up to this one are small.")
    share: float = Field(0.0, ge=0, lt=1, description="This share of the features, those that vary least, is left out.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of features without any value
            variance = np.nan_to_num(np.nanvar(rows.x, 0))
        kept = variance > self.least
        # A stable order: among equals the later feature goes, whatever the machine.
        kept[np.argsort(-variance, kind="stable")[len(kept) - int(self.share * len(kept)) :]] = False
        return {"kept": kept.astype(np.float64)}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        return rows.of(rows.x[:, tensors["kept"] > 0])

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"kept": (features,)}
