"""Source files into the lake: checked, idempotent by content, each file replacing what it brought before."""

from __future__ import annotations

import logging
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from genodl_spark.core import session, storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.formats import matrix, sample_table, sequence_table
from genodl_spark.formats.vcf import reader
from genodl_spark.formats.vcf.header import Header
from genodl_spark.genome.builds import build_of
from genodl_spark.job.run import Run, now
from genodl_spark.lake.files import holding, may_hold
from genodl_spark.lake.tables import EXPRESSION, METHYLATION, QUARANTINE, SAMPLES, SEQUENCES, SOURCES, VARIANTS, partition_folder
from genodl_spark.pipelines.forget import refuse_withdrawn, take_back_withdrawn
from genodl_spark.sources.engine import SourceFile
from genodl_spark.sources.matrices import ingest_matrices
from genodl_spark.sources.names import named_files
from genodl_spark.sources.sequences import ingest_sequences
from genodl_spark.sources.vcf import check_builds, ingest_vcfs, options_of

log = logging.getLogger("genodl")

MATRICES = {"expression": EXPRESSION, "methylation": METHYLATION}
_TABLES = {reader.SOURCE: VARIANTS, **MATRICES, sequence_table.SOURCE: SEQUENCES, "phenotypes": SAMPLES}
SOURCE_KINDS = list(_TABLES)
_NAMES = {reader.SOURCE: reader.FILE_NAME, sequence_table.SOURCE: sequence_table.FILE_NAME}  # of the files that a directory stands for
_SUFFIX = re.compile(r"(\.[A-Za-z][0-9A-Za-z]*){1,2}$")
_EXAMPLES = 5
_TASKS_PER_SLOT = 4
_FEW_BYTES = 256 << 20  # of files that are hashed sooner here than by a Spark job
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Counts:
    """What one file brought: rows stored, and records set aside."""

    records: int
    quarantined: int = 0


