"""A label of people from several blocks of what was measured of them: expression, methylation, genotypes."""

from __future__ import annotations

from genodl_spark.features.blocks import BlockFeatures
from genodl_spark.features.genotypes import GenotypeFeatures
from genodl_spark.features.protocol import Features
from genodl_spark.job.config import Settings


def features(settings: Settings) -> Features:
    quality = settings.quality
    variants = GenotypeFeatures(quality.min_allele_frequency, quality.max_missing, quality.max_features)
    return BlockFeatures(settings.blocks, quality.max_missing, variants)
