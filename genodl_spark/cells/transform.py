"""Values of cells as networks of neighbours see them: analytic Pearson residuals of counts, or values as they are,
on a grid of whole numbers, so that all sums of them are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genodl_spark.core import packing

UNIT = 2.0**10  # a value of 1, of the grid
COUNTS, EXPRESSION, SCALED = "counts", "expression", "scaled"
KINDS = (COUNTS, EXPRESSION, SCALED)
_LOGARITHM = 64.0  # no logarithm of an expression is as large: what is, is not one


def kind_of(lowest: float, highest: float, whole: bool) -> str:
    """What values are, by their ends: counts where they are whole and none is negative; expression where they are not
    whole and too large for logarithms; else scaled: taken as they are."""
    if lowest < 0:
        return SCALED
    if whole:
        return COUNTS
    return EXPRESSION if highest > _LOGARITHM else SCALED


@dataclass(frozen=True)
class Transform:
    """How values of cells become comparable.

    counts: analytic Pearson residuals of a negative binomial with one overdispersion `theta` for all genes, cut at
    the square root of the number of cells (Lause, Berens and Kobak 2021). expression: log2(value + 1). scaled: as
    they are. `shares`: what part of all counts each gene has, float64 (genes,).
    """

    kind: str
    shares: np.ndarray
    cells: int
    theta: float = 100.0

    def rows(self, values: np.ndarray, totals: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Cells as float64 (cells, genes), whole numbers, UNIT to 1.

        values: (cells, genes) of the chosen genes, in the unit of the source. totals: float64 (cells,), of all genes.
        genes: int64, the genes' places in `shares`.
        """
        x = values.astype(np.float64)
        if self.kind == COUNTS:
            mean = totals[:, None] * self.shares[genes]
            spread = np.sqrt(mean + mean * mean / self.theta)
            limit = np.sqrt(self.cells)
            x = np.divide(x - mean, spread, out=np.zeros_like(x), where=spread > 0).clip(-limit, limit)
        elif self.kind == EXPRESSION:
            x = np.log2(x + 1)
        return np.rint(x * UNIT)


@dataclass
class GeneSums:
    """What was counted of each gene, float64 (genes,) each: sum, cells in which it is not 0."""

    sums: np.ndarray
    detected: np.ndarray

    @classmethod
    def empty(cls, genes: int) -> GeneSums:
        return cls(np.zeros(genes), np.zeros(genes))

    def add(self, rows: packing.SparseRows, places: np.ndarray, kept: np.ndarray) -> None:
        """rows: cells; places: int64, which gene each of their features is; kept: bool (cells,)."""
        entries = rows.entries[packing.runs(rows.starts[kept], rows.counts[kept])]
        genes = places[entries["place"]]
        self.sums += np.bincount(genes, np.rint(entries["value"] * UNIT) / UNIT, len(self.sums))  # exact
        self.detected += np.bincount(genes, entries["value"] != 0, len(self.sums))
