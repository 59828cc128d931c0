"""Source files into the lake: checked, idempotent by content, each file replacing what it brought before."""

from __future__ import annotations

import logging
import posixpath
import re
from collections import Counter
from functools import partial
from typing import Any

from genodl_spark import sources
from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import sample_table
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.job.run import Run
from genodl_spark.lake.entities import table_about
from genodl_spark.lake.schema import partition_folder
from genodl_spark.lake.tables.ingested import SOURCES
from genodl_spark.sources.arrival import Arrival, Lot
from genodl_spark.sources.engine import Counts
from genodl_spark.sources.manifest import concurrently, manifest_row, source_files
from genodl_spark.sources.phenotypes import BESIDE
from genodl_spark.sources.protocol import BLOCK, REFERENCE, TRACKS, TRUTH, SourceKind
from genodl_spark.sources.samples import merge_samples, read_samples

log = logging.getLogger("genodl")

_SUFFIX = re.compile(r"(\.[A-Za-z][0-9A-Za-z]*){1,2}$")
_EXAMPLES = 5


def ingest(
    run: Run,
    source: str,
    paths: list[str],
    cohort: str | None,
    samples: str | None,
    block: str | None,
    reference: str | None = None,
    may_be_empty: bool = False,
    tracks: list[str] | None = None,
    truth: str | None = None,
    confident: str | None = None,
) -> None:
    """Reads files of one kind into the lake. Files that the lake has with the same content,
    read the same way, are passed over. `may_be_empty`: there may be no such path,
    or no file of the kind. `tracks`: NAME=FILE each. `truth`: a VCF, `confident` where it is sure (BED)."""
    kind = sources.load(source)
    _refuse_options(kind, {REFERENCE: reference, BLOCK: block, TRACKS: tracks, TRUTH: truth or confident})
    named = _named_tracks(tracks or [])
    labelled = _labelled(truth, confident)
    uris = _expand(run, paths, kind, may_be_empty)
    if not uris:
        log.info("no file of %s in %s", kind.name, ", ".join(paths))
        run.report.status = "unchanged"
        return
    table = None if samples is None else read_samples(samples)
    headers = dict(zip(uris, concurrently(partial(kind.header, settings=run.settings), uris), strict=True))
    headers = kind.together(run, headers, table)
    if named:
        headers = kind.with_tracks(headers, named, reference)
    if labelled is not None:
        headers = kind.with_truth(headers, *labelled, reference)
    uris = list(headers)
    kind.tell(run, headers)
    options = [kind.all_options(run.settings, reference)]
    options += [f"{name}={uri} ({storage.size(uri)} bytes)" for name, uri in named.items()]
    if labelled is not None:
        options += [f"{name}={uri} ({storage.size(uri)} bytes)" for name, uri in zip(_LABELLED, labelled, strict=True)]
        options.append(f"call={run.settings.call.model_dump_json(include=_SHAPING)}")
    given = Lot(kind, [], headers, block or "", " ".join(filter(None, options)))
    if table is not None and samples is not None:
        _check_covers(run, given, table, samples)
    name = _cohort(run, cohort)
    given.files = source_files(run, kind, uris)
    beside = None
    if table is not None and samples is not None:
        uri = storage.absolute(samples)
        beside = Lot(BESIDE, source_files(run, BESIDE, [uri]), {uri: table}, place=samples, about=kind.about)
    arrival = Arrival(run, name, given, beside, reference)
    if arrival.is_known:
        run.report.status = "unchanged"
        for written in (kind.table, table_about(kind.about), SOURCES):
            run.wrote(written, 0)
        return
    arrival.refuse()
    arrival.check()
    counts: dict[str, Counts] = {}
    if given.fresh:
        counts = kind.bring(arrival, given.fresh_headers)
    else:
        arrival.settle()
    # From here on records are committed: what comes to light is taken back below.
    manifest = [
        manifest_row(name, kind, given.block, f, header, counts[f.name], given.options)
        for f, header in given.fresh_headers.items()
    ]
    described = kind.tables({file.uri: header for file, header in given.fresh_headers.items()})
    for said in described:
        merge_samples(run, name, said)
    if beside is not None and beside.fresh:
        merged = Counts(merge_samples(run, name, beside.headers[beside.files[0].uri], kind.about))
        manifest += [manifest_row(name, BESIDE, "", f, None, merged) for f in beside.fresh]
    elif given.samples and beside is None:
        known = {sample for order in given.samples.values() for sample in order}
        known -= {sample for said in described for sample in said.rows}
        if known or not described:
            merge_samples(run, name, SampleTable([], {s: [] for s in sorted(known)}, {}))
    arrival.take_back()
    # The manifest comes last: a file is in it only when all that it brought is in the lake.
    run.lake.merge(SOURCES, run.frame(SOURCES, manifest))
    run.wrote(SOURCES, len(manifest))


_LABELLED = ("truth", "confident")
_SHAPING = {"min_mapping_quality", "min_base_quality", "min_reads", "min_share", "depths", "added_errors"}


