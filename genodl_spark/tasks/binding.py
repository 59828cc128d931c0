"""What a protein binds, or any other label or value of a DNA or RNA sequence."""

from __future__ import annotations

from genodl_spark.features.protocol import Features
from genodl_spark.features.sequences import SequenceFeatures
from genodl_spark.job.config import Settings


def features(settings: Settings) -> Features:
    return SequenceFeatures(settings.sequence.length)
