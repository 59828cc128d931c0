"""A label of people from what their variants do to genes: burdens by gene and class of consequence."""

from __future__ import annotations

from genodl_spark.features.burdens import BurdenFeatures
from genodl_spark.features.protocol import Features
from genodl_spark.genome.consequences import CLASSES
from genodl_spark.job.config import Settings


def features(settings: Settings) -> Features:
    return BurdenFeatures(settings.blocks or list(CLASSES))
