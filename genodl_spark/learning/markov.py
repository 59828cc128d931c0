"""What stands at a place of a sequence, given all its other bases, under a Markov chain: the baselines of networks that
tell hidden bases.

A chain of order k says a base by the k before it. Given also those behind, a base x at place i has the probability
of the chain's words that it stands in, P(x_i | the k before) ... P(x_i+k | the k before), over the sum of that for all
four bases. Sequences are base codes int8 (rows, length), -1 unknown or outside the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

NAMES = ("composition", "markov")
ORDER = 5  # of the chain, unless an option says another
LONGEST = 8  # order that may be asked for: a million of words of nine bases
WEIGHT = 4.0  # of the chain of one order less, in counts, where words are counted
_AT_ONCE = 1 << 20  # places that are in memory at once


def cross_entropies(name: str, train: np.ndarray, test: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """Mean cross entropy in nats of the known bases of each test row, each given all others of its row, float64
    (rows,); NaN of a row without any. `composition`: of the shares of bases, order 0; `markov`: of a chain."""
    order = 0 if name == "composition" else int(options.get("order", ORDER))
    chain = fit(train, order)
    size = max(_AT_ONCE // max(test.shape[1], 1), 1)
    parts = [_surprise(chain, test[start : start + size]) for start in range(0, len(test), size)]
    return np.concatenate([np.empty(0), *parts])


def fit(codes: np.ndarray, order: int) -> list[np.ndarray]:
    """Logarithms of the probabilities of bases, float64 (4**m, 4), after each word of m bases, of every m up to
    `order`; of two bases of a word the one that stands farther from its end counts four times the more.

    An order is smoothed by the one below it, which counts as WEIGHT more bases after every word (MacKay and Peto 1995);
    the lowest by one of each base.
    """
    found, below = [], np.full((1, 4), 0.25)
    size = max(_AT_ONCE // max(codes.shape[1], 1), 1)
    for m in range(order + 1):
        counts = np.zeros(4 ** (m + 1))
        for start in range(0, len(codes), size):
            part = codes[start : start + size].astype(np.int64)
            word, known = _before(part, m)
            there = (known == m) & (part >= 0)
            counts += np.bincount((word * 4 + part)[there], minlength=len(counts))
        counts = counts.reshape(-1, 4)
        shorter = below[np.arange(4**m) % len(below)]
        below = (counts + WEIGHT * shorter) / (counts.sum(1, keepdims=True) + WEIGHT)
        found.append(np.log(below))
    return found


def _before(codes: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """The word before each place, of as many known bases without a gap as there are, `order` at most, int64 (rows,
    length); and of how many it is."""
    word, known = np.zeros(codes.shape, np.int64), np.zeros(codes.shape, np.int64)
    whole = np.ones(codes.shape, bool)
    for distance in range(1, order + 1):
        base = np.full(codes.shape, -1, np.int64)
        base[:, distance:] = codes[:, : max(codes.shape[1] - distance, 0)]
        whole &= base >= 0
        word += np.where(whole, base, 0) << 2 * (distance - 1)
        known += whole
    return word, known


def _surprise(chain: list[np.ndarray], part: np.ndarray) -> np.ndarray:
    """As `cross_entropies`, of a chain as `fit` has it."""
    codes, order = part.astype(np.int64), len(chain) - 1
    length = codes.shape[1]
    flat = np.concatenate([table.ravel() for table in chain])
    begins = np.concatenate([[0], np.cumsum([table.size for table in chain])])
    word, known = _before(codes, order)
    there = codes >= 0
    own = np.where(there, codes, 0)
    scores = flat[begins[known][..., None] + 4 * word[..., None] + np.arange(4)]
    for distance in range(1, min(order, length - 1) + 1):
        # of the base so many places on, whose word the base at the place may stand in
        ahead, here = (slice(None), slice(distance, None)), (slice(None), slice(length - distance))
        within = there[ahead] & (known[ahead] >= distance)
        step = 4 ** (distance - 1)
        for base in range(4):
            other = np.where(within, word[ahead] + (base - own[here]) * step, 0)
            said = flat[begins[known[ahead]] + 4 * other + own[ahead]]
            scores[(*here, base)] += np.where(within, said, 0)
    most = scores.max(2, keepdims=True)
    total = np.log(np.exp(scores - most).sum(2)) + most[..., 0]
    costs = total - np.take_along_axis(scores, own[..., None], 2)[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.where(there, costs, 0).sum(1) / there.sum(1)
    return found
