"""What a test of features says of each, and false discovery rates over all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TESTED, CONSTANT, TOO_FEW, MISSING = "", "constant", "too few values", "a value is missing"
NO_COUNTS, NO_FIT = "no counts", "no fit"


@dataclass(frozen=True)
class Differences:
    """Of F features. `effect` float64: of two classes the second less the first, of more the class that stands out most
    less the mean of the others, on the scale that the test has; `of` int: the class that it is of. `statistic` and
    `p_value` float64. `reason` object: why a feature has none of these, which then are NaN; empty where it has."""

    effect: np.ndarray
    of: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray
    reason: np.ndarray

    @classmethod
    def none(cls, features: int) -> Differences:
        """Nothing yet of so many features."""
        reason = np.full(features, TESTED, object)
        effect, statistic, p_value = np.full((3, features), np.nan)
        return cls(effect, np.zeros(features, np.int64), statistic, p_value, reason)

    @property
    def q_value(self) -> np.ndarray:
        return benjamini_hochberg(self.p_value)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values of Benjamini and Hochberg (1995), over those that are no NaN: the least false discovery rate
    at which each is a discovery."""
    found = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    found[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return found


def ranks(score: np.ndarray) -> np.ndarray:
    """Ranks from 1, the greatest score first, ties at their mean, float64; those of NaN share the last places."""
    from scipy.stats import rankdata

    return rankdata(np.where(np.isnan(score), np.inf, -score))


def standing_out(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Effect and class, as `Differences` has them, of class means float64 (K, F)."""
    classes = len(means)
    if classes == 2:
        return means[1] - means[0], np.ones(means.shape[1], np.int64)
    apart = means - (means.sum(0) - means) / (classes - 1)
    of = np.abs(np.where(np.isnan(apart), 0, apart)).argmax(0)
    return np.take_along_axis(apart, of[None], 0)[0], of