def ingest(run: Run, source: str, paths: list[str], cohort: str | None, samples: str | None, block: str | None, reference: str | None = None) -> None:
    """Reads files of one kind into the lake. Files that the lake has with the same content, read the same way, are passed over."""
    if reference is not None and source != reader.SOURCE:
        raise InputError(f"found a FASTA for {source}; expected none, it aligns the alleles of vcf", "--reference")
    if block is not None and source not in MATRICES:
        raise InputError(f"found a block for {source}; expected none, blocks are for {', '.join(MATRICES)}", "--block")
    uris = _expand(run, paths, source)
    table = None if samples is None else _read_samples(samples)
    matrices = dict(zip(uris, _concurrently(_matrix_header, uris), strict=True)) if source in MATRICES else {}
    vcfs = (
        dict(zip(uris, _concurrently(partial(reader.header_of, strict=run.settings.ingest.strict), uris), strict=True))
        if source == reader.SOURCE
        else {}
    )
    sequences = dict(zip(uris, _concurrently(sequence_table.header_of, uris), strict=True)) if source == sequence_table.SOURCE else {}
    _tell_layouts(run, matrices)
    named = {uri: header.samples for uri, header in (matrices or vcfs).items()}
    if table is not None and samples is not None:
        for uri, order in named.items():
            extra = sample_table.check_covers(table, order, samples, uri)
            if extra and len(named) == 1:
                run.report.warn(f"{len(extra)} samples of {posixpath.basename(samples)} are not in {posixpath.basename(uri)}")
    tables = {uri: _read_samples(uri) for uri in uris} if source == "phenotypes" else {}
    name = cohort if cohort is not None else run.cohort(None, run.cohorts())
    if not name.strip():
        raise InputError("found an empty name; expected the cohort's name", "--cohort")
    partition_folder("cohort", name, "--cohort")
    if name == "__HIVE_DEFAULT_PARTITION__":  # read back as NULL from a partition
        raise InputError(f"found the reserved name {name}; expected another for the cohort", "--cohort")
    seen = run.lake.version(SOURCES)
    files = named_files(run, name, source, block or "", _source_files(run, uris), named)
    sample_files = [] if samples is None else _source_files(run, [storage.absolute(samples)])
    sample_files = named_files(run, name, "samples", "", sample_files, {})
    options = options_of(run, reference) if vcfs else ""
    fresh = _new(run, name, source, block or "", files, options)
    fresh_samples = _new(run, name, "samples", "", sample_files)
    if not fresh and not fresh_samples:
        run.report.status = "unchanged"
        for written in (_TABLES[source], SAMPLES, SOURCES):
            run.wrote(written, 0)
        return

    def refuse() -> None:
        for file in fresh:
            refuse_withdrawn(run, name, [*named.get(file.uri, []), *(tables[file.uri].rows if tables else [])], file.uri)
        if table is not None and samples is not None and fresh_samples:
            refuse_withdrawn(run, name, table.rows, samples)

    refuse()
    headers = {file: vcfs[file.uri] for file in fresh if vcfs}

    def settle() -> None:
        """Has runs that ingest into one cohort commit one after another, each to what it has checked: this one from here to its end.

        They read their files side by side. Conflict, InputError where what another has brought since this one looked changes what is to be done.
        """
        run.keep(f"cohort {name}")
        refuse()
        if run.lake.version(SOURCES) != seen:
            again = named_files(run, name, source, block or "", files, named), named_files(run, name, "samples", "", sample_files, {})
            if again != (files, sample_files):
                raise Conflict(f"found files of the same names just brought into cohort {name} by another run; expected none, run this one again")
            if headers:
                check_builds(run, name, headers)

    counts: dict[str, Counts] = {}
    if vcfs and fresh:
        check_builds(run, name, headers)
        counts = {key: Counts(b.rows, b.quarantined) for key, b in ingest_vcfs(run, name, headers, reference, settle).items()}
    if sequences and fresh:
        brought = ingest_sequences(run, name, {file: sequences[file.uri] for file in fresh}, settle)
        counts = {key: Counts(b.rows, b.quarantined) for key, b in brought.items()}
    if not counts:  # else that was done before the records were committed: what comes to light from then on is taken back below
        settle()
    if matrices and fresh:
        rows = ingest_matrices(run, MATRICES[source], name, block or "", {file: matrices[file.uri] for file in fresh}, refuse)
        counts = {file: Counts(count) for file, count in rows.items()}
    if source == "phenotypes":
        for alike in sample_table.joined([tables[file.uri] for file in fresh]):
            _merge_samples(run, name, alike)
        counts = {file.name: Counts(len(tables[file.uri].rows)) for file in fresh}
    manifest = [_manifest(name, source, block or "", f, counts[f.name], vcfs.get(f.uri), options) for f in fresh]
    if table is not None and fresh_samples:
        merged = _merge_samples(run, name, table)
        manifest += [_manifest(name, "samples", "", f, Counts(merged)) for f in fresh_samples]
    elif named and table is None:
        known = {sample for order in named.values() for sample in order}
        _merge_samples(run, name, sample_table.SampleTable([], {s: [] for s in sorted(known)}, {}))
    take_back_withdrawn(run, name, {*(one for order in named.values() for one in order), *(one for found in tables.values() for one in found.rows)})
    # The manifest comes last: a file is in it only when all that it brought is in the lake.
    run.lake.merge(SOURCES, run.frame(SOURCES, manifest))
    run.wrote(SOURCES, len(manifest))


