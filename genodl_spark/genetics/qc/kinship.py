"""Kinship of pairs of samples (KING-robust: Manichaikul et al. 2010), in tiles of samples. NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genodl_spark.genetics.qc.counts import column_sums, common, indicator

THIRD_DEGREE = 2**-4.5  # kinship of third-degree relatives and closer lies above (Manichaikul 2010, table 1)
_FIELD = 256.0  # a float32 holds whole numbers of 24 bits: three counts of 8 bits, so of at most 255 variants
_CHUNK = 255


@dataclass
class PairSums:
    """Sums over variants of pairs of samples, one of A (rows) and one of B (columns): a tile of the cohort's pairs.

    `counts` int32 (5, A, B): CONCORDANT, both homozygous for the same allele; OPPOSITE, for different ones (IBS0);
    HOM_MISSING, row homozygous and column missing; MISSING_HOM, the reverse; BOTH_MISSING.
    `rows` int64 (2, A), `columns` (2, B): homozygous calls, missing calls. Sums of disjoint variants add up.
    """

    variants: int
    counts: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def empty(cls, rows: int, columns: int) -> PairSums:
        return cls(
            0, np.zeros((5, rows, columns), np.int32), np.zeros((2, rows), np.int64), np.zeros((2, columns), np.int64)
        )

    def pack(self) -> bytes:
        """As bytes, little-endian: see `unpack`."""
        shape = np.array([self.variants, *self.counts.shape[1:]])
        return b"".join(
            [
                *(x.astype("<i8").tobytes() for x in (shape, self.rows, self.columns)),
                self.counts.astype("<i4").tobytes(),
            ]
        )

    @classmethod
    def unpack(cls, packed: bytes) -> PairSums:
        variants, rows, columns = (int(x) for x in np.frombuffer(packed, "<i8", 3))
        ends = np.frombuffer(packed, "<i8", 2 * (rows + columns), 24)
        counts = np.frombuffer(packed, "<i4", -1, 24 + 16 * (rows + columns)).reshape(5, rows, columns)
        return cls(variants, counts, ends[: 2 * rows].reshape(2, rows), ends[2 * rows :].reshape(2, columns))

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(
            self.variants + other.variants,
            self.counts + other.counts,
            self.rows + other.rows,
            self.columns + other.columns,
        )


def tiles(samples: int, size: int) -> list[tuple[slice, slice]]:
    """Pairs of sample ranges that together hold every pair of samples, those of a range with itself included."""
    ranges = [slice(start, min(start + size, samples)) for start in range(0, samples, size)]
    return [(a, b) for i, a in enumerate(ranges) for b in ranges[i:]]


def add_pairs(sums: Sequence[PairSums], places: Sequence[tuple[slice, slice]], dosages: np.ndarray) -> None:
    """Adds a block of variants to the sums of the tiles at `places`, in place.

    One product of matrices makes three counts at once: with 1 for hom-alt and 256 for hom-ref,
    a pair's sum over at most 255 variants holds pairs of hom-alt in its lowest byte, opposite homozygotes in the next,
    and pairs of hom-ref in the third.
    """
    for start in range(0, len(dosages), 16 * _CHUNK):
        block = dosages[start : start + 16 * _CHUNK]
        _add_homozygotes(sums, places, block)
        absent = block < 0
        ends = np.stack([column_sums((block == 0) | (block == 2)), column_sums(absent)])
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


def _add_missing(
    sums: Sequence[PairSums], places: Sequence[tuple[slice, slice]], block: np.ndarray, absent: np.ndarray
) -> None:
    made: dict[int, tuple[Any, np.ndarray]] = {}  # per range of samples, by its start
    for samples in (r for place in places for r in place):
        if samples.start not in made:
            part = block[:, samples]
            made[samples.start] = indicator(absent[:, samples].T), ((part == 0) | (part == 2)).astype(np.float32)
    for s, (a, b) in zip(sums, places, strict=True):
        (gone_a, hom_a), (gone_b, hom_b) = made[a.start], made[b.start]
        s.counts[MISSING_HOM] += (gone_a @ hom_b).astype(np.int32)
        s.counts[HOM_MISSING] += (gone_b @ hom_a).T.astype(np.int32)
        s.counts[BOTH_MISSING] += common(gone_a, gone_b).astype(np.int32)


@dataclass(frozen=True)
class Pairs:
    """Pairs of samples, arrays (P,). `first`, `second`: positions of the samples, first < second.
    `variants`: called in both. `het_het`, `ibs0`: int64, both heterozygous, opposite homozygotes.
    `kinship`: KING-robust, float64, 0.5 for the same genotypes."""

    first: np.ndarray
    second: np.ndarray
    variants: np.ndarray
    het_het: np.ndarray
    ibs0: np.ndarray
    kinship: np.ndarray


def kinship(sums: PairSums, place: tuple[slice, slice], threshold: float = THIRD_DEGREE) -> Pairs:
    """Pairs of a tile whose kinship is above `threshold` (KING-robust between families, Manichaikul 2010, equation 11).

    Kinship is 1/2 - (squared difference of dosages) / (4 heterozygotes of the sample that has fewer),
    over variants called in both. Pairs in which a sample has no heterozygote have none.
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


CONCORDANT, OPPOSITE, HOM_MISSING, MISSING_HOM, BOTH_MISSING = range(5)
