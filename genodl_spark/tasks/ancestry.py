"""Super-population of a person from the genotypes of a cohort VCF."""

from __future__ import annotations

from genodl_spark.features.genotypes import GenotypeFeatures
from genodl_spark.features.protocol import Features
from genodl_spark.job.config import Settings


def features(settings: Settings) -> Features:
    quality = settings.quality
    return GenotypeFeatures(quality.min_allele_frequency, quality.max_missing, quality.max_features)
