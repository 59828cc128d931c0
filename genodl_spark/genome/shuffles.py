"""Sequences with the dinucleotides of given ones in another order, which a model is to tell apart from these.

A sequence is a path over its bases, each dinucleotide an edge: every sequence with the same dinucleotides and ends
is an Eulerian path of the same multigraph (Altschul and Erickson 1985, Mol Biol Evol 2:526). The edges by which such a
path leaves each base for the last time make a tree towards its last base; each tree, and each order of the other
edges, gives one path. The tree is drawn by loop-erased random walks (Wilson 1996, STOC, 296), as in uShuffle (Jiang et
al. 2008, BMC Bioinformatics 9:192), the order edge by edge, so that all paths are as likely. So are all sequences, the
given one among them: each is as many paths as any other, as edges between the same two bases may change places.
"""

from __future__ import annotations

import numpy as np

from genodl_spark.native import kernels


def shuffled(codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """A random permutation of each row of base codes int8 (rows, length) that keeps the count of every
    dinucleotide, and the first and last base: int8 (rows, length).

    Each such permutation is as likely as any other, the row itself among them, so short and monotonous rows may come
    back as they are. What is no known base (not 0 to 3: unknown or padding) stays where it is, and the runs of known
    bases between are shuffled apart, so that dinucleotides with an unknown base are kept as well.
    A row depends on its key, uint64 (rows,), and its own runs alone, so neither batch nor padding matter: its draws are
    those of SplitMix64 from the state `splitmix.mixed(key)`. Any distinct keys will do.
    """
    if codes.ndim != 2 or codes.dtype != np.int8 or keys.shape != codes.shape[:1] or keys.dtype != np.uint64:
        raise ValueError(
            f"codes {codes.dtype} {codes.shape} and keys {keys.dtype} {keys.shape}; "
            "expected int8 (rows, length) and uint64 (rows,)"
        )
    out = np.empty(codes.shape, np.int8)
    kernels.call("shuffled", np.ascontiguousarray(codes), *codes.shape, np.ascontiguousarray(keys), out)
    return out
