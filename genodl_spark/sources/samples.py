"""Sample tables into the lake: a row for each person of a cohort, or for what else they are about,
joined with what is known already."""

from __future__ import annotations

import pyarrow as pa

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
    for old, new in table.renamed.items():
        run.report.warn(f"column {old!r} is stored as {new!r}")
    for note in table.notes:
        run.report.warn(note)
    into = table_about(kind)
    of = {"cohort": cohort, into.kind_in: kind} if into.kind_in else {"cohort": cohort}
    count, names = len(table.rows), (*of, into.entity)
    columns = {**{name: [value] * count for name, value in of.items()}, into.entity: list(table.rows)}
    others = list(map(into.beside, table.columns))
    # without rows there are none
    columns |= dict(zip(others, map(list, zip(*table.rows.values(), strict=True)), strict=False))
    fields = [pa.field(name, pa.string(), name not in into.key) for name in (*names, *others)]
    arrays = [pa.array(columns.get(field.name, []), pa.string()) for field in fields]
    run.lake.merge(into, pa.Table.from_arrays(arrays, schema=pa.schema(fields)))
    run.wrote(into, count)
    return count
