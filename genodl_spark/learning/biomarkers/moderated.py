"""Moderated t and F: the variance of a feature is drawn towards what those of all features are like.

Smyth (2004), as limma computes it: the prior's degrees of freedom and variance by moments of the logarithms of the
sample variances, with a trend over the features' means where that is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from genodl_spark.learning.biomarkers.differences import CONSTANT, TOO_FEW, Differences, standing_out

_VALUES = 1 << 22  # that are looked at together


@dataclass(frozen=True)
class Sufficient:
    """What classes say of features: `count` and `mean` float64 (K, F), `squares` (F,): of values about the mean of
    their class; `overall` (F,): the mean of all values."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    overall: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, codes: np.ndarray, classes: int) -> Sufficient:
        """`x` float (n, F), NaN missing; `codes` int (n,), classes from 0."""
        step = max(1, _VALUES // max(len(x), 1))
        parts = [_part(x[:, start : start + step], codes, classes) for start in range(0, x.shape[1], step)]
        if not parts:
            return cls(np.zeros((classes, 0)), np.zeros((classes, 0)), np.zeros(0), np.zeros(0))
        count, mean, squares, overall = (np.concatenate(one, -1) for one in zip(*parts, strict=True))
        return cls(count, mean, squares, overall)


def _part(x: np.ndarray, codes: np.ndarray, classes: int) -> tuple[np.ndarray, ...]:
    belongs = (codes == np.arange(classes)[:, None]).astype(np.float64)
    values = x.astype(np.float64)
    known = ~np.isnan(values)
    count = belongs @ known
    with np.errstate(invalid="ignore", divide="ignore"):
        overall = np.where(known, values, 0).sum(0) / known.sum(0)
        # Sums about the mean: of values far from 0 they would lose their last digits.
        about = np.where(known, values - overall, 0)
        mean = belongs @ about / count
        within = np.where(known, about - np.nan_to_num(mean)[codes], 0)
    squares = np.square(within).sum(0)
    # What rounding leaves of values that are all the same in each class is no variance.
    scale = np.square(np.where(known, values, 0)).sum(0)
    squares[squares <= 1e-24 * scale] = 0
    return count, mean + overall, squares, overall


def compare(x: np.ndarray, codes: np.ndarray, classes: int, trend: bool = False) -> Differences:
    """Whether classes differ in each feature: t of two classes, F of more.

    `x` float (n, F) on a scale where differences are effects, such as a logarithm; NaN missing. `codes` int (n,).
    """
    of = Sufficient.of(x, codes, classes)
    freedom = of.count.sum(0) - classes
    enough = (of.count > 0).all(0) & (freedom > 0)
    with np.errstate(invalid="ignore"):
        same = (of.mean == of.mean[0]).all(0) & (of.squares == 0)
    tested = enough & ~same
    if classes < 2 or not tested.any():
        tested[:] = False
    count, mean, overall = of.count[:, tested], of.mean[:, tested], of.overall[tested]
    d = freedom[tested]
    variance = of.squares[tested] / d
    prior, at = prior_of(variance, d, overall if trend else None) if tested.any() else (0.0, np.zeros(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        posterior = at if np.isinf(prior) else (d * variance + prior * at) / (d + prior)
        total = np.minimum(d + prior, d.sum())
        grand = (count * mean).sum(0) / count.sum(0)
        between = (count * np.square(mean - grand)).sum(0) / (classes - 1)
        f = between / posterior
    effect, towards = standing_out(mean)
    statistic = np.sign(effect) * np.sqrt(f) if classes == 2 else f
    found = Differences.none(x.shape[1])
    found.reason[~enough], found.reason[enough & ~tested] = TOO_FEW, CONSTANT
    found.effect[tested], found.of[tested] = effect, towards
    found.statistic[tested], found.p_value[tested] = statistic, _upper(f, classes - 1, total)
    return found


def _upper(f: np.ndarray, between: int, within: np.ndarray) -> np.ndarray:
    """P(F > f) with degrees of freedom `between` and `within`, which may be infinite; to the last digits of small
    ones."""
    with np.errstate(invalid="ignore", divide="ignore"):
        finite = special.betainc(within / 2, between / 2, np.where(np.isinf(f), 0, within / (within + between * f)))
    return np.where(np.isinf(within), special.gammaincc(between / 2, f * between / 2), finite)


def prior_of(variance: np.ndarray, freedom: np.ndarray, trend: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """Degrees of freedom d0 and variance s0^2 float64 (F,) of the prior: variances (F,) are s0^2 times F(d, d0).

    `freedom` (F,) above 0. `trend` (F,): what log s0^2 is a natural spline of; None for one variance. d0 is infinite
    where variances differ no more than chance makes them.
    """
    middle = float(np.median(variance)) or 1.0
    z = np.log(np.maximum(variance, 1e-5 * middle))
    z = z - special.digamma(freedom / 2) + np.log(freedom / 2)
    basis = np.ones((len(z), 1)) if trend is None else natural_spline(trend)
    coefficients, _, rank, _ = np.linalg.lstsq(basis, z, rcond=None)
    level = basis @ coefficients
    if len(z) <= rank:
        return np.inf, np.exp(level)
    spread = np.square(z - level).sum() / (len(z) - rank) - special.polygamma(1, freedom / 2).mean()
    if spread <= 0:
        return np.inf, np.exp(level)
    d0 = 2 * trigamma_inverse(float(spread))
    return d0, np.exp(level + special.digamma(d0 / 2) - np.log(d0 / 2))


def trigamma_inverse(x: float) -> float:
    """y with trigamma(y) = x > 0, by Newton's steps on 1 / trigamma, which is convex (Smyth 2004, appendix)."""
    if x > 1e7:
        return x**-0.5
    if x < 1e-6:
        return 1 / x
    y = 0.5 + 1 / x
    for _ in range(50):
        value = special.polygamma(1, y)
        step = value * (1 - value / x) / special.polygamma(2, y)
        y += step
        if -step / y < 1e-8:
            break
    return float(y)


def natural_spline(x: np.ndarray) -> np.ndarray:
    """A basis of natural cubic splines of x (n,), float64 (n, columns), the constant included: as limma has it, four
    columns from 30 values on, three from 6, two from 3, with knots at quantiles."""
    different = len(np.unique(x))
    columns = min(1 + (len(x) >= 3) + (len(x) >= 6) + (len(x) >= 30), different)
    low, high = float(x.min()), float(x.max())
    z = (x - low) / (high - low) if high > low else np.zeros(len(x))
    if columns < 3:
        return np.stack([np.ones(len(z)), z][:columns], 1)
    knots = np.quantile(z, np.linspace(0, 1, columns))
    last, before = knots[-1], knots[-2]

    def bent(knot: float) -> np.ndarray:
        return (np.maximum(z - knot, 0) ** 3 - np.maximum(z - last, 0) ** 3) / (last - knot)

    return np.stack([np.ones(len(z)), z, *(bent(knot) - bent(before) for knot in knots[:-2])], 1)
