"""Metrics of predicted times and survival as functions of the weights of groups, as weighted_metrics.py has them.

Rows of which nothing is known any more before a time say nothing of it. What the others count there is weighted by the
inverse probability to be still known of, by Kaplan and Meier's curve of the rows that are measured (IPCW), anew for
every weighting. Of an event it is the probability just before, since at one time events come first.

That probability falls towards 0 where follow-up ends, and its inverse square is what a pair counts for in Uno's index
(Uno et al. 2011, doi:10.1002/sim.4154). Theirs is therefore of a period that is fixed beforehand: pairs whose event
comes before the last of the horizons. Without an end, a few late events would weigh more than all others together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from genodl_spark.learning.weighted_metrics import Weighted, concordance


def names(horizons: Sequence[float]) -> tuple[str, ...]:
    """Names of the metrics of survival that is predicted at some times."""
    at = [f"{name}@{time:g}" for name in ("brier", "auroc") for time in horizons]
    return ("c_index", "c_index_uno", *(("integrated_brier", "mean_auroc", *at) if horizons else ()))


def times(
    unit: np.ndarray,
    target: np.ndarray,
    scores: np.ndarray,
    event: np.ndarray,
    n_groups: int,
    horizons: Sequence[float] = (),
    survival: np.ndarray | None = None,
) -> Weighted:
    """unit (n,): group index of each row; target, scores (n,), a greater score for a longer time; event (n,) bool;
    survival (n, horizons): probabilities that the event has not come by each of `horizons`, ascending. Without these
    Uno's index has no end."""
    of_pairs, known = concordance(unit, target, scores, event), _known(unit, target, event, n_groups)
    within = (target < horizons[-1] if len(horizons) else np.ones(len(target), bool))[:, None]
    at = [_At(unit, target, scores, event, time) for time in horizons]

    def weighted(counts: np.ndarray) -> dict[str, np.ndarray]:
        before, after = known(counts, np.asarray(horizons, np.float64))
        found = {"c_index": of_pairs(counts, None), "c_index_uno": of_pairs(counts, np.where(within, before**-2, 0.0))}
        if not at or survival is None:
            return found
        areas = np.array([one.area(counts, before) for one in at])
        briers = np.array([one.brier(counts, before, after[k], survival[:, k]) for k, one in enumerate(at)])
        steps = np.diff(np.asarray(horizons, np.float64))
        whole = steps @ (briers[1:] + briers[:-1]) / 2 / steps.sum() if len(steps) else briers[0]
        found |= {"integrated_brier": whole, "mean_auroc": areas.mean(0)}
        for name, values in (("brier", briers), ("auroc", areas)):
            found |= {f"{name}@{time:g}": value for time, value in zip(horizons, values, strict=True)}
        return found

    return weighted


def _known(
    unit: np.ndarray, target: np.ndarray, event: np.ndarray, n_groups: int
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Probabilities to be still known of, by the weights of groups: just before each row's time, (n, draws), and after
    some times (m,), (m, draws)."""
    from scipy import sparse

    distinct, of_row = np.unique(target, return_inverse=True)
    shape = (len(distinct), n_groups)
    whole = sparse.csr_matrix((np.ones(len(unit)), (of_row, unit)), shape=shape)
    events = sparse.csr_matrix((event.astype(float), (of_row, unit)), shape=shape)

    def weighted(counts: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, came = whole @ counts, events @ counts
        at_risk = np.cumsum(rows[::-1], 0)[::-1] - came  # of those whose event comes at this time none is lost then
        share = np.where(at_risk > 0, 1 - (rows - came) / np.where(at_risk > 0, at_risk, 1), 1.0)
        curve = np.concatenate([np.ones((1, counts.shape[1])), np.cumprod(share, 0)])
        return curve[of_row], curve[np.searchsorted(distinct, at, "right")]

    return weighted


class _At:
    """What is asked of one time: rows whose event has come by it are held against those that are past it without."""

    def __init__(
        self, unit: np.ndarray, target: np.ndarray, scores: np.ndarray, event: np.ndarray, time: float
    ) -> None:
        self.unit, self.came, self.past = unit, np.flatnonzero(event & (target <= time)), np.flatnonzero(target > time)
        others = np.argsort(scores[self.past], kind="stable")
        self.others, ranked = self.past[others], scores[self.past][others]
        self.begin, self.end = (np.searchsorted(ranked, scores[self.came], side) for side in ("left", "right"))

    def area(self, counts: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Share of the pairs of which the row whose event has come has the lower score, ties half: (draws,)."""
        below = np.zeros((len(self.others) + 1, counts.shape[1]))
        np.cumsum(counts[self.unit[self.others]], 0, out=below[1:])
        weights = self._weights(counts, before)
        agreed = 2 * below[-1] - below[self.begin] - below[self.end]
        return np.einsum("nb,nb->b", weights, agreed) / (2 * weights.sum(0) * below[-1])

    def brier(self, counts: np.ndarray, before: np.ndarray, after: np.ndarray, survival: np.ndarray) -> np.ndarray:
        """Mean squared error of probabilities (n,) that the event has not come (Graf et al. 1999): (draws,)."""
        came = survival[self.came] ** 2 @ self._weights(counts, before)
        past = (1 - survival[self.past]) ** 2 @ counts[self.unit[self.past]] / after
        return (came + np.where(after > 0, past, 0.0)) / counts[self.unit].sum(0)

    def _weights(self, counts: np.ndarray, before: np.ndarray) -> np.ndarray:
        own = counts[self.unit[self.came]]
        return np.where(own > 0, own / before[self.came], 0.0)
