"""Class of a tumor from its gene expression."""

from __future__ import annotations

from genodl_spark.features.protocol import Features, MatrixFeatures
from genodl_spark.job.config import Settings
from genodl_spark.lake.tables import EXPRESSION


def features(settings: Settings) -> Features:
    return MatrixFeatures(EXPRESSION, settings.blocks, settings.quality.max_missing)
