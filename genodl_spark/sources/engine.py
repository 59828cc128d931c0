"""Files into a table of records: read in pieces by as many tasks as there are, which write
the table's files themselves."""

from __future__ import annotations

import logging
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import pyarrow as pa

from genodl_spark.core import session
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.formats import streams
from genodl_spark.formats.streams import Note, Split
from genodl_spark.job.run import Run
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.ingested import QUARANTINE
from genodl_spark.lake.transactions import retried

log = logging.getLogger("genodl")

_SMALLEST, _LARGEST = 1 << 20, 64 << 20  # stored bytes of a piece; text takes 3 to 80 times as many
_FEW_BYTES = 1 << 20  # stored bytes of files that one process reads sooner than tasks start
_PIECES_PER_SLOT = 4  # so that the last piece to end is not long alone
_MOST_WARNINGS = 20


@dataclass(frozen=True)
class SourceFile:
    """One input file: URI, name, content hash (SHA-256, hex) and bytes."""

    uri: str
    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Counts:
    """What one file brought: rows stored, and records set aside."""

    records: int
    quarantined: int = 0


@dataclass(frozen=True)
class Piece:
    """One task's work. `first`: number of its first line or record, from 1."""

    uri: str
    name: str
    split: Split
    first: int = 1


@dataclass
class Brought:
    """What one file brought: rows stored, records set aside and the first of them, and the files written, by table.

    `notes`: of lines that are not stored as they are, by what is said of them, how many and the first.
    Lines are records in a file without lines.
    """

    rows: int = 0
    quarantined: int = 0
    first_bad: tuple[int, str] | None = None
    parts: dict[str, list[Part]] = field(default_factory=dict)
    notes: dict[str, tuple[int, int]] = field(default_factory=dict)


