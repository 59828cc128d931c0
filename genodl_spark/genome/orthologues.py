"""What the same protein of other species has where a variant changes it: alignments, and features of them. Pure NumPy
and Arrow; amino acids are letters, uint8 of ASCII.

Two proteins are aligned from end to end with BLOSUM62, a gap of k residues costing 11 + k, those at the ends nothing:
what one has in front of the other or behind it, as a fragment lacks it, is no evidence against it (Gotoh 1982,
doi:10.1016/0022-2836(82)90398-9).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genome import residues

GAP, BEYOND = ord("-"), ord(".")
LETTERS = residues.LETTERS + "BJOUXZ"  # those behind the twenty are amino acids that are not told, or rare ones
OPEN, EXTEND = 11, 1
LONGEST = 16_384  # residues: an alignment takes a byte for each pair of them
_UNTOLD = -1  # the score of a letter that is none of the twenty
_LOW = np.int32(-(1 << 28))
_DIAGONAL, _DOWN, _OPENS_DOWN, _OPENS_ACROSS = 0, 1, 4, 8
# Per thousand residues, in the order of residues.LETTERS: Robinson and Robinson 1991 (doi:10.1073/pnas.88.20.8880)
_FREQUENCIES = """
    78.05 51.29 44.87 53.64 19.25 42.64 62.95 73.77 21.99 51.42
    90.19 57.44 22.43 38.56 52.03 71.20 58.41 13.30 32.16 64.41
"""
BACKGROUND = np.array(_FREQUENCIES.split(), float) / 1000
NAMES = [
    *(f"orthologues:{name}" for name in ("known", "same", "other", "gaps", "entropy")),
    *(f"orthologues:log_odds:{name}" for name in ("before", "after", "change")),
]


def _scores() -> np.ndarray:
    letters = np.frombuffer(residues.LETTERS.encode(), np.uint8)
    table = np.full((128, 128), _UNTOLD, np.int32)
    table[np.ix_(letters, letters)] = residues.blosum62(*np.meshgrid(letters, letters))
    return table


_SCORES = _scores()


def aligned(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What `other` (M letters) has at each of the N residues of `own`, uint8 (N,); GAP where nothing, BEYOND in
    front of its first one and behind its last one. N and M up to LONGEST."""
    (i, j), steps = _steps(own, other)
    found = np.full(len(own), BEYOND, np.uint8)
    found[:i] = GAP
    state = _DIAGONAL
    while i and j:  # from the end of the best alignment to its start
        step = int(steps[i - 1, j - 1])
        if state == _DIAGONAL:
            state = step & 3
            if state == _DIAGONAL:
                i, j = i - 1, j - 1
                found[i] = other[j]
        elif state == _DOWN:
            i -= 1
            state = _DIAGONAL if step & _OPENS_DOWN else state
        else:
            j -= 1
            state = _DIAGONAL if step & _OPENS_ACROSS else state
    found[:i] = BEYOND
    return found


