"""Sequence tables into the lake: the sequences themselves, and their labels and other columns as rows of `labels`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import sequence_table
from genodl_spark.formats.sequence_table import Header
from genodl_spark.formats.streams import Note
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.delta import condition
from genodl_spark.lake.files import Without
from genodl_spark.lake.parts import Part
from genodl_spark.lake.schema import PERSON, Table, identifier
from genodl_spark.lake.tables.ingested import LABELS, QUARANTINE, SAMPLES, SEQUENCES, SOURCES
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.consent import is_withdrawn, withdrawn
from genodl_spark.sources.engine import Brought, Counts, Piece, Reader, SourceFile, counts, ingest_files, parts_of
from genodl_spark.sources.person import names_people
from genodl_spark.sources.protocol import SourceKind

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class Source(SourceKind):
    """Sequence tables."""

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

    def bring(self, arrival: Arrival, files: dict[SourceFile, Header]) -> dict[str, Counts]:
        """Records into `sequences` and `quarantine`, and their other columns into `labels`.

        InputError for a file without any record, and for an identifier that stands twice in a cohort.
        """
        run, cohort, lake = arrival.run, arrival.cohort, arrival.run.lake
        for header in files.values():
            for name, stored in header.others.items():
                if name != stored:
                    run.report.warn(f"column {name!r} is stored as {stored!r}")
        staging = storage.join(lake.uri, "_staging", f"ingest-{uuid.uuid4().hex[:12]}")
        headers = {file.uri: header for file, header in files.items()}
        reader = _SequenceReader(cohort, headers, lake.path(SEQUENCES), staging, lake.path(QUARANTINE))
        try:
            brought = ingest_files(
                run,
                cohort,
                SEQUENCES,
                reader,
                list(files),
                arrival.settle,
                partial(_check, run, cohort, files, staging),
            )
            _merge_labels(run, cohort, files, brought, staging)
        finally:
            storage.remove_directory(staging)
        return counts(brought)


@dataclass(frozen=True)
class _SequenceReader(Reader):
    """Reads sequence tables; `headers` by URI. `sequences`, `labels`, `quarantine`: where rows of each go.
    See `engine.Reader`."""

    cohort: str
    headers: dict[str, Header]
    sequences: str
    labels: str
    quarantine: str
    source: str = sequence_table.SOURCE

    def targets(self, piece: Piece) -> list[tuple[Table, str]]:
        return [
            (SEQUENCES, self.sequences),
            (self.headers[piece.uri].labels, self.labels),
            (QUARANTINE, self.quarantine),
        ]

    def batches(self, piece: Piece, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        return sequence_table.read(
            piece.uri, piece.split, piece.first, self.headers[piece.uri], self.cohort, piece.name, note
        )


def _check(run: Run, cohort: str, files: dict[SourceFile, Header], staging: str, brought: dict[str, Brought]) -> None:
    from pyspark.sql import functions as F

    for file in files:
        if not brought[file.name].rows + brought[file.name].quarantined:
            raise InputError("no sequence below the header; expected one line per sequence", file.uri, 2)
    new = _read(
        run, run.lake.path(SEQUENCES), parts_of(brought, SEQUENCES), "sequence_id string, file string, line bigint"
    )
    if new is None:
        return
    if hashes := withdrawn(run, cohort):
        asked = [(new, SEQUENCES.kind, "sequence_id", "that was forgotten")]
        for columns, rows in _labels(run, files, brought, staging):
            asked += [
                (rows, PERSON, name, f"whose {name} has withdrawn consent") for name in columns if names_people(name)
            ]
        for rows, kind, name, what in asked:
            for row in rows.where(is_withdrawn(hashes, cohort, kind, name)).orderBy("file", "line").limit(1).collect():
                uri = next(file.uri for file in files if file.name == row.file)
                raise InputError(f"found a sequence {what}; expected none, leave it out", uri, row.line)
    stored = run.lake.read(SEQUENCES).where(
        (F.col("cohort") == cohort) & ~F.col("file").isin([file.name for file in files])
    )
    place = F.struct("new", "file", "line")
    both = new.withColumn("new", F.lit(True)).unionByName(
        stored.select("sequence_id", "file", "line").withColumn("new", F.lit(False))
    )
    places = both.groupBy("sequence_id").agg(
        F.min(place).alias("first"), F.max(place).alias("last"), F.count("*").alias("times")
    )
    for row in places.where("times > 1").orderBy("last").limit(1).collect():
        uri = next(file.uri for file in files if file.name == row["last"].file)
        first = f"on line {row['first'].line}" + (
            "" if row["first"].file == row["last"].file else f" of {row['first'].file}"
        )
        found = f"sequence {row.sequence_id} stands twice in cohort {cohort}, first {first}"
        raise InputError(f"{found}; expected each id once, rename it or name another cohort", uri, row["last"].line)


def _labels(
    run: Run, files: dict[SourceFile, Header], brought: dict[str, Brought], staging: str
) -> Iterator[tuple[list[str], DataFrame]]:
    """Columns of the files beside `id` and `sequence`, and rows of `labels` with them,
    of files of the same columns at once."""
    groups: dict[tuple[str, ...], dict[str, Brought]] = {}
    for file, header in files.items():
        groups.setdefault(tuple(header.others.values()), {})[file.name] = brought[file.name]
    fixed = ", ".join(f"{column.name} {column.type}" for column in LABELS.columns)
    for columns, group in groups.items():
        rows = _read(
            run,
            staging,
            parts_of(group, LABELS),
            ", ".join([fixed, *(f"{identifier(name)} string" for name in columns)]),
        )
        if rows is not None:
            yield list(columns), rows


def _merge_labels(
    run: Run, cohort: str, files: dict[SourceFile, Header], brought: dict[str, Brought], staging: str
) -> None:
    """A column that a file lacks stays as it is for the file's sequences.
    What a file held before and holds no more goes."""
    mine = {"cohort": cohort, "entity": SEQUENCES.kind}
    new = [rows for _, rows in _labels(run, files, brought, staging)]
    for rows in new:
        run.lake.merge(LABELS, rows)
    manifest = run.lake.rows(SOURCES, {"cohort": cohort, "source": sequence_table.SOURCE}).column("file").to_pylist()
    if again := [file.name for file in files if file.name in manifest]:
        stale = run.lake.read(LABELS).where(condition({**mine, "file": again})).select("entity_id")
        for rows in new:
            stale = stale.join(rows.select("entity_id"), "entity_id", "left_anti")
        # They may be too many for the text of a condition, which the log keeps.
        gone = {
            **{name: pa.array([value]) for name, value in mine.items()},
            "entity_id": stale.toArrow().column(0).combine_chunks(),
        }
        if len(gone["entity_id"]):
            run.lake.rewrite(LABELS, mine, Without(gone))
    run.wrote(LABELS, sum(part.rows for part in parts_of(brought, LABELS)))
    _leave_samples(run, cohort)


def _leave_samples(run: Run, cohort: str) -> None:
    """Takes away what an older version put into `samples` for a cohort's sequences, once `labels` has all of them:
    unless there are people in it."""
    kinds = set(run.lake.rows(SOURCES, {"cohort": cohort}).column("source").to_pylist()) - {sequence_table.SOURCE}
    if kinds or not run.lake.count(SAMPLES, {"cohort": cohort}):
        return
    moved = (
        run.lake.read(LABELS)
        .where(condition({"cohort": cohort, "entity": SEQUENCES.kind}))
        .selectExpr("entity_id AS sequence_id")
    )
    if run.lake.read(SEQUENCES).where(condition({"cohort": cohort})).join(moved, "sequence_id", "left_anti").isEmpty():
        run.lake.commit(SAMPLES, [], {"cohort": cohort})


def _read(run: Run, uri: str, parts: list[Part], schema: str) -> DataFrame | None:
    """Rows of files that tasks wrote below `uri`, whether a table has them yet or not."""
    paths = [storage.join(uri, unquote(part.path)) for part in parts]
    return run.spark.read.schema(schema).parquet(*paths) if paths else None
