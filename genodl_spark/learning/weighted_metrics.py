"""Metrics as functions of the weights of groups: what does not depend on the weights is computed once, the rest for
many weightings at once. Pure NumPy and SciPy.

Rows are of groups, `unit` (n,), and weights are integers: a weight of k means the same as k copies of the group's rows.
NaN where a metric is undefined. What each metric is `metrics.metrics` says.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ECE_BINS = 15
_RANKED = {"auroc", "auprc", "auprc_base_rate"}

# weights (groups, draws) int32 -> each metric, (draws,) float64
Weighted = Callable[[np.ndarray], dict[str, np.ndarray]]


def classification(
    unit: np.ndarray, target: np.ndarray, scores: np.ndarray, order: np.ndarray, n_groups: int, only: set[str]
) -> Weighted:
    """unit (n,): group index of each row; target (n,); scores (n, C), and `order` (n, C), which rows are ranked by."""
    from scipy import sparse

    n, c = scores.shape
    truth = target.astype(np.int64)
    predicted = scores.argmax(1)
    top = scores[np.arange(n), predicted]
    squares = (scores - (truth[:, None] == np.arange(c))) ** 2
    brier = squares[:, 1] if c == 2 else squares.sum(1)
    # What adds up over rows, one line each, summed within groups: cells of the confusion matrix,
    # calibration bins, Brier.
    lines = np.concatenate([truth * c + predicted, c * c + bin_of(top, ECE_BINS), np.full(n, c * c + ECE_BINS)])
    data = np.concatenate([np.ones(n), (predicted == truth) - top, brier])
    additive = sparse.csr_matrix((data, (lines, np.tile(unit, 3))), shape=(c * c + ECE_BINS + 1, n_groups))
    ranked = [_ranking(unit, truth == k, order[:, k]) for k in ([1] if c == 2 else range(c))] if only & _RANKED else []

    def weighted(counts: np.ndarray) -> dict[str, np.ndarray]:
        sums = additive @ counts
        cells = sums[: c * c].reshape(c, c, -1)
        hit, support, chosen = cells[np.arange(c), np.arange(c)], cells.sum(1), cells.sum(0)
        total = support.sum(0)
        spread, guessed = total**2 - (support**2).sum(0), total**2 - (chosen**2).sum(0)
        mcc = (hit.sum(0) * total - (support * chosen).sum(0)) / np.sqrt(spread * guessed)
        found = {
            "accuracy": hit.sum(0) / total,
            "balanced_accuracy": mean_of_known(hit / support),
            "macro_f1": mean_of_known(2 * hit / (support + chosen)),
            "mcc": np.where(spread > 0, np.where(guessed > 0, mcc, 0.0), np.nan),
            "brier": sums[-1] / total,
            "ece": np.abs(sums[c * c : -1]).sum(0) / total,
            "ari": _adjusted_rand(cells),
            "nmi": _normalised_information(cells),
        }
        if ranked:
            area, precision, rate = (
                mean_of_known(np.array(part)) for part in zip(*(rank(counts) for rank in ranked), strict=True)
            )
            found |= {"auroc": area, "auprc": precision, "auprc_base_rate": rate}
        return found

    return weighted


def _adjusted_rand(cells: np.ndarray) -> np.ndarray:
    """Of confusion matrices (C, C, draws): (draws,)."""

    def pairs(counts: np.ndarray) -> np.ndarray:
        return (counts * (counts - 1) / 2).sum(0)

    both, true, said = pairs(cells.reshape(-1, cells.shape[2])), pairs(cells.sum(1)), pairs(cells.sum(0))
    total = cells.sum((0, 1))
    chance = true * said / np.maximum(total * (total - 1) / 2, 1)
    most = (true + said) / 2
    return np.where(total > 0, np.where(most > chance, (both - chance) / (most - chance), 1.0), np.nan)


def _normalised_information(cells: np.ndarray) -> np.ndarray:
    """Of confusion matrices (C, C, draws): (draws,)."""

    def entropy(counts: np.ndarray) -> np.ndarray:
        share = counts / counts.sum(0)
        return -np.where(share > 0, share * np.log(share), 0).sum(0)

    true, said = entropy(cells.sum(1)), entropy(cells.sum(0))
    shared = true + said - entropy(cells.reshape(-1, cells.shape[2]))
    found = np.where(true + said > 1e-15, np.maximum(2 * shared / (true + said), 0.0), 1.0)
    return np.where(cells.sum((0, 1)) > 0, found, np.nan)


def _ranking(
    unit: np.ndarray, positive: np.ndarray, score: np.ndarray
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """AUROC, average precision and share of positives of one score as a function of the weights;
    NaN without both classes."""
    order = np.argsort(-score, kind="stable")
    ranked, is_positive, units = score[order], positive[order], unit[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.empty(0, np.int64)
    tie = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(ranked)]))  # of each row
    places = np.flatnonzero(is_positive)
    # Only scores that a positive row has contribute to either sum.
    ties, firsts = np.unique(tie[places], return_index=True)
    begin, end = starts[ties], np.r_[starts, len(ranked)][ties + 1] if len(ties) else ties

    def weighted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        draws = counts.shape[1]
        if not len(places):
            return (np.full(draws, np.nan),) * 3
        weights = counts[units]
        above = np.zeros((len(ranked) + 1, draws), np.int32)  # weight of the rows ranked before each place
        np.cumsum(weights, axis=0, out=above[1:])
        positives = weights[places]
        if len(firsts) < len(places):
            positives = np.add.reduceat(positives, firsts, axis=0, dtype=np.int32)
        caught = np.cumsum(positives, axis=0, dtype=np.int32)
        reached = above[end]
        total, positive_total = above[-1].astype(np.float64), caught[-1].astype(np.float64)
        negative_total = total - positive_total
        # Twice the negatives ranked above, ties once: begin and end of each tie, less the positives there.
        twice = above[begin]
        twice += reached
        twice -= 2 * caught
        twice += positives
        area = 1 - np.einsum("kb,kb->b", positives, twice, dtype=np.float64) / (2 * positive_total * negative_total)
        share = caught / reached
        share[reached == 0] = 0  # nothing drawn so far
        precision = np.einsum("kb,kb->b", positives, share) / positive_total
        undefined = (positive_total == 0) | (negative_total == 0)
        return tuple(np.where(undefined, np.nan, value) for value in (area, precision, positive_total / total))  # type: ignore[return-value]

    return weighted


def regression(unit: np.ndarray, target: np.ndarray, scores: np.ndarray, n_groups: int, only: set[str]) -> Weighted:
    """unit (n,): group index of each row; target (n,); scores (n,)."""
    from scipy import sparse

    # Sums of squares lose digits far from 0.
    t, p, error = (
        target - target.mean() if len(target) else target,
        scores - scores.mean() if len(scores) else scores,
        scores - target,
    )
    rows = np.array([np.ones(len(t)), t, t**2, p, p**2, t * p, np.abs(error), error**2])
    lines = np.repeat(np.arange(len(rows)), len(t))
    additive = sparse.csr_matrix((rows.ravel(), (lines, np.tile(unit, len(rows)))), shape=(len(rows), n_groups))
    ordered: dict[str, Callable[..., Callable[[np.ndarray], np.ndarray]]] = {
        "spearman": _spearman,
        "c_index": concordance,
    }
    ranked = {name: of(unit, target, scores) for name, of in ordered.items() if name in only}

    def weighted(counts: np.ndarray) -> dict[str, np.ndarray]:
        total, st, stt, sp, spp, stp, absolute, squared = additive @ counts
        t_spread, p_spread = _spread(total, st, stt), _spread(total, sp, spp)
        found = {
            "r2": 1 - squared / t_spread,
            "pearson": np.clip((stp - st * sp / total) / np.sqrt(t_spread * p_spread), -1, 1),
            "mae": absolute / total,
            "mse": squared / total,
        }
        return found | {name: of(counts) for name, of in ranked.items()}

    return weighted


def _spread(total: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum of squares about the mean, NaN where only rounding is left of it."""
    spread = second - first**2 / total
    return np.where(spread > 1e-12 * second, spread, np.nan)


