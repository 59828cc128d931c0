"""Reads of a simulated genome, aligned where they come from: BAM and CRAM in a second, without an aligner. Where an
indel is near the end of a read it is aligned as well, which real aligners seldom manage; `simulated_reads` of
`tests/reference` has those. Pure functions of a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pysam

from tests.genetics.calling.diploid import Genome, Variant

MATCH, INSERTION, DELETION, CLIPPED = 0, 1, 2, 4
PAIRED, PROPER, REVERSE, MATE_REVERSE, FIRST, SECOND, DUPLICATE = 0x1, 0x2, 0x10, 0x20, 0x40, 0x80, 0x400
LETTERS = np.frombuffer(b"ACGT", np.uint8)


@dataclass(frozen=True)
class Machine:
    """How a genome is read: pairs of reads of `length` from fragments of `insert` +- `spread` bases. Qualities take the
    `levels`; the chance of a worse one grows with the square of the cycle, up to `worse` at the end. A base of quality
    q is wrong with a chance of 10^(-q/10). `duplicates`: share of pairs that come twice and are marked. `unsure`: share
    of pairs with mapping quality 0, `sure` that of the others."""

    depth: float = 30
    length: int = 100
    insert: float = 300
    spread: float = 40
    levels: tuple[int, ...] = (37, 25, 12)
    worse: float = 0.15
    duplicates: float = 0
    unsure: float = 0
    sure: int = 60


@dataclass(frozen=True)
class Read:
    """An aligned read, 0-based `pos`; bases and qualities uint8 (length,), on the strand of the reference."""

    name: str
    flag: int
    pos: int
    mapq: int
    cigar: tuple[tuple[int, int], ...]
    bases: np.ndarray
    qualities: np.ndarray
    mate: int = -1
    template: int = 0
    group: str = ""

    @property
    def end(self) -> int:
        return self.pos + sum(size for kind, size in self.cigar if kind in (MATCH, DELETION))


def cigar(places: np.ndarray) -> tuple[int, tuple[tuple[int, int], ...]]:
    """The 0-based start and the CIGAR of a read whose bases have the reference positions `places`, int64 (n,), -1 where
    inserted; what is inserted at an end is clipped. ValueError for a read without a base of the reference."""
    known = np.flatnonzero(places >= 0)
    if not len(known):
        raise ValueError("no base of the reference")
    first, last = int(known[0]), int(known[-1])
    found: list[tuple[int, int]] = [(CLIPPED, first)] if first else []
    steps = np.flatnonzero(np.diff(known) > 1) + 1  # where something is inserted
    jumps = np.flatnonzero(np.diff(places[known]) > 1) + 1  # where something is deleted
    cuts = np.unique(np.concatenate([[0], steps, jumps, [len(known)]])).astype(int)
    for start, end in pairwise(cuts):
        if start:
            before, here = known[start - 1], known[start]
            found += [(INSERTION, int(here - before - 1))] if here - before > 1 else []
            gap = int(places[here] - places[before] - 1)
            found += [(DELETION, gap)] if gap else []
        found.append((MATCH, int(end - start)))
    return int(places[first]), (*found, *([(CLIPPED, len(places) - 1 - last)] if last < len(places) - 1 else []))


def misread(
    bases: np.ndarray, reverse: np.ndarray, of: Machine, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Bases and qualities, uint8 (n, length), as the machine tells them of true bases; `reverse` bool (n,)."""
    cycle = np.arange(1, of.length + 1) / of.length
    worse = of.worse * np.where(reverse[:, None], cycle[::-1] ** 2, cycle**2)
    level = (random.random((len(of.levels) - 1, *bases.shape)) < worse).sum(0)
    qualities = np.array(of.levels, np.uint8)[level]
    wrong = (random.random(bases.shape) < 10 ** (qualities / -10.0)) & (bases != ord("N"))
    found = bases.copy()
    shift = random.integers(1, 4, int(wrong.sum()))
    found[wrong] = LETTERS[(np.searchsorted(LETTERS, bases[wrong]) + shift) % 4]
    return found, qualities


def sequenced(genome: Genome, seed: int, of: Machine = Machine(), prefix: str = "r", group: str = "") -> list[Read]:
    """Pairs of both haplotypes, half of them from each, in the order of their positions."""
    random, found = np.random.default_rng(seed), []
    for which in (0, 1):
        bases, places = genome.haplotype(which)
        n = random.poisson(of.depth * len(bases) / (4 * of.length))
        size = np.maximum(np.rint(random.normal(of.insert, of.spread, n)), of.length).astype(int)
        start = np.floor(random.random(n) * (len(bases) - size + 1)).astype(int)
        strand = random.random(n) < 0.5  # the first read is that of the end
        mapq = np.where(random.random(n) < of.unsure, 0, of.sure)
        twice = random.random(n) < of.duplicates
        ends = np.stack([start, start + size - of.length], 1)
        columns = ends.reshape(-1, 1) + np.arange(of.length)
        for copy in (False, True):
            told, qualities = misread(bases[columns], np.tile([False, True], n), of, random)
            for one in np.flatnonzero(twice) if copy else range(n):
                rows = 2 * one, 2 * one + 1
                if min(places[columns[row]].max() for row in rows) < 0:  # within an insertion
                    continue
                at = [cigar(places[columns[row]]) for row in rows]
                found += _pair(
                    f"{prefix}{which}_{one}{'d' * copy}", at, [told[r] for r in rows], [qualities[r] for r in rows],
                    bool(strand[one]), int(mapq[one]), DUPLICATE * copy, group,
                )  # fmt: skip
    return sorted(found, key=lambda read: (read.pos, read.name, read.flag))


