"""Cohort VCFs into the lake: files read in pieces by as many tasks as there are, which write the table's files themselves."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from genodl_spark import session, storage
from genodl_spark.errors import InputError
from genodl_spark.parts import Part, PartWriter
from genodl_spark.pipelines.run import Run
from genodl_spark.sources import vcf
from genodl_spark.sources.builds import build_of
from genodl_spark.sources.normalise import Normaliser, Reference
from genodl_spark.sources.streams import Split
from genodl_spark.sources.vcf_header import Header, shared_contig
from genodl_spark.tables import QUARANTINE, SAMPLE_SETS, SOURCES, VARIANTS, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger("genodl")

_SMALLEST, _LARGEST = 1 << 20, 64 << 20  # stored bytes of a piece; text takes 3 to 80 times as many
_PIECES_PER_SLOT = 4  # so that the last piece to end is not long alone
_MOST_WARNINGS = 20


@dataclass(frozen=True)
class VcfFile:
    """One file to ingest: URI, name, header, stored bytes."""

    uri: str
    name: str
    header: Header
    size: int


@dataclass(frozen=True)
class _Piece:
    """One task's work. `first`: number of its first line."""

    uri: str
    name: str
    split: Split
    first: int = 1


@dataclass
class Brought:
    """What one file brought: rows of `variants`, records set aside and the first of them."""

    rows: int = 0
    quarantined: int = 0
    first_bad: tuple[int, str] | None = None
    parts: dict[str, list[Part]] = field(default_factory=dict)


def options_of(run: Run, reference: str | None) -> str:
    """The normalisation that the settings ask for, as it stands in `sources`."""
    chosen = ["split"] if run.settings.ingest.split_alleles else []
    return " ".join([*chosen, *([f"align={reference}"] if reference else [])])


def ingest_vcfs(run: Run, cohort: str, files: list[VcfFile], reference: str | None) -> dict[str, Brought]:
    """Puts the records of VCFs into `variants` and `quarantine`, each file in place of what it brought before.

    Both tables change in one transaction each, after every file has been read to its end: one that is cut off leaves no trace.
    """
    lake, names = run.lake, [file.name for file in files]
    if reference is not None:
        Reference(reference)  # makes its index before many tasks want it, and says what is wrong with it
    new = [table for table in (VARIANTS, QUARANTINE) if not lake.exists(table)]
    for table in new:
        lake.create(table)  # before the tasks write: Delta makes no table where files are
    run_name = uuid.uuid4().hex[:12]
    pieces = _numbered(run, _pieces(run, files))
    work = partial(
        _write,
        pieces=pieces,
        cohort=cohort,
        name=run_name,
        targets={table.name: lake.path(table) for table in (VARIANTS, QUARANTINE)},
        batch=run.settings.ingest.batch,
        bin_width=run.settings.ingest.bin_width,
        split_alleles=run.settings.ingest.split_alleles,
        reference=reference,
    )
    brought: dict[str, Brought] = {name: Brought() for name in names}
    try:
        log.info("reading %d files in %d pieces", len(files), len(pieces))
        for row in _each(run, len(pieces), work, _REPORT).collect():
            _add(brought[row.file], row)
        # A compaction may have put several files' rows together; `commit` takes them apart by these columns.
        where: dict[str, str | list[str]] = {"cohort": cohort, "file": names}
        lake.commit(QUARANTINE, _parts(brought, QUARANTINE.name), {**where, "source": vcf.SOURCE})
        lake.commit(VARIANTS, _parts(brought, VARIANTS.name), where)
    except BaseException:
        _discard(run, run_name, new)
        raise
    _warn_of_quarantine(run, brought)
    _write_sample_sets(run, [file.header for file in files])
    quarantined = sum(b.quarantined for b in brought.values())
    run.wrote(VARIANTS, sum(b.rows for b in brought.values()), quarantined=quarantined)
    run.wrote(QUARANTINE, quarantined)
    return brought


