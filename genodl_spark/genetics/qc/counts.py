"""Quality control of a cohort's genotypes: variants, samples, pairs of samples, axes of ancestry,
linkage. Pure NumPy and SciPy.

Genotypes come in blocks of variants: `dosages` int8 (V, S), copies of the counted allele in diploid calls, -1 missing.
Whatever is asked of a cohort is a sum over its variants, so every block gives a part, and parts add up in any order
and division to the same numbers; only linkage pruning goes through a contig from its start to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

HOM_REF, HET, HOM_ALT, UNCALLED = range(4)  # columns of a histogram
_LANES = 255  # ones that a uint8 can add up


def row_sums(mask: np.ndarray) -> np.ndarray:
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


def column_sums(mask: np.ndarray) -> np.ndarray:
    """True values per column of a bool (V, S), int64 (S,)."""
    total = np.zeros(mask.shape[1], np.int64)
    for start in range(0, len(mask), _LANES):
        total += np.add.reduce(mask[start : start + _LANES].view(np.uint8), axis=0, dtype=np.uint8)
    return total


def histogram(dosages: np.ndarray) -> np.ndarray:
    """Calls per variant by copies of the allele, int64 (V, 4): hom-ref, het, hom-alt, missing."""
    counts = np.empty((len(dosages), 4), np.int64)
    for copies in (HET, HOM_ALT):
        counts[:, copies] = row_sums(dosages == copies)
    counts[:, UNCALLED] = row_sums(dosages < 0)
    counts[:, HOM_REF] = dosages.shape[1] - counts[:, 1:].sum(1)
    return counts


class Measured(NamedTuple):
    """Sum (int64) and number (int64) of the values that are there, along one side of a block;
    means are sum / number."""

    total: np.ndarray
    number: np.ndarray

    def mean(self) -> np.ndarray:
        """float64, NaN where there is no value."""
        return np.where(self.number > 0, self.total / np.maximum(self.number, 1), np.nan)


def measures(values: np.ndarray) -> tuple[Measured, Measured]:
    """Sums of depths or genotype qualities int32 (V, S), -1 missing: per variant (V,) and per sample (S,)."""
    known = values >= 0
    present = np.where(known, values, 0)
    by_variant = Measured(present.sum(1, dtype=np.int64), row_sums(known))
    return by_variant, Measured(present.sum(0, dtype=np.int64), column_sums(known))


def subfield(texts: Sequence[bytes], place: int, samples: int) -> np.ndarray:
    """One whole-number subfield of sample columns, int32 (V, S); -1 where it is missing,
    cut off or no number from 0 to 999,999,999.

    `texts`: per record its `samples` columns, tab separated, their subfields separated by colons.
    `place`: the subfield, from 0.
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


def indicator(mask: np.ndarray) -> Any:
    """`mask` bool (A, K) as a float32 factor of matrix products: sparse where few are true,
    as missing calls are as a rule. Counts are exact."""
    return mask.astype(np.float32) if mask.mean() > 0.05 else sparse.csr_matrix(mask, dtype=np.float32)


def common(a: Any, b: Any) -> np.ndarray:
    """a @ b.T of two such factors, float32."""
    product = a @ b.T
    return product.toarray() if sparse.issparse(product) else np.asarray(product)


# Kinship


# Principal components


# Linkage
