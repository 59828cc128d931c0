"""Sequences that are nearly the same: sketches that find candidates, and edits that decide. Pure NumPy.

A sketch is a MinHash (Broder 1997) of the canonical k-mers of a sequence, the lesser of a k-mer and its reverse
complement: two sequences share a value of it as often as they share k-mers. Base codes are those of bases.py.
"""

from __future__ import annotations

import zlib

import numpy as np

from genodl_spark.core import packing
from genodl_spark.core.splitmix import mixed
from genodl_spark.genome import bases

K = 12  # bases of a k-mer: there are 8 million canonical ones, so that strangers hardly share any
HASHES = 48  # values of a sketch: of pairs of 60 bases or more that are 90% the same, 98 in 100 share one at least
_Q = 3  # of q-grams
_BIG = np.int16(1 << 13)
_BLOCK = 1 << 20  # k-mers at a time
_PAIRS = 1 << 14  # pairs whose edits are counted at a time
_OF_OTHER_STRAND = np.array([(3 - i % 4) * 16 + (3 - i // 4 % 4) * 4 + 3 - i // 16 for i in range(4**_Q)])
_MATCHES = 1 << 22  # values shared by pairs of sketches that are counted at a time
_PRUNED = 16  # rows of a matrix of edits after which pairs that have too many are left out


def sketches(codes: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sketches uint64 (rows, HASHES) of sequences: `codes` int8, one behind the other, `ends` int (rows + 1,) as of
    `bases.centred`. Values of different columns are never the same but by chance. A sequence without a k-mer of known
    bases shares its values with those that are equal, or its reverse complement, alone."""
    keys = mixed(np.arange(1, HASHES + 1, dtype=np.uint64) << np.uint64(32))
    found = np.full((len(ends) - 1, HASHES), np.iinfo(np.uint64).max, np.uint64)
    sizes = np.diff(ends)
    order = np.argsort(sizes, kind="stable")
    start = 0
    while start < len(order):
        width = int(sizes[order[start]])
        stop = min(start + max(_BLOCK // max(width, 1), 1), len(order))
        widest = int(sizes[order[stop - 1]])
        if widest > 2 * width + K:  # rows of a block are about as long
            stop = start + int(np.searchsorted(sizes[order[start:stop]], 2 * width + K, "right"))
            widest = int(sizes[order[stop - 1]])
        rows = order[start:stop]
        kmers, known = _canonical(padded(codes, ends, rows, widest))
        for column, key in enumerate(keys if kmers.shape[1] else ()):
            hashed = mixed(kmers ^ key)
            hashed[~known] = np.iinfo(np.uint64).max
            found[rows, column] = hashed.min(1)
        for row in rows[~known.any(1)].tolist():  # hardly any are so short, or of N alone
            own = codes[ends[row] : ends[row + 1]]
            other = reverse_complements(own[None], np.array([len(own)]))
            found[row] = mixed(np.uint64(zlib.crc32(min(own.tobytes(), other.tobytes()))) ^ keys)
        start = stop
    return found


def _canonical(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Canonical k-mers uint64 (rows, places) of base codes int8 (rows, length), and which have known bases alone."""
    places = max(x.shape[1] - K + 1, 0)
    ahead, back = np.zeros((2, len(x), places), np.uint64)
    known = np.ones((len(x), places), bool)
    for i in range(K if places else 0):
        base = x[:, i : i + places]
        known &= base >= 0
        code = (base & 3).astype(np.uint64)
        ahead = ahead << np.uint64(2) | code
        back |= (np.uint64(3) - code) << np.uint64(2 * i)
    return np.minimum(ahead, back), known


class Sketched:
    """Sketches of sequences, to be asked which is most like another one's."""

    def __init__(self, known: np.ndarray) -> None:
        """`known` uint64 (rows, HASHES)."""
        self._order = np.argsort(known.T, axis=1, kind="stable")
        self._values = np.take_along_axis(known.T, self._order, 1)

    def nearest(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For sketches uint64 (n, HASHES), the known row that shares most values with each, int64 (n,), the first of
        several, -1 where none shares any; and which share of them that is, float64 (n,): an estimate of the share of
        k-mers that both have, of those that either has (Jaccard index)."""
        first, last = (
            np.stack([np.searchsorted(v, a, side) for v, a in zip(self._values, asked.T, strict=True)])
            for side in ("left", "right")
        )
        counts = last - first  # (HASHES, n)
        rows = self._order.shape[1]
        row, shared = np.full(len(asked), -1), np.zeros(len(asked), np.int64)
        ends = np.cumsum(counts.sum(0))
        start = 0
        while start < len(asked):  # as many as have some millions of pairs
            before = ends[start - 1] if start else 0
            stop = max(int(np.searchsorted(ends, before + _MATCHES, "right")), start + 1)
            some = counts[:, start:stop]
            place = np.repeat(np.arange(len(some)) * rows, some.sum(1)) + packing.runs(
                first[:, start:stop].ravel(), some.ravel()
            )
            pair = (
                np.repeat(np.tile(np.arange(stop - start), len(some)), some.ravel()) * rows + self._order.ravel()[place]
            )
            pairs, times = np.unique(pair, return_counts=True)
            of, known = np.divmod(pairs, max(rows, 1))
            best = np.lexsort((known, -times, of))
            best = best[np.unique(of[best], return_index=True)[1]]
            row[start + of[best]], shared[start + of[best]] = known[best], times[best]
            start = stop
        return row, shared / HASHES


def padded(codes: np.ndarray, ends: np.ndarray, rows: np.ndarray, width: int) -> np.ndarray:
    """Some sequences as rows int8 (rows, width), -1 behind their ends."""
    sizes = ends[rows + 1] - ends[rows]
    x = np.full((len(rows), width), -1, np.int8)
    inside = np.arange(width) < sizes[:, None]
    x[inside] = codes[(ends[rows][:, None] + np.arange(width))[inside]]
    return x


def alike(codes: np.ndarray, ends: np.ndarray, first: np.ndarray, second: np.ndarray, identity: float) -> np.ndarray:
    """Which pairs of sequences, rows `first` and `second` int (pairs,), are the same but for edits (bases exchanged,
    inserted or deleted) of at most 1 - `identity` of the longer one's bases, as they are or as reverse complements:
    bool (pairs,). An unknown base is unlike any other, but sequences of the same codes are alike."""
    sizes = np.diff(ends)
    longer = np.maximum(sizes[first], sizes[second])
    most = np.floor((1 - identity) * longer + 1e-9).astype(np.int64)
    found = np.zeros(len(first), bool)
    possible = np.flatnonzero(np.abs(sizes[first] - sizes[second]) <= most)
    order = possible[np.argsort(longer[possible], kind="stable")]  # pairs of a block are about as long
    for start in range(0, len(order), _PAIRS):
        block = order[start : start + _PAIRS]
        width = int(longer[block].max())
        a, b = (padded(codes, ends, rows[block], width) for rows in (first, second))
        of_a, of_b, limit = sizes[first[block]], sizes[second[block]], most[block]
        grams_a, grams_b = (bases.kmer_counts(x, _Q) for x in (a, b))
        for turned in (False, True):
            # an edit changes at most _Q q-grams, each of which is one less here and one more there (Ukkonen 1992)
            apart = np.abs(grams_a - (grams_b[:, _OF_OTHER_STRAND] if turned else grams_b)).sum(1)
            rest = np.flatnonzero(~found[block] & (apart <= 2 * _Q * limit))
            other = reverse_complements(b[rest], of_b[rest]) if turned else b[rest]
            found[block[rest]] = _within(a[rest], other, of_a[rest], of_b[rest], limit[rest])
    return found


def reverse_complements(x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The other strands of sequences int8 (rows, width), -1 behind their `sizes` int (rows,)."""
    places = sizes[:, None] - 1 - np.arange(x.shape[1])
    turned = np.take_along_axis(x, places.clip(0), 1)
    return np.where((places >= 0) & (turned >= 0), 3 - turned, -1).astype(np.int8)


def _within(a: np.ndarray, b: np.ndarray, of_a: np.ndarray, of_b: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Which rows of a int8 (pairs, width), `of_a` bases each, become those of b by at most so many edits."""
    exchanged = ((a != b) | (a < 0)).sum(1) - (a.shape[1] - of_a)  # behind the end both are -1
    found = (of_a == of_b) & ((exchanged <= most) | (a == b).all(1))
    rest = np.flatnonzero(~found & (most > 0))
    for limit in np.unique(most[rest]).tolist():
        own = rest[most[rest] == limit]
        found[own] = _few_edits(a[own], b[own], of_a[own], of_b[own], limit)
    return found


def _few_edits(a: np.ndarray, b: np.ndarray, of_a: np.ndarray, of_b: np.ndarray, most: int) -> np.ndarray:
    """Which rows have an edit distance (Levenshtein 1966) of at most `most`: by diagonals of the matrix that are no
    farther than that from the main one, all pairs at once."""
    found = np.zeros(len(a), bool)
    band = 2 * most + 1
    step = np.arange(band, dtype=np.int16)[:, None]
    left = np.arange(-most, most + 1, dtype=np.int16)
    start = np.where(left >= 0, left, _BIG)
    at, pairs = np.repeat(start[:, None], len(a), 1), np.arange(len(a))
    a, b = np.ascontiguousarray(a.T), np.ascontiguousarray(np.pad(b, ((0, 0), (most, most)), constant_values=-1).T)
    for row in range(a.shape[0] + 1):
        done = of_a[pairs] == row
        if done.any():
            ended = np.flatnonzero(done)
            last = (of_b[pairs[ended]] - row + most).astype(np.int64)
            inside = (last >= 0) & (last < band)
            found[pairs[ended[inside]]] = at[last[inside], ended[inside]] <= most
        if row == a.shape[0]:
            break
        if row % _PRUNED == _PRUNED - 1:
            kept = np.flatnonzero((at.min(0) <= most) & (of_a[pairs] > row))
            if len(kept) < len(pairs) * 3 // 4:
                at, pairs, a, b = at[:, kept], pairs[kept], a[:, kept], b[:, kept]
        base, beside = a[row], b[row : row + band]
        new = at + ((beside != base) | (base < 0))
        np.minimum(new[:-1], at[1:] + 1, out=new[:-1])
        new -= step
        np.minimum.accumulate(new, axis=0, out=new)
        at = np.minimum(new + step, _BIG)
    return found