class Reader(Protocol):
    """How files of one source are read; it goes to the tasks. What a reader of lines does stands here;
    others say it themselves.

    `source`: the kind's name. `unit`: what records are counted in, line or, in files that have no lines, record.
    """

    source: str
    unit: str = "line"

    def splits(self, uri: str, target: int) -> list[Split]:
        """Ranges of a file that tasks read on their own, of about `target` stored bytes."""
        return streams.splits(uri, target)

    def length(self, piece: Piece) -> int:
        """Lines or records of a piece: where a file is several, for the number of the next one's first."""
        return streams.count_lines(piece.uri, piece.split)

    @abstractmethod
    def targets(self, piece: Piece) -> list[tuple[Table, str]]:
        """Tables that the piece has rows for, and the URIs below which their files go; `quarantine` is the last."""

    @abstractmethod
    def batches(self, piece: Piece, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        """Rows of the piece, a batch for each of `targets`; `note` is told of lines that are not stored as they are."""


def ingest_files(
    run: Run,
    cohort: str,
    table: Table,
    reader: Reader,
    files: list[SourceFile],
    settle: Callable[[], None],
    check: Callable[[dict[str, Brought]], None] | None = None,
    beside: pa.RecordBatch | None = None,
    also: Sequence[Table] = (),
) -> dict[str, Brought]:
    """Puts the records of files into `table`, and what they have for tables `also`, and `quarantine`, each file in
    place of what it brought before; returns what each brought, by name.

    `settle` is called when all is read and nothing is committed; `check` sees what came, and all that is there
    before the commit. `beside`: rows of `quarantine` that are no records, such as lines of headers. All tables
    change in one transaction each, `table` behind those of `also`, after every file has been read to its end and what
    came of them has passed: one that is cut off leaves no trace.
    """
    lake, names = run.lake, [file.name for file in files]
    tables = [*also, table, QUARANTINE]
    new = [one for one in tables if not lake.exists(one)]
    run_name = uuid.uuid4().hex[:12]
    over = True  # no task that writes is under way
    try:
        pieces = _numbered(run, reader, _pieces(run, reader, files))
        log.info("reading %d files in %d pieces", len(files), len(pieces))
        brought: dict[str, Brought] = {name: Brought() for name in names}
        over = _here(run, pieces)
        for row in _each(run, pieces, partial(_write, pieces=pieces, reader=reader, name=run_name), _REPORT):
            _add(brought[row["file"]], row, table)
    except BaseException:
        discard(run.lake, run.run_id, tables, run_name, new, over)
        raise
    # A compaction may have put several files' rows together; `commit` takes them apart by these columns.
    where: dict[str, str | list[str]] = {"cohort": cohort, "file": names}

    def commit() -> None:
        since = None
        if check is not None:
            since = lake.seen(table)
            check(brought)
        for one in also:
            lake.commit(one, parts_of(brought, one), where)
        lake.commit(table, parts_of(brought, table), where, since=since)

    try:
        settle()
        retried(commit, Conflict)  # what another run has brought meanwhile is checked as well
        lake.commit(
            QUARANTINE,
            parts_of(brought, QUARANTINE) + _written(run, beside, run_name),
            {**where, "source": reader.source},
        )
    except (InputError, Conflict):  # after any other error a version may know of the files
        discard(run.lake, run.run_id, tables, run_name, new, over=True)
        raise
    _warn_of_quarantine(run, brought, reader.unit)
    _tell_notes(run, brought, reader.unit)
    quarantined = sum(b.quarantined for b in brought.values())
    run.wrote(table, sum(b.rows for b in brought.values()), quarantined=quarantined)
    for one in also:
        run.wrote(one, sum(part.rows for part in parts_of(brought, one)))
    run.wrote(QUARANTINE, quarantined + (0 if beside is None else beside.num_rows))
    return brought


def _written(run: Run, rows: pa.RecordBatch | None, name: str) -> list[Part]:
    """`rows` of `quarantine` as files that no transaction has yet."""
    if rows is None or not rows.num_rows:
        return []
    writer = PartWriter(QUARANTINE, run.lake.path(QUARANTINE), f"{name}-beside")
    writer.write(rows)
    return list(writer.close())


def counts(brought: dict[str, Brought]) -> dict[str, Counts]:
    return {name: Counts(b.rows, b.quarantined) for name, b in brought.items()}


def parts_of(brought: dict[str, Brought], table: Table) -> list[Part]:
    return [part for b in brought.values() for part in b.parts.get(table.name, [])]


def _pieces(run: Run, reader: Reader, files: list[SourceFile]) -> list[Piece]:
    slots = session.task_slots(run.spark)
    target = min(max(sum(file.size for file in files) // (_PIECES_PER_SLOT * slots), _SMALLEST), _LARGEST)
    return [Piece(file.uri, file.name, split) for file in files for split in reader.splits(file.uri, target)]


def _numbered(run: Run, reader: Reader, pieces: list[Piece]) -> list[Piece]:
    """The pieces with the numbers of their first lines or records: all but the last of a file are
    read through once to count."""
    counted = [i for i, (piece, after) in enumerate(pairwise(pieces)) if piece.uri == after.uri]
    if not counted:
        return pieces
    parts = [pieces[i] for i in counted]
    lengths = _each(run, parts, partial(_count, pieces=parts, reader=reader), "piece int, lines bigint")
    lines = {counted[row["piece"]]: row["lines"] for row in lengths}
    numbered: list[Piece] = []
    first = 1
    for i, piece in enumerate(pieces):
        first = 1 if piece.split.start == 0 else first
        numbered.append(Piece(piece.uri, piece.name, piece.split, first))
        first += lines.get(i, 0)
    return numbered


def _each(run: Run, pieces: Sequence[Piece], work: Any, schema: str) -> list[dict[str, Any]]:
    """Rows that `work` makes of the index of each piece, a task each. On one machine this process does it where they
    are small: a job takes longer to start."""
    count = len(pieces)
    if _here(run, pieces):
        here = work([pa.RecordBatch.from_arrays([pa.array(range(count))], ["id"])])
        return [row for batch in here for row in batch.to_pylist()]
    return [row.asDict() for row in run.spark.range(0, count, 1, count).mapInArrow(work, schema).collect()]


def _here(run: Run, pieces: Sequence[Piece]) -> bool:
    """Whether this process reads some pieces itself."""
    return sum(piece.split.end - piece.split.start for piece in pieces) <= _FEW_BYTES and session.is_local(run.spark)


def _indices(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()


def _count(batches: Iterable[pa.RecordBatch], pieces: list[Piece], reader: Reader) -> Iterator[pa.RecordBatch]:
    for index in _indices(batches):
        lines = reader.length(pieces[index])
        yield pa.RecordBatch.from_arrays(
            [pa.array([index], pa.int32()), pa.array([lines], pa.int64())], ["piece", "lines"]
        )


_REPORT = (
    "file string, bad_line bigint, bad_reason string, table string, part string, note string, "
    "times bigint, note_line bigint"
)


def _write(
    batches: Iterable[pa.RecordBatch], pieces: list[Piece], reader: Reader, name: str
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `pieces`: writes their rows, and reports the files written
    and the first bad record."""
    for index in _indices(batches):
        piece = pieces[index]
        writers = [PartWriter(table, uri, f"{name}-{index:05d}") for table, uri in reader.targets(piece)]
        bad: tuple[int | None, str | None] = (None, None)
        notes: dict[str, tuple[int, int]] = {}
        for found in reader.batches(piece, partial(_count_note, notes)):
            for writer, rows in zip(writers, found, strict=True):
                writer.write(rows)
            refused = found[-1]
            if refused.num_rows and bad[0] is None:
                bad = (refused.column("line")[0].as_py(), refused.column("reason")[0].as_py())
        nothing = (None, None, None)
        written = [
            (piece.name, None, None, writer.table.name, part.as_json(), *nothing)
            for writer in writers
            for part in writer.close()
        ]
        noted = [(piece.name, None, None, None, None, what, times, line) for what, (times, line) in notes.items()]
        rows_ = [(piece.name, *bad, None, None, *nothing), *written, *noted]
        columns = [pa.array(list(column)) for column in zip(*rows_, strict=True)]
        types = [pa.string(), pa.int64(), pa.string(), pa.string(), pa.string(), pa.string(), pa.int64(), pa.int64()]
        names = ["file", "bad_line", "bad_reason", "table", "part", "note", "times", "note_line"]
        yield pa.RecordBatch.from_arrays([c.cast(t) for c, t in zip(columns, types, strict=True)], names)


def _count_note(notes: dict[str, tuple[int, int]], line: int, what: str) -> None:
    times, first = notes.get(what, (0, line))
    notes[what] = (times + 1, min(first, line))


def _add(brought: Brought, row: Mapping[str, Any], table: Table) -> None:
    if row["note"] is not None:
        times, first = brought.notes.get(row["note"], (0, row["note_line"]))
        brought.notes[row["note"]] = (times + row["times"], min(first, row["note_line"]))
    if row["bad_line"] is not None:
        first = (row["bad_line"], row["bad_reason"])
        brought.first_bad = first if brought.first_bad is None else min(brought.first_bad, first)
    if row["part"] is not None:
        part = Part.from_json(row["part"])
        brought.parts.setdefault(row["table"], []).append(part)
        if row["table"] == table.name:
            brought.rows += part.rows
        elif row["table"] == QUARANTINE.name:
            brought.quarantined += part.rows


def _warn_of_quarantine(run: Run, brought: dict[str, Brought], unit: str) -> None:
    affected = {name: b for name, b in brought.items() if b.quarantined}
    told = []
    for name, b in affected.items():
        assert b.first_bad is not None
        line, reason = b.first_bad
        told.append(
            f"{b.quarantined} of {b.quarantined + b.rows} records of {name} are in quarantine, "
            f"first {unit} {line}: {reason}"
        )
    rest = sum(b.quarantined for b in list(affected.values())[_MOST_WARNINGS:])
    tell(run, told, f"{rest} records of {len(affected) - _MOST_WARNINGS} more files are in quarantine")


def _tell_notes(run: Run, brought: dict[str, Brought], unit: str) -> None:
    noted = [(name, what, times, line) for name, b in brought.items() for what, (times, line) in b.notes.items()]
    told = [f"{times} {unit}s of {name} {what}; the first is {unit} {line}" for name, what, times, line in noted]
    tell(run, told)


def tell(run: Run, told: list[str], rest: str = "") -> None:
    """Warns of each of `told`; where they are many, of the first ones and of `rest`."""
    for text in told[:_MOST_WARNINGS]:
        run.report.warn(text)
    if len(told) > _MOST_WARNINGS:
        run.report.warn(rest or f"so it is with {len(told) - _MOST_WARNINGS} more files")
