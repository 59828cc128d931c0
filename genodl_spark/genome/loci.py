"""Where sequences and variants lie on a genome, as their names or columns of theirs say, and which are neighbours.

Names of windows are `chr1:1000-1200`, as browsers and bedtools write them, also behind `NAME::` and with a strand,
`(+)`, at the end; of variants `chrom:pos:ref:alt`. Some count a window's first base from 0 and some from 1: either is
taken as it is written, so that a start may be one base off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from genodl_spark.genome.contigs import shared_contig

_WINDOW = re.compile(r"(?:.*::)?([^\s:]+):([0-9]{1,15})-([0-9]{1,15})(?:\([+.-]\))?")
_VARIANT = re.compile(r"([^\s:]+):([0-9]{1,15}):([A-Za-z]+|-):[^\s:]+(?::.*)?")
_CONTIG = 1 << 40  # more bases than a contig has


@dataclass(frozen=True)
class Loci:
    """`contig` str (n,) by the name that cohorts share, empty where a place is not known; `start`, `end` int64 (n,):
    0-based, half-open."""

    contig: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.contig)

    @property
    def known(self) -> np.ndarray:
        """bool (n,)"""
        found: np.ndarray = self.contig != ""
        return found

    def __getitem__(self, rows: np.ndarray) -> Loci:
        return Loci(self.contig[rows], self.start[rows], self.end[rows])

    def __add__(self, more: Loci) -> Loci:
        pairs = ((self.contig, more.contig), (self.start, more.start), (self.end, more.end))
        return Loci(*(np.concatenate(pair) for pair in pairs))

    @classmethod
    def of(cls, places: Iterable[tuple[str, int, int] | None]) -> Loci:
        """Of (contig, start, end), each under any of its contig's names; None, or an empty window, is not known."""
        found = [("", 0, 0) if place is None or place[1] >= place[2] else place for place in places]
        contigs = np.array([shared_contig(contig) if contig else "" for contig, _, _ in found], str)
        return cls(contigs, *(np.array([place[i] for place in found], np.int64) for i in (1, 2)))


NOWHERE = Loci.of(())


def window(name: str) -> tuple[str, int, int] | None:
    """What a name of a sequence says, None for one that names no place."""
    match = _WINDOW.fullmatch(name)
    return None if match is None else (match[1], int(match[2]), int(match[3]))


def variant(name: str) -> tuple[str, int, int] | None:
    """The bases of REF that a name of a variant says; of an insertion without one the base before it."""
    match = _VARIANT.fullmatch(name)
    return None if match is None else (match[1], int(match[2]) - 1, int(match[2]) - 1 + len(match[3]))


def neighbours(loci: Loci, within: int) -> np.ndarray:
    """Numbers of groups from 0, int64 (n,), -1 where a place is not known: those of one hang together by windows
    with at most `within` bases between one and the next on a contig."""
    found = np.full(len(loci), -1, np.int64)
    rows = np.flatnonzero(loci.known)
    if not len(rows):
        return found
    contig = np.unique(loci.contig[rows], return_inverse=True)[1].astype(np.int64) * _CONTIG
    order = np.lexsort((loci.start[rows], contig))
    start, end = (contig + loci.start[rows])[order], (contig + loci.end[rows])[order]
    reached = np.maximum.accumulate(end)
    begins = np.append(True, start[1:] - reached[:-1] > within)
    # the last of one contig reaches less far than the next contig begins
    found[rows[order]] = np.cumsum(begins) - 1
    return found


def merged(loci: Loci) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By contig the bases that some windows cover, as windows apart from each other: starts and ends int64 (k,)."""
    group = neighbours(loci, 0)
    rows = np.flatnonzero(group >= 0)
    if not len(rows):
        return {}
    order = rows[np.argsort(group[rows], kind="stable")]
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    start, end = np.minimum.reduceat(loci.start[order], first), np.maximum.reduceat(loci.end[order], first)
    contigs = loci.contig[order][first]
    return {str(name): (start[contigs == name], end[contigs == name]) for name in np.unique(contigs)}


def union(intervals: np.ndarray) -> np.ndarray:
    """Intervals [start, end) of one contig, int64 (n, 2), sorted, those that touch or overlap made one."""
    if not len(intervals):
        return intervals.reshape(0, 2)
    rows = intervals[np.lexsort((intervals[:, 1], intervals[:, 0]))]
    reach = np.maximum.accumulate(rows[:, 1])
    first = np.concatenate([[True], rows[1:, 0] > reach[:-1]])
    return np.stack([rows[first, 0], reach[np.concatenate([first[1:], [True]])]], axis=1)


def covered(starts: np.ndarray, ends: np.ndarray, over: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Which windows [start, end) meet one of `over`, as `merged` has those of their contig: bool (n,)."""
    if over is None:
        return np.zeros(len(starts), bool)
    place = np.searchsorted(over[1], starts, side="right")  # the first that ends behind the start
    last = np.minimum(place, len(over[0]) - 1)
    found: np.ndarray = (place < len(over[0])) & (over[0][last] < ends)
    return found
