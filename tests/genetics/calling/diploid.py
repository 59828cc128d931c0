"""Diploid genomes with known variants: a stretch of a reference, what differs on each of its two chromosomes, and the
truth as VCF and BED. Pure functions of a seed; tests and `tests/reference/calling.py` draw reads from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pysam

BASES = "ACGT"
LONGEST = 20
TRANSITION = dict(zip("ACGT", "GTAC", strict=True))


@dataclass(frozen=True)
class Rates:
    """How a genome differs from its reference. `snv`, `indel` and `clusters` are per base, the others are shares."""

    snv: float = 1 / 1000
    indel: float = 1 / 7000
    clusters: float = 1 / 15_000  # a variant that 1 to 3 others follow within 30 bases
    heterozygous: float = 2 / 3
    multi_allelic: float = 0.02
    transitions: float = 2 / 3
    long: float = 0.35  # indels of 8 to 20 bases, all as frequent; the rest halve in number with every base
    tandem: float = 0.4  # indels that add or take copies of a repeat
    margin: int = 1000  # no variant as near to the ends, where reads are few


@dataclass(frozen=True, order=True)
class Variant:
    """0-based `pos`; alleles as in VCF, left-aligned and as short as they can be; `genotype` by haplotype."""

    pos: int
    ref: str
    alts: tuple[str, ...]
    genotype: tuple[int, int]

    @property
    def end(self) -> int:
        return self.pos + len(self.ref)

    def allele(self, haplotype: int) -> str:
        return (self.ref, *self.alts)[self.genotype[haplotype]]

    def edit(self, haplotype: int) -> tuple[int, str, str]:
        """0-based place, bases taken away and bases put in of one haplotype, without those that stay: of two alleles of
        a site each by itself, as an aligner shows it."""
        taken, put = self.ref, self.allele(haplotype)
        behind = _alike(taken[::-1], put[::-1])
        taken, put = taken[: len(taken) - behind], put[: len(put) - behind]
        before = _alike(taken, put)
        return self.pos + before, taken[before:], put[before:]


@dataclass(frozen=True)
class Genome:
    """Two haplotypes of `contig`, 0-based half-open `start` to `end`, of the whole `reference` of the contig."""

    contig: str
    reference: str
    start: int
    end: int
    variants: list[Variant] = field(repr=False)

    def haplotype(self, which: int) -> tuple[np.ndarray, np.ndarray]:
        """Bases, uint8 ASCII (n,), and the 0-based reference position of each, int64 (n,), -1 where it is inserted."""
        bases, places, at = [], [], self.start
        for variant in self.variants:
            start, taken, put = variant.edit(which)
            both = min(len(taken), len(put))
            bases += [self.reference[at:start], put]
            places += [np.arange(at, start + both), np.full(len(put) - both, -1)]
            at = start + len(taken)
        bases.append(self.reference[at : self.end])
        places.append(np.arange(at, self.end))
        return np.frombuffer("".join(bases).encode(), np.uint8), np.concatenate(places).astype(np.int64)

    def confident(self) -> list[tuple[int, int]]:
        """The stretches, 0-based half-open, whose bases are known."""
        known = re.finditer("[^N]+", self.reference[self.start : self.end])
        return [(self.start + one.start(), self.start + one.end()) for one in known]


def _alike(one: str, other: str) -> int:
    """How many letters two texts begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def normalised(reference: str, pos: int, alleles: Sequence[str]) -> tuple[int, list[str]]:
    """Alleles moved to the left as far as they go and cut to the shortest that says the same (Tan et al. 2015)."""
    found = list(alleles)
    while len({one[-1] for one in found}) == 1 and (min(map(len, found)) > 1 or pos > 0):
        if min(map(len, found)) == 1:
            pos -= 1
            found = [reference[pos] + one for one in found]
        found = [one[:-1] for one in found]
    while min(map(len, found)) > 1 and len({one[0] for one in found}) == 1:
        pos, found = pos + 1, [one[1:] for one in found]
    return pos, found


