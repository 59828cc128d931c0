"""Exact neighbours of cells, and the graph of the neighbours that they share.

Coordinates are whole numbers, so that sums of their products are exact in float64 and a distance does not depend on
the order in which a matrix product adds: not on threads, on vector instructions or on how rows are cut into blocks.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

_EXACT = 2.0**53  # below it float64 holds every whole number
_AT_ONCE = 1 << 23  # distances that are worked on at once: 64 MB


def neighbours(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` nearest other rows of each row, nearest first, int64 (n, count), by Euclidean distance; of rows
    as far away the one with the lower number comes first. Fewer where there are not as many.

    scores: float64 (n, components), whole numbers. ValueError where their squares are too large to be exact.
    """
    return _nearest(scores, scores, min(count, len(scores) - 1), True)


def nearest_of(scores: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """The same of each row of `scores` among the rows of `among`, whose numbers it gives."""
    return _nearest(scores, among, min(count, len(among)), False)


def _nearest(scores: np.ndarray, among: np.ndarray, count: int, themselves: bool) -> np.ndarray:
    n = len(scores)
    if count < 1:
        return np.zeros((n, 0), np.int64)
    squares, others = (np.einsum("ij,ij->i", x, x) for x in (scores, among))
    largest = max(squares.max(initial=0), others.max(initial=0))
    if 4 * largest >= _EXACT:
        raise ValueError(f"found squared lengths up to {largest:.3g}; expected them below {_EXACT / 4:.3g}")
    found = np.empty((n, count), np.int64)
    step = max(1, _AT_ONCE // len(among))
    for start in range(0, n, step):
        stop = min(start + step, n)
        distances = squares[start:stop, None] + others - 2 * (scores[start:stop] @ among.T)
        if themselves:
            distances[np.arange(stop - start), np.arange(start, stop)] = np.inf
        farthest = np.partition(distances, count - 1, axis=1)[:, count - 1]
        rows, columns = np.nonzero(distances <= farthest[:, None])  # `count` of each row or, of ties, more
        order = np.lexsort((columns, distances[rows, columns], rows))
        first = np.searchsorted(rows, np.arange(stop - start))
        found[start:stop] = columns[order][first[:, None] + np.arange(count)]
    return found


def shared_graph(nearest: np.ndarray, least: float = 1 / 15) -> sp.coo_matrix:
    """Edges of cells that share neighbours, each once (row < column), in order: the weight is the Jaccard index of
    both cells' neighbours, the cells themselves among these, where it is above `least` (Xu and Su 2015; Levine 2015).

    nearest: int64 (n, k).
    """
    n, k = nearest.shape
    own = np.concatenate([np.arange(n)[:, None], nearest], 1)
    places = sp.csr_matrix((np.ones(own.size), own.ravel(), np.arange(n + 1) * (k + 1)), (n, n))
    shared = sp.triu(places @ places.T, 1, "csr")
    shared.sort_indices()
    shared = shared.tocoo()
    weights = shared.data / (2 * (k + 1) - shared.data)
    kept = weights > least
    return sp.coo_matrix((weights[kept], (shared.row[kept], shared.col[kept])), (n, n))
