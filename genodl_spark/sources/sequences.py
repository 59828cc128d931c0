"""Sequence tables and FASTA into the lake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from genodl_spark.formats import sequence_table
from genodl_spark.formats.entity_table import Batches, Header
from genodl_spark.formats.streams import Note, Split
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.delta import condition
from genodl_spark.lake.tables.ingested import LABELS, SAMPLES, SEQUENCES, SOURCES
from genodl_spark.sources.engine import Piece
from genodl_spark.sources.labelled import LabelledKind

if TYPE_CHECKING:
    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts


class Source(LabelledKind):
    """Sequence tables and FASTA."""

    files = sequence_table.FILE_NAME
    table = SEQUENCES

    def header(self, uri: str, settings: Settings) -> Header:
        return sequence_table.header_of(uri)

    def outdated(self, run: Run, cohort: str, files: set[str]) -> set[str]:
        """Those of which `labels` has nothing, while `samples` has something of the cohort:
        older versions put columns of sequences there."""
        if not run.lake.count(SAMPLES, {"cohort": cohort}):
            return set()
        rows = run.lake.read(LABELS).where(condition({"cohort": cohort})).select("file").distinct().collect()
        if found := files - {row.file for row in rows}:
            run.report.warn(
                f"{len(found)} files are read again: what an older version left in samples of their "
                "sequences moves to labels"
            )
        return found

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        from genodl_spark.sources.labelled_facts import sequences, some  # loads what draws pages

        return some(sequences(lake, cohort)) + super().facts(lake, cohort)

    def splits(self, uri: str, header: Header, target: int) -> list[Split]:
        return sequence_table.splits(uri, header, target)

    def read(self, piece: Piece, header: Header, cohort: str, reference: str | None, note: Note) -> Iterator[Batches]:
        return sequence_table.read(piece.uri, piece.split, piece.first, header, cohort, piece.name, note)

    def settled(self, run: Run, cohort: str) -> None:
        """Takes away what an older version put into `samples` for a cohort's sequences, once `labels` has all of them:
        unless there are people in it."""
        kinds = set(run.lake.rows(SOURCES, {"cohort": cohort}).column("source").to_pylist()) - {self.name}
        if kinds or not run.lake.count(SAMPLES, {"cohort": cohort}):
            return
        moved = (
            run.lake.read(LABELS)
            .where(condition({"cohort": cohort, "entity": SEQUENCES.kind}))
            .selectExpr("entity_id AS sequence_id")
        )
        sequences = run.lake.read(SEQUENCES).where(condition({"cohort": cohort}))
        if sequences.join(moved, "sequence_id", "left_anti").isEmpty():
            run.lake.commit(SAMPLES, [], {"cohort": cohort})