def repeats(sequence: str) -> list[tuple[int, int, int]]:
    """Start, end and period, 1 to 6, of tandem repeats of 3 copies or more, 6 bases or more."""
    codes, found = np.frombuffer(sequence.encode(), np.uint8), []
    for period in range(1, 7):
        same = (codes[:-period] == codes[period:]) & (codes[period:] != ord("N"))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], same.view(np.int8), [0]])))
        for start, end in edges.reshape(-1, 2):
            unit = sequence[start : start + period]
            smaller = any(unit == unit[:d] * (period // d) for d in range(1, period) if period % d == 0)
            if end - start + period >= max(3 * period, 6) and not smaller:
                found.append((int(start), int(end) + period, period))
    return found


def genome(contig: str, reference: str, start: int, end: int, seed: int, rates: Rates = Rates()) -> Genome:
    """A genome of 0-based half-open `start` to `end` of the contig whose whole sequence is `reference`."""
    random = np.random.default_rng(seed)
    low, high = start + rates.margin, end - rates.margin
    length = max(0, high - low)
    tracts = repeats(reference[low:high])
    chance = np.cumsum([((e - s) / p) ** 2 for s, e, p in tracts])  # many copies change more often

    def tandem() -> tuple[int, int, int]:
        s, e, p = tracts[np.searchsorted(chance, random.random() * chance[-1], side="right")]
        return low + s, low + e, p

    draw = _Draw(reference, random, rates, tandem if tracts else None)
    wanted: list[tuple[int, bool]] = []
    for rate, indel in ((rates.indel, True), (rates.snv, False)):
        wanted += [(int(p), indel) for p in random.integers(low, max(high, low + 1), random.poisson(rate * length))]
    for first in random.integers(low, max(high, low + 1), random.poisson(rates.clusters * length)):
        steps = np.minimum(random.geometric(1 / 8, random.integers(1, 4)) + 1, 10)
        near = [int(first), *(int(first) + np.cumsum(steps)).tolist()]
        wanted += [(p, bool(random.random() < 0.2)) for p in near]
    taken, variants = np.zeros(len(reference) + 2, bool), []
    for pos, indel in wanted:
        variant = draw.indel(pos) if indel else draw.snv(pos)
        whole = reference[max(0, variant.pos - 50) : variant.end + 50] if variant else "N"
        if variant is None or "N" in whole or not low <= variant.pos < variant.end <= high:
            continue
        if not taken[variant.pos : variant.end + 2].any():  # a base at least stays between two of them
            taken[variant.pos + 1 : variant.end + 1] = True
            variants.append(variant)
    return Genome(contig, reference, start, end, sorted(variants))


@dataclass(frozen=True)
class _Draw:
    reference: str
    random: np.random.Generator
    rates: Rates
    tandem: Callable[[], tuple[int, int, int]] | None

    def snv(self, pos: int) -> Variant | None:
        ref = self.reference[pos]
        if ref not in BASES:
            return None
        change = TRANSITION[ref]
        others = [base for base in BASES if base not in (ref, change)]
        self.random.shuffle(others)
        ordered = [change, *others] if self.random.random() < self.rates.transitions else [*others, change]
        return self._variant(pos, ref, ordered[:2])

    def indel(self, pos: int) -> Variant | None:
        """One change, or two of the same place where the site has two alleles; a change is the bases taken away, how
        many, and those put in."""
        sizes = [self._size(), self._size()]
        if self.tandem is not None and self.random.random() < self.rates.tandem:
            start, end, period = self.tandem()
            changes = [one for size in sizes if (one := self._copies(start, end, period, size))]
            if changes:
                return self._changed(start - 1, changes)
        return self._changed(pos, [self._plain(pos, size) for size in sizes])

    def _size(self) -> int:
        if self.random.random() < self.rates.long:
            return int(self.random.integers(8, LONGEST + 1))
        return min(int(self.random.geometric(0.5)), 7)

    def _copies(self, start: int, end: int, period: int, size: int) -> tuple[int, str] | None:
        copies, there = max(1, round(size / period)), (end - start) // period
        if copies > there // 2 or copies * period > LONGEST:
            return None
        unit = self.reference[start : start + period]
        return (copies * period, "") if self.random.random() < 0.5 else (0, unit * copies)

    def _plain(self, pos: int, size: int) -> tuple[int, str]:
        kind = self.random.random()
        if kind < 0.5:
            return size, ""
        if kind < 0.75:
            return 0, self.reference[pos + 1 - size : pos + 1]
        return 0, "".join(self.random.choice(list(BASES), size))

    def _changed(self, anchor: int, changes: list[tuple[int, str]]) -> Variant | None:
        taken = max(count for count, _ in changes)
        stretch = self.reference[anchor : anchor + 1 + taken]
        if len(stretch) < 1 + taken or anchor < 1:
            return None
        return self._variant(anchor, stretch, [stretch[0] + put + stretch[1 + count :] for count, put in changes])

    def _variant(self, pos: int, ref: str, alts: list[str]) -> Variant | None:
        two = len(set(alts)) > 1 and ref not in alts and self.random.random() < self.rates.multi_allelic
        used = alts[: 2 if two else 1]
        if ref in used or "N" in "".join([ref, *used]):
            return None
        pos, (ref, *used) = normalised(self.reference, pos, [ref, *used])
        genotype = (1, 2) if two else (0, 1) if self.random.random() < self.rates.heterozygous else (1, 1)
        first, second = genotype if self.random.random() < 0.5 else genotype[::-1]
        return Variant(pos, ref, tuple(used), (first, second))


def records(of: Genome, contigs: dict[str, int], sample: str) -> Iterator[str]:
    """The lines of a VCF, phased genotypes."""
    yield "##fileformat=VCFv4.3"
    yield from (f"##contig=<ID={name},length={length}>" for name, length in contigs.items())
    yield '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">'
    yield "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", sample])
    for one in of.variants:
        genotype = "|".join(map(str, one.genotype))
        yield f"{of.contig}\t{one.pos + 1}\t.\t{one.ref}\t{','.join(one.alts)}\t.\tPASS\t.\tGT\t{genotype}"


def write_truth(of: Genome, folder: Path, contigs: dict[str, int], sample: str) -> tuple[Path, Path]:
    """`truth.vcf.gz`, indexed, and `confident.bed` in the folder."""
    plain, vcf, bed = folder / "truth.vcf", folder / "truth.vcf.gz", folder / "confident.bed"
    plain.write_text("\n".join(records(of, contigs, sample)) + "\n")
    pysam.tabix_compress(str(plain), str(vcf), force=True)
    pysam.tabix_index(str(vcf), preset="vcf", force=True)
    plain.unlink()
    bed.write_text("".join(f"{of.contig}\t{start}\t{end}\n" for start, end in of.confident()))
    return vcf, bed
