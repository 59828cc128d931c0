"""Transcripts per million, from the lengths of the features."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from genodl_spark.core.errors import InputError
from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors, not_negative


class Step(preprocessing.Step):
    """Counts become transcripts per million by the lengths of the genes in an ingested annotation;
    features without a length are left out."""

    overlap: float = Field(0.5, ge=0, le=1, description="Share of the features, at least, that have a length.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        not_negative(rows.x, "tpm")
        lengths = np.full(rows.x.shape[1], np.nan) if about.lengths is None else about.lengths
        kept = lengths > 0
        if kept.mean() < self.overlap or not kept.any():
            raise InputError(
                f"found a length of {int(kept.sum())} of {len(kept)} features; expected {self.overlap:.0%} at least, "
                "ingest the annotation that they are named by and set quality.annotation",
                "quality.steps",
            )
        return {"kept": kept.astype(np.float64), "lengths": np.where(kept, lengths, np.nan)}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        not_negative(rows.x, "tpm")
        kept = tensors["kept"] > 0
        rate = rows.x[:, kept] / tensors["lengths"][kept]
        total = np.nansum(rate, 1, keepdims=True)
        return rows.of(np.divide(rate * 1e6, total, out=np.full_like(rate, np.nan), where=total > 0))

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"kept": (features,), "lengths": (features,)}
