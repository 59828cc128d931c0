"""Metrics of predictions on rows that no training saw, their group-bootstrap intervals, and curves.

Everything is computed from integer weights of groups: 1 each for the value itself,
the times drawn for a bootstrap draw. A weight of k means the same as k copies of the row.
Nothing here raises or warns where a metric is undefined: it is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from genodl_spark.learning import survival_metrics, weighted_metrics
from genodl_spark.learning.heads import Head
from genodl_spark.learning.weighted_metrics import Weighted, bin_of, mean_of_known

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
TIMES = ("c_index", "c_index_uno", "integrated_brier", "mean_auroc")
UNLABELLED = ("reconstruction_error",)
BASES = ("cross_entropy", "perplexity")
LOWER_IS_BETTER = ("brier", "ece", "mae", "mse", "integrated_brier", *UNLABELLED, *BASES)

_CHUNK = 1 << 20  # rows x draws that are in memory at once: about 60 MB at the peak


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
    whether the event came by `target`, or nothing is known of later. survival: (R, N, K) float64, probabilities that it
    has not come by each of K `times`, NaN of what says nothing of that. label and kind: of the head (see heads.py),
    which is classes or values unless it is said. ranked: of classes, what orders rows (auroc, auprc) in place of
    scores, in the shape of these: probabilities before each fold was calibrated on the others, as a temperature of its
    own moves a fold against the others and no row within it. Any order of rows gives the same results.
    """

    entities: np.ndarray
    groups: np.ndarray
    target: np.ndarray
    scores: np.ndarray
    classes: list[str]
    event: np.ndarray | None = None
    label: str = ""
    kind: str = ""
    times: tuple[float, ...] = ()
    survival: np.ndarray | None = None
    ranked: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.entities)
        if (self.event is not None) != (self.kind == "time") or (self.event is not None and self.event.shape != (n,)):
            raise ValueError("events do not fit the entities; expected one for each, of times alone")
        if (self.survival is not None) != bool(self.times) or (
            self.survival is not None and self.survival.shape != (*self.scores.shape, len(self.times))
        ):
            raise ValueError("survival does not fit scores and times; expected a probability of each row at each time")
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
        if self.ranked is not None and (self.ranked.shape != self.scores.shape or not self.classes):
            raise ValueError(f"ranked {self.ranked.shape} does not fit scores {self.scores.shape} of classes")
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
        survival = None if self.survival is None else self.survival[:, rows]
        ranked = None if self.ranked is None else self.ranked[:, rows]
        return replace(self, **parts, scores=self.scores[:, rows], event=event, survival=survival, ranked=ranked)

    @property
    def order(self) -> np.ndarray:
        """What rows are ranked by, in the shape of scores."""
        return self.scores if self.ranked is None else self.ranked

    @property
    def evaluated(self) -> np.ndarray:
        """(R, N) bool: which rows were evaluated in which repeat."""
        missing = np.isnan(self.scores)
        return ~(missing.any(2) if self.classes else missing)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that it has."""
        if self.kind == "time":
            return survival_metrics.names(self.times)
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
    1982); mae; mse. Times: c_index over the pairs of which the earlier row has the event; c_index_uno, the same with
    pairs weighted for what is lost to follow-up, and the earlier time before the last of the K times at which survival
    is predicted (Uno et al. 2011); of predicted survival at these brier@TIME, the mean squared error, weighted alike
    (Graf et al. 1999), and integrated_brier, its mean from the first to the last by trapezoids; auroc@TIME, how well
    scores tell rows whose event has come by then from those past it without (Uno et al. 2007; Hung and Chiang 2010),
    and mean_auroc. Rows without labels: reconstruction_error, the mean of the scores. Hidden bases: cross_entropy, the
    mean of the scores, in nats; and perplexity, e to the power of that: among how many bases one would have to guess.
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


def apart(a: Held, b: Held, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """metric(a) - metric(b) with its 95% interval, of each metric of both: of different rows, such as of two cohorts,
    each with draws of its own. Draws in which either is undefined are left out of its interval."""
    sides = [_pooled(a), _pooled(b)]
    values = [side.values() for side in sides]
    drawn = [[side(counts) for counts in side.draws(resamples, seed, stream)] for stream, side in enumerate(sides)]
    found = {}
    for name in (name for name in values[0] if name in values[1]):
        left, right = (np.concatenate([np.empty(0), *(part[name] for part in side)]) for side in drawn)
        both = [left - right] if len(left) == len(right) else []  # a side without rows has no draws
        found[name] = Interval(values[0][name] - values[1][name], *_percentiles(both))
    return found


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


def calibration_curve(held: HeldOut, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reliability diagram, three float64 (bins,): mean highest probability, accuracy,
    and rows (mean over repeats) of each bin.

    Equal-width bins, pooled over repeats; NaN in an empty bin.
    """
    repeat, row = np.nonzero(held.evaluated)
    scores = held.scores[repeat, row]
    top = scores.max(1) if len(scores) else np.empty(0)
    correct = scores.argmax(1) == held.target[row] if len(scores) else np.empty(0)
    index = bin_of(top, bins)
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
        return {name: mean_of_known(np.array(drawn)) for name, drawn in found.items()}


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
        for scores, ranked, mask in zip(held.scores, held.order, evaluated, strict=True):
            used = mask[order]
            rows = order[used]
            by_rows = (unit[used], held.target[rows], scores[rows])
            if held.event is not None:
                of_times = (held.event[rows], len(names), held.times)
                predicted = None if held.survival is None else held.survival[len(self.repeats)][rows]
                self.repeats.append(survival_metrics.times(*by_rows, *of_times, predicted))
            elif held.kind in ("none", "bases"):
                self.repeats.append(weighted_metrics.errors(unit[used], scores[rows], len(names), held.metrics))
            elif held.classes:
                of_classes = weighted_metrics.classification
                self.repeats.append(of_classes(*by_rows, ranked[rows], self.n_groups, set(self.names)))
            else:
                self.repeats.append(weighted_metrics.regression(*by_rows, self.n_groups, set(self.names)))

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The mean over the repeats in which a metric is defined."""
        with np.errstate(all="ignore"):
            values = [weighted(counts) for weighted in self.repeats] if self.n_groups else []
            shape = (len(values), counts.shape[1])
            return {name: mean_of_known(np.array([v[name] for v in values]).reshape(shape)) for name in self.names}


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
            yield held.classes[index], positive, held.order[repeat, row, index]


def _thin(n: int, points: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, points)).round().astype(np.int64))


def _percentiles(drawn: list[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([np.empty(0), *drawn])
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


_OF_KIND = {"classes": CLASSIFICATION, "value": REGRESSION, "time": TIMES, "none": UNLABELLED, "bases": BASES}
_HEADLINES = {
    "classes": "balanced_accuracy",
    "value": "r2",
    "time": "c_index",
    "none": "reconstruction_error",
    "bases": "cross_entropy",
}


def headline_metric(metric: str, heads: Sequence[Head]) -> str:
    """The task's own metric where a head has it, else that of the first head's kind: balanced accuracy,
    coefficient of determination, c_index."""
    return metric if any(metric in _OF_KIND[head.kind] for head in heads) else _HEADLINES[heads[0].kind]


def best_baseline(values: dict[str, float], metric: str) -> str | None:
    sign = -1 if metric in LOWER_IS_BETTER else 1
    known = {name: sign * value for name, value in values.items() if not math.isnan(value)}
    return max(known, key=lambda name: (known[name], name)) if known else None
