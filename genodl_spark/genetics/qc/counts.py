"""Quality control of a cohort's genotypes: variants, samples, pairs of samples, axes of ancestry, linkage. Pure NumPy and SciPy.

Genotypes come in blocks of variants: `dosages` int8 (V, S), copies of the counted allele in diploid calls, -1 missing. Whatever is
asked of a cohort is a sum over its variants, so every block gives a part, and parts add up in any order and division to the same
numbers; only linkage pruning goes through a contig from its start to its end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse, special

HOM_REF, HET, HOM_ALT, UNCALLED = range(4)  # columns of a histogram
OTHER, TRANSITION, TRANSVERSION = range(3)
THIRD_DEGREE = 2**-4.5  # kinship of third-degree relatives and closer lies above (Manichaikul 2010, table 1)
TIE = 1e-8  # probabilities whose logarithms differ by less are the same one; log-gamma is good to 1e-9 for a million samples
_LANES = 255  # ones that a uint8 can add up


def _row_sums(mask: np.ndarray) -> np.ndarray:
    """True values per row of a bool (V, S), int64 (V,).

    Rows are added up as bytes, at most 255 to a byte, which the CPU does 32 at a time.
    """
    rows, width = mask.shape
    lane = max(256, -(-width // _LANES))
    groups = width // lane
    whole = groups * lane
    total = mask[:, whole:].sum(1, dtype=np.int64)
    if groups:
        lanes = np.add.reduce(mask[:, :whole].reshape(rows, groups, lane).view(np.uint8), axis=1, dtype=np.uint8)
        total += lanes.sum(1, dtype=np.int64)
    return total


def _column_sums(mask: np.ndarray) -> np.ndarray:
    """True values per column of a bool (V, S), int64 (S,)."""
    total = np.zeros(mask.shape[1], np.int64)
    for start in range(0, len(mask), _LANES):
        total += np.add.reduce(mask[start : start + _LANES].view(np.uint8), axis=0, dtype=np.uint8)
    return total


def histogram(dosages: np.ndarray) -> np.ndarray:
    """Calls per variant by copies of the allele, int64 (V, 4): hom-ref, het, hom-alt, missing."""
    counts = np.empty((len(dosages), 4), np.int64)
    for copies in (HET, HOM_ALT):
        counts[:, copies] = _row_sums(dosages == copies)
    counts[:, UNCALLED] = _row_sums(dosages < 0)
    counts[:, HOM_REF] = dosages.shape[1] - counts[:, 1:].sum(1)
    return counts


@dataclass(frozen=True)
class VariantStatistics:
    """What histograms (V, 4) say of their variants, arrays (V,).

    `call_rate`: called samples of all. `ac`, `an`: copies of the allele and called alleles. `frequency`: ac / an, NaN without
    calls. `hom_ref`, `het`, `hom_alt`, `missing`: samples. `hwe_p`, `hwe_mid_p`: see `hardy_weinberg`.
    """

    call_rate: np.ndarray
    ac: np.ndarray
    an: np.ndarray
    frequency: np.ndarray
    hom_ref: np.ndarray
    het: np.ndarray
    hom_alt: np.ndarray
    missing: np.ndarray
    hwe_p: np.ndarray
    hwe_mid_p: np.ndarray


def variant_statistics(counts: np.ndarray) -> VariantStatistics:
    """Statistics of variants with histograms `counts` int (V, 4)."""
    hom_ref, het, hom_alt, missing = counts.astype(np.int64, copy=False).T
    called = hom_ref + het + hom_alt
    ac = het + 2 * hom_alt
    p, mid_p = hardy_weinberg(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return VariantStatistics(called / (called + missing), ac, 2 * called, ac / (2 * called), hom_ref, het, hom_alt, missing, p, mid_p)


def hardy_weinberg(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact test of Hardy-Weinberg proportions (Wigginton 2005) and its mid-p value (Graffelman 2013), float64 (V,) each.

    `counts` int (V, 4 or 3): hom-ref, het, hom-alt. Without calls both are 1 (mid-p: 0.5).

    Given the rare allele's count, the p-value is the probability of all heterozygote counts that are no likelier than the one
    found. The distribution has one peak, so these are two tails: one begins at the count found, the other where the far side
    has come down to the same height. Both are added up outwards from there, for all variants at once, until nothing is added;
    the starting height is known in closed form. Memory is that of a few arrays (V,).
    """
    counts = counts[:, :3].astype(np.int64, copy=False)
    n = counts.sum(1)
    # Variants with the same three numbers, of which a cohort has many, are one problem.
    size = int(n.max(initial=0)) + 1
    key = (n * size + np.minimum(counts[:, HOM_REF], counts[:, HOM_ALT])) * size + counts[:, HET]
    key, back = np.unique(key, return_inverse=True)
    n, hom_rare, het = key // size // size, key // size % size, key % size
    p, mid_p = _exact(n, 2 * hom_rare + het, het)
    return p[back], mid_p[back]


