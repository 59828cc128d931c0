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

from genodl_spark.learning.heads import Head

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
TIMES = ("c_index",)
UNLABELLED = ("reconstruction_error",)
LOWER_IS_BETTER = ("brier", "ece", "mae", "mse", *UNLABELLED)
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
    classes: names in index order, empty for regression. event: (N,) bool, of times:
    whether the event came by `target`, or nothing is known of later. label and kind: of the head (see heads.py),
    which is classes or values unless it is said. Any order of rows gives the same results.
    """

    entities: np.ndarray
    groups: np.ndarray
    target: np.ndarray
    scores: np.ndarray
    classes: list[str]
    event: np.ndarray | None = None
    label: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        n = len(self.entities)
        if (self.event is not None) != (self.kind == "time") or (self.event is not None and self.event.shape != (n,)):
            raise ValueError("events do not fit the entities; expected one for each, of times alone")
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

    def of(self, rows: np.ndarray) -> HeldOut:
        """Some of its rows, by bool (N,) or their numbers."""
        event = None if self.event is None else self.event[rows]
        parts = {"entities": self.entities[rows], "groups": self.groups[rows], "target": self.target[rows]}
        return replace(self, **parts, scores=self.scores[:, rows], event=event)

    @property
    def evaluated(self) -> np.ndarray:
        """(R, N) bool: which rows were evaluated in which repeat."""
        missing = np.isnan(self.scores)
        return ~(missing.any(2) if self.classes else missing)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that it has."""
        return _OF_KIND[self.kind or ("classes" if self.classes else "value")]

    @property
    def n_test(self) -> int:
        """Distinct entities evaluated in one repeat at least."""
        return int(self.evaluated.any(0).sum())


Held = HeldOut | Sequence[HeldOut]  # of one head, or of each of several


def n_test(held: Held) -> int:
    """Distinct entities evaluated, of one head at least."""
    return len(
        {entity for one in _several(held) for entity in np.asarray(one.entities, str)[one.evaluated.any(0)].tolist()}
    )


def metrics(held: Held) -> dict[str, float]:
    """Mean over repeats of each pooled metric; NaN where undefined in every repeat.
    Of several heads the mean over those that have the metric.

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
    Regression: r2 against the mean of the target; pearson; spearman with average ranks; c_index: share of the pairs
    of rows with different targets that the scores put in the same order, ties of scores count half (Harrell et al.
    1982); mae; mse. Times: c_index over the pairs of which the earlier row has the event. Rows without labels:
    reconstruction_error, the mean of the scores.
    """
    return _pooled(held).values()


