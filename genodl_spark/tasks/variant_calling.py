"""How many copies of a candidate allele a genome has, from the reads around it: what judges beside a caller's
likelihood."""

from __future__ import annotations

from genodl_spark.features.pileups import PileupFeatures
from genodl_spark.features.protocol import Features
from genodl_spark.job.config import Settings


def features(settings: Settings) -> Features:
    return PileupFeatures()
