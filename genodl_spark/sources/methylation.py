"""DNA methylation matrices: beta or M values, told apart by their range and stored as they are."""

from __future__ import annotations

from genodl_spark.job.config import Settings
from genodl_spark.lake.tables.ingested import METHYLATION
from genodl_spark.lake.tables.portals import BEYOND
from genodl_spark.sources.matrices import MatrixKind


class Source(MatrixKind):
    table = METHYLATION

    def unit(self, said: str | None, lowest: float | None, highest: float | None, settings: Settings) -> str | None:
        """Beta where all values are within 0 and 1, or all but there, M where some are below; else unknown."""
        if settings.ingest.methylation != "auto":
            return settings.ingest.methylation
        if lowest is None or highest is None:
            return None
        return "M" if lowest < -BEYOND else "beta" if highest <= 1 + BEYOND else None
