"""Cox's model of proportional hazards (1972), linear in its features: by Newton's method, and with an elastic net whose
penalty is chosen within the training rows. Breslow's likelihood of ties. Pure NumPy and scikit-learn's coordinate
descent.

x float64 (n, f) is without missing values; times (n,) above 0 and event (n,) bool as in survival.py. A model is its
coefficients (f,): the hazard of a row is e to x @ coefficients times that of a row of zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from genodl_spark.learning import survival

NAMES = ("cox_elastic_net", "cox_covariates")
SPACES: dict[str, dict[str, Any]] = {
    "cox_elastic_net": {"penalty": {"low": 0.01, "high": 1.0, "log": True}, "l1_ratio": {"choices": [0.1, 0.5, 1.0]}}
}
STARTS: dict[str, dict[str, Any]] = {"cox_elastic_net": {"penalty": 0.3, "l1_ratio": 0.5}}
L1_RATIO, PENALTIES, WEAKEST, FOLDS = 0.5, 30, 0.05, 5
PATIENCE = 4  # penalties that gain nothing before weaker ones are left alone
_ROUGH = 1e-6  # of a likelihood that is only compared
RIDGE = 1e-3  # per row: of indicators that add up to 1 no coefficient is known but by it


@dataclass(frozen=True)
class Order:
    """Rows by time, and for each, in that order, where its tied times begin and end."""

    rows: np.ndarray
    first: np.ndarray
    last: np.ndarray
    event: np.ndarray

    @classmethod
    def of(cls, times: np.ndarray, event: np.ndarray) -> Order:
        rows = np.argsort(times, kind="stable")
        ranked = times[rows]
        return cls(rows, np.searchsorted(ranked, ranked, "left"), np.searchsorted(ranked, ranked, "right"), event[rows])

    def hazards(self, log_risk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """By rows, in this order, of log risk (n,): e to it; the cumulative hazard by each row's time; the sum of the
        squares of its steps; and the log partial likelihood."""
        top = log_risk.max(initial=-np.inf)
        risk = np.exp(log_risk - top)
        at_risk = np.cumsum(risk[::-1])[::-1][self.first]
        step = self.event / at_risk
        likelihood = float((self.event * (log_risk - top - np.log(at_risk))).sum())
        return risk, np.cumsum(step)[self.last - 1], np.cumsum(step / at_risk)[self.last - 1], likelihood


def log_likelihood(log_risk: np.ndarray, times: np.ndarray, event: np.ndarray) -> float:
    """Log partial likelihood of rows of log risk (n,)."""
    order = Order.of(times, event)
    return order.hazards(log_risk[order.rows])[3]


def newton(x: np.ndarray, times: np.ndarray, event: np.ndarray, ridge: float = 0.0, steps: int = 50) -> np.ndarray:
    """Coefficients (f,) of the largest partial likelihood less n / 2 times `ridge` times their squares."""
    order = Order.of(times, event)
    z, n = x[order.rows], len(x)
    found, reached = np.zeros(x.shape[1]), -np.inf
    change = np.zeros(x.shape[1])
    for _ in range(steps):
        for _ in range(20):  # half the way where all of it leads down
            likelihood = order.hazards(z @ (found + change))[3] - n * ridge / 2 * ((found + change) ** 2).sum()
            if likelihood >= reached - 1e-12 * abs(reached):
                break
            change = change / 2
        gain, found, reached = likelihood - reached, found + change, likelihood
        if gain < 1e-10:
            break
        risk, hazard, _, _ = order.hazards(z @ found)
        at_risk = np.cumsum(risk[::-1])[::-1][order.first]
        mean = np.cumsum((risk[:, None] * z)[::-1], 0)[::-1][order.first] / at_risk[:, None]
        mean = mean[order.event]
        slope = z.T @ (order.event - risk * hazard) - n * ridge * found
        curvature = (z * (risk * hazard)[:, None]).T @ z - mean.T @ mean + n * ridge * np.eye(len(found))
        change = np.linalg.lstsq(curvature, slope, rcond=None)[0]
    return found


def strongest(x: np.ndarray, times: np.ndarray, event: np.ndarray, l1_ratio: float) -> float:
    """The least penalty under which no feature has a coefficient."""
    return float(np.abs(_slope(x, Order.of(times, event), np.zeros(len(x)))).max(initial=0)) / max(l1_ratio, 1e-3)


def path(
    x: np.ndarray,
    times: np.ndarray,
    event: np.ndarray,
    penalties: Iterable[float],
    l1_ratio: float,
    tolerance: float = 1e-9,
) -> Iterator[np.ndarray]:
    """Coefficients (f,) for each of descending penalties: minus the log partial likelihood over n, plus the penalty
    times l1_ratio times the sum of their sizes and (1 - l1_ratio) / 2 times that of their squares, is least.

    Newton steps with a diagonal of the curvature, solved by coordinate descent among the features that may have a
    coefficient by the sequential strong rule; the others are looked at again at the end (Simon, Friedman, Hastie and
    Tibshirani 2011, Journal of Statistical Software 39; Tibshirani et al. 2012).
    """
    from sklearn.linear_model import ElasticNet

    order, n = Order.of(times, event), len(x)
    z = np.asfortranarray(x[order.rows])
    found, before = np.zeros(x.shape[1]), np.inf

    def cost(coefficients: np.ndarray, penalty: float) -> float:
        size = l1_ratio * np.abs(coefficients).sum() + (1 - l1_ratio) / 2 * (coefficients**2).sum()
        return -order.hazards(z @ coefficients)[3] / n + penalty * size

    for penalty in penalties:
        least = l1_ratio * max(2 * penalty - before, 0.0) if np.isfinite(before) else 0.99 * l1_ratio * penalty
        used = (np.abs(_slope(x, order, z @ found)) >= least) | (found != 0)
        for _ in range(10):
            columns = np.flatnonzero(used)
            own = np.asfortranarray(z[:, columns])
            model = ElasticNet(
                l1_ratio=l1_ratio, fit_intercept=False, warm_start=True, tol=100 * tolerance, max_iter=5000
            )
            at = cost(found, penalty)
            for _ in range(25 if len(columns) else 0):
                log_risk = own @ found[columns]
                risk, hazard, squares, _ = order.hazards(log_risk)
                weight = np.maximum(risk * hazard - risk**2 * squares, 1e-9)
                target = log_risk + (order.event - risk * hazard) / weight
                # scikit-learn divides by the sum of the weights, the likelihood by the number of rows
                model.set_params(alpha=penalty * n / weight.sum())
                model.coef_ = found[columns].copy()
                moved = model.fit(own, target, sample_weight=weight).coef_ - found[columns]
                share, tried, reached = 1.0, found, np.inf
                while share > 1e-4:
                    tried = found.copy()
                    tried[columns] += share * moved
                    reached = cost(tried, penalty)
                    if reached <= at:
                        break
                    share /= 2
                if reached > at:
                    break
                gained, at, found = at - reached, reached, tried
                if gained < tolerance * max(1.0, abs(at)):
                    break
            slope = np.abs(_slope(x, order, z @ found))
            missed = ~used & (slope > l1_ratio * penalty * (1 + 1e-6))
            if not missed.any():
                break
            used |= missed
        yield found
        before = penalty


def elastic_net(
    x: np.ndarray, times: np.ndarray, event: np.ndarray, seed: int, options: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Coefficients (f,) by the penalty of the largest partial likelihood in 5 folds of these rows, those with the event
    dealt evenly (Verweij and van Houwelingen 1993: that of all rows less that of the rows that taught it).

    `options`: penalty, a share of the least one that leaves no feature, in place of what the folds say; l1_ratio.
    """
    options = options or {}
    l1_ratio = float(options.get("l1_ratio", L1_RATIO))
    most = strongest(x, times, event, l1_ratio)
    if not most > 0:
        return np.zeros(x.shape[1])
    if "penalty" in options:
        return _last(path(x, times, event, np.geomspace(most, most * float(options["penalty"]), 10), l1_ratio))
    penalties, fold = np.geomspace(most, most * WEAKEST, PENALTIES), dealt(event, seed)
    parts = [fold != k for k in range(FOLDS)]
    parts = [inside for inside in parts if event[inside].any() and not inside.all()]
    paths = [path(x[inside], times[inside], event[inside], penalties, l1_ratio, _ROUGH) for inside in parts]
    best, most_gained = 0, -np.inf
    for i, found in enumerate(zip(*paths, strict=True)):
        gained = 0.0
        for inside, coefficients in zip(parts, found, strict=True):
            log_risk = x @ coefficients
            gained += log_likelihood(log_risk, times, event)
            gained -= log_likelihood(log_risk[inside], times[inside], event[inside])
        if gained > most_gained:
            best, most_gained = i, gained
        elif i > best + PATIENCE:
            break  # weak penalties cost most, and what they gain has one peak, as a rule
    return _last(path(x, times, event, penalties[: best + 1], l1_ratio))


def _last(found: Iterator[np.ndarray]) -> np.ndarray:
    *_, last = found
    return last


def dealt(event: np.ndarray, seed: int) -> np.ndarray:
    """Fold of each row, int (n,): rows with the event are dealt first, then the others."""
    order = np.random.default_rng(seed).permutation(len(event))
    order = order[np.argsort(~event[order], kind="stable")]
    fold = np.empty(len(event), np.int64)
    fold[order] = np.arange(len(event)) % FOLDS
    return fold


def survives(log_risk: np.ndarray, baseline: survival.Steps, times: np.ndarray) -> np.ndarray:
    """Probability that the event has not come by each time: float64 (n, times)."""
    return np.exp(-baseline.at(times)[None] * np.exp(np.clip(log_risk, -50, 50))[:, None])


def _slope(x: np.ndarray, order: Order, log_risk: np.ndarray) -> np.ndarray:
    """Of the log partial likelihood over n, at rows in this order of log risk (n,): (f,)."""
    risk, hazard, _, _ = order.hazards(log_risk)
    residual = np.empty(len(x))
    residual[order.rows] = order.event - risk * hazard
    return x.T @ residual / len(x)
