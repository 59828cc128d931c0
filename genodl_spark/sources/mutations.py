"""Somatic mutations of samples, as mutation annotation files (MAF) of the GDC and TCGA have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import maf
from genodl_spark.formats.maf import Header
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.formats.streams import Note
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.portals import HARMONISATION, MUTATIONS
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.consent import refuse_withdrawn
from genodl_spark.sources.engine import Brought, Counts, Piece, SourceFile, counts, ingest_files, parts_of
from genodl_spark.sources.protocol import RecordSource
from genodl_spark.sources.samples import merge_samples

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts


class Source(RecordSource):
    """Mutation annotation files."""

    files = re.compile(r"\.maf(\.txt)?(\.b?gz)?$", re.IGNORECASE)
    table = MUTATIONS

    def header(self, uri: str, settings: Settings) -> Header:
        return maf.read_header(uri, settings.ingest.gdc_name)

    def options(self, settings: Settings, reference: str | None) -> str:
        return "" if settings.ingest.gdc_name == "sample" else f"gdc_name={settings.ingest.gdc_name}"

    def read(self, piece: Piece, header: Header, cohort: str, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        for rows, bad in maf.read(piece.uri, piece.split, piece.first, header, cohort, piece.name):
            yield rows, self.refused(cohort, piece.name, bad)

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        from genodl_spark.sources.genome_facts import of_mutations  # loads what draws pages

        return of_mutations(lake, cohort)

    def bring(self, arrival: Arrival, files: dict[SourceFile, Header]) -> dict[str, Counts]:
        """Records into `mutations` and `quarantine`, their samples into `samples`.

        InputError for a file without any record, and for a sample that has withdrawn consent.
        """
        run, cohort = arrival.run, arrival.cohort
        reader = self.reader(run, cohort, files)
        check = partial(_check, run, cohort, files)
        brought = ingest_files(run, cohort, MUTATIONS, reader, list(files), arrival.settle, check)
        named = _named(run, brought)
        if named is not None:
            names = named.collect()
            _tell_cut(run, cohort, self.name, list(files), names)
            merge_samples(run, cohort, SampleTable([], {row.sample_id: [] for row in names}, {}))
        return counts(brought)


def _named(run: Run, brought: dict[str, Brought]) -> DataFrame | None:
    """Distinct samples of the files written: file, sample_id, and the barcode that it was cut from, if it was."""
    paths = [storage.join(run.lake.path(MUTATIONS), unquote(part.path)) for part in parts_of(brought, MUTATIONS)]
    if not paths:
        return None
    rows = run.spark.read.schema("sample_id string, fields map<string,string>, file string").parquet(*paths)
    return rows.selectExpr("file", "sample_id", f"fields['{maf.BARCODE}'] AS barcode").distinct()


def _check(run: Run, cohort: str, files: dict[SourceFile, Header], brought: dict[str, Brought]) -> None:
    for file, header in files.items():
        if not brought[file.name].rows:
            bad = brought[file.name].first_bad
            found = "no mutation below the header" if bad is None else f"no record that can be read: {bad[1]}"
            raise InputError(f"found {found}; expected one line per mutation", file.uri, bad[0] if bad else header.line)
    named = _named(run, brought)
    if named is not None:
        uris = {file.name: file.uri for file in files}
        for row in named.groupBy("file").agg({"sample_id": "collect_set"}).collect():
            refuse_withdrawn(run, cohort, sorted(row[1]), uris[row.file])


def _tell_cut(run: Run, cohort: str, source: str, files: list[SourceFile], names: list[Any]) -> None:
    """Barcodes that were cut to samples, into `harmonisation`."""
    times: dict[tuple[str, str], int] = {}
    for row in names:
        times[row.file, row.sample_id] = times.get((row.file, row.sample_id), 0) + 1
    rows = [
        {
            "cohort": cohort,
            "source": source,
            "block": "",
            "what": "sample",
            "name": row.barcode,
            "action": "merged" if times[row.file, row.sample_id] > 1 else "renamed",
            "became": row.sample_id,
            "reason": "the sample that the barcode is of",
            "file": row.file,
        }
        for row in names
        if row.barcode is not None and row.barcode != row.sample_id
    ]
    if not rows and not run.lake.exists(HARMONISATION):
        return
    where = {"cohort": cohort, "source": source, "file": [file.name for file in files]}
    run.lake.replace(HARMONISATION, run.frame(HARMONISATION, rows), where)
    if rows:
        run.report.metrics["harmonised"] = {"samples renamed or merged": len(rows)}
