"""Windows with the GC share and length of given sequences, which a model is to tell apart from these."""

from __future__ import annotations

import numpy as np

from genodl_spark.core.splitmix import mixed


def gc_shares(codes: np.ndarray) -> np.ndarray:
    """The share of G and C among the known bases of each row of base codes int8 (rows, length): float64 (rows,),
    NaN where no base is known."""
    known = (codes >= 0).sum(1)
    return np.where(known, ((codes == 1) | (codes == 2)).sum(1), np.nan) / np.maximum(known, 1)


def gc_matched(
    shares: np.ndarray,
    candidates: np.ndarray,
    keys: np.ndarray,
    candidate_keys: np.ndarray,
    *,
    lengths: np.ndarray | None = None,
    candidate_lengths: np.ndarray | None = None,
    width: float = 0.02,
    again: bool = True,
) -> np.ndarray:
    """A candidate for each sequence, of the same length and nearly its GC share: places int64 (n,) among the
    candidates, -1 for a sequence that found none.

    `shares` and `candidates` float (n,) and (candidates,): GC shares, as `gc_shares` has them; NaN finds none.
    `keys` and `candidate_keys` uint64, all different, decide who is served first and by whom, so that the order of
    rows does not matter. `lengths` and `candidate_lengths` int: all are of one length without them.

    Both sides are put in bins of shares, `width` wide, and what is left of them in bins half a width further on, so
    that no pair differs by more than `width`, and none that differs by less than half of it is missed. A candidate is
    taken twice only where the bins of a sequence have none left; those of a bin are taken in turn then. Without
    `again` such a sequence finds none.
    """
    if (lengths is None) != (candidate_lengths is None):
        raise ValueError("lengths of one side; expected those of both or none")
    bins = int(1 / width) + 2  # of a length

    def bins_of(share: np.ndarray, length: np.ndarray | None, rows: np.ndarray, shift: float) -> np.ndarray:
        own = np.floor(share[rows] / width + shift).astype(np.int64)
        return own if length is None else length[rows].astype(np.int64) * bins + own

    chosen, taken = np.full(len(shares), -1, np.int64), np.zeros(len(candidates), bool)
    wanting, offered = _by_key(shares, keys), _by_key(candidates, candidate_keys)
    for twice in (False, True) if again else (False,):
        for shift in (0.0, 0.5):
            wanting = wanting[chosen[wanting] < 0]
            left = offered if twice else offered[~taken[offered]]
            bin_left = bins_of(candidates, candidate_lengths, left, shift)
            order = np.argsort(bin_left, kind="stable")
            left, bin_left = left[order], bin_left[order]
            bin_wanted = bins_of(shares, lengths, wanting, shift)
            order = np.argsort(bin_wanted, kind="stable")
            bin_wanted = bin_wanted[order]
            rank = np.arange(len(order)) - np.searchsorted(bin_wanted, bin_wanted)
            first = np.searchsorted(bin_left, bin_wanted)
            held = np.searchsorted(bin_left, bin_wanted, side="right") - first
            served = held > (0 if twice else rank)
            found = left[(first + rank % np.maximum(held, 1))[served]]
            chosen[wanting[order[served]]] = found
            taken[found] = True
    return chosen


def _by_key(shares: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Rows that have a share, in the order of their keys, which may be as regular as row numbers."""
    order = np.argsort(mixed(keys), kind="stable")
    return order[~np.isnan(shares[order])]
