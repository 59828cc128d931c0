"""Spark's Python workers, which run task after task."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession


def test_archives_are_listed_once(spark: SparkSession) -> None:
    """A worker that has imported the package keeps what it knows of Spark's archives,
    and can still import from them."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import importlib.util
        import sys
        import zipimport

        import genodl_spark  # noqa: F401

        for _ in batches:
            assert importlib.util.find_spec("there_is_no_such_module") is None  # looked for in all places
            finders = [
                finder for finder in sys.path_importer_cache.values() if isinstance(finder, zipimport.zipimporter)
            ]
            known = [finder._files for finder in finders]  # type: ignore[attr-defined]
            importlib.invalidate_caches()  # as pyspark does before each task
            kept = sum(finder._files is files for finder, files in zip(finders, known, strict=True))  # type: ignore[attr-defined]
            yield pa.RecordBatch.from_arrays([pa.array([len(finders)]), pa.array([kept])], ["finders", "kept"])

    for _ in range(2):
        rows = spark.range(0, 4, 1, 4).mapInArrow(work, "finders bigint, kept bigint").collect()
        assert len(rows) == 4 and all(row.finders == row.kept > 0 for row in rows), rows
