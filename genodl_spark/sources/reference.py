"""Reference genomes into the lake: contigs with lengths and checksums, and their bases in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import reference_fasta
from genodl_spark.formats.streams import Note
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.genomes import REFERENCE, REFERENCE_BASES
from genodl_spark.sources.engine import Brought, Piece, SourceFile, parts_of
from genodl_spark.sources.protocol import RecordSource

if TYPE_CHECKING:
    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts


class Source(RecordSource):
    """FASTA."""

    files = reference_fasta.FILE_NAME
    table = REFERENCE
    also = (REFERENCE_BASES,)
    unit = "record"

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        from genodl_spark.sources.genome_facts import of_reference  # loads what draws pages

        return of_reference(lake, cohort)

    def header(self, uri: str, settings: Settings) -> None:
        reference_fasta.check(uri)

    def read(self, piece: Piece, header: None, cohort: str, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        for rows, bases in reference_fasta.read(piece.uri, cohort, piece.name):
            yield rows, bases, self.refused(cohort, piece.name)

    def check_brought(self, run: Run, cohort: str, files: list[SourceFile], brought: dict[str, Brought]) -> None:
        """InputError where a sequence of a name stands in two files of the cohort, and for slices of two builds."""
        super().check_brought(run, cohort, files, brought)
        names = {file.name for file in files}
        stored = run.lake.rows(REFERENCE, {"cohort": cohort}).select(["name", "file", "line"]).to_pylist()
        seen = {row["name"]: row["file"] for row in stored if row["file"] not in names}
        uris = {file.name: file.uri for file in files}
        for part in parts_of(brought, REFERENCE):
            fs, path = storage.filesystem(storage.join(run.lake.path(REFERENCE), unquote(part.path)))
            for row in pq.read_table(path, columns=["name", "file", "line"], filesystem=fs).to_pylist():
                if seen.setdefault(row["name"], row["file"]) != row["file"]:
                    found = f"sequence {row['name']}, which {seen[row['name']]} of cohort {cohort} has too"
                    raise InputError(
                        f"found {found}; expected each once, name another cohort", uris[row["file"]], row["line"]
                    )
