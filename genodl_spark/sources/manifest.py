"""The manifest of a cohort: which files it has, with what content and read in which way, so that a file comes once."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from genodl_spark.core import session, storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import sequence_table
from genodl_spark.formats.vcf import reader
from genodl_spark.formats.vcf.header import Header
from genodl_spark.genome.builds import build_of
from genodl_spark.job.run import Run, now
from genodl_spark.lake.delta import condition
from genodl_spark.lake.files import holding, may_hold
from genodl_spark.lake.tables.ingested import LABELS, QUARANTINE, SAMPLES, SEQUENCES, SOURCES, VARIANTS
from genodl_spark.sources.engine import SourceFile
from genodl_spark.sources.matrices import MATRICES

_FEW_BYTES = 256 << 20  # of files that are hashed sooner here than by a Spark job


@dataclass(frozen=True)
class Counts:
    """What one file brought: rows stored, and records set aside."""

    records: int
    quarantined: int = 0


def source_files(run: Run, uris: list[str]) -> list[SourceFile]:
    """The files with the hashes of their content: tasks read what would keep this process long."""
    sizes = concurrently(storage.size, uris)
    if sum(sizes) <= _FEW_BYTES:
        hashes = concurrently(storage.content_hash, uris)
    else:
        count = min(len(uris), _TASKS_PER_SLOT * session.task_slots(run.spark))
        tasks = run.spark.range(0, len(uris), 1, count).mapInArrow(partial(_hashes, uris=uris), "file int, sha256 string, bytes bigint")
        found = {row.file: (row.sha256, row.bytes) for row in tasks.collect()}
        hashes = [found[i] for i in range(len(uris))]
    return [SourceFile(uri, posixpath.basename(uri), digest, size) for uri, (digest, size) in zip(uris, hashes, strict=True)]


def _hashes(batches: Iterable[pa.RecordBatch], uris: list[str]) -> Iterator[pa.RecordBatch]:
    for index in (index for batch in batches for index in batch.column(0).to_pylist()):
        digest, size = storage.content_hash(uris[index])
        columns = [pa.array([index], pa.int32()), pa.array([digest]), pa.array([size], pa.int64())]
        yield pa.RecordBatch.from_arrays(columns, ["file", "sha256", "bytes"])


def new_files(run: Run, cohort: str, source: str, block: str, files: list[SourceFile], options: str = "") -> list[SourceFile]:
    if not files or not run.lake.exists(SOURCES):
        return files
    rows = run.lake.read(SOURCES).where("source <> ''").select("cohort", "source", "block", "file", "sha256", "options").collect()
    known = {row.file: (row.sha256, row.options) for row in rows if (row.cohort, row.source, row.block) == (cohort, source, block)}
    again = {file for file in files if known.get(file.name) == (file.sha256, options)}
    if older := _in_samples(run, cohort, source, {file.name for file in again}):
        run.report.warn(f"{len(older)} files are read again: what an older version left in samples of their sequences moves to labels")
        again = {file for file in again if file.name not in older}
    lost = damaged(run, cohort, source, {file.name for file in again}, known.keys()) if again else set()
    if lost:
        run.report.warn(f"{len(lost)} files are read again, as what the lake holds of them is damaged: {', '.join(sorted(lost)[:5])}")
    return [file for file in files if file not in again or file.name in lost]


def _in_samples(run: Run, cohort: str, source: str, names: set[str]) -> set[str]:
    """Those of a cohort's files of sequences of which `labels` has nothing, while `samples` has something of the cohort."""
    if source != sequence_table.SOURCE or not names or not run.lake.count(SAMPLES, {"cohort": cohort}):
        return set()
    rows = run.lake.read(LABELS).where(condition({"cohort": cohort})).select("file").distinct().collect()
    return names - {row.file for row in rows}


def damaged(run: Run, cohort: str, source: str, given: set[str], known: Iterable[str]) -> set[str]:
    """Names among `given` whose rows in the lake stand in a file that has changed since it was written; that file is given up.

    InputError where rows of others of the `known` stand there too, which nothing would bring back.
    """
    found: set[str] = set()
    for table in (FILLED[source], QUARANTINE) if source in FILLED and given else ():
        version = run.lake.version(table)
        if version is None or "file" not in table.column_names:
            continue
        files = [file for part in holding(table, run.lake.files(table, version), {"cohort": [cohort], "file": sorted(given)}) for file in part]
        for stored, wrong in run.lake.damaged(files, anywhere=True):
            inside = {name for name in known if may_hold(table, stored, "file", [name])}
            inside = set(known) if inside and source in MATRICES else inside  # a row of a sample may hold values of several files
            if inside - given or (table is QUARANTINE and stored.ends("source") != (source, source)):
                more = ", ".join(sorted(inside - given)[:5]) or "other sources"
                raise InputError(f"{wrong}; rows of {more} may stand there too: ingest all of {len(inside)} files in one run", stored.uri)
            run.lake.given_up.add(stored.uri)
            found |= inside
    return found


def manifest_row(
    cohort: str, source: str, block: str, file: SourceFile, counts: Counts, header: Header | None = None, options: str = ""
) -> dict[str, Any]:
    return {
        "cohort": cohort,
        "source": source,
        "block": block,
        "file": file.name,
        "uri": file.uri,
        "bytes": file.size,
        "sha256": file.sha256,
        "records": counts.records,
        "quarantined": counts.quarantined,
        "options": options,
        "header": None if header is None else header.text,
        "build": None if header is None else build_of(header.contigs),
        "ingested_at": now(),
    }


FILLED = {reader.SOURCE: VARIANTS, **MATRICES, sequence_table.SOURCE: SEQUENCES, "phenotypes": SAMPLES}
_TASKS_PER_SLOT = 4
T = TypeVar("T")
U = TypeVar("U")


def concurrently(work: Callable[[T], U], items: list[T]) -> list[U]:
    """`work` on every item, several at a time: the items are files, perhaps thousands, perhaps far away. The first item's error wins."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(work, items))
