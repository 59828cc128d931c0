"""What a training set could show: labels are dealt anew, so that they say nothing, differences of known sizes are
planted into some features, and the same test looks for them. It tells how much of what is there the test would find in
so many rows of such noise, and whether false discoveries are as rare as asked for.

Values differ by shares of the standard deviation within classes. Of counts, binomial thinning takes away what a factor
would (Gerard 2020), which leaves the counts of a negative binomial those of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genodl_spark.learning.biomarkers import moderated, negative_binomial
from genodl_spark.learning.biomarkers.differences import Differences

SIZES = (0.5, 1.0, 2.0)  # standard deviations, of counts powers of 2
SHARE = 0.05  # of the features that are tested
_FEWEST = 6
_VALUES = 1 << 25  # that are looked at; of more, features are drawn


@dataclass(frozen=True)
class Recovered:
    """At a false discovery rate: `found` float64, the share found of what was planted of each of SIZES; `false`: of
    what is found the share that was not planted, 0 where nothing is. NaN where too few features can be tested."""

    found: np.ndarray
    false: float


def recovered(
    x: np.ndarray, codes: np.ndarray, classes: int, counts: bool, trend: bool, rate: float, times: int, seed: list[int]
) -> Recovered:
    """The mean over `times` plantings. `x` float (n, F): counts, or values on a scale where differences are effects,
    NaN missing; `codes` int (n,), classes from 0; `trend` as in `moderated.compare`."""
    if x.size > _VALUES:
        order = np.random.default_rng(seed).permutation(x.shape[1])
        x = x[:, np.sort(order[: max(_VALUES // len(x), 2 * _FEWEST)])]
    usable = np.flatnonzero(~np.isnan(_test(x, codes, classes, counts, trend).p_value))
    if len(usable) < 2 * _FEWEST or not times:
        return Recovered(np.full(len(SIZES), np.nan), np.nan)
    x = x[:, usable].astype(np.float64)
    scale = np.ones(x.shape[1])
    if not counts:
        x, scale = alike(x, codes, classes)
    found, false = np.zeros((times, len(SIZES))), np.zeros(times)
    for time in range(times):
        generator = np.random.default_rng([*seed, time])
        dealt = dealt_anew(codes, generator)
        size = np.zeros(x.shape[1])
        chosen = generator.permutation(x.shape[1])[: max(_FEWEST, round(SHARE * x.shape[1]))]
        size[chosen] = np.resize(SIZES, len(chosen))
        sign, of = generator.choice([-1, 1], len(size)), generator.integers(0, classes, len(size))
        effect = np.where(dealt[:, None] == of, sign * size, 0.0)
        changed = thinned(x, effect, generator) if counts else x + effect * scale
        q = _test(changed, dealt, classes, counts, trend).q_value
        significant = np.less_equal(q, rate, where=~np.isnan(q), out=np.zeros(len(q), bool))
        found[time] = [significant[size == one].mean() for one in SIZES]
        false[time] = (significant & (size == 0)).sum() / max(significant.sum(), 1)
    return Recovered(found.mean(0), float(false.mean()))


def _test(x: np.ndarray, codes: np.ndarray, classes: int, counts: bool, trend: bool) -> Differences:
    if counts:
        return negative_binomial.compare(x, codes, classes)
    return moderated.compare(x, codes, classes, trend)


def dealt_anew(codes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Classes int (n,), as many of each as in `codes`, and of the rows of every class of these the same shares, to
    within a row: so what classes differ in is in all of them alike."""
    counts = np.bincount(codes)
    place = np.concatenate([(np.arange(count) + generator.random()) / max(count, 1) for count in counts])
    evenly = np.repeat(np.arange(len(counts)), counts)[np.lexsort([generator.random(len(place)), place])]
    found = np.empty(len(codes), np.int64)
    found[np.lexsort([generator.random(len(codes)), codes])] = evenly
    return found


def alike(x: np.ndarray, codes: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, F), NaN missing, with the means of their classes moved onto the mean of all, and as far from it as
    values are from means that are known; and the standard deviation (F,) within classes."""
    belongs = (codes == np.arange(classes)[:, None]).astype(np.float64)
    known = ~np.isnan(x)
    count = belongs @ known
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = belongs @ np.where(known, x, 0) / count
        about = (x - mean[codes]) * np.sqrt(count / (count - 1))[codes]
        about[~np.isfinite(about)] = np.nan
        scale = np.sqrt(np.nansum(np.square(about), 0) / (~np.isnan(about)).sum(0))
        overall = np.where(known, x, 0).sum(0) / known.sum(0)
    return overall + about, scale


def thinned(x: np.ndarray, effect: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Counts (n, F) whose means differ by 2 to the power of `effect` (n, F): what would grow stays, and all else of the
    feature is thinned."""
    keep = effect - np.maximum(effect.max(0), 0)
    changed = np.flatnonzero((keep < 0).any(0))
    found = x.copy()
    found[:, changed] = generator.binomial(x[:, changed].astype(np.int64), 2.0 ** keep[:, changed])
    return found