def _steps(own: np.ndarray, other: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """Where the best alignment ends, and for every pair of residues how the best one that ends with it got there,
    uint8 (N, M): along the diagonal, down (a residue of `own` alone) or across, and whether a gap down or across begins
    there.

    A row at a time. A gap across never begins behind another, so that its best start is the highest of what the row has
    without such gaps, less the way from there: a running maximum."""
    n, m = len(own), len(other)
    steps = np.empty((n, m), np.uint8)
    best, down = np.zeros(m + 1, np.int32), np.full(m + 1, _LOW)
    way = EXTEND * np.arange(m + 1, dtype=np.int32)
    edge = np.zeros(n + 1, np.int32)  # scores of alignments that have all of `other`
    for i in range(n):
        opened, extended = best - (OPEN + EXTEND), down - EXTEND
        down = np.maximum(opened, extended)
        diagonal = best[:-1] + _SCORES[own[i]][other]
        bare = np.maximum(diagonal, down[1:])
        start = np.append(np.int32(0), bare)
        across = np.maximum.accumulate(start + way)[:-1] - OPEN - way[1:]
        best = np.append(np.int32(0), np.maximum(bare, across))
        steps[i] = np.where(best[1:] == diagonal, _DIAGONAL, np.where(best[1:] == down[1:], _DOWN, _DOWN + 1))
        steps[i] |= (opened >= extended)[1:] * np.uint8(_OPENS_DOWN)
        steps[i] |= (across == start[:-1] - (OPEN + EXTEND)) * np.uint8(_OPENS_ACROSS)
        edge[i + 1] = best[-1]
    # the last of the best ones: where nothing is gained by an end that hangs over, none does
    row, column = n - int(edge[::-1].argmax()), m - int(best[::-1].argmax())
    return ((row, m) if edge[row] >= best[column] else (n, column)), steps


def profile(aligned_: pa.Array) -> np.ndarray:
    """How many orthologues have each of residues.LETTERS, and a gap, of columns as text, int64 (N, 21); NULL is 0
    throughout. Other letters count nowhere, nor does what is BEYOND."""
    whole = pa.concat_arrays([pc.fill_null(aligned_, "")]).cast(pa.large_binary())
    _, offsets, data = whole.buffers()
    ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    text = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if data is not None else np.zeros(0, np.uint8)
    places = np.full(256, -1)
    places[np.frombuffer((residues.LETTERS + chr(GAP)).encode(), np.uint8)] = np.arange(len(residues.LETTERS) + 1)
    row, place = np.repeat(np.arange(len(whole)), np.diff(ends)), places[text]
    width = len(residues.LETTERS) + 1
    counts = np.bincount((row * width + place)[place >= 0], minlength=len(whole) * width)
    return counts.reshape(len(whole), width)


def features(old: np.ndarray, new: np.ndarray, residue: pa.Array, aligned_: pa.Array) -> np.ndarray:
    """NAMES, float32 (N, 8), of changes of the amino acid `old` to `new`, uint8 (N,), 0 where none is told, at a place
    where a protein has `residue` and its orthologues `aligned_`, text (N,), NULL where nothing is known of it.

    Shares of orthologues: with the same residue and with the other one, of those that have any; with a gap, of all
    that reach so far.
    Entropy of their residues, and logarithms of odds of the residues before and after against BACKGROUND, in bits: of
    the protein and its orthologues, with as many drawn from the background as the square root of their number (Lawrence
    et al. 1993, doi:10.1126/science.8211139). 0 where nothing is known, or the protein has another residue than `old`,
    and of what is not told.
    """
    letters = np.frombuffer(residues.LETTERS.encode(), np.uint8)
    x = np.zeros((len(old), len(NAMES)), np.float32)
    known = pc.fill_null(pc.utf8_slice_codeunits(residue, 0, 1), "").to_numpy(zero_copy_only=False)
    mine = np.array([ord(letter) if letter else 0 for letter in known.tolist()], np.int64)
    rows = np.flatnonzero((mine == old) & np.isin(old, letters))
    counts = profile(aligned_.take(pa.array(rows)))
    there, gaps = counts[:, :-1], counts[:, -1]
    total = np.maximum(there.sum(1), 1)
    shares = there / total[:, None]
    place = np.full(256, -1)
    place[letters] = np.arange(len(letters))
    before, after, line = place[old[rows]], place[new[rows]], np.arange(len(rows))
    told = after >= 0
    x[rows, 0] = 1
    x[rows, 1] = shares[line, before]
    x[rows[told], 2] = shares[line[told], after[told]]
    x[rows, 3] = gaps / np.maximum(there.sum(1) + gaps, 1)
    x[rows, 4] = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(1)
    all_of = there.copy()
    all_of[line, before] += 1
    size = all_of.sum(1, keepdims=True)
    weight = np.sqrt(size)
    odds = np.log2((all_of + weight * BACKGROUND) / (size + weight) / BACKGROUND)
    x[rows, 5] = odds[line, before]
    x[rows[told], 6] = odds[line[told], after[told]]
    x[rows[told], 7] = (odds[line, after] - odds[line, before])[told]
    return x
