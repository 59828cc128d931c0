"""Class of a tumor from its gene expression."""

from __future__ import annotations

from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.features.protocol import Features
from genodl_spark.job.config import Settings
from genodl_spark.lake.tables.ingested import EXPRESSION


def features(settings: Settings) -> Features:
    return MatrixFeatures(EXPRESSION, settings.blocks, settings.quality.max_missing)
