"""Statistics of variants: frequencies, Hardy-Weinberg test, transitions and transversions. Pure NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from genodl_spark.genetics.qc.counts import HET, HOM_ALT, HOM_REF

OTHER, TRANSITION, TRANSVERSION = range(3)
# probabilities whose logarithms differ by less are the same one; log-gamma is good to 1e-9 for a million samples
TIE = 1e-8


@dataclass(frozen=True)
class VariantStatistics:
    """What histograms (V, 4) say of their variants, arrays (V,).

    `call_rate`: called samples of all. `ac`, `an`: copies of the allele and called alleles. `frequency`: ac / an,
    NaN without calls. `hom_ref`, `het`, `hom_alt`, `missing`: samples. `hwe_p`, `hwe_mid_p`: see `hardy_weinberg`.
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
        return VariantStatistics(
            called / (called + missing), ac, 2 * called, ac / (2 * called), hom_ref, het, hom_alt, missing, p, mid_p
        )


def hardy_weinberg(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact test of Hardy-Weinberg proportions (Wigginton 2005) and its mid-p value
    (Graffelman 2013), float64 (V,) each.

    `counts` int (V, 4 or 3): hom-ref, het, hom-alt. Without calls both are 1 (mid-p: 0.5).

    Given the rare allele's count, the p-value is the probability of all heterozygote counts that are no likelier than
    the one found. The distribution has one peak, so these are two tails: one begins at the count found, the other where
    the far side has come down to the same height. Both are added up outwards from there, for all variants at once,
    until nothing is added; the starting height is known in closed form. Memory is that of a few arrays (V,).
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
    # A step up by two heterozygotes multiplies the probability by (rare-h)(common-h) / (h+2)(h+1),
    # which is 1 or more up to here.
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
    """Sums of `term` (W,) and all that follow, each a b / (c d) times the one before;
    then a and b fall and c and d rise by 2.

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
    """Class of single-base changes, int8 (V,): TRANSITION (A-G, C-T), TRANSVERSION,
    or OTHER for all that is no such change.

    Alleles are texts, or uint8 (V,): the letter of those of one letter, 0 for others.
    """
    a, b = (x & ~np.uint8(32) for x in map(letters, (ref, alt)))  # upper case
    bases = np.frombuffer(b"ACGT", np.uint8)
    single = np.isin(a, bases) & np.isin(b, bases) & (a != b)
    purines = (a == ord("A")) | (a == ord("G"))
    same_kind = purines == ((b == ord("A")) | (b == ord("G")))
    return np.where(single, np.where(same_kind, TRANSITION, TRANSVERSION), OTHER).astype(np.int8)


def letters(alleles: Sequence[str] | np.ndarray) -> np.ndarray:
    if isinstance(alleles, np.ndarray) and alleles.dtype == np.uint8:
        return alleles
    # two suffice to tell whether there is more than one
    characters = np.asarray(alleles, "U2").view(np.uint32).reshape(-1, 2)
    return np.where((characters[:, 1] == 0) & (characters[:, 0] < 128), characters[:, 0], 0).astype(np.uint8)
