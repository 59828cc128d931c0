"""What a variant brings about, measured or classified, from its consequences for transcripts."""

from __future__ import annotations

from genodl_spark.features.consequences import ConsequenceFeatures
from genodl_spark.features.protocol import Features
from genodl_spark.job.config import Settings


def features(settings: Settings) -> Features:
    return ConsequenceFeatures()
