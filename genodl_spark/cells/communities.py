"""Communities of a graph by the Leiden algorithm (Traag, Waltman and van Eck 2019), and one of many runs of it.

The library works with one thread from a seed; edges reach it in order, so that the same graph gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import graspologic_native
import numpy as np
import scipy.sparse as sp

_LEAST = 0.05  # weight of an edge whose ends no run has put together, so that the graph does not fall apart


def leiden(graph: sp.coo_matrix, resolution: float, seed: int) -> np.ndarray:
    """Communities int64 (n,) of an undirected graph, numbered from 0, the largest first; of two as large the one that
    has the lower node. They maximise modularity at `resolution` (Reichardt and Bornholdt 2006); a node without edges
    is one alone.

    graph: each edge once, with its weight above 0.
    """
    names = [str(node) for node in range(graph.shape[0])]
    edges = [
        (names[a], names[b], weight)
        for a, b, weight in zip(graph.row.tolist(), graph.col.tolist(), graph.data.tolist(), strict=True)
    ]
    found = np.arange(len(names)) + len(names)
    if edges:
        _, of = graspologic_native.leiden(
            edges=edges,
            resolution=resolution,
            randomness=0.001,
            iterations=2,
            use_modularity=True,
            seed=seed,
            trials=1,
            starting_communities=None,
        )
        for node, community in of.items():
            found[int(node)] = community
    return by_size(found)


def by_size(labels: np.ndarray) -> np.ndarray:
    """Labels numbered from 0, the most frequent first; of two as frequent the one that comes first."""
    _, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks[inverse]


def consensus(graph: sp.coo_matrix, runs: Sequence[np.ndarray]) -> sp.coo_matrix:
    """The graph with its edges weighed by the share of runs, among those that have both ends, which put these into one
    community (ensemble clustering for graphs: Poulin and Theberge 2019).

    runs: communities int64 (n,), -1 for a node that a run leaves out.
    """
    together, seen = np.zeros(graph.nnz), np.zeros(graph.nnz)
    for labels in runs:
        a, b = labels[graph.row], labels[graph.col]
        both = (a >= 0) & (b >= 0)
        seen += both
        together += both & (a == b)
    share = np.divide(together, seen, out=np.ones(graph.nnz), where=seen > 0)
    return sp.coo_matrix((_LEAST + (1 - _LEAST) * share, (graph.row, graph.col)), graph.shape)
