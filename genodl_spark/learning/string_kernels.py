"""Sequences as sparse features whose inner products are those of string kernels, so that a model over them is linear
in their number; and the most similar of many sequences.

Sequences are base codes int8 (rows, length), -1 for an unknown base and outside the sequence
(genodl_spark/genome/bases.py). A k-mer with such a base is no feature.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from genodl_spark.genome import bases

POSITIONS = 1024  # of longer rows the middle ones have features of their own: sequences are aligned there
LONGEST = 6  # of the k-mers that are counted
_PLACES = 1 << 22  # k-mers, or pairs of sequences, at a time


def weighted_degree(codes: np.ndarray, degree: int = 2) -> sparse.csr_array:
    """Features (rows, f) of the weighted degree kernel (Raetsch and Sonnenburg 2004), float64: k-mers of each position,
    k from 1 to `degree`, the square root of beta_k = 2 (degree - k + 1) / (degree (degree + 1)) where one is there.

    The inner product of two rows is the sum over k of beta_k times the places where both have the same k-mer.
    """
    start = max(0, codes.shape[1] - POSITIONS) // 2
    codes = codes[:, start : start + POSITIONS]
    parts = []
    for k in range(1, degree + 1):
        beta = 2 * (degree - k + 1) / (degree * (degree + 1))
        places = max(codes.shape[1] - k + 1, 0)
        offset = np.arange(places, dtype=np.int32) << (2 * k)
        found = (np.where(index < 0, -1, index + offset) for index in _indices(codes, k))
        parts.append(_indicators(found, places << (2 * k)) * np.sqrt(beta))
    return sparse.hstack(parts, "csr")


def kmer_counts(codes: np.ndarray, merged: bool = False) -> sparse.csr_array:
    """How often each k-mer of 1 to LONGEST bases stands in each row, float64 (rows, 4 + 16 + ...), in the order of
    `bases.kmer_counts`. `merged`: with its reverse complement, as the lesser of the two."""
    return sparse.hstack(
        [_indicators(_indices(codes, k, merged), 4**k) for k in range(1, LONGEST + 1)], "csr", dtype=np.float64
    )


def spectrum(codes: np.ndarray, merged: bool = False) -> sparse.csr_array:
    """`kmer_counts` on a scale for linear models: logarithms of one more than a count, each row of length 1."""
    found = kmer_counts(codes, merged).log1p()
    length = np.sqrt(found.power(2).sum(1))
    return sparse.diags_array(1 / np.where(length > 0, length, 1)) @ found


def votes(codes: np.ndarray, values: np.ndarray, asked: np.ndarray, k: int, neighbours: int) -> np.ndarray:
    """Mean of `values` (rows, v) over the `neighbours` sequences of `codes` that are most similar to each of `asked`,
    weighted by similarity: float64 (asked, v), NaN where none has a k-mer of it.

    Similarity is the cosine of which canonical k-mers two sequences have, the lesser of each and its reverse
    complement. All that are as similar as the last of the neighbours vote, so that the order of rows decides nothing.
    """
    known, wanted = _present(codes, k), _present(asked, k)
    # counts of whole numbers and their quotients, rounded once: equal similarities are equal bit for bit
    size = np.maximum(known.sum(1), 1)
    across = known.T.tocsr()
    count = min(neighbours, len(codes))
    found = [np.zeros((0, values.shape[1]))]
    step = max(1, _PLACES // max(len(codes), 1))
    for start in range(0, len(asked), step):
        part = wanted[start : start + step]
        shared = (part @ across).toarray()
        squares = shared * shared / size
        last = np.partition(squares, len(codes) - count, axis=1)[:, len(codes) - count]
        near = sparse.csr_array(np.where(squares >= last[:, None], squares, 0)).sqrt()
        with np.errstate(invalid="ignore"):
            found.append(near @ values / near.sum(1)[:, None])
    return np.concatenate(found)


def _indices(codes: np.ndarray, k: int, merged: bool = False) -> Iterator[np.ndarray]:
    """`bases.kmers` of some rows at a time."""
    step = max(1, _PLACES // max(codes.shape[1], 1))
    for start in range(0, max(len(codes), 1), step):
        yield bases.kmers(codes[start : start + step], k, merged)


def _indicators(indices: Iterator[np.ndarray], width: int) -> sparse.csr_array:
    """How often each number stands in each row of `indices`, those below 0 apart: float64 (rows, width)."""
    parts = []
    for index in indices:
        known = index >= 0
        ends = np.concatenate([[0], np.cumsum(known.sum(1))]).astype(np.int32)  # of 64 bits liblinear takes none
        part = sparse.csr_array((np.ones(ends[-1]), index[known], ends), (len(index), width))
        part.sum_duplicates()
        parts.append(part)
    return sparse.vstack(parts, "csr")


def _present(codes: np.ndarray, k: int) -> sparse.csr_array:
    found = _indicators(_indices(codes, k, merged=True), 4**k)
    found.data[:] = 1
    return found
