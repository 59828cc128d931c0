"""What a variant brings about: measured or classified, from its consequences for transcripts; or, through a model of
sequences, what that says of the other allele less what it says of the reference."""

from __future__ import annotations

from genodl_spark.features.consequences import ConsequenceFeatures
from genodl_spark.features.protocol import Features
from genodl_spark.features.variant_windows import VariantWindows
from genodl_spark.job.config import Settings


def features(settings: Settings) -> Features:
    return ConsequenceFeatures()


def through(settings: Settings) -> Features:
    return VariantWindows(settings.reference)