def _pair(
    name: str,
    at: Sequence[tuple[int, tuple[tuple[int, int], ...]]],
    bases: Sequence[np.ndarray],
    qualities: Sequence[np.ndarray],
    swapped: bool,
    mapq: int,
    flag: int,
    group: str,
) -> list[Read]:
    left, right = (
        Read(name, PAIRED | PROPER | flag, pos, mapq, how, bases[k], qualities[k], group=group)
        for k, (pos, how) in enumerate(at)
    )
    span = max(left.end, right.end) - left.pos
    order = (SECOND, FIRST) if swapped else (FIRST, SECOND)
    return [
        replace(left, flag=left.flag | MATE_REVERSE | order[0], mate=right.pos, template=span),
        replace(right, flag=right.flag | REVERSE | order[1], mate=left.pos, template=-span),
    ]


def over(
    variant: Variant,
    reference: str,
    supporting: int,
    others: int,
    seed: int | Sequence[int],
    of: Machine = Machine(),
    strand: bool | None = None,
    group: str = "",
) -> list[Read]:
    """Unpaired reads over one variant, of which so many have its first ALT and the others REF; 10 bases at least on
    either side of it. `strand`: all on the reverse one or none, by chance if None."""
    random, found = np.random.default_rng(seed), []
    low, high = variant.pos - of.length, variant.end + of.length
    for allele, count in ((variant.alts[0], supporting), (variant.ref, others)):
        whole = Genome("", reference, low, high, [replace(variant, alts=(allele,), genotype=(1, 1))])
        bases, places = whole.haplotype(0)
        start = random.integers(len(allele) + 10, of.length - 10 + 1, count)
        reverse = random.random(count) < 0.5 if strand is None else np.full(count, strand)
        columns = start[:, None] + np.arange(of.length)
        told, qualities = misread(bases[columns], reverse, of, random)
        for one in range(count):
            pos, how = cigar(places[columns[one]])
            name = f"{variant.pos}_{'ref' if allele == variant.ref else 'alt'}{one}"
            found.append(
                Read(name, REVERSE * bool(reverse[one]), pos, of.sure, how, told[one], qualities[one], group=group)
            )
    return sorted(found, key=lambda read: (read.pos, read.name))


def header(contigs: Mapping[str, str | int], groups: Mapping[str, str]) -> dict[str, object]:
    """Of contigs, by sequence, with its MD5, or by length alone; sample of each read group."""
    lines = [
        {"SN": name, "LN": of}
        if isinstance(of, int)
        else {"SN": name, "LN": len(of), "M5": hashlib.md5(of.encode()).hexdigest()}
        for name, of in contigs.items()
    ]
    return {
        "HD": {"VN": "1.6", "SO": "coordinate"},
        "SQ": lines,
        "RG": [{"ID": group, "SM": sample} for group, sample in groups.items()],
    }


def write(
    path: Path, reads: Mapping[str, Iterable[Read]], head: Mapping[str, object], fasta: Path | None = None
) -> Path:
    """An indexed file of reads by contig, each contig's in the order of positions; CRAM, against the FASTA, where the
    name ends so."""
    mode, given = ("wc", {"reference_filename": str(fasta)}) if path.suffix == ".cram" else ("wb", {})
    with pysam.AlignmentFile(str(path), mode, header=dict(head), **given) as file:
        for contig, of in reads.items():
            number = file.get_tid(contig)
            for read in of:
                line = pysam.AlignedSegment(file.header)
                line.query_name, line.flag, line.reference_id, line.reference_start = (
                    read.name,
                    read.flag,
                    number,
                    read.pos,
                )
                line.mapping_quality, line.cigartuples = read.mapq, list(read.cigar)
                line.query_sequence = read.bases.tobytes().decode()
                line.query_qualities = pysam.qualitystring_to_array(
                    (read.qualities + 33).astype(np.uint8).tobytes().decode()
                )
                if read.flag & PAIRED:
                    line.next_reference_id, line.next_reference_start = number, read.mate
                    line.template_length = read.template
                if read.group:
                    line.set_tag("RG", read.group)
                file.write(line)
    pysam.index(str(path))
    return path
