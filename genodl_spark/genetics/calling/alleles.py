"""What reads say of a stretch of a genome, base by base, and which alleles they make candidates.

Positions are 0-based, intervals half-open. An insertion or a deletion stands as far left as it goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.genetics.calling.reads import SURE, Reads
from genodl_spark.native import kernels

A, C, G, T, LOW, DELETED, INDEL, CLIPPED = range(8)  # what a pileup counts
_LETTERS = np.frombuffer(b"ACGT", np.uint8)
ALONE = 0.2  # share of the reads over a place from which on one read makes a candidate
_SURE, _FEWEST, _FOREIGN = 15, 5, 12  # quality of a base that counts as another; differences; bases to one of these
_LONGEST = 400  # bases of an inserted or deleted text that is a candidate; structural variants are none


@dataclass(frozen=True)
class Pileup:
    """What reads say of [start, start + L) of the reference. `reference` uint8 (L): letters, upper case.
    `counts` uint16 (L, 2 strands, 8): A, C, G, T of enough quality; lower or unknown; deleted; an insertion or deletion
    follows; a clip ends or begins. Events are insertions and deletions of single reads: `where` int32 the base before,
    `size` int32 bases inserted, or deleted if negative, `of` int32 the read, `text` int64 where its bases begin in
    `pool`."""

    start: int
    reference: np.ndarray
    counts: np.ndarray
    where: np.ndarray
    size: np.ndarray
    of: np.ndarray
    text: np.ndarray
    pool: np.ndarray

    @property
    def depth(self) -> np.ndarray:
        """Reads over each base, whatever they show, int64 (L)."""
        found: np.ndarray = self.counts[:, :, : DELETED + 1].sum((1, 2), dtype=np.int64)
        return found


@dataclass(frozen=True, order=True)
class Allele:
    """`text` in place of [start, end) of the reference. `reads` of those that show it, of `depth`. One that is `forced`
    is judged and answered whatever reads say."""

    start: int
    end: int
    text: bytes
    reads: int = 0
    depth: int = 0
    forced: bool = False

    @property
    def change(self) -> int:
        return len(self.text) - (self.end - self.start)


def foreign(reads: Reads, reference: np.ndarray, start: int) -> np.ndarray:
    """Which reads differ from the reference (uint8 letters, upper case, from `start` on) too often to be of this place,
    bool (R): five times or more, and once in `_FOREIGN` bases. None that the aligner is sure of, such as those of an
    allele of many bases."""
    differences, bases = np.empty(len(reads), np.int32), np.empty(len(reads), np.int32)
    kernels.call(
        "differences", reads.data, reads.at, len(reads), reference, start, len(reference), _SURE, differences, bases
    )
    found: np.ndarray = (differences >= _FEWEST) & (differences * _FOREIGN >= bases) & (reads.mapq < SURE)
    return found


def piled(reads: Reads, reference: np.ndarray, start: int, least_quality: int) -> Pileup:
    """The pileup of `reads` over reference letters uint8 (L), upper case, from `start` on."""
    length = len(reference)
    counts = np.zeros((length, 2, 8), np.uint16)
    room, pool_room = 1 << 14, 1 << 16
    while True:
        where, size, of = (np.empty(room, np.int32) for _ in range(3))
        text, pool = np.empty(room, np.int64), np.empty(pool_room, np.uint8)
        found = kernels.call(
            "pileup", reads.data, reads.at, len(reads), reference, start, length, least_quality, counts,
            room, where, size, of, text, pool_room, pool,
        )  # fmt: skip
        if found >= 0:
            return Pileup(start, reference, counts, where[:found], size[:found], of[:found], text[:found], pool)
        counts[:] = 0
        room, pool_room = room * 4, pool_room * 4


def candidates(pileup: Pileup, least_reads: int, least_share: float) -> list[Allele]:
    """Alleles that at least so many reads, and that share of those over the place, show; in order."""
    return sorted(_substitutions(pileup, least_reads, least_share) + _indels(pileup, least_reads, least_share))


def of_vcf(pos: int, ref: str, alt: str, reference: np.ndarray, start: int) -> Allele:
    """An allele of a VCF, `pos` 0-based, as candidates are: as short and as far left as it goes (Tan et al. 2015,
    doi:10.1093/bioinformatics/btv112). InputError where it is no text of bases or REF is not the reference's."""
    old, new = ref.upper().encode(), alt.upper().encode()
    if not new or set(new) - set(b"ACGT"):
        raise InputError(f"found the allele {alt}; expected bases, A, C, G and T")
    there = reference[max(pos - start, 0) : pos - start + len(old)].tobytes()
    if not old or there != old:
        raise InputError(f"found {ref} at {pos + 1}; expected what the reference has there, {there.decode()}")
    return leftmost(Allele(pos, pos + len(old), new), reference, start)


