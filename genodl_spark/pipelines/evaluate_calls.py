"""Calls of one person compared with a truth, by hap.py's definitions: files to metrics, in pieces of the genome.

Both files are read once, side by side, in the order of the reference's contigs; no index is needed. Memory holds some
pieces of a few thousand records with the reference around them, and the confident regions. Large files are counted by
Spark tasks, which get whole pieces and read nothing; small ones here, without a session.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import numpy as np

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError, Refused
from genodl_spark.formats.intervals import read_bed
from genodl_spark.formats.vcf.sample_calls import Calls, calls_of
from genodl_spark.genetics.calling import evaluation, matching
from genodl_spark.genetics.calling.evaluation import Call, Piece, Tally
from genodl_spark.genome.reference import Reference
from genodl_spark.job.run import Run

log = logging.getLogger("genodl")
_LARGE = 32 << 20  # bytes of both files, as stored, from which on tasks count
_AT_ONCE = 4  # pieces of a task


def evaluate_calls(run: Run, query: str, truth: str, reference: str, confident: str | None) -> None:
    """Counts the calls of `query` against those of `truth`, within the regions of the BED `confident` where there is
    one; metrics go into the report. InputError for files that cannot be compared."""
    bases = Reference(storage.local_path(reference) if storage.is_local(reference) else reference)
    numbers = {contig: number for number, contig in enumerate(bases.reaches)}
    files = calls_of(truth), calls_of(query)
    regions = None if confident is None else _regions(run, confident, numbers)
    sides = (_in_order(file, numbers, bases) for file in files)
    pieces = (_piece(bases, files, regions, *found) for found in evaluation.pieces(*sides))
    tally = Tally()
    for part in _tallies(run, pieces, sum(storage.size(uri) for uri in (truth, query)) >= _LARGE):
        tally.add(part)
    for file in files:
        for reason, records in sorted(file.passed_over.items()):
            run.report.warn(f"{records} records of {file.uri} are left out: {reason}")
    if tally.bounded:
        found = f"{tally.bounded} of {tally.clusters} clusters were too entangled to compare their haplotypes"
        run.report.warn(f"{found}: they are compared by normalised allele and genotype")
    run.report.metrics["files"] = {"query": query, "truth": truth, "reference": reference, "confident": confident}
    run.report.metrics.update(evaluation.metrics(tally, run.settings.seed, files[1].scored_by))
    if not run.report.metrics["n_test"]:
        run.report.warn("no variant of the truth is within the confident regions: nothing tells what was missed")
    for kind, row in run.report.metrics["counts"].items():
        log.info("%s, PASS: %s", kind, ", ".join(f"{name} {row['PASS'][name]}" for name in evaluation.COLUMNS))


def _plain(contig: str) -> str:
    name = contig.removeprefix("chr")
    return "MT" if name == "M" else name


def _regions(run: Run, uri: str, numbers: dict[str, int]) -> dict[str, np.ndarray]:
    """Confident intervals by contig, as the reference names them without chr."""
    found = {_plain(contig): intervals for contig, intervals in read_bed(uri).items()}
    strange = sorted(found.keys() - numbers.keys())
    if found and len(strange) == len(found):
        known = ", ".join(list(numbers)[:3])
        raise InputError(f"found contigs {', '.join(strange[:3])}; expected those of the reference: {known}", uri)
    if strange:
        run.report.warn(f"{len(strange)} contigs of {uri} are not in the reference, such as {strange[0]}")
    return found


def _in_order(file: Calls, numbers: dict[str, int], bases: Reference) -> Iterator[tuple[int, str, Call]]:
    """Calls with the number of their contig. InputError for a contig that the reference lacks, or has before."""
    last = -1
    for contig, call in file:
        name = _plain(contig)
        number = numbers.get(name)
        if number is None:
            found = f"found contig {contig}, which the reference lacks; expected one of {bases.said()}"
            raise InputError(f"{found}: take the reference that was called against", file.uri, call.line)
        if number < last:
            before = next(name for name, at in numbers.items() if at == last)
            found = f"found contig {contig} behind {before}; expected contigs in the reference's order"
            raise InputError(f"{found}: sort the file so", file.uri, call.line)
        last = number
        yield number, name, call


def _piece(
    bases: Reference,
    files: tuple[Calls, Calls],
    regions: dict[str, np.ndarray] | None,
    contig: str,
    truth: list[Call],
    query: list[Call],
) -> Piece:
    """A piece with its bases and regions. InputError for a REF that the reference does not have there."""
    flank = matching.SHIFT + matching.GAP
    everything = [*((files[0], call) for call in truth), *((files[1], call) for call in query)]
    first = min(call.variant.position - 1 for _, call in everything)
    last = max(call.variant.position - 1 + len(call.variant.ref) for _, call in everything)
    end = bases.reaches[contig][0]
    for file, call in everything:
        if call.variant.position < 1 or call.variant.position - 1 + len(call.variant.ref) > end:
            found = (
                f"found REF at {contig}:{call.variant.position}; expected it within the reference, which ends at {end}"
            )
            raise InputError(f"{found}: take the reference that was called against", file.uri, call.line)
    try:
        before, behind = bases.around(contig, first, last, flank)
        text = (before + bases.fetch(contig, first, last) + behind).upper()
    except Refused as refused:
        raise InputError(str(refused), everything[0][0].uri, everything[0][1].line) from refused
    start = first - len(before)
    for file, call in everything:
        ref = call.variant.ref
        there = text[call.variant.position - 1 - start :][: len(ref)]
        if ref != there and any(a != b and 78 not in (a, b) for a, b in zip(ref, there, strict=True)):
            shown, expected = (one[:20].decode("ascii", "replace") for one in (ref, there))
            found = (
                f"found REF {shown} at {contig}:{call.variant.position}; expected {expected}, as the reference has it"
            )
            raise InputError(f"{found}: take the reference that was called against", file.uri, call.line)
    intervals = None
    if regions is not None:
        intervals = regions.get(contig, np.empty((0, 2), np.int64))
        intervals = intervals[
            np.searchsorted(intervals[:, 1], first - 1, "left") : np.searchsorted(intervals[:, 0], last + 1, "right")
        ]
    return Piece(contig, start + 1, text, truth, query, intervals)


def _tallies(run: Run, pieces: Iterator[Piece], large: bool) -> Iterator[Tally]:
    if not large:
        yield from map(evaluation.tallied, pieces)
        return
    from genodl_spark.core.session import task_slots

    tasks = 2 * task_slots(run.spark)
    while taken := list(itertools.islice(pieces, tasks * _AT_ONCE)):
        found = run.spark.sparkContext.parallelize(taken, min(tasks, len(taken))).map(evaluation.tallied)
        yield from found.collect()
