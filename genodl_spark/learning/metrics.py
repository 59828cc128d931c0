"""Metrics of predictions on rows that no training saw, their group-bootstrap intervals, and calibration.

Everything is computed from integer weights of groups: 1 each for the value itself,
the times drawn for a bootstrap draw. A weight of k means the same as k copies of the row.
Nothing here raises or warns where a metric is undefined: it is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

CLASSIFICATION = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "mcc",
    "auroc",
    "auprc",
    "auprc_base_rate",
    "brier",
    "ece",
    "ari",
    "nmi",
)
REGRESSION = ("r2", "pearson", "spearman", "c_index", "mae", "mse")
LOWER_IS_BETTER = ("brier", "ece", "mae", "mse")
ECE_BINS = 15

_CHUNK = 1 << 20  # rows x draws that are in memory at once: about 60 MB at the peak
_RANKED = {"auroc", "auprc", "auprc_base_rate"}

# weights (groups, draws) int32 -> each metric, (draws,) float64
Weighted = Callable[[np.ndarray], dict[str, np.ndarray]]


class Interval(NamedTuple):
    """A metric with the ends of its 95% interval; NaN where undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOut:
    """Predictions on rows that no training saw. ValueError where shapes or values do not fit together.

    entities: (N,) str, distinct. groups: (N,) str, equal to entities where there is no group. target:
    (N,) float64, class index or value. scores: float64, class probabilities (R, N, C) or values (R, N),
    for R repeats of the cross-validation (1 for a fixed split); NaN where a row was not evaluated in that repeat.
    classes: names in index order, empty for regression. Any order of rows gives the same results.
    """

    entities: np.ndarray
    groups: np.ndarray
    target: np.ndarray
    scores: np.ndarray
    classes: list[str]

    def __post_init__(self) -> None:
        n = len(self.entities)
        width = (len(self.classes),) if self.classes else ()
        if (
            self.scores.shape != (*self.scores.shape[:1], n, *width)
            or len(self.groups) != n
            or self.target.shape != (n,)
        ):
            raise ValueError(
                f"scores {self.scores.shape}, groups {len(self.groups)} and target {self.target.shape} "
                f"do not fit {n} entities"
            )
        if len(np.unique(np.asarray(self.entities, str))) != n:
            raise ValueError("an entity stands twice; expected each once")
        if np.isinf(self.scores).any() or not np.isfinite(self.target).all():
            raise ValueError("scores hold an infinite value, or target a value that is not finite")
        if self.classes and n and not np.isin(self.target, np.arange(len(self.classes))).all():
            raise ValueError(f"target holds something else than a class index below {len(self.classes)}")

    @property
    def evaluated(self) -> np.ndarray:
        """(R, N) bool: which rows were evaluated in which repeat."""
        missing = np.isnan(self.scores)
        return ~(missing.any(2) if self.classes else missing)

    @property
    def n_test(self) -> int:
        """Distinct entities evaluated in one repeat at least."""
        return int(self.evaluated.any(0).sum())


def metrics(held: HeldOut) -> dict[str, float]:
    """Mean over repeats of each pooled metric; NaN where undefined in every repeat.

    Classification (predicted: the class of the highest probability, the first of equals):
    accuracy; balanced_accuracy: mean recall of the classes present in the target (Brodersen et al. 2010);
    macro_f1: mean F1 of the classes present in target or predictions; mcc: multi-class correlation (Gorodkin 2004),
    0 for a constant predictor, NaN for a constant target; auroc: binary with the last class positive,
    else the mean over classes of one against the rest, ties count half (Hanley and McNeil 1982);
    auprc: average precision without interpolation (Davis and Goadrich 2006), over the same classes,
    those with both positive and negative rows; auprc_base_rate: what a random score would have as auprc;
    brier: binary the mean of (p - y)^2 of the positive class, multi-class the mean over rows of the sum over
    classes (Brier 1950), so that the two conventions differ by a factor of 2; ece: expected calibration error,
    15 equal-width bins of the highest probability, each open below and closed above (Guo et al. 2017); ari:
    adjusted Rand index of the predicted classes (Hubert and Arabie 1985); nmi: their mutual information with the target
    over the mean of both entropies; both are 1 where all rows are of one class and are said to be.
    Regression: r2 against the mean of the target; pearson; spearman with average ranks; c_index:
    share of the pairs of rows with different targets that the scores put in the same order,
    ties of scores count half (Harrell et al. 1982); mae; mse.
    """
    return _Pooled(held).values()