def _labelled(truth: str | None, confident: str | None) -> tuple[str, str] | None:
    """URIs of a truth and its confident regions, None without. InputError for one of them alone."""
    if truth is None and confident is None:
        return None
    if truth is None or confident is None:
        given, lacking = ("--confident", "--truth") if truth is None else ("--truth", "--confident")
        raise InputError(f"found none beside {given}; expected both, the truth and where it is sure", lacking)
    return storage.absolute(truth), storage.absolute(confident)


def _named_tracks(given: list[str]) -> dict[str, str]:
    """URIs by name of NAME=FILE each. InputError for what is said otherwise."""
    named: dict[str, str] = {}
    for text in given:
        name, equals, path = (part.strip() for part in text.partition("="))
        if not (name and equals and path) or name in named:
            found = f"{name} twice" if name in named else repr(text)
            raise InputError(
                f"found {found}; expected NAME=FILE, a name for the column and a bigWig, each name once", "--tracks"
            )
        named[name] = storage.absolute(path)
    return named


_EXPECTED = {
    REFERENCE: ("a FASTA", "alleles are held against it of"),
    BLOCK: ("a block", "blocks are for"),
    TRACKS: ("tracks", "their values are columns of"),
    TRUTH: ("a truth", "it labels candidates of"),
}


def _refuse_options(kind: SourceKind, options: dict[str, Any]) -> None:
    """InputError for an option that the kind does not take."""
    for option, value in options.items():
        if value is not None and option not in kind.takes:
            what, why = _EXPECTED[option]
            takers = ", ".join(name for name in sources.kinds() if option in sources.load(name).takes)
            raise InputError(f"found {what} for {kind.name}; expected none, {why} {takers}", f"--{option}")


def _check_covers(run: Run, given: Lot, table: SampleTable, path: str) -> None:
    """InputError where a sample table lacks somebody whom the files have data of."""
    orders = given.samples
    for uri, order in orders.items():
        extra = sample_table.check_covers(table, order, path, uri)
        if extra and len(orders) == 1:
            run.report.warn(f"{len(extra)} samples of {posixpath.basename(path)} are not in {posixpath.basename(uri)}")


def _cohort(run: Run, cohort: str | None) -> str:
    """The cohort named, else the only one of the lake. InputError for a name that cannot be stored."""
    if cohort is None:
        known = run.cohorts()
        if not known:
            raise InputError("found no cohort in the lake yet; expected the name of a new one, give it", "--cohort")
        cohort = run.cohort(None, known)
    if not cohort.strip():
        raise InputError("found an empty name; expected the cohort's name", "--cohort")
    partition_folder("cohort", cohort, "--cohort")
    if cohort == "__HIVE_DEFAULT_PARTITION__":  # read back as NULL from a partition
        raise InputError(f"found the reserved name {cohort}; expected another for the cohort", "--cohort")
    return cohort


def _expand(run: Run, paths: list[str], kind: SourceKind, may_be_empty: bool) -> list[str]:
    """Absolute URIs of the files given, each once; a directory stands for the files in it and below
    that `_files_of` takes. InputError for a path that is not there, and where there is no file, unless that may be."""
    uris: list[str] = []
    for path in paths:
        uri = storage.absolute(path)
        found = storage.kind(uri)
        if found == "absent":
            if may_be_empty:
                continue
            raise InputError("no such file; expected a readable file or directory, check the path", path)
        uris += [uri] if found == "file" else _files_of(run, uri, kind)
    belonging = {one for uri in uris for one in kind.beside(uri)}
    uris = [uri for uri in uris if uri not in belonging]
    if not uris and not may_be_empty:
        raise InputError(
            f"found no file of {kind.name} in the directory; expected at least one, hidden ones do not count", paths[0]
        )
    return list(dict.fromkeys(uris))


def _files_of(run: Run, folder: str, kind: SourceKind) -> list[str]:
    """The files of a directory: none that are hidden, and those named as the kind's are.
    Tells what it finds and what it leaves."""
    below, name = storage.files_under(folder), kind.files or _SUFFIX
    taken = [uri for uri in below if not storage.is_hidden(uri, folder) and kind.fits(uri)]
    suffixes = Counter(match.group().lower() if (match := name.search(uri)) else "" for uri in taken)
    log.info(
        "%s: %s",
        folder,
        ", ".join(f"{count} files {suffix}" for suffix, count in sorted(suffixes.items())) or "no file",
    )
    counts = run.report.metrics.setdefault("files", {})
    for suffix, count in suffixes.items():
        counts[suffix] = counts.get(suffix, 0) + count
    known = {one for uri in taken for one in (uri, *kind.beside(uri))}
    # The index or the checksum of a file has its name and one suffix more.
    left = [uri[len(folder) + 1 :] for uri in below if uri not in known and posixpath.splitext(uri)[0] not in known]
    if left:
        more = ", ..." if len(left) > _EXAMPLES else ""
        run.report.warn(
            f"passed over {len(left)} files of {folder} that are hidden or not named as {kind.name}: "
            f"{', '.join(left[:_EXAMPLES])}{more}"
        )
    return taken
