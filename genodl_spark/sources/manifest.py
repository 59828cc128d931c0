"""The manifest of a cohort: which files it has, with what content and read in which way, so that a file comes once."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

import pyarrow as pa

from genodl_spark.core import session, storage
from genodl_spark.core.errors import InputError
from genodl_spark.job.run import Run, now
from genodl_spark.lake.files import holding, may_hold
from genodl_spark.lake.tables.ingested import QUARANTINE, SOURCES
from genodl_spark.sources.engine import Counts, SourceFile
from genodl_spark.sources.protocol import SourceKind

_FEW_BYTES = 256 << 20  # of files that are hashed sooner here than by a Spark job


def source_files(run: Run, kind: SourceKind, uris: list[str]) -> list[SourceFile]:
    """The files with the hashes and sizes of their content, and of what belongs to them."""
    sets = [[uri, *others] for uri, others in zip(uris, concurrently(kind.beside, uris), strict=True)]
    found = iter(_hashed(run, [uri for one in sets for uri in one]))
    made = []
    for uri, *beside in sets:
        parts = [next(found) for _ in (uri, *beside)]
        digest = sha256(" ".join(part for part, _ in parts).encode()).hexdigest() if beside else parts[0][0]
        name = "/".join(uri.split("/")[-2:]) if beside and kind.by_folder else posixpath.basename(uri)
        made.append(SourceFile(uri, name, digest, sum(size for _, size in parts)))
    return made


def _hashed(run: Run, uris: list[str]) -> list[tuple[str, int]]:
    """SHA-256 and bytes of files: tasks read what would keep this process long."""
    sizes = concurrently(storage.size, uris)
    if sum(sizes) <= _FEW_BYTES:
        hashes = concurrently(storage.content_hash, uris)
    else:
        count = min(len(uris), _TASKS_PER_SLOT * session.task_slots(run.spark))
        tasks = run.spark.range(0, len(uris), 1, count).mapInArrow(
            partial(_hashes, uris=uris), "file int, sha256 string, bytes bigint"
        )
        found = {row.file: (row.sha256, row.bytes) for row in tasks.collect()}
        hashes = [found[i] for i in range(len(uris))]
    return hashes


def _hashes(batches: Iterable[pa.RecordBatch], uris: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in (batch for batch in batches if batch.num_rows):
        digests, sizes = zip(*(storage.content_hash(uris[i]) for i in batch.column(0).to_pylist()), strict=True)
        columns = [batch.column(0).cast(pa.int32()), pa.array(digests, pa.string()), pa.array(sizes, pa.int64())]
        yield pa.RecordBatch.from_arrays(columns, ["file", "sha256", "bytes"])


def new_files(
    run: Run, cohort: str, kind: SourceKind, block: str, files: list[SourceFile], options: str = ""
) -> list[SourceFile]:
    """Those of `files` that the lake does not have with the same content and options, or that are damaged there."""
    if not files or not run.lake.exists(SOURCES):
        return files
    mine = {"cohort": cohort, "source": kind.name, "block": block}
    rows = run.lake.rows(SOURCES, mine, columns=["file", "sha256", "options"]).to_pylist()
    known = {row["file"]: (row["sha256"], row["options"]) for row in rows}
    again = {file for file in files if known.get(file.name) == (file.sha256, options)}
    if again:
        older = kind.outdated(run, cohort, {file.name for file in again})
        again = {file for file in again if file.name not in older}
    lost = damaged(run, cohort, kind, {file.name for file in again}, known.keys()) if again else set()
    if lost:
        run.report.warn(
            f"{len(lost)} files are read again, as what the lake holds of them is damaged: "
            f"{', '.join(sorted(lost)[:5])}"
        )
    return [file for file in files if file not in again or file.name in lost]


def damaged(run: Run, cohort: str, kind: SourceKind, given: set[str], known: Iterable[str]) -> set[str]:
    """Names among `given` whose rows in the lake stand in a file that has changed since it was written;
    that file is given up.

    InputError where rows of others of the `known` stand there too, which nothing would bring back.
    """
    found: set[str] = set()
    for table in (kind.table, *kind.also, QUARANTINE) if given and "file" in kind.table.column_names else ():
        version = run.lake.version(table)
        if version is None:
            continue
        files = [
            file
            for part in holding(table, run.lake.files(table, version), {"cohort": [cohort], "file": sorted(given)})
            for file in part
        ]
        for stored, wrong in run.lake.damaged(files, anywhere=True):
            inside = {name for name in known if may_hold(table, stored, "file", [name])}
            inside = set(known) if inside and kind.joins else inside
            if inside - given or (table is QUARANTINE and stored.ends("source") != (kind.name, kind.name)):
                more = ", ".join(sorted(inside - given)[:5]) or "other sources"
                raise InputError(
                    f"{wrong}; rows of {more} may stand there too: ingest all of {len(inside)} files in one run",
                    stored.uri,
                )
            run.lake.given_up.add(stored.uri)
            found |= inside
    return found


def manifest_row(
    cohort: str, kind: SourceKind, block: str, file: SourceFile, header: Any, counts: Counts, options: str = ""
) -> dict[str, Any]:
    return {
        "cohort": cohort,
        "source": kind.name,
        "block": block,
        "file": file.name,
        "uri": file.uri,
        "bytes": file.size,
        "sha256": file.sha256,
        "records": counts.records,
        "quarantined": counts.quarantined,
        "options": options,
        **kind.manifest(header),
        "ingested_at": now(),
    }


_TASKS_PER_SLOT = 4
T = TypeVar("T")
U = TypeVar("U")


def concurrently(work: Callable[[T], U], items: list[T]) -> list[U]:
    """`work` on every item, several at a time: the items are files, perhaps thousands, perhaps far away.
    The first item's error wins."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(work, items))