def intervals(held: HeldOut, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Each metric with the 95% percentile interval of a group bootstrap (Efron 1979;
    groups as in Field and Welsh 2007).

    As many groups as there are are drawn with replacement, the same draw for all repeats.
    Draws in which a metric is undefined are left out of its interval. `resamples` 0 gives NaN ends. With few rows
    the interval of ece lies too high, even above its value: copies of rows look less calibrated than the rows.
    """
    pooled = _Pooled(held)
    drawn = [pooled(counts) for counts in pooled.draws(resamples, seed, 0)]
    return {
        name: Interval(value, *_percentiles([part[name] for part in drawn])) for name, value in pooled.values().items()
    }


def paired(a: HeldOut, b: HeldOut, metric: str, resamples: int = 1000, seed: int = 0) -> Interval:
    """metric(a) - metric(b) with its 95% interval, both evaluated on the same draws.

    a and b hold the same entities (in any order), groups, targets and repeats, else ValueError.
    A row that one of them lacks in a repeat is left out of both there.
    """
    return paired_mean([(a, b)], metric, resamples, seed)


def paired_mean(
    pairs: Sequence[tuple[HeldOut, HeldOut]], metric: str, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Mean over pairs of metric(a) - metric(b), each pair with draws of its own.

    For pairs of different data or splits. Seeds on one set of test rows share its sampling error:
    stack them as repeats of one HeldOut and call `paired`, or the interval comes out too narrow.
    """
    if not pairs:
        raise ValueError("no pair to compare; expected one at least")
    values, drawn = [], []
    for index, (a, b) in enumerate(pairs):
        left, right = _together(a, b, metric)
        values.append(left.values()[metric] - right.values()[metric])
        drawn.append(
            np.concatenate(
                [np.empty(0), *(left(c)[metric] - right(c)[metric] for c in left.draws(resamples, seed, index))]
            )
        )
    # A pair without rows has no draws, and no value either.
    complete = all(len(part) == resamples for part in drawn)
    return Interval(float(np.mean(values)), *_percentiles([np.mean(drawn, axis=0)] if complete else []))


def by_group(
    held: HeldOut, labels: Sequence[str | None], resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """`intervals` of the rows of each value of `labels` (N,), parallel to the rows of `held`,
    sorted; None is left out."""
    column = np.asarray(["" if label is None else str(label) for label in labels])
    known = np.asarray([label is not None for label in labels])
    parts = {}
    for value in np.unique(column[known]):
        rows = known & (column == value)
        part = replace(
            held,
            entities=held.entities[rows],
            groups=held.groups[rows],
            target=held.target[rows],
            scores=held.scores[:, rows],
        )
        parts[str(value)] = intervals(part, resamples, seed)
    return parts


def confusion(held: HeldOut) -> np.ndarray:
    """(C, C) float64: rows of class i predicted as class j, mean over repeats."""
    c = len(held.classes)
    repeat, row = np.nonzero(held.evaluated)
    cell = held.target[row].astype(np.int64) * c + held.scores[repeat, row].argmax(1)
    return np.bincount(cell, minlength=c * c).reshape(c, c) / max(len(held.scores), 1)


def per_class(held: HeldOut) -> list[dict[str, str | float]]:
    """For each class its name, support (rows of it, mean over repeats), precision, recall and f1
    of the matrix of `confusion`."""
    counts = confusion(held)
    hit, support, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    with np.errstate(all="ignore"):
        columns = (support, hit / predicted, hit / support, 2 * hit / (support + predicted))
    names = ("support", "precision", "recall", "f1")
    return [
        {"class": c, **{n: float(v[i]) for n, v in zip(names, columns, strict=True)}}
        for i, c in enumerate(held.classes)
    ]


def temperature(probabilities: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The T that minimises the log loss of `sharpen(probabilities, T)` (Guo et al. 2017), between e**-3 and e**3.

    probabilities: (N, C); target: (N,) class index; weights: (N,). Rows with NaN do not count.
    1.0 without rows or with rows of one class only, where the best T says nothing.
    """
    from scipy.optimize import minimize_scalar

    weight = np.ones(len(target)) if weights is None else np.asarray(weights, np.float64)
    used = ~np.isnan(probabilities).any(1) & (weight > 0)
    index, weight = np.asarray(target)[used].astype(np.int64), weight[used]
    if len(np.unique(index)) < 2:
        return 1.0
    # A class at probability 0 has no finite loss at any T.
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64)[used], 1e-12))

    def loss(log_t: float) -> float:
        z = logs * np.exp(-log_t)
        z -= z.max(1, keepdims=True)
        return float(weight @ (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), index]) / weight.sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-6}).x))


def sharpen(probabilities: np.ndarray, t: float) -> np.ndarray:
    """probabilities ** (1 / t), renormalised over the last axis; float64 of the same shape. NaN rows stay NaN."""
    with np.errstate(divide="ignore"):
        z = np.log(np.asarray(probabilities, np.float64)) / t
    z = np.exp(z - z.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)


def calibration_curve(held: HeldOut, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reliability diagram, three float64 (bins,): mean highest probability, accuracy,
    and rows (mean over repeats) of each bin.

    Equal-width bins, pooled over repeats; NaN in an empty bin.
    """
    repeat, row = np.nonzero(held.evaluated)
    scores = held.scores[repeat, row]
    top = scores.max(1) if len(scores) else np.empty(0)
    correct = scores.argmax(1) == held.target[row] if len(scores) else np.empty(0)
    index = _bin(top, bins)
    count = np.bincount(index, minlength=bins).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (
            np.bincount(index, top, bins) / count,
            np.bincount(index, correct, bins) / count,
            count / max(len(held.scores), 1),
        )


def roc_curves(held: HeldOut, points: int = 500) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(false positive rate, true positive rate) per class, pooled over repeats, thinned to at most about `points`.

    The positive class alone for two classes. Classes without positive or negative rows are left out.
    """
    from sklearn.metrics import roc_curve

    curves = {}
    for name, positive, score in _one_against_rest(held):
        x, y, _ = roc_curve(positive, score)
        keep = _thin(len(x), points)
        curves[name] = (x[keep], y[keep])
    return curves


def pr_curves(held: HeldOut, points: int = 500) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(recall, precision) per class by rising recall; otherwise as `roc_curves`."""
    from sklearn.metrics import precision_recall_curve

    curves = {}
    for name, positive, score in _one_against_rest(held):
        precision, recall, _ = precision_recall_curve(positive, score, drop_intermediate=True)
        keep = _thin(len(recall), points)
        curves[name] = (recall[::-1][keep], precision[::-1][keep])
    return curves


class _Pooled:
    """Pooled metrics as a function of the weights of the groups; what does not depend on the weights is computed once.

    `keep` (R, N) bool, in the rows of `held`, restricts what counts as evaluated; `only` the metrics.
    """

    def __init__(self, held: HeldOut, keep: np.ndarray | None = None, only: str | None = None) -> None:
        evaluated = held.evaluated if keep is None else keep & held.evaluated
        # Sums and draws follow the order of identifiers, so that the order of rows changes no bit.
        order = np.argsort(np.asarray(held.entities, str), kind="stable")
        order = order[evaluated.any(0)[order]]
        names, unit = np.unique(np.asarray(held.groups, str)[order], return_inverse=True)
        self.n_groups = len(names)
        self.names = (only,) if only else CLASSIFICATION if held.classes else REGRESSION
        self.rows = max(len(order), len(held.classes) ** 2, 1)
        self.repeats: list[Weighted] = []
        for scores, mask in zip(held.scores, evaluated, strict=True):
            used = mask[order]
            arguments = (unit[used], held.target[order][used], scores[order][used], self.n_groups)
            self.repeats.append(
                _classification(*arguments, set(self.names))
                if held.classes
                else _regression(*arguments, set(self.names))
            )

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """counts (groups, draws) int32 -> each metric, (draws,) float64:
        mean over the repeats in which it is defined."""
        with np.errstate(all="ignore"):
            values = [weighted(counts) for weighted in self.repeats] if self.n_groups else []
            draws = counts.shape[1]
            return {name: _mean(np.array([v[name] for v in values]).reshape(len(values), draws)) for name in self.names}

    def values(self) -> dict[str, float]:
        return {name: float(drawn[0]) for name, drawn in self(np.ones((self.n_groups, 1), np.int32)).items()}

    def draws(self, resamples: int, seed: int, stream: int) -> Iterator[np.ndarray]:
        """Times that each group was drawn, (groups, some draws) int32, `resamples` draws in all."""
        generator = np.random.default_rng([seed, stream, 0xB007])
        step = max(1, _CHUNK // self.rows)
        for start in range(0, resamples if self.n_groups else 0, step):
            width = min(step, resamples - start)
            counts = np.empty((self.n_groups, width), np.int32)
            for i in range(width):
                counts[:, i] = np.bincount(generator.integers(0, self.n_groups, self.n_groups), minlength=self.n_groups)
            yield counts


def _classification(
    unit: np.ndarray, target: np.ndarray, scores: np.ndarray, n_groups: int, only: set[str]
) -> Weighted:
    """unit (n,): group index of each row; target (n,); scores (n, C)."""
    from scipy import sparse

    n, c = scores.shape
    truth = target.astype(np.int64)
    predicted = scores.argmax(1)
    top = scores[np.arange(n), predicted]
    squares = (scores - (truth[:, None] == np.arange(c))) ** 2
    brier = squares[:, 1] if c == 2 else squares.sum(1)
    # What adds up over rows, one line each, summed within groups: cells of the confusion matrix,
    # calibration bins, Brier.
    lines = np.concatenate([truth * c + predicted, c * c + _bin(top, ECE_BINS), np.full(n, c * c + ECE_BINS)])
    data = np.concatenate([np.ones(n), (predicted == truth) - top, brier])
    additive = sparse.csr_matrix((data, (lines, np.tile(unit, 3))), shape=(c * c + ECE_BINS + 1, n_groups))
    ranked = [_ranking(unit, truth == k, scores[:, k]) for k in ([1] if c == 2 else range(c))] if only & _RANKED else []

    def weighted(counts: np.ndarray) -> dict[str, np.ndarray]:
        sums = additive @ counts
        cells = sums[: c * c].reshape(c, c, -1)
        hit, support, chosen = cells[np.arange(c), np.arange(c)], cells.sum(1), cells.sum(0)
        total = support.sum(0)
        spread, guessed = total**2 - (support**2).sum(0), total**2 - (chosen**2).sum(0)
        mcc = (hit.sum(0) * total - (support * chosen).sum(0)) / np.sqrt(spread * guessed)
        found = {
            "accuracy": hit.sum(0) / total,
            "balanced_accuracy": _mean(hit / support),
            "macro_f1": _mean(2 * hit / (support + chosen)),
            "mcc": np.where(spread > 0, np.where(guessed > 0, mcc, 0.0), np.nan),
            "brier": sums[-1] / total,
            "ece": np.abs(sums[c * c : -1]).sum(0) / total,
            "ari": _adjusted_rand(cells),
            "nmi": _normalised_information(cells),
        }
        if ranked:
            area, precision, rate = (
                _mean(np.array(part)) for part in zip(*(rank(counts) for rank in ranked), strict=True)
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


def _regression(unit: np.ndarray, target: np.ndarray, scores: np.ndarray, n_groups: int, only: set[str]) -> Weighted:
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
    ordered = {"spearman": _spearman, "c_index": _concordance}
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


def _concordance(unit: np.ndarray, target: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Share of the pairs with different targets that the scores put in the same order.

    The ranks of two different targets, written in binary, differ first in one bit:
    at each bit the rows of 0 are held against those of 1 that share the bits above, in the order of their scores.
    That is n log n, where pairs would be n * n.
    """
    rank = np.unique(target, return_inverse=True)[1]
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
        levels.append((unit[order], (rank[order] >> bit & 1) == 0, unit[upper], *edges, *ends))

    def weighted(counts: np.ndarray) -> np.ndarray:
        agreed, total = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
        for units, is_lower, upper, begin, end, first, last in levels:
            below = np.zeros((len(units) + 1, counts.shape[1]), np.int32)  # weight of the lower rows before each place
            np.cumsum(counts[units] * is_lower[:, None], axis=0, out=below[1:])
            mine = counts[upper]
            agreed += np.einsum("nb,nb->b", mine, below[begin] + below[end] - 2 * below[first], dtype=np.float64)
            total += np.einsum("nb,nb->b", mine, 2 * (below[last] - below[first]), dtype=np.float64)
        return agreed / total

    return weighted


def _together(a: HeldOut, b: HeldOut, metric: str) -> tuple[_Pooled, _Pooled]:
    known = CLASSIFICATION if a.classes else REGRESSION
    if metric not in known:
        raise ValueError(f"found metric {metric!r}; expected one of {', '.join(known)}")
    left, right = (np.argsort(np.asarray(held.entities, str), kind="stable") for held in (a, b))
    same = (
        a.scores.shape == b.scores.shape and a.classes == b.classes and np.array_equal(a.target[left], b.target[right])
    )
    for name in ("entities", "groups"):
        same = same and np.array_equal(
            np.asarray(getattr(a, name), str)[left], np.asarray(getattr(b, name), str)[right]
        )
    if not same:
        raise ValueError(
            "the two predictions differ in entities, groups, targets, classes or repeats; expected the same rows"
        )
    both = a.evaluated[:, left] & b.evaluated[:, right]
    keep_a, keep_b = np.empty_like(both), np.empty_like(both)
    keep_a[:, left], keep_b[:, right] = both, both
    return _Pooled(a, keep_a, metric), _Pooled(b, keep_b, metric)


def _one_against_rest(held: HeldOut) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Class, whether each row is of it, and its score: rows of all repeats together."""
    repeat, row = np.nonzero(held.evaluated)
    for index in [1] if len(held.classes) == 2 else range(len(held.classes)):
        positive = held.target[row] == index
        if positive.any() and not positive.all():
            yield held.classes[index], positive, held.scores[repeat, row, index]


def _thin(n: int, points: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, points)).round().astype(np.int64))


def _bin(top: np.ndarray, bins: int) -> np.ndarray:
    return np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), top, "left") - 1, 0, bins - 1)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(0) / known.sum(0)


def _percentiles(drawn: list[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([np.empty(0), *drawn])
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def calibrated(scores: np.ndarray, target: np.ndarray, folds: np.ndarray, registered: float) -> np.ndarray:
    """Probabilities (R, N, C) at the `registered` temperature, or, where `folds` (R, N) is not -1,
    at one fitted on the other folds."""
    out = scores.copy()
    for repeat in range(len(scores)):
        inside = folds[repeat] >= 0
        if not inside.any():
            out[repeat] = sharpen(scores[repeat], registered)
            continue
        for k in np.unique(folds[repeat][inside]):
            own, others = folds[repeat] == k, inside & (folds[repeat] != k)
            t = temperature(scores[repeat][others], target[others])
            out[repeat][own] = sharpen(scores[repeat][own], t)
    return out


def headline_metric(metric: str, n_classes: int) -> str:
    """The task's own metric; for regression, where that is one of classes, the coefficient of determination."""
    if metric in (CLASSIFICATION if n_classes else REGRESSION):
        return metric
    return "balanced_accuracy" if n_classes else "r2"


def best_baseline(values: dict[str, float], metric: str) -> str | None:
    sign = -1 if metric in LOWER_IS_BETTER else 1
    known = {name: sign * value for name, value in values.items() if not math.isnan(value)}
    return max(known, key=lambda name: (known[name], name)) if known else None
