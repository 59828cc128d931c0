"""Gene expression matrices."""

from __future__ import annotations

from genodl_spark.lake.tables.ingested import EXPRESSION
from genodl_spark.sources.matrices import MatrixKind


class Source(MatrixKind):
    table = EXPRESSION
