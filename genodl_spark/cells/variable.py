"""Genes that vary more between cells than counting makes them."""

from __future__ import annotations

import numpy as np


def variances(sums: np.ndarray, squares: np.ndarray, cells: int) -> np.ndarray:
    """Variances float64 (genes,) from sums and sums of squares, which are exact."""
    mean = sums / max(cells, 1)
    return squares / max(cells, 1) - mean * mean


def most_variable(found: np.ndarray, detected: np.ndarray, count: int, cells_with: int) -> np.ndarray:
    """Numbers of the `count` genes of the largest variance, ascending, int64, among those that are not 0 in at least
    `cells_with` cells; of two that vary as much the one with the lower number comes first."""
    candidates = np.flatnonzero((detected >= cells_with) & (found > 0))
    order = np.argsort(-found[candidates], kind="stable")[:count]
    return np.sort(candidates[order])