def check_builds(run: Run, cohort: str, files: list[VcfFile]) -> None:
    """Refuses files of another genome build than the cohort's; tells how contigs are named. InputError."""
    from pyspark.sql import functions as F

    seen: dict[str, str] = {}
    if run.lake.exists(SOURCES):
        known = run.lake.read(SOURCES).where((F.col("cohort") == cohort) & F.col("build").isNotNull())
        seen = {row.build: row.file for row in known.groupBy("build").agg(F.min("file").alias("file")).collect()}
    names: set[str] = set()
    for file in files:
        build = build_of(file.header.contigs)
        other = next((b for b in seen if b != build), None)
        if build is not None and other is not None:
            found = f"the contig lengths of {build}, where {seen[other]} of cohort {cohort} has those of {other}"
            raise InputError(f"found {found}; expected one build in a cohort: lift the file over, or give it a cohort of its own", file.uri)
        if build is not None:
            seen[build] = file.name
        names |= {c for c in file.header.contigs if shared_contig(c) != c}
    run.report.metrics["build"] = next(iter(seen), None)
    run.report.metrics["renamed_contigs"] = {name: shared_contig(name) for name in sorted(names)}


def _pieces(run: Run, files: list[VcfFile]) -> list[_Piece]:
    slots = session.task_slots(run.spark)
    target = min(max(sum(file.size for file in files) // (_PIECES_PER_SLOT * slots), _SMALLEST), _LARGEST)
    return [_Piece(file.uri, file.name, split) for file in files for split in vcf.splits(file.uri, target)]


def _numbered(run: Run, pieces: list[_Piece]) -> list[_Piece]:
    """The pieces with the numbers of their first lines: those of files in several pieces are read through once to count."""
    of_file = Counter(piece.uri for piece in pieces)
    counted = [i for i, piece in enumerate(pieces) if of_file[piece.uri] > 1]
    if not counted:
        return pieces
    work = partial(_count, pieces=[pieces[i] for i in counted])
    lines = {counted[row.piece]: row.lines for row in _each(run, len(counted), work, "piece int, lines bigint").collect()}
    numbered: list[_Piece] = []
    first = 1
    for i, piece in enumerate(pieces):
        first = 1 if piece.split.start == 0 else first
        numbered.append(_Piece(piece.uri, piece.name, piece.split, first))
        first += lines.get(i, 0)
    return numbered


def _each(run: Run, count: int, work: Any, schema: str) -> DataFrame:
    """Rows that `work` makes of each of `count` indices, one task each."""
    return run.spark.range(0, count, 1, count).mapInArrow(work, schema)


def _indices(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()


def _count(batches: Iterable[pa.RecordBatch], pieces: list[_Piece]) -> Iterator[pa.RecordBatch]:
    for index in _indices(batches):
        lines = vcf.count_lines(pieces[index].uri, pieces[index].split)
        yield pa.RecordBatch.from_arrays([pa.array([index], pa.int32()), pa.array([lines], pa.int64())], ["piece", "lines"])


_REPORT = "file string, bad_line bigint, bad_reason string, table string, part string"


def _write(
    batches: Iterable[pa.RecordBatch],
    pieces: list[_Piece],
    cohort: str,
    name: str,
    targets: dict[str, str],
    batch: int,
    bin_width: int,
    split_alleles: bool,
    reference: str | None,
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `pieces`: writes their rows, and reports the files written and the first bad record."""
    for index in _indices(batches):
        piece = pieces[index]
        header = vcf.header_of(piece.uri)
        normaliser = None
        if split_alleles or reference is not None:
            normaliser = Normaliser(header, split_alleles, None if reference is None else Reference(reference))
        reader = vcf.Reader(header, cohort, piece.name, bin_width, normaliser)
        writers = {table.name: PartWriter(table, targets[table.name], f"{name}-{index:05d}") for table in (VARIANTS, QUARANTINE)}
        bad: tuple[int | None, str | None] = (None, None)
        for number, block in vcf.split_lines(piece.uri, piece.split, piece.first, header):
            for rows, refused in reader.batches(number, block, batch):
                writers[VARIANTS.name].write(rows)
                writers[QUARANTINE.name].write(refused)
                if refused.num_rows and bad[0] is None:
                    bad = (refused.column("line")[0].as_py(), refused.column("reason")[0].as_py())
        written = [(piece.name, None, None, table, part.as_json()) for table, writer in writers.items() for part in writer.close()]
        rows_ = [(piece.name, *bad, None, None), *written]
        columns = [pa.array(list(column)) for column in zip(*rows_, strict=True)]
        types = [pa.string(), pa.int64(), pa.string(), pa.string(), pa.string()]
        names = ["file", "bad_line", "bad_reason", "table", "part"]
        yield pa.RecordBatch.from_arrays([c.cast(t) for c, t in zip(columns, types, strict=True)], names)


def _add(brought: Brought, row: Any) -> None:
    if row.bad_line is not None:
        first = (row.bad_line, row.bad_reason)
        brought.first_bad = first if brought.first_bad is None else min(brought.first_bad, first)
    if row.part is not None:
        part = Part.from_json(row.part)
        brought.parts.setdefault(row.table, []).append(part)
        if row.table == VARIANTS.name:
            brought.rows += part.rows
        else:
            brought.quarantined += part.rows


def _parts(brought: dict[str, Brought], table: str) -> list[Part]:
    return [part for b in brought.values() for part in b.parts.get(table, [])]


def _discard(run: Run, name: str, new: list[Table]) -> None:
    """Removes what the tasks of a run that failed wrote, as far as it can be reached, and the tables that it made."""
    for table in (VARIANTS, QUARANTINE):
        with contextlib.suppress(Exception):
            if table in new and run.lake.version(table) == 0:
                storage.remove_directory(run.lake.path(table))
                continue
            for uri in storage.files_under(run.lake.path(table)):
                if f"/part-{name}-" in uri:
                    storage.remove_file(uri)


def _warn_of_quarantine(run: Run, brought: dict[str, Brought]) -> None:
    affected = {name: b for name, b in brought.items() if b.quarantined}
    for name, b in list(affected.items())[:_MOST_WARNINGS]:
        assert b.first_bad is not None
        line, reason = b.first_bad
        run.report.warn(f"{b.quarantined} of {b.quarantined + b.rows} records of {name} are in quarantine, first line {line}: {reason}")
    if len(affected) > _MOST_WARNINGS:
        rest = sum(b.quarantined for b in list(affected.values())[_MOST_WARNINGS:])
        run.report.warn(f"{rest} records of {len(affected) - _MOST_WARNINGS} more files are in quarantine")


def _write_sample_sets(run: Run, headers: list[Header]) -> None:
    lake = run.lake
    known = set()
    if lake.exists(SAMPLE_SETS):
        known = {row.sample_set for row in lake.read(SAMPLE_SETS).select("sample_set").distinct().collect()}
    orders = {header.sample_set: header.samples for header in headers if header.sample_set not in known and header.samples}
    lake.create(SAMPLE_SETS)
    parts = []
    for name, order in orders.items():
        writer = PartWriter(SAMPLE_SETS, lake.path(SAMPLE_SETS), name)
        columns = [pa.repeat(pa.scalar(name), len(order)), pa.array(range(len(order)), pa.int32()), pa.array(order, pa.string())]
        writer.write(pa.RecordBatch.from_arrays(columns, schema=SAMPLE_SETS.arrow_schema()))
        parts += writer.close()
    if parts:
        lake.commit(SAMPLE_SETS, parts, {"sample_set": list(orders)})
    run.wrote(SAMPLE_SETS, sum(part.rows for part in parts))
