"""Clusters of the cells of a graph, steadied by subsamples; and cells that join them."""

from __future__ import annotations

import numpy as np

from genodl_spark.cells.communities import by_size, consensus, leiden
from genodl_spark.cells.neighbours import nearest_of, neighbours, shared_graph


def neighbours_for(k: int, cells: int) -> int:
    """Neighbours of each of so many cells: `k`, or a tenth of the cells where these are few; 5 at least."""
    return max(1, min(k, max(5, cells // 10), cells - 1))


def steady(scores: np.ndarray, runs: np.ndarray, k: int, resolution: float, seed: int) -> np.ndarray:
    """Clusters int64 (n,), from 0, the largest first: communities of all cells, edges weighed by how many runs on
    subsamples have put their ends together.

    scores: float64 (n, components), whole numbers; runs: int (runs, n), at this resolution, -1 absent.
    """
    return leiden(consensus(shared_graph(neighbours(scores, k)), list(runs)), resolution, seed)


def joined(scores: np.ndarray, members: np.ndarray, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of all cells, int64 (n,), where only `members` have `labels`: that of most of a cell's `k` nearest
    members, of as many the larger cluster; and the share of these that has it, float64 (n,)."""
    found, share = np.empty(len(scores), np.int64), np.ones(len(scores))
    found[members] = labels
    others = np.setdiff1d(np.arange(len(scores)), members)
    if len(others):
        near = labels[nearest_of(scores[others], scores[members], k)]
        votes = np.zeros((len(others), int(labels.max()) + 1), np.int64)
        np.add.at(votes, (np.arange(len(others))[:, None], near), 1)
        found[others] = votes.argmax(1)
        share[others] = votes.max(1) / near.shape[1]
    return by_size(found), share
