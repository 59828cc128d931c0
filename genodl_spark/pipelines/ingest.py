"""Source files into the lake: checked, idempotent by content, each file replacing what it brought before."""

from __future__ import annotations

import logging
import posixpath
import re
from collections import Counter
from functools import partial

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.formats import matrix, sample_table, sequence_table
from genodl_spark.formats.vcf import reader
from genodl_spark.job.run import Run
from genodl_spark.lake.entities import kind_of, table_about
from genodl_spark.lake.schema import partition_folder
from genodl_spark.lake.tables.ingested import SOURCES
from genodl_spark.sources.consent import refuse_withdrawn, take_back_withdrawn
from genodl_spark.sources.manifest import FILLED, Counts, concurrently, manifest_row, new_files, source_files
from genodl_spark.sources.matrices import MATRICES, ingest_matrices
from genodl_spark.sources.names import named_files
from genodl_spark.sources.samples import merge_samples, read_samples
from genodl_spark.sources.sequences import ingest_sequences
from genodl_spark.sources.vcf import check_builds, ingest_vcfs, options_of

log = logging.getLogger("genodl")

_NAMES = {reader.SOURCE: reader.FILE_NAME, sequence_table.SOURCE: sequence_table.FILE_NAME}  # of the files that a directory stands for
_SUFFIX = re.compile(r"(\.[A-Za-z][0-9A-Za-z]*){1,2}$")
_EXAMPLES = 5


def ingest(run: Run, source: str, paths: list[str], cohort: str | None, samples: str | None, block: str | None, reference: str | None = None) -> None:
    """Reads files of one kind into the lake. Files that the lake has with the same content, read the same way, are passed over."""
    if reference is not None and source != reader.SOURCE:
        raise InputError(f"found a FASTA for {source}; expected none, it aligns the alleles of vcf", "--reference")
    if block is not None and source not in MATRICES:
        raise InputError(f"found a block for {source}; expected none, blocks are for {', '.join(MATRICES)}", "--block")
    uris = _expand(run, paths, source)
    table = None if samples is None else read_samples(samples)
    matrices = dict(zip(uris, concurrently(_matrix_header, uris), strict=True)) if source in MATRICES else {}
    vcfs = (
        dict(zip(uris, concurrently(partial(reader.header_of, strict=run.settings.ingest.strict), uris), strict=True))
        if source == reader.SOURCE
        else {}
    )
    sequences = dict(zip(uris, concurrently(sequence_table.header_of, uris), strict=True)) if source == sequence_table.SOURCE else {}
    _tell_layouts(run, matrices)
    named = {uri: header.samples for uri, header in (matrices or vcfs).items()}
    if table is not None and samples is not None:
        for uri, order in named.items():
            extra = sample_table.check_covers(table, order, samples, uri)
            if extra and len(named) == 1:
                run.report.warn(f"{len(extra)} samples of {posixpath.basename(samples)} are not in {posixpath.basename(uri)}")
    tables = {uri: read_samples(uri) for uri in uris} if source == "phenotypes" else {}
    name = cohort if cohort is not None else run.cohort(None, run.cohorts())
    if not name.strip():
        raise InputError("found an empty name; expected the cohort's name", "--cohort")
    partition_folder("cohort", name, "--cohort")
    if name == "__HIVE_DEFAULT_PARTITION__":  # read back as NULL from a partition
        raise InputError(f"found the reserved name {name}; expected another for the cohort", "--cohort")
    kind = kind_of([FILLED[source].name])
    seen = run.lake.version(SOURCES)
    files = named_files(run, name, source, block or "", source_files(run, uris), named)
    sample_files = [] if samples is None else source_files(run, [storage.absolute(samples)])
    sample_files = named_files(run, name, "samples", "", sample_files, {})
    options = options_of(run, reference) if vcfs else ""
    fresh = new_files(run, name, source, block or "", files, options)
    fresh_samples = new_files(run, name, "samples", "", sample_files)
    if not fresh and not fresh_samples:
        run.report.status = "unchanged"
        for written in (FILLED[source], table_about(kind), SOURCES):
            run.wrote(written, 0)
        return

    def refuse() -> None:
        for file in fresh:
            refuse_withdrawn(run, name, [*named.get(file.uri, []), *(tables[file.uri].rows if tables else [])], file.uri)
        if table is not None and samples is not None and fresh_samples:
            refuse_withdrawn(run, name, table.rows, samples, kind)

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
            merge_samples(run, name, alike)
        counts = {file.name: Counts(len(tables[file.uri].rows)) for file in fresh}
    manifest = [manifest_row(name, source, block or "", f, counts[f.name], vcfs.get(f.uri), options) for f in fresh]
    if table is not None and fresh_samples:
        merged = merge_samples(run, name, table, kind)
        manifest += [manifest_row(name, "samples", "", f, Counts(merged)) for f in fresh_samples]
    elif named and table is None:
        known = {sample for order in named.values() for sample in order}
        merge_samples(run, name, sample_table.SampleTable([], {s: [] for s in sorted(known)}, {}))
    take_back_withdrawn(run, name, {*(one for order in named.values() for one in order), *(one for found in tables.values() for one in found.rows)})
    # The manifest comes last: a file is in it only when all that it brought is in the lake.
    run.lake.merge(SOURCES, run.frame(SOURCES, manifest))
    run.wrote(SOURCES, len(manifest))


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


def _matrix_header(uri: str) -> matrix.Header:
    with storage.open_input(uri) as raw:
        return matrix.read_header(raw, uri)
