"""Genes that mark a cluster: Wilcoxon's rank-sum test of its cells against all others, from counts of values.

Values, as logarithms, are on a grid. How many cells of each cluster have each of them says all that ranks do, ties
included, and adds up over the files of a cohort: ranks are exact without any gene's values being together in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from genodl_spark.cells.transform import COUNTS, SCALED

STEPS = 16  # of the grid, to a unit of the natural logarithm
LEVELS = 512
_ZERO = LEVELS // 2


def levels(values: np.ndarray, totals: np.ndarray, kind: str) -> np.ndarray:
    """Values that are not 0 as levels of the grid, int64, cut at its ends: the logarithm of 1 and of counts to 10,000
    of a cell, or of expression; scaled values as they are.

    values: float64 (entries,); totals: of the cell of each.
    """
    x = values.astype(np.float64)
    if kind != SCALED:
        x = np.log1p(x / totals * 1e4) if kind == COUNTS else np.log1p(x)
    return np.clip(np.rint(x * STEPS), -_ZERO, _ZERO - 1).astype(np.int64) + _ZERO


@dataclass(frozen=True)
class Differences:
    """By gene and cluster, float64 (genes, clusters): the chance that a cell of the cluster has a higher value than
    another (`auc`, ties half), two-sided p-values, differences of means in the unit of the grid's values, and the
    shares of cells in and outside of the cluster in which the gene is not 0."""

    auc: np.ndarray
    p: np.ndarray
    difference: np.ndarray
    share: np.ndarray
    share_rest: np.ndarray


def rank_sums(counted: np.ndarray, sizes: np.ndarray) -> Differences:
    """counted: (genes, LEVELS, clusters), cells by level where the gene is not 0; sizes: cells (clusters,).

    p-values are of the normal approximation with ties, and a continuity correction as R has it; 1 where all are tied.
    """
    n = float(sizes.sum())
    detected = counted.sum(1).astype(float)
    cells = counted.astype(float)
    cells[:, _ZERO] += sizes - detected
    tied = cells.sum(2)
    middle = np.cumsum(tied, 1) - tied + (tied + 1) / 2  # mid-rank of each level
    inside = sizes.astype(float)
    outside = n - inside
    pairs = inside * outside
    u = np.einsum("gl,glc->gc", middle, cells) - inside * (inside + 1) / 2
    ties = (tied**3 - tied).sum(1)
    variance = pairs / 12 * ((n + 1) - ties[:, None] / max(n * (n - 1), 1))
    off = np.maximum(np.abs(u - pairs / 2) - 0.5, 0)
    spread = np.sqrt(np.maximum(variance, 0))
    z = np.divide(off, spread, out=np.zeros_like(off), where=spread > 0)
    value = (np.arange(LEVELS) - _ZERO) / STEPS
    sums = np.einsum("l,glc->gc", value, cells)
    rest = np.maximum(outside, 1)
    return Differences(
        np.divide(u, pairs, out=np.full_like(u, 0.5), where=pairs > 0),
        np.where(spread > 0, 2 * special.ndtr(-z), 1.0).clip(max=1),
        sums / np.maximum(inside, 1) - (sums.sum(1, keepdims=True) - sums) / rest,
        detected / np.maximum(inside, 1),
        (detected.sum(1, keepdims=True) - detected) / rest,
    )


def false_discovery(p: np.ndarray) -> np.ndarray:
    """q-values of Benjamini and Hochberg (1995), by column, of p-values float64 (tests, columns)."""
    order = np.argsort(p, axis=0, kind="stable")
    tests = len(p)
    scaled = np.take_along_axis(p, order, 0) * tests / np.arange(1, tests + 1)[:, None]
    steps = np.minimum.accumulate(scaled[::-1], 0)[::-1].clip(max=1)
    found = np.empty_like(p)
    np.put_along_axis(found, order, steps, 0)
    return found
