"""Every stored byte held against what was written: the live files of all tables, and the files
of the models. Tasks read them.

Of a table's file its log knows the size and the rows, and the checksum where a task of ours wrote it;
what Spark wrote has Hadoop's checksums beside it on a local or network disk, and those of its pages within.
All columns are decoded, packed genotypes taken apart. Files that no table names are not looked at.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from genodl_spark.core import session, storage
from genodl_spark.core.errors import InputError
from genodl_spark.genetics import genotypes
from genodl_spark.job.run import Run
from genodl_spark.lake import checksums
from genodl_spark.lake.files import StoredFile, opened, read_file
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.ingested import SOURCES
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.sources import kinds

log = logging.getLogger("genodl")

_WAVE = 32  # files for each task slot between two lines of progress
_SHOWN = 5
_FOUND = "file int, bytes bigint, kind string, wrong string"
_SUMMED, _BESIDE, _NONE = "checksum", "beside", "none"
_HASHED = (("model.json", "card_sha256"), ("model.safetensors", "weights_sha256"))


@dataclass(frozen=True)
class _Item:
    """A file to check: one of a table, or one of a model with its SHA-256, None where none was kept."""

    of: Table
    uri: str
    stored: StoredFile | None = None
    sha256: str | None = None

    @property
    def table(self) -> str:
        return self.of.name


def verify(run: Run) -> None:
    """Checks the whole lake. InputError at the end where a file has changed;
    each is a line on stderr and an entry of `metrics.findings`."""
    run.require_lake()
    items: list[_Item] = []
    for table in run.lake.existing():
        version = run.lake.version(table)
        assert version is not None
        run.report.read[table.name] = version
        items += [_Item(table, file.uri, file) for file in run.lake.files(table, version)]
    items += _models(run)
    findings: list[dict[str, Any]] = []
    totals = dict.fromkeys((_SUMMED, _BESIDE, _NONE), 0)
    size = 0
    for index, read, kind, wrong in _checked(run, items):
        item = items[index]
        totals[kind] += 1
        size += read
        if wrong is not None:
            findings.append({"table": item.table, "file": item.uri, "wrong": wrong, "mend": _mend(run, item)})
    run.report.metrics.update(
        {
            "files": len(items),
            "bytes": size,
            "by_checksum": totals[_SUMMED] + totals[_BESIDE],
            "without_checksum": totals[_NONE],
            "findings": sorted(findings, key=lambda finding: (finding["table"], finding["file"])),
        }
    )
    if totals[_NONE]:
        run.report.warn(
            f"{totals[_NONE]} of {len(items)} files have no checksum: they were written before there were "
            "any, and are decoded alone"
        )
    for finding in run.report.metrics["findings"]:
        print(
            f"genodl: damaged: {finding['table']}: {finding['file']}: {finding['wrong']}; {finding['mend']}",
            file=sys.stderr,
            flush=True,
        )
    if findings:
        first = run.report.metrics["findings"][0]
        raise InputError(
            f"found {len(findings)} of {len(items)} stored files damaged, {first['file']} first; {first['mend']}",
            run.lake_uri,
        )


def _models(run: Run) -> list[_Item]:
    """Files of the registered models, as far as the table can be read."""
    found = []
    with contextlib.suppress(InputError, FileNotFoundError):
        for row in _rows(run, MODELS):
            hashed = {name: row.get(column) for name, column in _HASHED}
            hashed |= {f"code/{name}": digest for name, digest in dict(row.get("code_sha256") or {}).items()}
            uri = run.lake.model_uri(row["model_id"])
            found += [_Item(MODELS, storage.join(uri, name), sha256=digest) for name, digest in hashed.items()]
    return found


def _rows(run: Run, table: Table) -> list[dict[str, Any]]:
    """The rows of a table, of an older version of this package too: columns that it lacks are NULL."""
    version = run.lake.version(table)
    return (
        [row for file in run.lake.files(table, version) for row in read_file(table, file).to_pylist()]
        if version is not None
        else []
    )


def _checked(run: Run, items: Sequence[_Item]) -> Iterator[tuple[int, int, str, str | None]]:
    """For each item its index, the bytes read, what it was held against, and what is wrong with it."""
    slots = session.task_slots(run.spark)
    wave = _WAVE * slots
    for start in range(0, len(items), wave):
        some = items[start : start + wave]
        work = partial(_check, items=some)
        for row in run.spark.range(0, len(some), 1, min(len(some), 4 * slots)).mapInArrow(work, _FOUND).collect():
            yield start + row.file, row.bytes, row.kind, row.wrong
        log.info("checked %d of %d files", min(start + wave, len(items)), len(items))


def _check(batches: Iterable[pa.RecordBatch], items: Sequence[_Item]) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `items`."""
    for batch in batches:
        for index in batch.column(0).to_pylist():
            size, kind, wrong = check(items[index])
            columns = [
                pa.array([index], pa.int32()),
                pa.array([size], pa.int64()),
                pa.array([kind]),
                pa.array([wrong], pa.string()),
            ]
            yield pa.RecordBatch.from_arrays(columns, ["file", "bytes", "kind", "wrong"])


