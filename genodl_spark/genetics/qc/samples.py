"""Statistics of samples: call rates, heterozygosity, transitions and transversions. Pure NumPy."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from genodl_spark.genetics.qc.counts import HET, HOM_ALT, UNCALLED, column_sums, histogram
from genodl_spark.genetics.qc.variants import TRANSITION, TRANSVERSION


@dataclass(frozen=True)
class SampleSums:
    """Sums per sample over variants; sums over disjoint variants add up. Arrays (S,).

    `variants`: int64, seen. `het`, `hom_alt`, `missing`, `singletons`: int64, calls; a singleton is the only
    copy of its allele in the cohort. `transitions`, `transversions`: int64, calls that carry such a change.
    `tested_het`, `expected_het`: int64 and float64, heterozygous calls found and expected at the variants
    that inbreeding is estimated from.
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


def sample_sums(
    dosages: np.ndarray, substitutions: np.ndarray, counts: np.ndarray | None = None, for_het: np.ndarray | None = None
) -> SampleSums:
    """Sums of a block.

    `substitutions` int8 (V,): see `substitution`. `counts` int (V, 4): histograms in the whole cohort,
    by default the block's own. `for_het` bool (V,): variants that inbreeding is estimated from, by default all;
    autosomal ones are meant.
    """
    counts = histogram(dosages) if counts is None else counts
    called = counts[:, :UNCALLED].sum(1)
    copies = counts[:, HET] + 2 * counts[:, HOM_ALT]
    is_het, absent = dosages == 1, dosages < 0
    carried = dosages > 0
    het, missing = column_sums(is_het), column_sums(absent)
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
        column_sums(carried) - het,
        missing,
        column_sums(is_het[copies == 1]),
        column_sums(carried[substitutions == TRANSITION]),
        column_sums(carried[substitutions == TRANSVERSION]),
        het if for_het is None else column_sums(is_het[for_het]),
        expected.sum() - lost,
    )


@dataclass(frozen=True)
class SampleStatistics:
    """What sums say of the samples, arrays (S,): `call_rate`, `ti_tv` and `inbreeding` (F = 1 - het found / het
    expected) float64, NaN where undefined; the rest int64, calls."""

    call_rate: np.ndarray
    hom_ref: np.ndarray
    het: np.ndarray
    hom_alt: np.ndarray
    missing: np.ndarray
    singletons: np.ndarray
    ti_tv: np.ndarray
    inbreeding: np.ndarray


def sample_statistics(sums: SampleSums) -> SampleStatistics:
    """Statistics of the samples; `inbreeding` as Purcell 2007: (homozygous calls found -
    expected) / (calls - expected)."""
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
