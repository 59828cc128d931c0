"""Values as they are stored."""

from __future__ import annotations

from genodl_spark.learning.encodings.values import Values


class Encoding(Values):
    pass
