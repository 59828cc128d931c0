"""How similar sequences are to the most similar ones of a training set: by the k-mers that they share.

Of the distinct k-mers of two sequences, each the lesser of it and its reverse complement, a share c is common to both,
the cosine of their indicators. Where one becomes the other by exchanging single bases, each with the same chance, a
k-mer is left as it is with the k-th power of the share of bases that are: c ** (1 / k) tells that share, as Mash does
(Ondov et al. 2016, Genome Biol 17:132). Sequences without a common k-mer have similarity 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from scipy import sparse

from genodl_spark.genome import bases

K = 10  # of 91 random k-mers one is met by chance in 63 sequences of 100 bases: that is a similarity of 0.64
EDGES = (0.7, 0.8, 0.9)  # of the bins that metrics are told by
_AT_ONCE = 1 << 22  # pairs of rows that are compared at once, and k-mers that are sorted


def indicators(codes: np.ndarray) -> sparse.csr_array:
    """Which canonical k-mers each row of base codes int8 (rows, length) has: float32 (rows, 4**K), rows of length 1."""
    parts = [sparse.csr_array((0, 4**K), dtype=np.float32)]
    step = max(1, _AT_ONCE // max(codes.shape[1], 1))
    for start in range(0, len(codes), step):
        kmers = bases.kmers(codes[start : start + step], K, merged=True)
        row, place = np.nonzero(kmers >= 0)
        found = np.unique(np.stack([row, kmers[row, place]]), axis=1)
        counts = np.bincount(found[0], minlength=len(kmers))
        ends = np.append(0, np.cumsum(counts)).astype(np.int32)
        values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts).astype(np.float32)
        parts.append(sparse.csr_array((values, found[1].astype(np.int32), ends), (len(kmers), 4**K)))
    return sparse.vstack(parts, "csr")


def nearest(rows: np.ndarray, fold: np.ndarray, training: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Similarity of each row, base codes int8 (rows, length), to the most similar one of those that train the network
    which it is held out from: float64 (rows,), 0 to 1.

    `fold` int (rows,), and `training`, parts of (codes, fold int): rows of other folds train.
    """
    asked, best = indicators(rows), np.zeros(len(rows))
    for codes, of in training:
        for one in np.unique(of).tolist():
            mine = np.flatnonzero(fold != one)
            others = indicators(codes[of == one]).T.tocsr()
            step = max(1, _AT_ONCE // max(others.shape[1], 1))
            for start in range(0, len(mine), step):
                part = mine[start : start + step]
                shared = (asked[part] @ others).tocsr()
                most = np.zeros(len(part))
                full = np.flatnonzero(np.diff(shared.indptr))
                if len(full):
                    most[full] = np.maximum.reduceat(shared.data, shared.indptr[full])
                best[part] = np.maximum(best[part], most)
    # sums of single precision end beside 1 for sequences that are the same
    return np.round(best, 6).clip(0, 1) ** (1 / K)


def bins(similar: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """What each bin is called, the lowest first, and which rows it has, bool (rows,); empty ones are left out."""
    ends = [0.0, *EDGES, 1.0]
    found = []
    for number, (low, high) in enumerate(pairwise(ends)):
        inside = (similar >= low) & ((similar < high) | (number == len(EDGES)))
        if inside.any():
            found.append((f"below {high:g}" if not number else f"{low:g} to {high:g}", inside))
    return found
