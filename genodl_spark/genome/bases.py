"""Sequences as base codes, and the k-mers in them. Pure NumPy and Arrow, many sequences at once.

A base code is int8: A C G T (or U) are 0 1 2 3, any other letter of IUPAC, and what lies outside a sequence, is -1.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UNKNOWN_BASE, NO_BASE = -1, -2
_KNOWN_BASES, _AMBIGUOUS_BASES = ("A", "C", "G", "TU"), "RYSWKMBDHVN"  # IUPAC-IUB 1984, without its gaps
LETTERS = np.frombuffer(b"ACGTN", np.uint8)  # by base code, the last for an unknown base
_BLOCK = 1 << 20  # k-mers, or counts of them, at a time


def _base_table() -> np.ndarray:
    table = np.full(256, NO_BASE, np.int8)
    for code, letters in [*enumerate(_KNOWN_BASES), (UNKNOWN_BASE, _AMBIGUOUS_BASES)]:
        for letter in letters + letters.lower():
            table[ord(letter)] = code
    return table


_BASE_OF_BYTE = _base_table()


def base_codes(text: np.ndarray) -> np.ndarray:
    """Base codes of letters in either case, uint8 (n,) of ASCII: int8 (n,), -2 for what is no letter of IUPAC."""
    return _BASE_OF_BYTE[text]


def text_codes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Base codes of texts (NULL has none) one behind the other, int8, -2 for what is no letter of IUPAC; and where each
    begins and the last one ends, int64 (N + 1,)."""
    whole = pa.concat_arrays([pc.fill_null(texts.cast(pa.large_binary()), b"")])
    _, offsets, data = whole.buffers()
    ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    letters = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if data is not None else np.zeros(0, np.uint8)
    return base_codes(letters), ends - ends[0]


def single_bases(alleles: pa.Array) -> np.ndarray:
    """Base codes of alleles of one base, int8 (N,): -1 for all others, and for what is no A, C, G or T in upper case,
    as the lake has them."""
    place = pc.fill_null(pc.index_in(alleles, pa.array(list("ACGT"))), UNKNOWN_BASE)
    found: np.ndarray = place.to_numpy(zero_copy_only=False).astype(np.int8)
    return found


def spelled(codes: np.ndarray) -> str:
    """Base codes int8 (n,) as text, N for an unknown base."""
    return LETTERS[np.where(codes < 0, 4, codes)].tobytes().decode()


def centred(codes: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """Sequences of any length as rows of equal length, int8 (rows, length): padded with -1,
    or cut, as evenly as can be.

    `codes` int8: the sequences one behind the other. `ends` int (rows + 1,): where they end,
    ends[0] being where the first starts. Base n // 2 (from 0) of a sequence of n bases comes to position length // 2.
    """
    sizes = np.diff(ends)
    rows = len(sizes)
    if rows and (sizes == length).all():
        return codes[ends[0] : ends[-1]].reshape(rows, length).copy()
    shift = length // 2 - sizes // 2
    x = np.full((rows, length), UNKNOWN_BASE, np.int8)
    first, last = np.maximum(shift, 0), np.minimum(shift + sizes, length)
    kept = last - first
    row = np.repeat(np.arange(rows), kept)
    within = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    x[row, first[row] + within] = codes[(ends[:-1] + first - shift)[row] + within]
    return x


def kmers(codes: np.ndarray, k: int, merged: bool = False) -> np.ndarray:
    """The k-mer that starts at each place of base codes int8 (rows, length): int32 (rows, length - k + 1), its rank
    in the order AA..A, AA..C to TT..T; -1 where a base of it is unknown. k is at most 15.

    `merged`: both strands are one, a k-mer and its reverse complement are the lesser of the two.
    """
    index, known = _kmers(codes, k)
    if merged:
        left, other = index.copy(), np.zeros_like(index)
        for _ in range(k):
            other = other * 4 + (3 - left % 4)
            left //= 4
        index = np.minimum(index, other)
    return np.where(known, index, np.int32(-1))


def kmer_counts(codes: np.ndarray, k: int) -> np.ndarray:
    """How often each k-mer stands in each row of base codes int8 (rows, length): int32 (rows, 4**k),
    in the order AA..A, AA..C to TT..T.

    Both strands are not one: a k-mer and its reverse complement are counted apart.
    One with an unknown base does not count.
    """
    rows, length = codes.shape
    places = length - k + 1
    counts = np.zeros((rows, 4**k), np.int32)
    if places < 1:
        return counts
    step = max(1, _BLOCK // max(places, 4**k))
    for start in range(0, rows, step):
        part = codes[start : start + step]
        index, known = _kmers(part, k)
        row = np.arange(len(part), dtype=np.int64)[:, None] << (2 * k)
        counts[start : start + step] = np.bincount((row + index)[known], minlength=len(part) << (2 * k)).reshape(
            len(part), -1
        )
    return counts


def _kmers(codes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of k-mers, and whether all bases of each are known, where alone its rank means anything."""
    places = max(codes.shape[1] - k + 1, 0)
    index = np.zeros((len(codes), places), np.int32)
    known = np.ones(index.shape, bool)
    for i in range(k):
        base = codes[:, i : i + places]
        index = index * 4 + base
        known &= base >= 0
    return index, known
