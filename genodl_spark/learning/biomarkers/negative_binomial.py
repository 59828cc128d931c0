"""Counts whose classes differ: a negative binomial for each feature, its dispersion drawn towards those of features of
like means.

Love, Huber and Anders (2014), as DESeq2 computes it for samples in classes: size factors by medians of ratios; the
dispersion that the profile likelihood of Cox and Reid favours; a + b / mean through all of them; the mode of the
posterior about that; then Wald's test of two classes, or a likelihood ratio of more. What DESeq2 does besides about
outlying counts (Cook's distance) and effects (shrinkage, independent filtering) is not done here.

Counts are float64 (n, F) within this file's functions, `codes` int (n,) says the class of each row, `size` (n,) is the
size factor. A variance is mean + dispersion * mean^2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import special

from genodl_spark.core.errors import InputError
from genodl_spark.learning.biomarkers.differences import MISSING, NO_COUNTS, NO_FIT, TOO_FEW, Differences, standing_out

_LEAST = 1e-8  # dispersion; what is no more than 100 times that tells nothing of a trend
_LEAST_MEAN = 0.5
_RIDGE = 1e-6 / np.log(2) ** 2  # on coefficients, natural logarithms
_STEPS = 100
_VALUES = 1 << 21  # that are looked at together


def are_counts(parts: Iterable[np.ndarray]) -> bool:
    """Whether values (n, F) of all parts are whole numbers from 0 on, and not 0 and 1 alone; NaN, missing, aside."""
    largest = 0.0
    for x in parts:
        known = x[~np.isnan(x)] if x.dtype.kind == "f" else x.ravel()
        if len(known) and (known.min() < 0 or (known != np.floor(known)).any()):
            return False
        largest = max(largest, float(known.max(initial=0)))
    return 1 < largest < np.inf


def size_factors(x: np.ndarray) -> np.ndarray:
    """Of every row of counts the median ratio to the features' geometric means, of features that all rows have; where
    there is none, geometric means count what is above 0 alone (DESeq2's poscounts)."""
    with np.errstate(divide="ignore"):
        logs = np.log(x)
    means = logs.mean(0)
    if not np.isfinite(means).any():
        means = np.where(x.sum(0) > 0, np.where(x > 0, logs, 0).mean(0), -np.inf)
        usable = np.isfinite(means) & (x > 0)
        if not usable.any(1).all():
            raise InputError("found a row without any count; expected some in each", "biomarkers")
        found = np.exp(np.nanmedian(np.where(usable, logs - means, np.nan), 1))
        return found / np.exp(np.log(found).mean())
    usable = np.isfinite(means)
    ratios = logs[:, usable] - means[usable]
    return np.exp(np.median(ratios, 1))


@dataclass(frozen=True)
class Dispersions:
    """Of F features: `genewise` what each says by itself, `trend` what features of its mean are like, `posterior` (the
    mode), and `used`, which is that but for outliers, which keep their own. `prior`: variance of the logarithm about
    the trend; `coefficients` of the trend a + b / mean, or of one value alone where b is 0."""

    genewise: np.ndarray
    trend: np.ndarray
    posterior: np.ndarray
    used: np.ndarray
    prior: float
    coefficients: tuple[float, float]


def compare(x: np.ndarray, codes: np.ndarray, classes: int) -> Differences:
    """Whether classes differ in the mean of each feature: Wald's z of two classes, of more twice the difference of log
    likelihoods. Effects are log2 ratios.

    `x` (n, F): whole numbers from 0 on. A feature with a missing value is not tested.
    """
    found = Differences.none(x.shape[1])
    y = x.astype(np.float64)
    missing = np.isnan(y).any(0)
    silent = ~missing & (y.sum(0) == 0)
    found.reason[missing], found.reason[silent] = MISSING, NO_COUNTS
    rows = np.bincount(codes, minlength=classes)
    usable = np.flatnonzero(~missing & ~silent)
    if classes < 2 or (rows == 0).any() or len(y) <= classes:
        found.reason[usable] = TOO_FEW
        return found
    if not len(usable):
        return found
    y = np.ascontiguousarray(y[:, usable])
    size = size_factors(y)
    dispersion = dispersions(y, size, codes, classes).used
    full = fit(y, size, codes, classes, dispersion)
    effect, found.of[usable] = _effects(full.coefficients)
    if classes == 2:
        with np.errstate(invalid="ignore", divide="ignore"):
            statistic = full.coefficients[1] / full.errors[1]
        p = special.erfc(np.abs(statistic) / np.sqrt(2))
    else:
        # One mean for all is that of normalised counts, as DESeq2 has it, and not quite the likeliest.
        alike = np.concatenate(
            [
                _log_likelihood(own, (own / size[:, None]).mean(0) * size[:, None], dispersion[part])
                for part in _blocks(y)
                for own in [y[:, part]]
            ]
        )
        statistic = np.maximum(2 * (full.likelihood - alike), 0)
        p = special.chdtrc(classes - 1, statistic)
    good = np.isfinite(p)
    found.reason[usable[~good]] = NO_FIT
    keep = usable[good]
    found.effect[keep], found.statistic[keep], found.p_value[keep] = effect[good], statistic[good], p[good]
    return found


def _effects(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Effects as `Differences` has them, log2, of coefficients (K, F): the first class, then by how much the others
    differ from it."""
    levels = np.concatenate([np.zeros((1, coefficients.shape[1])), coefficients[1:]]) / np.log(2)
    return standing_out(levels)


# --- dispersions


def dispersions(y: np.ndarray, size: np.ndarray, codes: np.ndarray, classes: int) -> Dispersions:
    """Dispersions of features that have a count in some row. A trend needs features whose dispersion is more than
    nothing; without any, each keeps what it says by itself."""
    rows = len(y)
    base = np.concatenate([(y[:, part] / size[:, None]).mean(0) for part in _blocks(y)])
    genewise = np.concatenate([_genewise(y[:, part], size, codes, classes) for part in _blocks(y)])
    told = genewise > 100 * _LEAST
    if not told.any():
        return Dispersions(genewise, genewise, genewise, genewise, np.nan, (np.nan, 0.0))
    coefficients = trend_of(base[told], genewise[told])
    if coefficients is None:  # of no such shape: one value for all
        coefficients = (_trimmed(genewise[genewise > 10 * _LEAST]), 0.0)
    trend = coefficients[0] + coefficients[1] / base
    residuals = np.log(genewise[told]) - np.log(trend[told])
    spread = (1.4826 * np.median(np.abs(residuals - np.median(residuals)))) ** 2
    prior = max(float(spread - special.polygamma(1, (rows - classes) / 2)), 0.25)
    mode = np.concatenate(
        [_mode(y[:, part], size, codes, classes, genewise[part], trend[part], prior) for part in _blocks(y)]
    )
    outlying = np.log(genewise) > np.log(trend) + 2 * np.sqrt(spread)
    return Dispersions(genewise, trend, mode, np.where(outlying, genewise, mode), prior, coefficients)


def _blocks(y: np.ndarray) -> list[slice]:
    """Features that are looked at together."""
    step = max(1, _VALUES // len(y))
    return [slice(start, start + step) for start in range(0, y.shape[1], step)]


def _profile(y: np.ndarray, size: np.ndarray, codes: np.ndarray, classes: int) -> tuple[_Profile, np.ndarray]:
    """The profile likelihood of counts about the means of their classes, and these of normalised counts (n, F)."""
    belongs = (codes == np.arange(classes)[:, None]).astype(np.float64)
    means = ((belongs @ (y / size[:, None])) / belongs.sum(1)[:, None])[codes]
    return _Profile(y, np.maximum(means * size[:, None], _LEAST_MEAN), belongs), means


def _genewise(y: np.ndarray, size: np.ndarray, codes: np.ndarray, classes: int) -> np.ndarray:
    """What each feature says of its dispersion by itself, from the lesser of two estimates by moments uphill."""
    n, most = len(y), max(10.0, float(len(y)))
    of, means = _profile(y, size, codes, classes)
    normal, means = y / size[:, None], np.maximum(means, 1)
    rough = ((np.square(normal - means) - means) / np.square(means)).sum(0) / (n - classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        moments = (normal.var(0, ddof=1) - (1 / size).mean() * normal.mean(0)) / np.square(normal.mean(0))
    start = np.clip(np.minimum(np.maximum(rough, 0), moments), _LEAST, most)
    found = _climb(of, np.log(start), None)
    genewise = np.clip(np.where(found.no_better, start, np.exp(found.at)), _LEAST, most)
    again = np.flatnonzero(~found.arrived & (genewise > 10 * _LEAST))
    if len(again):
        genewise[again] = np.clip(np.exp(_grid(of.of(again), None)), _LEAST, most)
    return genewise


def _mode(
    y: np.ndarray,
    size: np.ndarray,
    codes: np.ndarray,
    classes: int,
    genewise: np.ndarray,
    trend: np.ndarray,
    prior: float,
) -> np.ndarray:
    """The mode of the posterior, its prior a normal of the variance `prior` about the trend's logarithm."""
    of, _ = _profile(y, size, codes, classes)
    about = np.log(trend)
    found = _climb(of, np.log(np.where(genewise > 0.1 * trend, genewise, trend)), (about, prior))
    mode = np.exp(found.at)
    again = np.flatnonzero(~found.converged)
    if len(again):
        mode[again] = np.exp(_grid(of.of(again), (about[again], prior)))
    return np.clip(mode, _LEAST, max(10.0, float(len(y))))


@dataclass(frozen=True)
class _Profile:
    """Counts (n, F) about their means (n, F), rows in classes (K, n): how likely logarithms of dispersions are."""

    y: np.ndarray
    mean: np.ndarray
    belongs: np.ndarray

    def of(self, which: np.ndarray) -> _Profile:
        return _Profile(self.y[:, which], self.mean[:, which], self.belongs)

    def value(self, a: np.ndarray, prior: tuple[np.ndarray, float] | None) -> np.ndarray:
        """Log posterior of a (F,), less what does not depend on it: the likelihood with the adjustment of Cox and
        Reid, and a normal prior about the trend where there is one."""
        y, mean, alpha = self.y, self.mean, np.exp(a)
        r = 1 / alpha
        found = (special.gammaln(y + r) - y * np.log(mean + r) - r * np.log1p(mean * alpha)).sum(0)
        found -= len(y) * special.gammaln(r)
        found -= 0.5 * np.log(self.belongs @ (1 / (1 / mean + alpha))).sum(0)
        if prior is not None:
            found -= 0.5 * np.square(a - prior[0]) / prior[1]
        return found

    def slope(self, a: np.ndarray, prior: tuple[np.ndarray, float] | None) -> np.ndarray:
        """Its derivative."""
        y, mean, alpha = self.y, self.mean, np.exp(a)
        r = 1 / alpha
        of_r = len(y) * special.digamma(r) + (
            np.log1p(mean * alpha) - mean * alpha / (1 + mean * alpha) - special.digamma(y + r) + y / (mean + r)
        ).sum(0)
        weights = 1 / (1 / mean + alpha)
        of_weights = (self.belongs @ np.square(weights)) / (self.belongs @ weights)
        found = r * of_r + 0.5 * alpha * of_weights.sum(0)
        return found if prior is None else found - (a - prior[0]) / prior[1]


@dataclass(frozen=True)
class _Climbed:
    """Where a search for the greatest value has come to: `at` (F,); `converged`: it ended before the steps did;
    `arrived`: that, by more than one step; `no_better`: no more likely than where it began."""

    at: np.ndarray
    converged: np.ndarray
    arrived: np.ndarray
    no_better: np.ndarray


def _climb(of: _Profile, start: np.ndarray, prior: tuple[np.ndarray, float] | None) -> _Climbed:
    """Goes uphill from `start` with Armijo's rule for the length of a step, until one gains less than 1e-6: each
    feature as DESeq2 would, so that its answer is the same, all of them together."""
    a, features = start.copy(), len(start)
    value, slope = of.value(a, prior), of.slope(a, prior)
    first = value.copy()
    length, taken, steps = np.ones(features), np.zeros(features, int), np.zeros(features, int)
    active = np.arange(features)
    own = of
    for step in range(1, _STEPS + 1):
        steps[active] = step
        mine = None if prior is None else (prior[0][active], prior[1])
        d, at = slope[active], a[active]
        k = length[active]
        with np.errstate(divide="ignore", invalid="ignore"):
            k = np.where(at + k * d < -30, (-30 - at) / d, k)
            k = np.where(at + k * d > 10, (10 - at) / d, k)
        there = own.value(at + k * d, mine)
        good = there >= value[active] + 1e-4 * k * np.square(d)
        gain = there - value[active]
        moved = active[good]
        a[moved], value[moved] = (at + k * d)[good], there[good]
        taken[moved] += 1
        ended = good & ((gain < 1e-6) | (a[active] < np.log(_LEAST / 10)))
        k = np.where(good, np.minimum(k * 1.1, 1), k / 2)
        k = np.where(good & (taken[active] % 5 == 0), k / 2, k)
        length[active] = k
        goes_on = ~ended
        if not goes_on.any():
            active = active[:0]
            break
        again = good & goes_on
        if again.any():
            slope[active[again]] = own.of(np.flatnonzero(again)).slope(
                a[active[again]], None if mine is None else (mine[0][again], mine[1])
            )
        if ended.any():
            active = active[goes_on]
            own = own.of(np.flatnonzero(goes_on))
    converged = steps < _STEPS
    no_better = value < first + np.abs(first) / 1e6
    return _Climbed(a, converged, converged & (steps != 1), no_better)


def _grid(of: _Profile, prior: tuple[np.ndarray, float] | None) -> np.ndarray:
    """Logarithms of dispersions (F,) by looking at twenty of them, and at twenty about the best of these."""
    low, high = np.log(_LEAST), np.log(max(10.0, float(len(of.y))))
    grid = np.linspace(low, high, 20)
    features = of.y.shape[1]
    coarse = np.stack([of.value(np.full(features, one), prior) for one in grid])
    best, apart = grid[coarse.argmax(0)], grid[1] - grid[0]
    fine = best + np.linspace(-apart, apart, 20)[:, None]
    values = np.stack([of.value(one, prior) for one in fine])
    return np.take_along_axis(fine, values.argmax(0)[None], 0)[0]


def trend_of(base: np.ndarray, dispersion: np.ndarray) -> tuple[float, float] | None:
    """a and b of dispersion = a + b / base by a gamma model with the identity as link, without what lies far from it,
    again until they stay; None where that comes to no positive pair."""
    found = np.array([0.1, 1.0])
    design = np.stack([np.ones(len(base)), 1 / base], 1)
    for _ in range(11):
        ratio = dispersion / (design @ found)
        good = (ratio > 1e-4) & (ratio < 15)
        if good.sum() < 2:
            return None
        fitted = _gamma(design[good], dispersion[good], found)
        if fitted is None or (fitted <= 0).any():
            return None
        change = np.square(np.log(fitted / found)).sum()
        found = fitted
        if change < 1e-6:
            return float(found[0]), float(found[1])
    return None


def _gamma(design: np.ndarray, y: np.ndarray, start: np.ndarray) -> np.ndarray | None:
    """Coefficients of a gamma model with the identity as link, by weighted least squares until the deviance stays to
    1e-8, as R's glm does; None where a mean falls to 0 or it does not stay."""

    def deviance(mean: np.ndarray) -> float:
        return float(-2 * (np.log(y / mean) - (y - mean) / mean).sum())

    coefficients = start
    mean = design @ coefficients
    if (mean <= 0).any():
        return None
    before = deviance(mean)
    for _ in range(25):
        root = 1 / mean
        fitted, *_ = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)
        halved = 0
        while (design @ fitted <= 0).any():
            halved += 1
            if halved > 25:
                return None
            fitted = (fitted + coefficients) / 2
        coefficients, mean = fitted, design @ fitted
        now = deviance(mean)
        if abs(now - before) / (abs(now) + 0.1) < 1e-8:
            return coefficients
        before = now
    return None


def _trimmed(values: np.ndarray) -> float:
    """Mean without a thousandth at either end."""
    cut = int(0.001 * len(values))
    return float(np.sort(values)[cut : len(values) - cut].mean()) if len(values) else _LEAST


# --- means, given dispersions


@dataclass(frozen=True)
class Fit:
    """Of F features: `coefficients` float64 (K, F), natural logarithms: of the first class, and by how much the others
    differ from it; `errors` (K, F), their standard errors; `likelihood` (F,), its logarithm; NaN where there is no fit.
    """

    coefficients: np.ndarray
    errors: np.ndarray
    likelihood: np.ndarray


def fit(y: np.ndarray, size: np.ndarray, codes: np.ndarray, classes: int, dispersion: np.ndarray) -> Fit:
    """Means of classes by weighted least squares, again and again, until the deviance stays to 1e-8; a mean never below
    a half, and a ridge of 1e-6 (on log2 scale) that holds classes without any count."""
    parts = [_fit(y[:, part], size, codes, classes, dispersion[part]) for part in _blocks(y)]
    return Fit(
        np.concatenate([one.coefficients for one in parts], 1),
        np.concatenate([one.errors for one in parts], 1),
        np.concatenate([one.likelihood for one in parts]),
    )


def _fit(y: np.ndarray, size: np.ndarray, codes: np.ndarray, classes: int, dispersion: np.ndarray) -> Fit:
    n, features = y.shape
    design = np.zeros((n, classes))
    design[:, 0] = 1
    design[np.arange(n)[codes > 0], codes[codes > 0]] = 1
    offset = np.log(size)
    start, *_ = np.linalg.lstsq(design, np.log(y / size[:, None] + 0.1), rcond=None)
    coefficients = start.copy()
    errors, likelihood = np.full((classes, features), np.nan), np.full(features, np.nan)
    active = np.arange(features)
    before = np.zeros(features)
    own, alpha = y, dispersion
    for step in range(_STEPS):
        beta = coefficients[:, active]
        mean = np.maximum(np.exp(design @ beta + offset[:, None]), _LEAST_MEAN)
        weights = mean / (1 + alpha * mean)
        z = np.log(mean) - offset[:, None] + (own - mean) / mean
        solved = np.linalg.solve(_information(design, weights, _RIDGE), (design.T @ (weights * z)).T[..., None])[
            ..., 0
        ].T
        wild = (np.abs(solved) > 30).any(0) | ~np.isfinite(solved).all(0)
        coefficients[:, active] = solved
        exponent = np.minimum(design @ solved + offset[:, None], 700)
        mean = np.maximum(np.exp(exponent), _LEAST_MEAN)
        now = -2 * _log_likelihood(own, mean, alpha)
        with np.errstate(invalid="ignore"):
            stays = (np.abs(now - before[active]) / (np.abs(now) + 0.1) < 1e-8) & (step > 0)
        before[active] = now
        over = stays | wild
        if over.any() or step == _STEPS - 1:
            good = stays & ~wild
            which = active[good]
            if len(which):
                w = (mean / (1 + alpha * mean))[:, good]
                plain, ridged = _information(design, w, 0), np.linalg.inv(_information(design, w, _RIDGE))
                errors[:, which] = np.sqrt(np.diagonal(ridged @ plain @ ridged, axis1=1, axis2=2)).T
                likelihood[which] = _log_likelihood(own[:, good], np.exp(exponent[:, good]), alpha[good])
            coefficients[:, active[wild]] = np.nan
            left = ~over
            active, own, alpha = active[left], own[:, left], alpha[left]
            if not len(active):
                break
    coefficients[:, active] = np.nan
    return Fit(coefficients, errors, likelihood)


def _information(design: np.ndarray, weights: np.ndarray, ridge: float) -> np.ndarray:
    """X'WX + ridge, float64 (F, K, K)."""
    return np.einsum("nk,nf,nl->fkl", design, weights, design, optimize=True) + ridge * np.eye(design.shape[1])


def _log_likelihood(y: np.ndarray, mean: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    r = 1 / dispersion
    return (
        special.gammaln(y + r)
        - special.gammaln(r)
        - special.gammaln(y + 1)
        - r * np.log1p(mean * dispersion)
        + y * (np.log(mean * dispersion) - np.log1p(mean * dispersion))
    ).sum(0)