def _concurrently(work: Callable[[T], U], items: list[T]) -> list[U]:
    """`work` on every item, several at a time: the items are files, perhaps thousands, perhaps far away. The first item's error wins."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(work, items))


def _expand(run: Run, paths: list[str], source: str) -> list[str]:
    """Absolute URIs of the files given, each once; a directory stands for the files in it and below that `_files_of` takes."""
    uris: list[str] = []
    for path in paths:
        uri = storage.absolute(path)
        found = storage.kind(uri)
        if found == "absent":
            raise InputError("no such file; expected a readable file or directory, check the path", path)
        uris += [uri] if found == "file" else _files_of(run, uri, source)
    if not uris:
        raise InputError(f"found no file of {source} in the directory; expected at least one, hidden ones do not count", paths[0])
    return list(dict.fromkeys(uris))


def _files_of(run: Run, folder: str, source: str) -> list[str]:
    """The files of a directory: none that are hidden, and of VCFs and sequence tables those named as such. Tells what it finds and what it leaves."""
    below, name = storage.files_under(folder), _NAMES.get(source, _SUFFIX)
    taken = [uri for uri in below if not storage.is_hidden(uri, folder) and (name.search(uri) or source not in _NAMES)]
    kinds = Counter(match.group().lower() if (match := name.search(uri)) else "" for uri in taken)
    log.info("%s: %s", folder, ", ".join(f"{count} files {kind}" for kind, count in sorted(kinds.items())) or "no file")
    counts = run.report.metrics.setdefault("files", {})
    for kind, count in kinds.items():
        counts[kind] = counts.get(kind, 0) + count
    known = set(taken)
    # The index or the checksum of a file has its name and one suffix more.
    left = [uri[len(folder) + 1 :] for uri in below if uri not in known and posixpath.splitext(uri)[0] not in known]
    if left:
        more = ", ..." if len(left) > _EXAMPLES else ""
        run.report.warn(f"passed over {len(left)} files of {folder} that are hidden or not named as {source}: {', '.join(left[:_EXAMPLES])}{more}")
    return taken


def _source_files(run: Run, uris: list[str]) -> list[SourceFile]:
    """The files with the hashes of their content: tasks read what would keep this process long."""
    sizes = _concurrently(storage.size, uris)
    if sum(sizes) <= _FEW_BYTES:
        hashes = _concurrently(storage.content_hash, uris)
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


def _new(run: Run, cohort: str, source: str, block: str, files: list[SourceFile], options: str = "") -> list[SourceFile]:
    if not files or not run.lake.exists(SOURCES):
        return files
    rows = run.lake.read(SOURCES).where("source <> ''").select("cohort", "source", "block", "file", "sha256", "options").collect()
    known = {row.file: (row.sha256, row.options) for row in rows if (row.cohort, row.source, row.block) == (cohort, source, block)}
    again = {file for file in files if known.get(file.name) == (file.sha256, options)}
    damaged = _damaged(run, cohort, source, {file.name for file in again}, known.keys()) if again else set()
    if damaged:
        run.report.warn(f"{len(damaged)} files are read again, as what the lake holds of them is damaged: {', '.join(sorted(damaged)[:5])}")
    return [file for file in files if file not in again or file.name in damaged]


def _damaged(run: Run, cohort: str, source: str, given: set[str], known: Iterable[str]) -> set[str]:
    """Names among `given` whose rows in the lake stand in a file that has changed since it was written; that file is given up.

    InputError where rows of others of the `known` stand there too, which nothing would bring back.
    """
    found: set[str] = set()
    for table in (_TABLES[source], QUARANTINE) if source in _TABLES and given else ():
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


def _manifest(
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


def _tell_layouts(run: Run, matrices: dict[str, matrix.Header]) -> None:
    """How the files are cut into cells: a metric, and a warning for what is not the usual way."""
    files: dict[str, list[str]] = {}
    for uri, header in matrices.items():
        files.setdefault(header.described(), []).append(posixpath.basename(uri))
    if files:
        run.report.metrics["read_as"] = {described: len(names) for described, names in files.items()}
    for described in {header.described(): None for header in matrices.values() if header.bare or header.decimal == ","}:
        first, *more = files[described]
        run.report.warn(f"{first}{f' and {len(more)} more files' if more else ''}: read with {described}")


def _read_samples(path: str) -> sample_table.SampleTable:
    with storage.open_input(storage.absolute(path)) as raw:
        return sample_table.read(raw, path)


def _matrix_header(uri: str) -> matrix.Header:
    with storage.open_input(uri) as raw:
        return matrix.read_header(raw, uri)


def _merge_samples(run: Run, cohort: str, table: sample_table.SampleTable) -> int:
    from pyspark.sql.types import StringType, StructField, StructType

    for old, new in table.renamed.items():
        run.report.warn(f"column {old!r} is stored as {new!r}")
    for note in table.notes:
        run.report.warn(note)
    names = ["cohort", "sample_id", *table.columns]
    schema = StructType([StructField(name, StringType(), name not in ("cohort", "sample_id")) for name in names])
    rows = [(cohort, sample, *values) for sample, values in table.rows.items()]
    run.lake.merge(SAMPLES, run.spark.createDataFrame(rows, schema))
    run.wrote(SAMPLES, len(rows))
    return len(rows)
