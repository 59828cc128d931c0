"""Sample tables into the lake: a row for each person of a cohort, joined with what is known already."""

from __future__ import annotations

from genodl_spark.core import storage
from genodl_spark.formats import sample_table
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.ingested import SAMPLES


def read_samples(path: str) -> sample_table.SampleTable:
    with storage.open_input(storage.absolute(path)) as raw:
        return sample_table.read(raw, path)


def merge_samples(run: Run, cohort: str, table: sample_table.SampleTable) -> int:
    from pyspark.sql.types import StringType, StructField, StructType

    for old, new in table.renamed.items():
        run.report.warn(f"column {old!r} is stored as {new!r}")
    for note in table.notes:
        run.report.warn(note)
    names = ["cohort", "sample_id", *table.columns]
    schema = StructType([StructField(name, StringType(), name not in ("cohort", "sample_id")) for name in names])
    rows = [(cohort, sample, *values) for sample, values in table.rows.items()]
    run.lake.merge(SAMPLES, run.spark.createDataFrame(rows, schema))
    run.wrote(SAMPLES, len(rows))
    return len(rows)