def _exact(n: np.ndarray, rare: np.ndarray, het: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p and mid-p for `n` called samples, `rare` copies of the rarer allele and `het` heterozygotes, int64 each."""
    common = 2 * n - rare
    factorial = special.gammaln(np.arange(1.0, 2 * n.max(initial=0) + 2))  # log k! at k

    def height(h: np.ndarray) -> np.ndarray:
        """log of n! 2^h / ((rare-h)/2)! h! ((common-h)/2)!: the log probability but for what h does not change."""
        return h * np.log(2) - factorial[(rare - h) >> 1] - factorial[h] - factorial[(common - h) >> 1]

    constant = factorial[n] + factorial[rare] + factorial[common] - factorial[2 * n]
    found = height(het)
    # A step up by two heterozygotes multiplies the probability by (rare-h)(common-h) / (h+2)(h+1), which is 1 or more up to here.
    last = np.floor_divide(rare * common - 2, 2 * n + 3)
    mode = np.where(last < 0, rare & 1, last - ((last ^ rare) & 1) + 2)
    mode = np.minimum(np.where(mode < 0, rare & 1, mode), rare)
    at_mode = found >= height(mode) - TIE
    below = het < mode
    # The far tail: the count nearest the mode, in steps of two away from it, that is no likelier than the one found.
    direction = np.where(below, 1, -1)
    limit = np.where(below, rare - mode, mode - (rare & 1)) >> 1  # steps from the mode to the end of that side
    low, high = np.zeros_like(limit), limit + 1
    while (low < high).any():
        middle = (low + high) >> 1
        inside = middle <= limit
        tail = ~inside | (height(np.where(inside, mode + 2 * direction * middle, mode)) <= found + TIE)
        low, high = np.where(tail, low, np.minimum(middle + 1, high)), np.where(tail, middle, high)
    far = mode + 2 * direction * low
    exists = (low <= limit) & ~at_mode
    far = np.where(exists, far, het)
    first = np.where(exists, np.exp(np.minimum(height(far) - found, 0.0)), 0.0)
    tied = exists & (height(far) >= found - TIE)
    # Both tails as walks: outwards, the probability changes by a factor a b / (c d) whose terms change by two.
    outward = np.concatenate([-direction, direction])
    start, rares, commons = np.concatenate([het, far]), np.tile(rare, 2), np.tile(common, 2)
    up = outward > 0
    a, b = np.where(up, rares - start, start), np.where(up, commons - start, start - 1)
    c, d = np.where(up, start + 2, rares - start + 2), np.where(up, start + 1, commons - start + 2)
    begin = np.concatenate([np.ones(len(het)), first])
    walking = np.tile(~at_mode, 2) & (begin > 0)
    sums = np.where(walking, begin, 0.0)
    factors = np.stack([a, b, c, d])[:, walking].astype(np.float64)
    sums[walking] = _walk(factors, begin[walking])
    own, other = np.split(sums, 2)
    one = np.exp(constant + found)
    p = np.where(at_mode, 1.0, np.minimum(one * (own + other), 1.0))
    # Two counts can share the peak; only they are a tie at the mode.
    beside = np.where(het == mode, mode - 2, mode)
    twin = at_mode & (beside >= 0) & (beside != het) & (height(np.maximum(beside, rare & 1)) >= found - TIE)
    twin |= at_mode & (het == mode) & (mode + 2 <= rare) & (height(np.minimum(mode + 2, rare)) >= found - TIE)
    ties = 1 + np.where(at_mode, twin, tied)
    return p, p - 0.5 * one * ties


def _walk(factors: np.ndarray, term: np.ndarray) -> np.ndarray:
    """Sums of `term` (W,) and all that follow, each a b / (c d) times the one before; then a and b fall and c and d rise by 2.

    `factors` float64 (4, W): a, b, c, d at the start.
    """
    total = np.zeros_like(term)
    place = np.arange(len(term))
    partial = term.copy()
    change = np.array([[-2.0], [-2.0], [2.0], [2.0]])
    step = 0
    while len(place):
        a, b, c, d = factors
        term *= a * b / (c * d)
        partial += term
        factors += change
        step += 1
        if step % 8 == 0:
            # Factors only fall, so what is left is less than a geometric series.
            going = term > 1e-17 * partial
            if going.mean() < 0.75:
                total[place[~going]] = partial[~going]
                factors, term, partial, place = factors[:, going], term[going], partial[going], place[going]
    return total


def substitution(ref: Sequence[str] | np.ndarray, alt: Sequence[str] | np.ndarray) -> np.ndarray:
    """Class of single-base changes, int8 (V,): TRANSITION (A-G, C-T), TRANSVERSION, or OTHER for all that is no such change.

    Alleles are texts, or uint8 (V,): the letter of those of one letter, 0 for others.
    """
    a, b = (x & ~np.uint8(32) for x in map(_letters, (ref, alt)))  # upper case
    bases = np.frombuffer(b"ACGT", np.uint8)
    single = np.isin(a, bases) & np.isin(b, bases) & (a != b)
    purines = (a == ord("A")) | (a == ord("G"))
    same_kind = purines == ((b == ord("A")) | (b == ord("G")))
    return np.where(single, np.where(same_kind, TRANSITION, TRANSVERSION), OTHER).astype(np.int8)


def _letters(alleles: Sequence[str] | np.ndarray) -> np.ndarray:
    if isinstance(alleles, np.ndarray) and alleles.dtype == np.uint8:
        return alleles
    characters = np.asarray(alleles, "U2").view(np.uint32).reshape(-1, 2)  # two suffice to tell whether there is more than one
    return np.where((characters[:, 1] == 0) & (characters[:, 0] < 128), characters[:, 0], 0).astype(np.uint8)


@dataclass(frozen=True)
class SampleSums:
    """Sums per sample over variants; sums over disjoint variants add up. Arrays (S,).

    `variants`: int64, seen. `het`, `hom_alt`, `missing`, `singletons`: int64, calls; a singleton is the only copy of its allele in the
    cohort. `transitions`, `transversions`: int64, calls that carry such a change. `tested_het`, `expected_het`: int64 and float64,
    heterozygous calls found and expected at the variants that inbreeding is estimated from.
    """

    variants: np.ndarray
    het: np.ndarray
    hom_alt: np.ndarray
    missing: np.ndarray
    singletons: np.ndarray
    transitions: np.ndarray
    transversions: np.ndarray
    tested_het: np.ndarray
    expected_het: np.ndarray

    def __add__(self, other: SampleSums) -> SampleSums:
        return SampleSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def sample_sums(dosages: np.ndarray, substitutions: np.ndarray, counts: np.ndarray | None = None, for_het: np.ndarray | None = None) -> SampleSums:
    """Sums of a block.

    `substitutions` int8 (V,): see `substitution`. `counts` int (V, 4): histograms in the whole cohort, by default the block's own.
    `for_het` bool (V,): variants that inbreeding is estimated from, by default all; autosomal ones are meant.
    """
    counts = histogram(dosages) if counts is None else counts
    called = counts[:, :UNCALLED].sum(1)
    copies = counts[:, HET] + 2 * counts[:, HOM_ALT]
    is_het, absent = dosages == 1, dosages < 0
    carried = dosages > 0
    het, missing = _column_sums(is_het), _column_sums(absent)
    frequency = copies / np.maximum(2 * called, 1)
    expected = 2 * frequency * (1 - frequency)
    if for_het is not None:
        expected = np.where(for_het, expected, 0)
    # All that are expected less those at missing calls, which are few.
    rows, columns = np.nonzero(absent)
    lost = np.bincount(columns, expected[rows], dosages.shape[1])
    return SampleSums(
        np.full(len(het), len(dosages)),
        het,
        _column_sums(carried) - het,
        missing,
        _column_sums(is_het[copies == 1]),
        _column_sums(carried[substitutions == TRANSITION]),
        _column_sums(carried[substitutions == TRANSVERSION]),
        het if for_het is None else _column_sums(is_het[for_het]),
        expected.sum() - lost,
    )


@dataclass(frozen=True)
class SampleStatistics:
    """What sums say of the samples, arrays (S,): `call_rate`, `ti_tv` and `inbreeding` (F = 1 - het found / het expected) float64, NaN where
    undefined; the rest int64, calls."""

    call_rate: np.ndarray
    hom_ref: np.ndarray
    het: np.ndarray
    hom_alt: np.ndarray
    missing: np.ndarray
    singletons: np.ndarray
    ti_tv: np.ndarray
    inbreeding: np.ndarray


def sample_statistics(sums: SampleSums) -> SampleStatistics:
    """Statistics of the samples; `inbreeding` as Purcell 2007: (homozygous calls found - expected) / (calls - expected)."""
    called = sums.variants - sums.missing
    with np.errstate(divide="ignore", invalid="ignore"):
        return SampleStatistics(
            called / sums.variants,
            called - sums.het - sums.hom_alt,
            sums.het,
            sums.hom_alt,
            sums.missing,
            sums.singletons,
            np.where(sums.transversions > 0, sums.transitions / sums.transversions, np.nan),
            np.where(sums.expected_het > 0, 1 - sums.tested_het / sums.expected_het, np.nan),
        )


class Measured(NamedTuple):
    """Sum (int64) and number (int64) of the values that are there, along one side of a block; means are sum / number."""

    total: np.ndarray
    number: np.ndarray

    def mean(self) -> np.ndarray:
        """float64, NaN where there is no value."""
        return np.where(self.number > 0, self.total / np.maximum(self.number, 1), np.nan)


def measures(values: np.ndarray) -> tuple[Measured, Measured]:
    """Sums of depths or genotype qualities int32 (V, S), -1 missing: per variant (V,) and per sample (S,)."""
    known = values >= 0
    present = np.where(known, values, 0)
    by_variant = Measured(present.sum(1, dtype=np.int64), _row_sums(known))
    return by_variant, Measured(present.sum(0, dtype=np.int64), _column_sums(known))


def subfield(texts: Sequence[bytes], place: int, samples: int) -> np.ndarray:
    """One whole-number subfield of sample columns, int32 (V, S); -1 where it is missing, cut off or no number from 0 to 999,999,999.

    `texts`: per record its `samples` columns, tab separated, their subfields separated by colons. `place`: the subfield, from 0.
    """
    data = np.frombuffer(b"\t".join(texts) + b"\t", np.uint8)
    ends = np.flatnonzero(data == ord("\t"))
    if len(ends) != len(texts) * samples:
        raise ValueError(f"found {len(ends)} sample columns in {len(texts)} records; expected {samples} in each")
    starts = np.concatenate([[0], ends[:-1] + 1])
    colons = np.append(np.flatnonzero(data == ord(":")), len(data))  # one more, behind all columns
    before = np.searchsorted(colons, starts)
    if place:
        starts = np.minimum(colons[np.minimum(before + place - 1, len(colons) - 1)] + 1, ends)
    ends = np.minimum(colons[np.minimum(before + place, len(colons) - 1)], ends)
    length = ends - starts
    bad = (length < 1) | (length > 9)
    value = np.zeros(len(starts), np.int32)
    for k in range(int(min(length.max(initial=0), 9))):
        inside = length > k
        digit = data[np.minimum(starts + k, len(data) - 1)].astype(np.int32) - ord("0")
        bad |= inside & ((digit < 0) | (digit > 9))
        value = np.where(inside, value * 10 + digit, value)
    return np.where(bad, -1, value).astype(np.int32).reshape(len(texts), samples)


def _indicator(mask: np.ndarray) -> Any:
    """`mask` bool (A, K) as a float32 factor of matrix products: sparse where few are true, as missing calls are as a rule. Counts are exact."""
    return mask.astype(np.float32) if mask.mean() > 0.05 else sparse.csr_matrix(mask, dtype=np.float32)


def _common(a: Any, b: Any) -> np.ndarray:
    """a @ b.T of two such factors, float32."""
    product = a @ b.T
    return product.toarray() if sparse.issparse(product) else np.asarray(product)


# Kinship

_FIELD = 256.0  # a float32 holds whole numbers of 24 bits: three counts of 8 bits, so of at most 255 variants
_CHUNK = 255
CONCORDANT, OPPOSITE, HOM_MISSING, MISSING_HOM, BOTH_MISSING = range(5)


@dataclass
class PairSums:
    """Sums over variants of pairs of samples, one of A (rows) and one of B (columns): a tile of the cohort's pairs.

    `counts` int32 (5, A, B): CONCORDANT, both homozygous for the same allele; OPPOSITE, for different ones (IBS0); HOM_MISSING, row homozygous
    and column missing; MISSING_HOM, the reverse; BOTH_MISSING. `rows` int64 (2, A), `columns` (2, B): homozygous calls, missing calls. Sums of
    disjoint variants add up.
    """

    variants: int
    counts: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def empty(cls, rows: int, columns: int) -> PairSums:
        return cls(0, np.zeros((5, rows, columns), np.int32), np.zeros((2, rows), np.int64), np.zeros((2, columns), np.int64))

    def pack(self) -> bytes:
        """As bytes, little-endian: see `unpack`."""
        shape = np.array([self.variants, *self.counts.shape[1:]])
        return b"".join([*(x.astype("<i8").tobytes() for x in (shape, self.rows, self.columns)), self.counts.astype("<i4").tobytes()])

    @classmethod
    def unpack(cls, packed: bytes) -> PairSums:
        variants, rows, columns = (int(x) for x in np.frombuffer(packed, "<i8", 3))
        ends = np.frombuffer(packed, "<i8", 2 * (rows + columns), 24)
        counts = np.frombuffer(packed, "<i4", -1, 24 + 16 * (rows + columns)).reshape(5, rows, columns)
        return cls(variants, counts, ends[: 2 * rows].reshape(2, rows), ends[2 * rows :].reshape(2, columns))

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(self.variants + other.variants, self.counts + other.counts, self.rows + other.rows, self.columns + other.columns)


def tiles(samples: int, size: int) -> list[tuple[slice, slice]]:
    """Pairs of sample ranges that together hold every pair of samples, those of a range with itself included."""
    ranges = [slice(start, min(start + size, samples)) for start in range(0, samples, size)]
    return [(a, b) for i, a in enumerate(ranges) for b in ranges[i:]]


def add_pairs(sums: Sequence[PairSums], places: Sequence[tuple[slice, slice]], dosages: np.ndarray) -> None:
    """Adds a block of variants to the sums of the tiles at `places`, in place.

    One product of matrices makes three counts at once: with 1 for hom-alt and 256 for hom-ref, a pair's sum over at most 255 variants
    holds pairs of hom-alt in its lowest byte, opposite homozygotes in the next, and pairs of hom-ref in the third.
    """
    for start in range(0, len(dosages), 16 * _CHUNK):
        block = dosages[start : start + 16 * _CHUNK]
        _add_homozygotes(sums, places, block)
        absent = block < 0
        ends = np.stack([_column_sums((block == 0) | (block == 2)), _column_sums(absent)])
        for s, (a, b) in zip(sums, places, strict=True):
            s.variants += len(block)
            s.rows += ends[:, a]
            s.columns += ends[:, b]
        if ends[1].any():
            _add_missing(sums, places, block, absent)


def _add_homozygotes(sums: Sequence[PairSums], places: Sequence[tuple[slice, slice]], block: np.ndarray) -> None:
    code = np.array([_FIELD, 0, 1, 0], np.float32)  # by dosage; -1 is the last
    buffers: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for start in range(0, len(block), _CHUNK):
        x = code[block[start : start + _CHUNK]]
        for s, (a, b) in zip(sums, places, strict=True):
            shape = s.counts.shape[1:]
            if shape not in buffers:
                buffers[shape] = (np.empty(shape, np.float32), np.empty(shape, np.int32), np.empty(shape, np.int32))
            product, whole, part = buffers[shape]
            np.matmul(x[:, a].T, x[:, b], out=product)
            np.copyto(whole, product, casting="unsafe")
            np.right_shift(whole, 8, out=part)
            part &= 255
            s.counts[OPPOSITE] += part
            np.right_shift(whole, 16, out=part)
            whole &= 255
            s.counts[CONCORDANT] += whole
            s.counts[CONCORDANT] += part


def _add_missing(sums: Sequence[PairSums], places: Sequence[tuple[slice, slice]], block: np.ndarray, absent: np.ndarray) -> None:
    made: dict[int, tuple[Any, np.ndarray]] = {}  # per range of samples, by its start
    for samples in (r for place in places for r in place):
        if samples.start not in made:
            part = block[:, samples]
            made[samples.start] = _indicator(absent[:, samples].T), ((part == 0) | (part == 2)).astype(np.float32)
    for s, (a, b) in zip(sums, places, strict=True):
        (gone_a, hom_a), (gone_b, hom_b) = made[a.start], made[b.start]
        s.counts[MISSING_HOM] += (gone_a @ hom_b).astype(np.int32)
        s.counts[HOM_MISSING] += (gone_b @ hom_a).T.astype(np.int32)
        s.counts[BOTH_MISSING] += _common(gone_a, gone_b).astype(np.int32)


@dataclass(frozen=True)
class Pairs:
    """Pairs of samples, arrays (P,). `first`, `second`: positions of the samples, first < second. `variants`: called in both. `het_het`,
    `ibs0`: int64, both heterozygous, opposite homozygotes. `kinship`: KING-robust, float64, 0.5 for the same genotypes."""

    first: np.ndarray
    second: np.ndarray
    variants: np.ndarray
    het_het: np.ndarray
    ibs0: np.ndarray
    kinship: np.ndarray


def kinship(sums: PairSums, place: tuple[slice, slice], threshold: float = THIRD_DEGREE) -> Pairs:
    """Pairs of a tile whose kinship is above `threshold` (KING-robust between families, Manichaikul 2010, equation 11).

    Kinship is 1/2 - (squared difference of dosages) / (4 heterozygotes of the sample that has fewer), over variants called in both. Pairs in
    which a sample has no heterozygote have none.
    """
    concordant, opposite, hom_missing, missing_hom, both_missing = sums.counts.astype(np.int64)
    shared = sums.variants - sums.rows[1][:, None] - sums.columns[1][None, :] + both_missing
    both_hom = concordant + opposite
    hom_het = sums.rows[0][:, None] - both_hom - hom_missing
    het_hom = sums.columns[0][None, :] - both_hom - missing_hom
    het_het = shared - both_hom - hom_het - het_hom
    fewer = het_het + np.minimum(hom_het, het_hom)
    difference = 4 * opposite + hom_het + het_hom
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = np.where(fewer > 0, 0.5 - difference / (4 * fewer), np.nan)
    rows, columns = (np.arange(s.start, s.stop) for s in place)
    i, j = np.nonzero((phi > threshold) & (rows[:, None] < columns[None, :]))
    return Pairs(rows[i], columns[j], shared[i, j], het_het[i, j], opposite[i, j], phi[i, j])


# Principal components


def standardised(dosages: np.ndarray) -> np.ndarray:
    """Genotypes in units of their expected deviation, (dosage - 2p) / sqrt(2p(1-p)), float32 (V, S); 0 where missing or the variant has one allele.

    p is the allele's frequency among the block's samples, which are to be all of the cohort.
    """
    called = (dosages >= 0).sum(1)
    absent = dosages.shape[1] - called
    total = dosages.sum(1, dtype=np.int64) + absent
    mean = total / np.maximum(called, 1)
    variance = mean * (1 - mean / 2)
    scale = np.where(variance > 0, 1 / np.sqrt(np.where(variance > 0, variance, 1)), 0)
    z = dosages.astype(np.float32)
    z -= mean.astype(np.float32)[:, None]
    z *= scale.astype(np.float32)[:, None]
    if absent.any():
        z[dosages < 0] = 0
    return z


def gram_product(z: np.ndarray, q: np.ndarray) -> np.ndarray:
    """z.T (z q), float64 (S, l), for one block z float32 (V, S) of the standardised genotypes: parts add up to the product with the whole."""
    return (z.T @ (z @ q.astype(np.float32))).astype(np.float64)


@dataclass(frozen=True)
class Components:
    """Principal components, the largest first: `values` float64 (K,), eigenvalues of the relationship matrix Z.T Z / M; `vectors` float64
    (S, K) of unit length, the largest coordinate positive; `residuals` (K,): length of (A v - value v) / value, which bounds how far
    an eigenvalue is off, and over the relative gap to the next one the angle of the vector. `passes` through the genotypes."""

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    passes: int


def principal_components(
    product: Callable[[np.ndarray], np.ndarray], samples: int, variants: int, count: int, seed: int = 0, tolerance: float = 1e-4, passes: int = 12
) -> Components:
    """Components of M = `variants` standardised variants, by products with random and then ever better directions (Halko 2011).

    `product` (S, l) -> (S, l): sum of `gram_product` over all blocks, one pass through the genotypes. The directions of all passes are kept, and
    the components are the best in the space that they span (block Krylov, Musco 2015), which takes a third of the passes that the
    last directions alone take. Ends when all residuals are below `tolerance`, or after `passes`.
    """
    count = min(count, samples)
    width = min(count + 10, samples)
    basis = np.empty((samples, 0))
    images = np.empty((samples, 0))
    new, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((samples, width)))
    done = 0
    while True:
        # What is multiplied is what float32 holds, so that images are those of the basis.
        new = new.astype(np.float32).astype(np.float64)
        image = product(new) / variants
        done += 1
        basis, images = np.hstack([basis, new]), np.hstack([images, image])
        gram, cross = basis.T @ basis, basis.T @ images
        factor = np.linalg.inv(np.linalg.cholesky(gram))
        values, inner = np.linalg.eigh(factor @ ((cross + cross.T) / 2) @ factor.T)
        chosen = factor.T @ inner[:, ::-1][:, :count]
        values, vectors, moved = values[::-1][:count], basis @ chosen, images @ chosen
        residuals = np.linalg.norm(moved - vectors * values, axis=0) / np.maximum(np.abs(values), 1e-300)
        room = min(width, samples - basis.shape[1])
        if (residuals < tolerance).all() or done >= passes or room <= 0:
            break
        for _ in range(2):  # twice is enough
            image = image - basis @ np.linalg.solve(gram, basis.T @ image)
            image, _ = np.linalg.qr(image)
        new = image[:, :room]
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    return Components(values, vectors * signs, residuals, done)


# Linkage


@dataclass(frozen=True)
class _Coded:
    """Variants ready to be correlated. `ids` int64 (V,): which. `values` float32 (V, S): dosage - 1, 0 where missing. `total`, `squares`, `lost`
    float64 (V,): sums of values and their squares, missing calls. Where any is missing, `gone` is their factor (V, S), and `across` float32
    (S, 2V) holds the values and their squares."""

    ids: np.ndarray
    values: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    lost: np.ndarray
    gone: Any = None
    across: Any = None

    @classmethod
    def of(cls, ids: np.ndarray, dosages: np.ndarray, counts: np.ndarray) -> _Coded:
        values = dosages.astype(np.float32)
        values -= 1
        hom_ref, _, hom_alt, lost = counts.T.astype(np.float64)
        sums = (hom_alt - hom_ref, hom_alt + hom_ref, lost)
        if not lost.any():
            return cls(ids, values, *sums)
        absent = dosages < 0
        values[absent] = 0
        return cls(ids, values, *sums, _indicator(absent), _across(values))

    def take(self, kept: np.ndarray) -> _Coded:
        gone, across = (None, None) if self.gone is None else (self.gone[kept], self.across[:, np.tile(kept, 2)])
        return _Coded(self.ids[kept], self.values[kept], self.total[kept], self.squares[kept], self.lost[kept], gone, across)


def _correlated(a: _Coded, b: _Coded, threshold: float) -> np.ndarray:
    """Whether the squared correlation of dosages, over samples called in both, is above `threshold`, bool (A, B). All sums are exact."""
    n: Any = float(a.values.shape[1])
    product = (a.values @ b.values.T).astype(np.float64)
    total_a, squares_a, total_b, squares_b = a.total[:, None], a.squares[:, None], b.total[None, :], b.squares[None, :]
    if a.gone is not None or b.gone is not None:
        n = n - a.lost[:, None] - b.lost[None, :]
        if a.gone is not None and b.gone is not None:
            n = n + _common(a.gone, b.gone)
        # What the one's values add up to where the other is missing.
        if b.gone is not None:
            total, squares = np.split(b.gone @ (a.across if a.across is not None else _across(a.values)), 2, axis=1)
            total_a, squares_a = total_a - total.T, squares_a - squares.T
        if a.gone is not None:
            total, squares = np.split(a.gone @ (b.across if b.across is not None else _across(b.values)), 2, axis=1)
            total_b, squares_b = total_b - total, squares_b - squares
    covariance = product * n - total_a * total_b
    return np.asarray(covariance**2 > threshold * (squares_a * n - total_a**2) * (squares_b * n - total_b**2))


def _across(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.square(values)]).T.copy()


class Pruner:
    """Thins the variants of one contig, given in the order of their positions, to some in approximate linkage equilibrium.

    As PLINK's --indep-pairwise: a window goes along the contig; of two variants in it whose squared correlation of dosages, over samples called in
    both, is above `threshold`, the one with the rarer minor allele is removed, or the later of two alike. Variants of one genotype are
    removed. `window`: variants, or base pairs where `by_position`; `step`: variants that the window moves by (1 where
    `by_position`). Genotypes are held only while their window lasts.
    """

    _BLOCK = 64  # variants that are correlated with those before at once

    def __init__(self, window: int, step: int, threshold: float, by_position: bool = False) -> None:
        self.window, self.step, self.threshold, self.by_position = window, 1 if by_position else min(step, window), threshold, by_position
        self._removed: list[bool] = []
        self._major: list[float] = []  # frequency of the commoner allele
        self._positions: list[int] = []
        self._partners: list[list[int]] = []  # per variant the earlier ones that it is correlated with
        self._start = self._end = 0  # the window before
        self._held: list[_Coded] = []  # variants that a window may still hold

    def add(self, dosages: np.ndarray, positions: np.ndarray) -> None:
        """Takes the next variants, int8 (V, S) at positions int (V,)."""
        for start in range(0, len(dosages), self._BLOCK):
            block = dosages[start : start + self._BLOCK]
            self._correlate(block, positions[start : start + self._BLOCK])
            self._advance(False)
            self._held = [self._living(held) for held in self._held if held.ids[-1] >= self._start]

    def _living(self, held: _Coded) -> _Coded:
        alive = np.array([not self._removed[i] for i in held.ids.tolist()], bool)
        return held.take(alive) if 0 < alive.sum() <= len(alive) // 2 else held

    def finish(self) -> np.ndarray:
        """Whether each variant stays, bool (V,)."""
        self._advance(True)
        return ~np.array(self._removed, bool)

    def _correlate(self, block: np.ndarray, positions: np.ndarray) -> None:
        first = len(self._removed)
        counts = histogram(block)
        called = counts[:, :UNCALLED].sum(1)
        frequency = (counts[:, HET] + 2 * counts[:, HOM_ALT]) / np.maximum(2 * called, 1)
        varies = (counts[:, :UNCALLED] > 0).sum(1) > 1
        self._major += np.maximum(frequency, 1 - frequency).tolist()
        self._positions += positions.tolist()
        self._removed += (~varies).tolist()
        self._partners += [[] for _ in range(len(varies))]
        if not varies.any():
            return
        new = _Coded.of(first + np.flatnonzero(varies), block[varies], counts[varies])
        self._held.append(new)
        for held in self._held:
            later, earlier = np.nonzero(_correlated(new, held, self.threshold))
            inside = held.ids[earlier] < new.ids[later]
            for j, i in zip(new.ids[later[inside]].tolist(), held.ids[earlier[inside]].tolist(), strict=True):
                self._partners[j].append(i)

    def _advance(self, ended: bool) -> None:
        """Goes through the windows that are known to be whole."""
        total = len(self._removed)
        while self._end < total:
            start, end = self._bounds(total)
            if end > total or (end == total and self.by_position):  # more variants may belong to it
                if not ended:
                    return
                end = total
            self._thin(start, end)
            for j in range(self._end, end):
                self._partners[j] = []
            self._start, self._end = start, end

    def _bounds(self, total: int) -> tuple[int, int]:
        """The next window: it holds at least one new variant. The end may lie behind the variants that are there."""
        if not self.by_position:
            start = self._start + self.step if self._end else 0
            return start, start + self.window
        at = self._positions
        start = bisect_left(at, at[self._end] - self.window, self._start + 1) if self._end else 0
        return start, bisect_right(at, at[start] + self.window, self._end + 1)

    def _thin(self, start: int, end: int) -> None:
        """Removes from the window start..end until no two in it are correlated; only its last variants have not been compared yet."""
        removed, major = self._removed, self._major
        pending: dict[int, list[int]] = {}
        for j in range(end - 1, self._end - 1, -1):
            if not removed[j]:
                for i in self._partners[j]:
                    if i >= start and not removed[i]:
                        pending.setdefault(i, []).append(j)
        order = sorted(pending)
        found = bool(order)
        while found:
            found = False
            for i in order:
                rest = pending[i]
                while rest and removed[rest[-1]]:
                    rest.pop()
                if removed[i] or not rest:
                    continue
                found = True
                if major[i] > major[rest[-1]] * (1 + 2.0**-44):  # rounding of a frequency decides nothing
                    removed[i] = True
                else:
                    removed[rest.pop()] = True