def check(item: _Item) -> tuple[int, str, str | None]:
    """Bytes of a file, what it was held against, and what is wrong with it, None for nothing."""
    kind = _NONE
    try:
        if item.stored is None:
            digest, size = storage.content_hash(item.uri)
            kind = _SUMMED if item.sha256 else _NONE
            return (
                size,
                kind,
                None if item.sha256 in (None, digest) else f"found the SHA-256 {digest}; expected {item.sha256}",
            )
        kind = _SUMMED if item.stored.checksum else _BESIDE
        fs, path = storage.filesystem(item.uri)
        size = fs.get_file_info(path).size
        if size is None:
            return 0, kind, "found no such file; expected the one that the table's log names"
        if size != item.stored.size:
            return size, kind, f"found {size} bytes; expected {item.stored.size}"
        if checksums.check_file(item.uri, item.stored.checksum) is None:
            kind = _NONE
        rows, stated = _decoded(item.of, item.stored), item.stored.statistics.get("numRecords")
        return size, kind, None if stated in (None, rows) else f"found {rows} rows; expected {stated}"
    except InputError as error:
        return 0, kind, error.message
    except (OSError, ValueError) as error:
        return (
            0,
            kind,
            f"found what cannot be read ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})",
        )


def _decoded(table: Table, file: StoredFile) -> int:
    """Rows of a file, all of which were taken apart."""
    rows = 0
    with opened(file.uri, file.checksum, lambda _: []) as stored:
        for batch in stored.iter_batches(4096, use_threads=False):
            rows += batch.num_rows
            batch.validate(full=True)
            if table.packed_by:
                for _, records, samples, _ in genotypes.alike(batch.filter(batch.column("gt").is_valid())):
                    genotypes.counts(records.column("gt"), samples)
    return rows


def _mend(run: Run, item: _Item) -> str:
    """What brings a file's rows back."""
    if item.stored is None:
        return "run genodl train again, with --force, or restore the file from a copy"
    table = item.of
    verb, _, kind = table.made_by.partition(" ")
    if not verb:
        return "no job brings it back: restore it from a copy"
    if verb != "ingest":
        return f"run genodl {table.made_by} again"
    low, high = item.stored.ends("cohort")
    cohort = item.stored.partition.get("cohort") or (low if low == high else None)
    first, last = item.stored.ends(table.file) if table.file else (None, None)
    try:
        sources = _rows(run, SOURCES)
    except InputError:  # damaged itself
        sources = []
    brought = [
        row
        for row in sources
        if cohort in (None, row["cohort"])
        and kind in ("", row["source"])
        and (table is SOURCES or first is None or last is None or first <= row["file"] <= last)
    ]
    commanded = sorted({(row["source"], row["cohort"]) for row in brought if row["source"] != "samples"})
    if not commanded:
        return f"ingest the files of cohort {cohort} again" if cohort else "ingest the files of its cohorts again"
    commands, known = [], {*kinds(), *(one.made_by.partition(" ")[2] for one in TABLES.values())}
    for source, name in commanded:
        uris = sorted(row["uri"] for row in brought if (row["source"], row["cohort"]) == (source, name))
        more = f" and {len(uris) - _SHOWN} more" if len(uris) > _SHOWN else ""
        named = source if source in known else f"{source}.py"  # a user's own
        commands.append(f"genodl ingest {named} {' '.join(uris[:_SHOWN])}{more} --cohort {name}")
    return f"run {', '.join(commands)}"