def _spearman(unit: np.ndarray, target: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    n = len(target)

    def places(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sorting order; for each row, in row order, where its tie begins and ends in it."""
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        return order, np.searchsorted(ranked, values, "left"), np.searchsorted(ranked, values, "right")

    by_target, begin, end = places(target)
    by_score, score_begin, score_end = places(scores)
    # Rows in the order of the target: then one of the two look-ups runs through memory in order.
    begin, end, score_begin, score_end = begin[by_target], end[by_target], score_begin[by_target], score_end[by_target]
    tied = bool(((end - begin) > 1).any())

    def ranks(weights: np.ndarray, begin: np.ndarray | None, end: np.ndarray | None) -> np.ndarray:
        """Twice the average rank less its mean, an integer: (n, draws) int32."""
        below = np.zeros((n + 1, weights.shape[1]), np.int32)
        np.cumsum(weights, axis=0, out=below[1:])
        twice = below[:-1] + below[1:] if begin is None or end is None else below[begin] + below[end]
        twice -= below[-1]
        return twice

    def weighted(counts: np.ndarray) -> np.ndarray:
        weights = counts[unit[by_target]]
        x = ranks(weights, begin if tied else None, end).astype(np.float64)
        y = ranks(counts[unit[by_score]], score_begin, score_end).astype(np.float64)
        wx, wy = weights * x, weights * y
        x_spread, y_spread = np.einsum("nb,nb->b", wx, x), np.einsum("nb,nb->b", wy, y)
        r = np.einsum("nb,nb->b", wx, y) / np.sqrt(x_spread * y_spread)
        return np.where((x_spread > 0) & (y_spread > 0), np.clip(r, -1, 1), np.nan)

    return weighted


def errors(unit: np.ndarray, scores: np.ndarray, n_groups: int, names: tuple[str, ...]) -> Weighted:
    """unit (n,): group index of each row; scores (n,). The first metric is their mean, a second one e to its power."""
    rows, sums = np.bincount(unit, minlength=n_groups), np.bincount(unit, scores, n_groups)

    def weighted(counts: np.ndarray) -> dict[str, np.ndarray]:
        mean = sums @ counts / (rows @ counts)
        return dict(zip(names, (mean, np.exp(mean)), strict=False))

    return weighted


def concordance(
    unit: np.ndarray, target: np.ndarray, scores: np.ndarray, event: np.ndarray | None = None
) -> Callable[..., np.ndarray]:
    """Share of the pairs with different targets that the scores put in the same order; where there is an `event` (n,)
    bool, of the pairs of which the row of the lower target has it. Of equal targets those with it are the lower.

    What it returns is asked with weights of groups and, where pairs count by the row of the lower target, with the
    factors (n, draws) of rows.

    The ranks of two different targets, written in binary, differ first in one bit:
    at each bit the rows of 0 are held against those of 1 that share the bits above, in the order of their scores.
    That is n log n, where pairs would be n * n.
    """
    rank = np.unique(target, return_inverse=True)[1]
    if event is not None:
        rank = 2 * rank + ~event
    place = np.unique(scores, return_inverse=True)[1]
    ties = len(scores) + 1
    levels = []
    for bit in range(int(rank.max(initial=0)).bit_length()):
        block = rank >> (bit + 1)
        key = block * ties + place
        order = np.argsort(key, kind="stable")
        ranked, upper = key[order], np.flatnonzero(rank >> bit & 1)
        own = key[upper]
        edges = [np.searchsorted(ranked, own, "left"), np.searchsorted(ranked, own, "right")]
        ends = [
            np.searchsorted(ranked, block[upper] * ties, "left"),
            np.searchsorted(ranked, (block[upper] + 1) * ties, "left"),
        ]
        lower = (rank[order] >> bit & 1) == 0
        levels.append((order, lower if event is None else lower & event[order], unit[upper], *edges, *ends))

    def weighted(counts: np.ndarray, factors: np.ndarray | None = None) -> np.ndarray:
        agreed, total = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
        for order, is_lower, upper, begin, end, first, last in levels:
            own = counts[unit[order]] * is_lower[:, None]
            if factors is not None:  # of a row that was not drawn a factor may be infinite
                own = np.where(own > 0, own * factors[order], 0.0)
            below = np.zeros((len(order) + 1, counts.shape[1]), own.dtype)  # weight of the lower rows before each place
            np.cumsum(own, axis=0, out=below[1:])
            mine = counts[upper]
            agreed += np.einsum("nb,nb->b", mine, below[begin] + below[end] - 2 * below[first], dtype=np.float64)
            total += np.einsum("nb,nb->b", mine, 2 * (below[last] - below[first]), dtype=np.float64)
        return agreed / total

    return weighted


def bin_of(top: np.ndarray, bins: int) -> np.ndarray:
    return np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), top, "left") - 1, 0, bins - 1)


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(0) / known.sum(0)
