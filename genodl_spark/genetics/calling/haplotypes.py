"""Candidate alleles that lie close together, the haplotypes that they make, and how likely each makes the reads there.

Reads are aligned anew to every haplotype (Durbin et al. 1998, chapter 4; the model of Poplin et al. 2018,
doi:10.1101/201178): in and around indels, where an aligner put a read says little. Positions are 0-based, half-open.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genodl_spark.genetics.calling.alleles import Allele
from genodl_spark.genetics.calling.reads import REVERSE, SURE, Reads
from genodl_spark.native import kernels

NEAR = 10  # bases between alleles that are judged together
_MOST = 6  # alleles of a window, so at most 64 haplotypes
_FLANK, _BEYOND = 30, 70  # bases beside the altered part that reads are held against; that haplotypes have
EXTEND = 0.1  # that a gap goes on (GATK's)
_MISMAPPED = 10**-4.5  # no molecule says more than this for one haplotype and against another
# A read that even the likeliest haplotype makes by no less than four errors of Q40 is no read of this place, and says
# nothing, unless the aligner is sure of it. HaplotypeCaller has two errors; but its haplotypes have the variants in the
# flanks as well, ours those of a window.
FOREIGN = 10.0**-16
_MOST_MOLECULES = 400  # of a window; more say nothing new
PERIODS, UNITS = 6, 32


def gap_qualities() -> np.ndarray:
    """Phred-scaled chance that a read has a gap by error in a short repeat, uint8 (6, 32): by its period and by how
    many units it has; at [0, 1] that of a base in none. Polymerases slip the more, the longer a repeat and the shorter
    its unit (Montgomery et al. 2013, doi:10.1101/gr.148718.112)."""
    table = np.full((PERIODS, UNITS), 45.0)
    units = np.arange(UNITS)
    for period in range(1, PERIODS + 1):
        first, slope, least = {1: (4, 2.2, 8), 2: (3, 2.4, 12)}.get(period, (2, 2.2, 16))
        table[period - 1] = np.maximum(45 - slope * np.maximum(units - first, 0), least)
    return table.round().astype(np.uint8)


_GAPS = gap_qualities()
_SHARED = (10 * np.log10(np.maximum(np.arange(256), 1))).round().astype(np.uint8)
_ERRORS = 10.0 ** (-np.arange(256) / 10)
_ERRORS[:2] = 0.75, 0.75
_ERRORS = np.maximum(_ERRORS, 10**-4.5)


@dataclass(frozen=True)
class Window:
    """Alleles within [start, end), which is all that they can alter, however they are aligned."""

    start: int
    end: int
    alleles: tuple[Allele, ...]


def windows(alleles: Sequence[Allele], reference: np.ndarray, start: int) -> Iterator[Window]:
    """Alleles by place, those that are near each other together; reference uint8 letters from `start` on."""
    spans = [(*reach(allele, reference, start), allele) for allele in alleles]
    spans.sort(key=lambda one: (one[0], one[1], one[2]))
    group: list[tuple[int, int, Allele]] = []
    end = 0
    for one in spans:
        if group and one[0] > end + NEAR:
            yield from _split(group)
            group = []
        end = max(end, one[1]) if group else one[1]
        group.append(one)
    if group:
        yield from _split(group)


def reach(allele: Allele, reference: np.ndarray, start: int) -> tuple[int, int]:
    """The stretch within which an indel, which stands leftmost, may as well stand; of others what they replace."""
    if not allele.change or (allele.text and allele.end > allele.start):
        return allele.start, allele.end
    end, text = allele.end - start, np.frombuffer(allele.text, np.uint8)
    moved = 0
    unit = text if len(text) else reference[allele.start - start : end]
    while end + moved < len(reference) and reference[end + moved] == unit[moved % len(unit)]:
        moved += 1
    return allele.start, allele.end + moved


def _split(group: list[tuple[int, int, Allele]]) -> Iterator[Window]:
    """As many windows as keep each at a number of alleles whose haplotypes can all be tried."""
    if len(group) <= _MOST:
        yield _window(group)
        return
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(group)]
    if max(gaps) == 0:
        ranked = sorted(group, key=lambda one: (not one[2].forced, -one[2].reads, one))
        forced = sum(one[2].forced for one in group)  # of one place: no haplotype has two of them
        yield _window(sorted(ranked[: max(_MOST, forced)]))
        return
    # where the distance is the widest; of equal ones the most central
    at = max(range(len(gaps)), key=lambda k: (gaps[k], -abs(2 * k - len(gaps) + 1), -k)) + 1
    yield from _split(group[:at])
    yield from _split(group[at:])


def _window(group: list[tuple[int, int, Allele]]) -> Window:
    return Window(min(g[0] for g in group), max(g[1] for g in group), tuple(sorted(g[2] for g in group)))


@dataclass(frozen=True)
class Evidence:
    """Molecules of a window against its haplotypes. `carries` bool (K, A): which alleles each haplotype has, the first
    none; `likely` float64 (M, K): how likely a haplotype makes a molecule, 1 of the most likely one; `strand` int8 (M):
    0 of molecules that were read forward here, 1 backward, 2 both."""

    carries: np.ndarray
    likely: np.ndarray
    strand: np.ndarray


def evidence(
    window: Window, reads: Reads, reference: np.ndarray, start: int, gaps: np.ndarray | None = None
) -> Evidence:
    """What `reads` that overlap the window say of every haplotype of its alleles. `gaps`: a table as that of
    `gap_qualities`, which stands for none."""
    carries = _combinations(window.alleles)
    left = max(window.start - _BEYOND, start)
    right = min(window.end + _BEYOND, start + len(reference))
    stretch = reference[left - start : right - start].tobytes()
    texts = [_applied(stretch, left, window.alleles, row) for row in carries]
    starts = np.concatenate([[0], np.cumsum([len(t) for t in texts])]).astype(np.int64)
    chosen, of = _molecules(reads.name)
    at = np.ascontiguousarray(reads.at[chosen])
    likely = np.empty((len(at), len(texts)))
    bases = np.frombuffer(b"".join(texts), np.uint8)
    found = kernels.call(
        "likely", reads.data, at, len(at), bases, starts, len(texts), left, right, window.start, window.end,
        _FLANK, _GAPS if gaps is None else gaps, _SHARED, _ERRORS, EXTEND, likely,
    )  # fmt: skip
    if found < 0:
        raise MemoryError
    mismapped = np.maximum(10.0 ** (reads.mapq[chosen] / -10.0), _MISMAPPED)
    reverse = (reads.flag[chosen] & REVERSE) > 0
    strands = [np.bincount(of, which, int(of.max(initial=-1)) + 1) > 0 for which in (~reverse, reverse)]
    strand = np.where(strands[0] & strands[1], 2, strands[1]).astype(np.int8)
    least = np.where(reads.mapq[chosen] < SURE, FOREIGN, 0)
    return Evidence(carries, _together(likely, least, mismapped, of), strand)


def _molecules(name: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which reads to use, and the number of the molecule of each: all, or of very many the first by their hashes."""
    _, of = np.unique(name, return_inverse=True)
    chosen = np.flatnonzero(of < _MOST_MOLECULES)
    return chosen, of[chosen]


