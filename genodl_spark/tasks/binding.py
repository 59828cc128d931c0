"""What a protein binds, or any other label or value of a DNA or RNA sequence."""

from __future__ import annotations

from genodl_spark.config import Settings
from genodl_spark.features.protocol import Features, SequenceFeatures


def features(settings: Settings) -> Features:
    return SequenceFeatures(settings.sequence.length)
