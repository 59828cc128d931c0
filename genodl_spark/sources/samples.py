"""Sample tables into the lake: a row for each person of a cohort, or for what else they are about, joined with what is known already."""

from __future__ import annotations

from genodl_spark.core import storage
from genodl_spark.formats import sample_table
from genodl_spark.job.run import Run
from genodl_spark.lake.entities import table_about
from genodl_spark.lake.schema import PERSON


def read_samples(path: str) -> sample_table.SampleTable:
    with storage.open_input(storage.absolute(path)) as raw:
        return sample_table.read(raw, path)


def merge_samples(run: Run, cohort: str, table: sample_table.SampleTable, kind: str = PERSON) -> int:
    """Puts the rows into `samples`, or into `labels` where they are about another kind of entity; returns how many."""
    from pyspark.sql.types import StringType, StructField, StructType

    for old, new in table.renamed.items():
        run.report.warn(f"column {old!r} is stored as {new!r}")
    for note in table.notes:
        run.report.warn(note)
    into = table_about(kind)
    of = {"cohort": cohort, into.kind_in: kind} if into.kind_in else {"cohort": cohort}
    names = [*of, into.entity, *map(into.beside, table.columns)]
    schema = StructType([StructField(name, StringType(), name not in into.key) for name in names])
    rows = [(*of.values(), sample, *values) for sample, values in table.rows.items()]
    run.lake.merge(into, run.spark.createDataFrame(rows, schema))
    run.wrote(into, len(rows))
    return len(rows)
