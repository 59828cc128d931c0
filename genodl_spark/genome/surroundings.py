"""Variants amid the bases around them, as base codes: what a feature of an allele is computed from. Pure NumPy and
Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genome.bases import UNKNOWN_BASE, text_codes

_NONE = "-"  # an allele without bases


@dataclass(frozen=True)
class Surroundings:
    """N variants. `before`, `after` int8 (N, F): base codes in front of and behind the reference allele, the nearest
    last and first; unknown where the reference ends. `ref`, `alt`: alleles as text, `-` for none."""

    before: np.ndarray
    after: np.ndarray
    ref: pa.Array
    alt: pa.Array

    @classmethod
    def of(cls, before: pa.Array, ref: pa.Array, alt: pa.Array, after: pa.Array, flank: int) -> Surroundings:
        """Of columns of `variant_effects`. `flank`: F; bases further away are left out, those that are lacking
        unknown."""
        return cls(_aligned(before, flank, True), _aligned(after, flank, False), ref, alt)

    def __len__(self) -> int:
        return len(self.before)

    def spelled(self, allele: pa.Array, reach: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Variants by the length n of one of their alleles: which, int64 (m,), and each in its surroundings,
        int8 (m, reach + n + reach)."""
        codes, ends = _codes(pc.if_else(pc.equal(allele, _NONE), "", allele))
        sizes = np.diff(ends)
        for size in np.unique(sizes).tolist():
            rows = np.flatnonzero(sizes == size)
            own = codes[ends[rows][:, None] + np.arange(size)]
            before = self.before[rows, self.before.shape[1] - reach :]
            yield rows, np.concatenate([before, own, self.after[rows, :reach]], 1)


def _codes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    found, ends = text_codes(texts)
    return np.maximum(found, np.int8(UNKNOWN_BASE)), ends


def _aligned(texts: pa.Array, width: int, to_end: bool) -> np.ndarray:
    """Bases of texts in rows, int8 (n, width): the last ones at the end of a row, or the first ones at its start."""
    codes, ends = _codes(texts)
    codes = np.append(codes, np.int8(UNKNOWN_BASE))
    place = np.arange(width)
    at = ends[1:, None] - width + place if to_end else ends[:-1, None] + place
    inside = (at >= ends[:-1, None]) & (at < ends[1:, None])
    aligned: np.ndarray = codes[np.where(inside, at, len(codes) - 1)]
    return aligned