def _together(likely: np.ndarray, least: np.ndarray, mismapped: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Reads of a molecule are of one haplotype; those that no haplotype makes as likely as `least` say nothing."""
    best = likely.max(1, keepdims=True)
    relative = np.divide(likely, best, out=np.ones_like(likely), where=best > least[:, None])
    relative = np.maximum(relative, mismapped[:, None])
    molecules = int(of.max()) + 1 if len(of) else 0
    product = np.ones((molecules, likely.shape[1]))
    np.multiply.at(product, of, relative)
    found: np.ndarray = np.maximum(product / product.max(1, keepdims=True), _MISMAPPED)
    return found


def _combinations(alleles: Sequence[Allele]) -> np.ndarray:
    """Every set of alleles that can stand on one chromosome, bool (K, A), the empty one first."""
    found = [np.zeros(len(alleles), bool)]
    for number, allele in enumerate(alleles):
        for row in list(found):
            if all(_apart(alleles[other], allele) for other in np.flatnonzero(row)):
                more = row.copy()
                more[number] = True
                found.append(more)
    return np.array(found)


def _apart(one: Allele, other: Allele) -> bool:
    """Whether two alleles, the first no later than the second, can stand side by side."""
    return one.end <= other.start and one.start != other.start


def _applied(stretch: bytes, start: int, alleles: Sequence[Allele], carried: np.ndarray) -> bytes:
    at, parts = start, []
    for number in np.flatnonzero(carried):
        allele = alleles[number]
        parts += [stretch[at - start : allele.start - start], allele.text]
        at = allele.end
    return b"".join([*parts, stretch[at - start :]])
