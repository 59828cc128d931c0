"""Tables of entities that are no person into the lake: a row for each in the kind's table, and its label and other
columns as a row of `labels`."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats.entity_table import Batches, Header
from genodl_spark.formats.streams import Note, Split
from genodl_spark.job.run import Run
from genodl_spark.lake.delta import condition
from genodl_spark.lake.files import Without
from genodl_spark.lake.parts import Part
from genodl_spark.lake.schema import PERSON, Table, identifier
from genodl_spark.lake.tables.ingested import LABELS, QUARANTINE, SOURCES
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.consent import is_withdrawn, withdrawn
from genodl_spark.sources.engine import Brought, Counts, Piece, Reader, SourceFile, counts, ingest_files, parts_of
from genodl_spark.sources.person import names_people
from genodl_spark.sources.protocol import SourceKind

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts


class Labelled(Protocol):
    """The header of a file. `others`: columns of its entities, with the names under which `labels` has them."""

    @property
    def others(self) -> dict[str, str]: ...


class LabelledKind(SourceKind):
    """Files whose header is an `entity_table.Header`; the entity that rows are about is `table.entity`."""

    @abstractmethod
    def splits(self, uri: str, header: Any, target: int) -> list[Split]:
        """Pieces of a file of about `target` stored bytes."""

    @abstractmethod
    def read(self, piece: Piece, header: Any, cohort: str, reference: str | None, note: Note) -> Iterator[Batches]:
        """Rows of `table`, of `labels` (of the same records) and of `quarantine` for a piece. Runs in a task."""

    def why_none(self, header: Any, reference: str | None) -> str:
        """What is said beside the first reason where no record of a file can be stored."""
        return ""

    def settled(self, run: Run, cohort: str) -> None:
        """Called when all is in the lake."""
        return None

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        from genodl_spark.sources.labelled_facts import measured, some  # loads what draws pages

        return some(measured(lake, self.table, cohort))

    def bring(self, arrival: Arrival, files: dict[SourceFile, Any]) -> dict[str, Counts]:
        """Records into the table and `quarantine`, and their other columns into `labels`.

        InputError for a file without any record, for files of which no record can be stored, and for an identifier
        that stands twice in a cohort.
        """
        run, cohort, lake = arrival.run, arrival.cohort, arrival.run.lake
        for header in files.values():
            for name, stored in header.others.items():
                if name != stored:
                    run.report.warn(f"column {name!r} is stored as {stored!r}")
        staging = storage.join(lake.uri, "_staging", f"ingest-{uuid.uuid4().hex[:12]}")
        headers = {file.uri: header for file, header in files.items()}
        uris = (lake.path(self.table), staging, lake.path(QUARANTINE))
        reader = _Reader(self, cohort, headers, uris, arrival.reference, self.name)
        try:
            check = partial(_check, run, cohort, self, files, staging, arrival.reference)
            brought = ingest_files(run, cohort, self.table, reader, list(files), arrival.settle, check)
            merge_labels(run, cohort, self, self.table, files, brought, staging)
        finally:
            storage.remove_directory(staging)
        self.settled(run, cohort)
        return counts(brought)


@dataclass(frozen=True)
class _Reader(Reader):
    """`headers` by URI. `uris`: where rows of the table, of `labels` and of `quarantine` go. See `engine.Reader`."""

    kind: LabelledKind
    cohort: str
    headers: Mapping[str, Header]
    uris: tuple[str, str, str]
    reference: str | None
    source: str

    def splits(self, uri: str, target: int) -> list[Split]:
        return self.kind.splits(uri, self.headers[uri], target)

    def targets(self, piece: Piece) -> list[tuple[Table, str]]:
        tables = (self.kind.table, self.headers[piece.uri].labels, QUARANTINE)
        return list(zip(tables, self.uris, strict=True))

    def batches(self, piece: Piece, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        return self.kind.read(piece, self.headers[piece.uri], self.cohort, self.reference, note)


def _check(
    run: Run,
    cohort: str,
    kind: LabelledKind,
    files: dict[SourceFile, Header],
    staging: str,
    reference: str | None,
    brought: dict[str, Brought],
) -> None:
    table, what = kind.table, kind.table.kind
    for file in files:
        if not brought[file.name].rows + brought[file.name].quarantined:
            raise InputError(f"no {what} below the header; expected one line per {what}", file.uri, 2)
    if not any(brought[file.name].rows for file in files):
        file = next(iter(files))
        found = brought[file.name]
        assert found.first_bad is not None  # as there are records
        why = kind.why_none(files[file], reference)
        raise InputError(
            f"found no {what} that can be stored, of {found.quarantined:,} records{why}; the first: "
            f"{found.first_bad[1]}",
            file.uri,
            found.first_bad[0],
        )
    check_entities(run, table, {"cohort": cohort}, files, staging, brought)


def check_entities(
    run: Run,
    table: Table,
    of: Mapping[str, str],
    files: Mapping[SourceFile, Labelled],
    staging: str,
    brought: dict[str, Brought],
) -> None:
    """InputError for an entity that stands twice among rows of `table` that have the values `of`, a cohort or a block
    of one, and for one that was forgotten or is of somebody who has withdrawn consent."""
    from pyspark.sql import functions as F

    cohort, what = of["cohort"], table.kind
    new = _rows_brought(run, table, brought)
    if new is None:
        return
    if hashes := withdrawn(run, cohort):
        asked = [(new, what, table.entity, "that was forgotten")]
        for columns, rows in _labels(run, files, brought, staging):
            asked += [
                (rows, PERSON, name, f"whose {name} has withdrawn consent") for name in columns if names_people(name)
            ]
        for rows, entity, name, why in asked:
            for row in (
                rows.where(is_withdrawn(hashes, cohort, entity, name)).orderBy("file", "line").limit(1).collect()
            ):
                uri = next(file.uri for file in files if file.name == row.file)
                raise InputError(f"found a {what} {why}; expected none, leave it out", uri, row.line)
    stored = run.lake.read(table).where(condition(of)).where(~F.col("file").isin([file.name for file in files]))
    place = F.struct("new", "file", "line")
    both = new.withColumn("new", F.lit(True)).unionByName(
        stored.select(table.entity, "file", "line").withColumn("new", F.lit(False))
    )
    places = both.groupBy(table.entity).agg(
        F.min(place).alias("first"), F.max(place).alias("last"), F.count("*").alias("times")
    )
    for row in places.where("times > 1").orderBy("last").limit(1).collect():
        uri = next(file.uri for file in files if file.name == row["last"].file)
        first = f"on line {row['first'].line}" + (
            "" if row["first"].file == row["last"].file else f" of {row['first'].file}"
        )
        found_ = f"{what} {row[table.entity]} stands twice in cohort {cohort}, first {first}"
        raise InputError(f"{found_}; expected each id once, rename it or name another cohort", uri, row["last"].line)


def _labels(
    run: Run, files: Mapping[SourceFile, Labelled], brought: dict[str, Brought], staging: str
) -> Iterator[tuple[list[str], DataFrame]]:
    """Columns of the files beside the table's own, and rows of `labels` with them,
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


def merge_labels(
    run: Run,
    cohort: str,
    kind: SourceKind,
    table: Table,
    files: Mapping[SourceFile, Labelled],
    brought: dict[str, Brought],
    staging: str,
) -> None:
    """Puts what was written aside into `labels`, of entities of `table`. A column that a file lacks stays as it is for
    the file's entities. What a file held before and holds no more goes."""
    mine = {"cohort": cohort, "entity": table.kind}
    new = [rows for _, rows in _labels(run, files, brought, staging)]
    for rows in new:
        run.lake.merge(LABELS, rows)
    manifest = run.lake.rows(SOURCES, {"cohort": cohort, "source": kind.name}).column("file").to_pylist()
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


def _rows_brought(run: Run, table: Table, brought: dict[str, Brought]) -> DataFrame | None:
    columns = f"{identifier(table.entity)} string, file string, line bigint"
    return _read(run, run.lake.path(table), parts_of(brought, table), columns)


def _read(run: Run, uri: str, parts: list[Part], schema: str) -> DataFrame | None:
    """Rows of files that tasks wrote below `uri`, whether a table has them yet or not."""
    paths = [storage.join(uri, unquote(part.path)) for part in parts]
    return run.spark.read.schema(schema).parquet(*paths) if paths else None
