"""What one training set says of its features, and what several training sets and methods agree on.

Ranks of a test are averaged over training sets, and ranks of all methods over methods (Borda's count): a feature that
one of them puts last is no consensus, whatever the others say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genodl_spark.learning.biomarkers import moderated, negative_binomial, stability
from genodl_spark.learning.biomarkers.differences import Differences, ranks
from genodl_spark.learning.biomarkers.stability import Stability

MODERATED_T, MODERATED_F, NEGATIVE_BINOMIAL = "moderated_t", "moderated_f", "negative_binomial"


@dataclass(frozen=True)
class Asked:
    """What is sought: `counts`: whether values are counts, and tested so; `trend`: of variances over means, of others;
    `rate`: of false discoveries, at which a feature is significant; `pairs` of halves, in each of which the best `most`
    features are selected."""

    counts: bool
    trend: bool
    rate: float
    pairs: int
    most: int


@dataclass(frozen=True)
class OfSet:
    """Of one training set and F features: the test's name and findings, float64 `rank` (F,) by them, bool `significant`
    (F,), float64 `frequency` (F,): share of halves that select the feature, NaN without any, and how stable these are.
    """

    test: str
    found: Differences
    rank: np.ndarray
    significant: np.ndarray
    frequency: np.ndarray
    stability: Stability


def of_training_set(
    x: np.ndarray, scaled: np.ndarray, codes: np.ndarray, classes: int, asked: Asked, seed: list[int]
) -> OfSet:
    """`x` float (n, F): values as they are stored, of which counts are tested; `scaled` (n, F): the same on the scale
    where differences are effects, NaN missing; `codes` int (n,): classes from 0.

    Halves are compared by moderated tests whatever is asked: of counts on the logarithm of counts per million, with a
    trend.
    """
    if asked.counts:
        name, found = NEGATIVE_BINOMIAL, negative_binomial.compare(x, codes, classes)
        # Of a feature that nobody has counts of, the logarithm says how many of all others there are.
        scaled = np.where(np.isnan(found.p_value), np.nan, log_counts(x))
    else:
        name = MODERATED_T if classes == 2 else MODERATED_F
        found = moderated.compare(scaled, codes, classes, asked.trend)

    def score(rows: np.ndarray) -> np.ndarray:
        return order_of(moderated.compare(scaled[rows], codes[rows], classes, asked.trend or asked.counts))

    chosen = stability.selections(score, codes, x.shape[1], asked.most, asked.pairs, seed)
    q = found.q_value
    return OfSet(
        name,
        found,
        ranks(order_of(found)),
        np.less_equal(q, asked.rate, where=~np.isnan(q), out=np.zeros(len(q), bool)),
        chosen.mean(0) if len(chosen) else np.full(x.shape[1], np.nan),
        stability.index(chosen),
    )


def order_of(found: Differences) -> np.ndarray:
    """A score by which features are in the order of their p-values, and where those are too small to differ in that of
    their statistics; float64 (F,), NaN of what was not tested."""
    size = np.abs(found.statistic)
    order = np.lexsort([-size, found.p_value])
    p, size = found.p_value[order], size[order]
    steps = np.r_[0, np.cumsum((p[1:] != p[:-1]) | (size[1:] != size[:-1]))]
    score = np.empty(len(order))
    score[order] = -steps
    score[np.isnan(found.p_value)] = np.nan
    return score


def log_counts(x: np.ndarray) -> np.ndarray:
    """log2 of counts per million (n, F), half a count added (Law et al. 2014); float64, NaN missing."""
    y = x.astype(np.float64)
    found: np.ndarray = np.log2((y + 0.5) / (np.nansum(y, 1)[:, None] + 1) * 1e6)
    return found


@dataclass(frozen=True)
class Consensus:
    """Of F features: `test_rank` float64, the mean over training sets; `share` of these in which the feature is
    significant; `frequency` in halves, the mean over training sets; `score`: mean rank over methods; `rank` int from 1
    by it; `selected` bool: significant on all rows that the model learnt from, and in enough training sets."""

    test_rank: np.ndarray
    share: np.ndarray
    frequency: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    selected: np.ndarray
    stability: Stability


def agreed(
    rank: Sequence[np.ndarray],
    significant: np.ndarray,
    frequency: Sequence[np.ndarray],
    registered: np.ndarray,
    others: Mapping[str, np.ndarray],
    agreement: float,
    names: Sequence[str],
) -> Consensus:
    """`rank`, `frequency`: (F,) of each training set, and `significant` bool (sets, F); `registered` bool (F,): the
    same on all rows that the model learnt from. `others`: ranks (F,) by further methods. `agreement`: share of training
    sets in which what is selected is significant. `names` (F,) put features of one score in an order.
    """
    test_rank = np.mean(rank, 0)
    share = significant.mean(0)
    often = np.mean(frequency, 0)
    by = [ranks(-test_rank), *([] if np.isnan(often).all() else [ranks(often)]), *others.values()]
    score = np.mean(by, 0)
    order = np.lexsort([np.array(names), test_rank, score])
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(1, len(order) + 1)
    chosen = registered & (share >= agreement - 1e-9)
    return Consensus(test_rank, share, often, score, place, chosen, stability.index(significant))