def leftmost(allele: Allele, reference: np.ndarray, start: int) -> Allele:
    """The same without what is the reference on either side; an insertion or deletion moved left as far as it goes."""
    first, last, text = allele.start - start, allele.end - start, bytearray(allele.text)
    while last > first and text and text[-1] == reference[last - 1]:
        last -= 1
        del text[-1]
    while last > first and text and text[0] == reference[first]:
        first += 1
        del text[0]
    if not text:
        while first > 1 and last > first and reference[first - 1] == reference[last - 1]:
            first, last = first - 1, last - 1
    elif first == last:
        turned = 0
        while first > 1 and reference[first - 1] == text[len(text) - 1 - turned % len(text)]:
            first, turned = first - 1, turned + 1
        last = first
        turned %= len(text)
        text = text[len(text) - turned :] + text[: len(text) - turned]
    return replace(allele, start=first + start, end=last + start, text=bytes(text))


def merged(alleles: Iterable[Allele]) -> list[Allele]:
    """Each allele once, in order: forced where one of the same is, with the reads of all that are the same."""
    found: dict[tuple[int, int, bytes], Allele] = {}
    for one in alleles:
        key = (one.start, one.end, one.text)
        if before := found.get(key):
            reads, depth = before.reads + one.reads, before.depth + one.depth
            one = replace(one, reads=reads, depth=depth, forced=before.forced or one.forced)
        found[key] = one
    return [found[key] for key in sorted(found)]


def _substitutions(pileup: Pileup, least_reads: int, least_share: float) -> list[Allele]:
    counts = pileup.counts[:, :, :4].sum(1, dtype=np.int64)
    depth = pileup.depth
    known = (pileup.reference[:, None] == _LETTERS).any(1)
    few = np.where(counts >= ALONE * depth[:, None], 1, least_reads)
    enough = (counts >= few) & (counts >= least_share * depth[:, None]) & known[:, None]
    enough &= pileup.reference[:, None] != _LETTERS
    at, base = np.nonzero(enough)
    return [
        Allele(pileup.start + p, pileup.start + p + 1, b"ACGT"[b : b + 1], int(counts[p, b]), int(depth[p]))
        for p, b in zip(at.tolist(), base.tolist(), strict=True)
    ]


def _indels(pileup: Pileup, least_reads: int, least_share: float) -> list[Allele]:
    if not len(pileup.where):
        return []
    hashed = _hashes(pileup)
    keys = np.empty(len(pileup.where), np.dtype([("where", "i4"), ("size", "i4"), ("text", "u8")]))
    keys["where"], keys["size"], keys["text"] = pileup.where, pileup.size, hashed
    unique, first, count = np.unique(keys, return_index=True, return_counts=True)
    depth = pileup.depth[unique["where"] - pileup.start]
    few = np.where(count >= ALONE * depth, 1, least_reads)
    enough = (count >= few) & (count >= least_share * depth) & (np.abs(unique["size"]) <= _LONGEST)
    found = []
    for k in np.flatnonzero(enough).tolist():
        anchor, size, event = int(unique["where"][k]), int(unique["size"][k]), int(first[k])
        at = int(pileup.text[event])
        text = pileup.pool[at : at + size].tobytes() if size > 0 else b""
        end = anchor + 1 - min(size, 0)
        spanned = pileup.reference[anchor - pileup.start : end - pileup.start + 1].tobytes()
        if b"N" not in text and b"N" not in spanned:
            found.append(Allele(anchor + 1, end, text, int(count[k]), int(depth[k])))
    return found


def _hashes(pileup: Pileup) -> np.ndarray:
    """A hash of the inserted bases of each event, uint64; 0 of deletions."""
    sizes = np.maximum(pileup.size, 0).astype(np.int64)
    ends = np.cumsum(sizes)
    event = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    letters = pileup.pool[np.repeat(pileup.text, sizes) + place].astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = (letters + np.uint64(1)) * (place.astype(np.uint64) * np.uint64(2) + np.uint64(0x9E3779B97F4A7C15))
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
    found = np.zeros(len(sizes), np.uint64)
    np.add.at(found, event, mixed)
    return found
