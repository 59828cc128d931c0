"""Class, or age, of a sample from the methylation of its DNA."""

from __future__ import annotations

from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.features.protocol import Features
from genodl_spark.job.config import Settings
from genodl_spark.lake.tables.ingested import METHYLATION


def features(settings: Settings) -> Features:
    return MatrixFeatures(METHYLATION, settings.blocks, settings.quality.max_missing)
