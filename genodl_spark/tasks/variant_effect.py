"""What a variant brings about: measured or classified, from what it changes of sequence, transcripts and proteins; or,
through a model of sequences, what that says of the other allele less what it says of the reference."""

from __future__ import annotations

from genodl_spark.features.protocol import Features
from genodl_spark.features.variant_windows import VariantWindows
from genodl_spark.features.variants import VariantFeatures
from genodl_spark.job.config import Settings


def features(settings: Settings) -> Features:
    of = settings.variants
    return VariantFeatures(tuple(of.features), of.hgvs_c, of.hgvs_p)


def through(settings: Settings) -> Features:
    return VariantWindows(settings.reference)
