"""Proteins with their orthologues into the lake: a FASTA for each protein."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from genodl_spark.core.errors import InputError
from genodl_spark.formats import orthologues
from genodl_spark.formats.streams import Note
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.delta import condition
from genodl_spark.lake.tables.genomes import ORTHOLOGUES
from genodl_spark.sources.engine import Piece, SourceFile
from genodl_spark.sources.protocol import RecordSource


class Source(RecordSource):
    """The header of a file is the name of its first protein."""

    files = orthologues.FILE_NAME
    table = ORTHOLOGUES
    unit = "record"

    def header(self, uri: str, settings: Settings) -> str:
        return orthologues.header_of(uri)

    def check(self, run: Run, cohort: str, files: Mapping[SourceFile, str]) -> None:
        stored = run.lake.read(ORTHOLOGUES).where(condition({"cohort": cohort})).where("position = 1")
        mine = {file.name for file in files}
        rows = stored.select("protein", "file").collect()  # one for each file
        held = {row.protein: row.file for row in rows if row.file not in mine}
        for file, protein in files.items():
            if held.setdefault(protein, file.name) != file.name:
                raise InputError(
                    f"found protein {protein}, of which cohort {cohort} has {held[protein]}; expected a file for each",
                    file.uri,
                    1,
                )

    def read(self, piece: Piece, header: str, cohort: str, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        rows, bad = orthologues.read(piece.uri, cohort, piece.name, note)
        yield rows, self.refused(cohort, piece.name, bad)
