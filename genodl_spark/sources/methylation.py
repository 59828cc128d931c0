"""DNA methylation matrices."""

from __future__ import annotations

from genodl_spark.lake.tables.ingested import METHYLATION
from genodl_spark.sources.matrices import MatrixKind


class Source(MatrixKind):
    table = METHYLATION
