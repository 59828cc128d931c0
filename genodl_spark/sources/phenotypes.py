"""Tables of columns for samples that are there, and the sample tables that come beside data; clinical tables and
sheets of files as portals hand them out."""

from __future__ import annotations

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.formats import barcodes, gdc_sheet, sample_table
from genodl_spark.formats.gdc_sheet import Row, Sheet
from genodl_spark.formats.sample_table import SampleTable, column_names
from genodl_spark.formats.streams import first_lines
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.ingested import SAMPLES
from genodl_spark.lake.tables.portals import PORTAL_FILES
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.engine import Counts, SourceFile
from genodl_spark.sources.protocol import SourceKind
from genodl_spark.sources.samples import merge_samples, read_samples


class Source(SourceKind):
    """Rows of a table are joined with what is known of a sample; the header is the table. Of a sheet, each line
    is a row of `portal_files`."""

    table = SAMPLES
    adds = True

    def header(self, uri: str, settings: Settings) -> SampleTable | Sheet:
        absolute = storage.absolute(uri)
        return gdc_sheet.read(absolute) if gdc_sheet.recognised(first_lines(absolute, 1)) else read_samples(uri)

    def people(self, header: SampleTable | Sheet) -> list[str]:
        if isinstance(header, Sheet):
            return list(dict.fromkeys(name for row in header.rows for name in row.of.values()))
        return list(header.rows)

    def bring(self, arrival: Arrival, files: dict[SourceFile, SampleTable | Sheet]) -> dict[str, Counts]:
        arrival.settle()
        sheets = {file: header for file, header in files.items() if isinstance(header, Sheet)}
        tables = {file: header for file, header in files.items() if isinstance(header, SampleTable)}
        for alike in sample_table.joined(list(tables.values())):
            merge_samples(arrival.run, arrival.cohort, alike)
        for file, sheet in sheets.items():
            _merge_sheet(arrival.run, arrival.cohort, file, sheet)
        counts = {file.name: Counts(len(table.rows)) for file, table in tables.items()}
        return counts | {file.name: Counts(len(sheet.rows)) for file, sheet in sheets.items()}


def _merge_sheet(run: Run, cohort: str, file: SourceFile, sheet: Sheet) -> None:
    fixed = {
        "cohort": [cohort] * len(sheet.rows),
        "file_id": [row.id for row in sheet.rows],
        "file_name": [row.name for row in sheet.rows],
        **{level: [_of(row, level) for row in sheet.rows] for level in ("aliquot", "sample", "case")},
        "file": [file.name] * len(sheet.rows),
        "line": [row.line for row in sheet.rows],
    }
    stored = {name: PORTAL_FILES.beside(column) for name, column in column_names(sheet.rows[0].cells).items()}
    own = {column: [row.cells[name] for row in sheet.rows] for name, column in stored.items()}
    schema = PORTAL_FILES.arrow_schema()
    fields = [*schema, *(pa.field(name, pa.string()) for name in own)]
    arrays = [pa.array(values, field.type) for values, field in zip((fixed | own).values(), fields, strict=True)]
    run.lake.merge(PORTAL_FILES, pa.Table.from_arrays(arrays, schema=pa.schema(fields)))
    run.wrote(PORTAL_FILES, len(sheet.rows))


def _of(row: Row, level: str) -> str | None:
    """Whose a file is, by the sheet; where that says it of aliquots alone, by their barcodes."""
    if level in row.of:
        return row.of[level]
    finer = [name for one in ("aliquot", "sample") if one in row.of for name in row.of[one].split(", ")]
    known = {cut for name in finer if (cut := barcodes.cut(name, level)) != name}
    return ", ".join(sorted(known)) or None


BESIDE = Source("samples")
