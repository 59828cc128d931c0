"""Curves of times to an event, of which some have not come: Kaplan and Meier's, Breslow's baseline, the log-rank test.

Times (n,) are above 0, in any unit; event (n,) says whether it came then, else nothing is known of later. Where both
happen at one time, the events come first. Pure NumPy and SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HORIZONS = 11  # at which survival is predicted, unless a task says which


@dataclass(frozen=True)
class Steps:
    """A function that changes at `times` float64 (k,), ascending, to `values` (k, ...); before the first it is
    `start`."""

    times: np.ndarray
    values: np.ndarray
    start: float

    def at(self, times: np.ndarray) -> np.ndarray:
        """Its values at some times (m,): (m, ...)."""
        before = np.full((1, *self.values.shape[1:]), self.start)
        return np.concatenate([before, self.values])[np.searchsorted(self.times, times, "right")]


def horizons(times: np.ndarray, event: np.ndarray, count: int = HORIZONS) -> tuple[float, ...]:
    """Times at which models are asked whether the event has come: evenly from the tenth to the ninetieth percentile of
    those at which it came; one where these are the same, none without an event. To four digits, rounded inwards."""
    if not event.any():
        return ()
    low, high = np.percentile(times[event], [10, 90])
    digits = 3 - np.floor(np.log10(high))
    found = np.unique(np.floor(np.linspace(low, high, count) * 10.0**digits + 1e-9) / 10.0**digits)
    return tuple(float(f"{time:.6g}") for time in found if time > 0)


def counts(times: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct times (k,), ascending; and at each how many have the event, and how many are at risk: int64 (k,)."""
    order = np.argsort(times, kind="stable")
    distinct, first, of_row = np.unique(times[order], return_index=True, return_inverse=True)
    came = np.bincount(of_row, event[order], len(distinct)).astype(np.int64)
    return distinct, came, len(times) - first


def kaplan_meier(times: np.ndarray, event: np.ndarray) -> Steps:
    """Share of rows of which the event has not come by each time (Kaplan and Meier 1958)."""
    distinct, came, at_risk = counts(times, event)
    return Steps(distinct, np.cumprod(1 - came / at_risk), 1.0)


def breslow(times: np.ndarray, event: np.ndarray, log_risk: np.ndarray) -> Steps:
    """Cumulative hazard of a row of log risk 0, by rows whose hazards are e to `log_risk` (n,) times that (Breslow
    1972): Nelson and Aalen's where all are 0."""
    order = np.argsort(times, kind="stable")
    distinct, first, of_row = np.unique(times[order], return_index=True, return_inverse=True)
    came = np.bincount(of_row, event[order], len(distinct))
    top = log_risk.max(initial=-np.inf)
    at_risk = np.cumsum(np.exp(log_risk[order] - top)[::-1])[::-1][first]
    return Steps(distinct, np.cumsum(came / at_risk) * np.exp(-top), 0.0)


def log_rank(times: np.ndarray, event: np.ndarray, group: np.ndarray, groups: int) -> tuple[float, float]:
    """Chi-squared of the log-rank test (Mantel 1966, Peto and Peto 1972) of `groups` groups, `group` int (n,) 0 to
    groups - 1, and its p-value; NaN where it is not defined: fewer than two groups have rows, or there is no event."""
    from scipy.stats import chi2

    present = np.flatnonzero(np.bincount(group, minlength=groups))
    distinct, came, at_risk = counts(times, event)
    if len(present) < 2 or not came.any():
        return np.nan, np.nan
    own = np.array([[(times[group == g] >= t).sum() for g in present] for t in distinct[came > 0]])
    mine = np.array([(event & (group == g)).sum() for g in present])
    d, n = came[came > 0], at_risk[came > 0]
    expected = (own * (d / n)[:, None]).sum(0)
    factor = np.where(n > 1, d * (n - d) / np.maximum(n - 1, 1), 0)
    shares = own / n[:, None]
    covariance = np.einsum("t,tg->g", factor, shares) * np.eye(len(present)) - np.einsum(
        "t,tg,th->gh", factor, shares, shares
    )
    difference = (mine - expected)[:-1]
    statistic = float(difference @ np.linalg.pinv(covariance[:-1, :-1]) @ difference)
    return statistic, float(chi2.sf(statistic, len(present) - 1))