def intervals(held: Held, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Each metric with the 95% percentile interval of a group bootstrap (Efron 1979;
    groups as in Field and Welsh 2007).

    As many groups as there are are drawn with replacement, the same draw for all repeats, and for all of several heads.
    Draws in which a metric is undefined are left out of its interval. `resamples` 0 gives NaN ends. With few rows
    the interval of ece lies too high, even above its value: copies of rows look less calibrated than the rows.
    """
    pooled = _pooled(held)
    drawn = [pooled(counts) for counts in pooled.draws(resamples, seed, 0)]
    return {
        name: Interval(value, *_percentiles([part[name] for part in drawn])) for name, value in pooled.values().items()
    }


def paired(a: Held, b: Held, metric: str, resamples: int = 1000, seed: int = 0) -> Interval:
    """metric(a) - metric(b) with its 95% interval, both evaluated on the same draws.

    a and b hold the same entities (in any order), groups, targets and repeats, of each of several heads,
    else ValueError. A row that one of them lacks in a repeat is left out of both there.
    """
    return paired_mean([(a, b)], metric, resamples, seed)


def paired_mean(pairs: Sequence[tuple[Held, Held]], metric: str, resamples: int = 1000, seed: int = 0) -> Interval:
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
        parts[str(value)] = intervals(held.of(rows), resamples, seed)
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


def _several(held: Held) -> list[HeldOut]:
    return [held] if isinstance(held, HeldOut) else list(held)


def _pooled(held: Held, keep: Sequence[np.ndarray] | None = None, only: str | None = None) -> _Draws:
    """Pooled metrics of one head, or their means over several. `keep`: of each head, see `_Pooled`;
    `only`: the metric wanted."""
    heads = _several(held)
    kept = keep or [one.evaluated for one in heads]
    names = np.unique(
        np.concatenate([np.asarray(one.groups, str)[rows.any(0)] for one, rows in zip(heads, kept, strict=True)])
    )
    wanted = [(one, rows) for one, rows in zip(heads, kept, strict=True) if only is None or only in one.metrics]
    parts = [_Pooled(one, names, rows, only) for one, rows in wanted]
    return parts[0] if len(parts) == 1 else _Mean(parts, len(names))


class _Draws:
    """Metrics as a function of the weights of groups, `n_groups` of them, over some `rows`."""

    n_groups: int
    rows: int

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """counts (groups, draws) int32 -> each metric, (draws,) float64."""
        raise NotImplementedError

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


class _Mean(_Draws):
    """Metrics of several heads: each the unweighted mean over those that have it and of which it is defined."""

    def __init__(self, parts: list[_Pooled], n_groups: int) -> None:
        self.parts, self.n_groups, self.rows = parts, n_groups, sum(part.rows for part in parts)

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {}
        for part in self.parts:
            for name, drawn in part(counts).items():
                found.setdefault(name, []).append(drawn)
        return {name: _mean(np.array(drawn)) for name, drawn in found.items()}


class _Pooled(_Draws):
    """Pooled metrics of one head; what does not depend on the weights is computed once.

    `names` (G,): of all groups, in order. `evaluated` (R, N) bool, in the rows of `held`: what counts;
    `only`: the metric wanted.
    """

    def __init__(self, held: HeldOut, names: np.ndarray, evaluated: np.ndarray, only: str | None = None) -> None:
        # Sums and draws follow the order of identifiers, so that the order of rows changes no bit.
        order = np.argsort(np.asarray(held.entities, str), kind="stable")
        order = order[evaluated.any(0)[order]]
        unit = np.searchsorted(names, np.asarray(held.groups, str)[order])
        self.n_groups = len(names)
        self.names = (only,) if only else held.metrics
        self.rows = max(len(order), len(held.classes) ** 2, 1)
        self.repeats: list[Weighted] = []
        for scores, mask in zip(held.scores, evaluated, strict=True):
            used = mask[order]
            rows = order[used]
            arguments = (unit[used], held.target[rows], scores[rows], self.n_groups)
            if held.event is not None:
                self.repeats.append(_times(unit[used], held.target[rows], scores[rows], held.event[rows]))
            elif held.kind == "none":
                self.repeats.append(_errors(unit[used], scores[rows], len(names)))
            else:
                self.repeats.append((_classification if held.classes else _regression)(*arguments, set(self.names)))

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The mean over the repeats in which a metric is defined."""
        with np.errstate(all="ignore"):
            values = [weighted(counts) for weighted in self.repeats] if self.n_groups else []
            draws = counts.shape[1]
            return {name: _mean(np.array([v[name] for v in values]).reshape(len(values), draws)) for name in self.names}


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


def _times(unit: np.ndarray, target: np.ndarray, scores: np.ndarray, event: np.ndarray) -> Weighted:
    """unit (n,): group index of each row; target, scores (n,); event (n,) bool."""
    concordance = _concordance(unit, target, scores, event)
    return lambda counts: {"c_index": concordance(counts)}


def _errors(unit: np.ndarray, scores: np.ndarray, n_groups: int) -> Weighted:
    """unit (n,): group index of each row; scores (n,)."""
    rows, sums = np.bincount(unit, minlength=n_groups), np.bincount(unit, scores, n_groups)
    return lambda counts: {"reconstruction_error": sums @ counts / (rows @ counts)}


def _concordance(
    unit: np.ndarray, target: np.ndarray, scores: np.ndarray, event: np.ndarray | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Share of the pairs with different targets that the scores put in the same order; where there is an `event` (n,)
    bool, of the pairs of which the row of the lower target has it. Of equal targets those with it are the lower.

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
        levels.append((unit[order], lower if event is None else lower & event[order], unit[upper], *edges, *ends))

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


def _together(a: Held, b: Held, metric: str) -> tuple[_Draws, _Draws]:
    several_a, several_b = _several(a), _several(b)
    known = dict.fromkeys(name for one in several_a for name in one.metrics)
    if metric not in known:
        raise ValueError(f"found metric {metric!r}; expected one of {', '.join(known)}")
    if [one.label for one in several_a] != [one.label for one in several_b]:
        raise ValueError("the two predictions differ in their heads; expected the same")
    kept = [_both(*pair) for pair in zip(several_a, several_b, strict=True)]
    return _pooled(several_a, [rows for rows, _ in kept], metric), _pooled(
        several_b, [rows for _, rows in kept], metric
    )


def _both(a: HeldOut, b: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """What both have evaluated, bool (R, N), in the rows of each."""
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
    return keep_a, keep_b


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


_OF_KIND = {"classes": CLASSIFICATION, "value": REGRESSION, "time": TIMES, "none": UNLABELLED}
_HEADLINES = {"classes": "balanced_accuracy", "value": "r2", "time": "c_index", "none": "reconstruction_error"}


def headline_metric(metric: str, heads: Sequence[Head]) -> str:
    """The task's own metric where a head has it, else that of the first head's kind: balanced accuracy,
    coefficient of determination, c_index."""
    return metric if any(metric in _OF_KIND[head.kind] for head in heads) else _HEADLINES[heads[0].kind]


def best_baseline(values: dict[str, float], metric: str) -> str | None:
    sign = -1 if metric in LOWER_IS_BETTER else 1
    known = {name: sign * value for name, value in values.items() if not math.isnan(value)}
    return max(known, key=lambda name: (known[name], name)) if known else None
