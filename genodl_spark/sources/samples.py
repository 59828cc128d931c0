"""Sample tables into the lake: a row for each person of a cohort, or for what else they are about,
joined with what is known already."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.formats import barcodes, clinical_xml, sample_table
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.formats.streams import first_lines
from genodl_spark.job.run import Run
from genodl_spark.lake.delta import condition
from genodl_spark.lake.entities import table_about
from genodl_spark.lake.schema import PERSON
from genodl_spark.lake.tables.ingested import SAMPLES
from genodl_spark.lake.tables.portals import HARMONISATION


def read_samples(path: str) -> sample_table.SampleTable:
    uri = storage.absolute(path)
    if clinical_xml.recognised(first_lines(uri, 5)):
        return clinical_xml.read(uri)
    with storage.open_input(uri) as raw:
        return sample_table.read(raw, path)


def merge_samples(run: Run, cohort: str, table: sample_table.SampleTable, kind: str = PERSON) -> int:
    """Puts the rows into `samples`, or into `labels` where they are about another kind of entity; returns how many."""
    for old, new in table.renamed.items():
        run.report.warn(f"column {old!r} is stored as {new!r}")
    for note in table.notes:
        run.report.warn(note)
    if table.portal and kind == PERSON:
        table = _of_samples(run, cohort, table)
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
    if table.merged:
        rows = [
            {"cohort": cohort, "source": "samples", "block": "", "what": "sample", "name": name, "action": "merged"}
            | {"became": name, "reason": f"{times} rows of one name in a portal's table", "file": table.file}
            for name, times in table.merged.items()
        ]
        where = {"cohort": cohort, "source": "samples", "file": table.file}
        run.lake.replace(HARMONISATION, run.frame(HARMONISATION, rows), where)
        run.wrote(HARMONISATION, len(rows))
    return count


def _of_samples(run: Run, cohort: str, table: SampleTable) -> SampleTable:
    """Rows of cases as rows of the samples that the cohort has of them, by their barcodes; others as they are."""
    by_case: dict[str, list[str]] = {}
    for row in run.lake.read(SAMPLES).where(condition({"cohort": cohort})).select("sample_id").collect():
        case = barcodes.cut(row.sample_id, "case")
        if case != row.sample_id and case in table.rows and row.sample_id not in table.rows:
            by_case.setdefault(case, []).append(row.sample_id)
    if not by_case:
        return table
    run.report.warn(f"rows of {len(by_case)} cases are those of their {sum(map(len, by_case.values()))} samples")
    rows = {name: cells for case, cells in table.rows.items() for name in by_case.get(case, [case])}
    return replace(table, rows=rows)
