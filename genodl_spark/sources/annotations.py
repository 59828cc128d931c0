"""Annotations of genomes into the lake: GTF, GFF3 and BED."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.formats import annotation, streams
from genodl_spark.formats.streams import Note, Split
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.genomes import ANNOTATIONS
from genodl_spark.sources.engine import Piece
from genodl_spark.sources.protocol import RecordSource

if TYPE_CHECKING:
    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts


class Source(RecordSource):
    """The header of a file is its format."""

    files = annotation.FILE_NAME
    table = ANNOTATIONS

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        from genodl_spark.sources.genome_facts import of_annotations  # loads what draws pages

        return of_annotations(lake, cohort)

    def header(self, uri: str, settings: Settings) -> str:
        return annotation.header_of(uri)

    def tell(self, run: Run, headers: Mapping[str, str]) -> None:
        forms: dict[str, list[str]] = {}
        for uri, form in headers.items():
            forms.setdefault(form, []).append(posixpath.basename(uri))
        run.report.metrics["read_as"] = {form: len(names) for form, names in forms.items()}

    def splits(self, uri: str, target: int) -> list[Split]:
        """A GFF3 is one piece: a feature may name a parent anywhere in the file."""
        if annotation.header_of(uri) == annotation.GFF3:
            return [Split(0, storage.size(uri))]
        return streams.splits(uri, target)

    def read(self, piece: Piece, header: str, cohort: str, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        for rows, bad in annotation.read(piece.uri, piece.split, piece.first, header, cohort, piece.name, note):
            yield rows, self.refused(cohort, piece.name, bad)
