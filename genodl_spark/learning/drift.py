"""Whether values have drifted from a reference: histograms by feature, and two distances between them. Pure NumPy.

Both samples are counted in bins that the reference alone has set; counts of disjoint rows add up,
so tasks can share the work. Nothing but ranks enters, so that a transform which keeps the order of values (log,
asinh, scaling) changes no distance.

The population stability index (PSI) is Jeffreys' symmetrised Kullback-Leibler divergence of the two shares (Kullback
1959), over all bins, missing values one of them. Without drift PSI / (1/n + 1/m) of samples of n and m rows
follows chi-squared with bins - 1 degrees of freedom (Yurdakul and Naranjo 2020, J. Risk Model Validation 14(4)),
so that its mean is (bins - 1)(1/n + 1/m): few rows have a large PSI by chance alone, and `limits` says how large.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2, kstwobign

_ROWS = 255  # of a block: their counts fit a byte, which is more than twice as fast as sums of int64
_FEATURES = 1024  # sorted at once
# rows per bin that both samples are given: with it PSI has the mean and tail of its theory down to 5 rows per bin
_PRIOR = 0.5


def bins_for(reference: int, current: int, most: int) -> int:
    """Bins for samples of so many rows: about 5 expected in each (Cochran 1954), at least 2 and at most `most`."""
    return min(most, max(2, min(reference, current) // 5))


def cut_points(x: np.ndarray, bins: int) -> np.ndarray:
    """Upper ends of all bins but the last (cuts, features), of the dtype of `x` (rows, features).

    float32, NaN missing: the values below which a share of k / bins of the known values lies (the inverse
    of the empirical distribution; NaN for a feature without any), bins - 1 of them, equal ones where values are tied.
    int8 categories, -1 missing: 0 to the largest, the same for all features, so that a category
    that the reference lacks has the last bin.
    """
    if x.dtype == np.int8:
        return np.repeat(np.arange(int(x.max(initial=0)) + 1, dtype=np.int8)[:, None], x.shape[1], 1)
    cuts = np.full((bins - 1, x.shape[1]), np.nan, np.float32)
    for start in range(0, x.shape[1] if len(x) else 0, _FEATURES):
        ordered = np.sort(np.ascontiguousarray(x[:, start : start + _FEATURES].T), axis=1)  # NaN comes last
        known = (ordered == ordered).sum(1)
        places = np.ceil(known[:, None] * np.arange(1, bins) / bins).astype(np.int64) - 1
        cuts[:, start : start + _FEATURES] = np.take_along_axis(ordered, np.maximum(places, 0), 1).T
    return cuts


def histogram(x: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Rows in each bin, int64 (cuts + 2, features), missing values last, of `x` (rows,
    features) as `cut_points` takes it.

    A bin is open below and closed above. Of equal cut points the first one's bin has the rows.
    """
    if x.dtype == np.int8:
        x, cuts = x.view(np.uint8), cuts.view(np.uint8)  # missing is 255 then, above every cut point
    known = x <= 127 if x.dtype == np.uint8 else x == x
    at_most = np.zeros((len(cuts) + 1, x.shape[1]), np.int64)
    for start in range(0, len(x), _ROWS):
        part, there = x[start : start + _ROWS], known[start : start + _ROWS]
        for k, cut in enumerate(cuts):
            at_most[k] += np.add.reduce((part <= cut).view(np.uint8), 0, np.uint8)
        at_most[-1] += np.add.reduce(there.view(np.uint8), 0, np.uint8)
    return np.concatenate([np.diff(at_most, axis=0, prepend=0), len(x) - at_most[-1:]])


def psi(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Population stability index float64 (features,) of counts (bins, features): sum over bins of (p - q) ln(p / q).

    So that no share is 0, both samples are given half a row for each bin that either has a row in,
    spread over the bins as the two samples together are. Bins empty in both add nothing, equal shares have a PSI of 0,
    and the two samples may be exchanged.
    """
    together = reference + current
    rows = together.sum(0)
    pooled = together / np.maximum(rows, 1)
    given = _PRIOR * np.maximum(_occupied(together), 1)
    p, q = ((counts + given * pooled) / (counts.sum(0) + given) for counts in (reference, current))
    there = together > 0
    return np.where(there, (p - q) * np.log(np.where(there, p, 1) / np.where(there, q, 1)), 0).sum(0)


def limits(reference: np.ndarray, current: np.ndarray, least: float, alpha: float) -> np.ndarray:
    """PSI (features,) above which a feature has drifted, for counts (bins, features).

    The greater of two: `least` and what is to be expected without drift; and what a feature without drift exceeds
    with probability `alpha`. Infinite where either sample has no row.
    """
    n, m = reference.sum(0), current.sum(0)
    with np.errstate(divide="ignore"):
        scale = 1 / n.astype(float) + 1 / m.astype(float)
    freedom = np.maximum(_occupied(reference + current) - 1, 1)
    return np.maximum(least + freedom * scale, chi2.isf(alpha, freedom) * scale)


def ks(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance (features,) of counts as `histogram` has them, over known values;
    0 where either sample has none.

    The largest difference of the two empirical distributions at the cut points: for categories the exact distance,
    for numbers a lower bound. Of bases, whose codes have no order of their own, PSI says more.
    """
    shares = [np.cumsum(counts[:-1], 0) / np.maximum(counts[:-1].sum(0), 1) for counts in (reference, current)]
    known = (reference[:-1].sum(0) > 0) & (current[:-1].sum(0) > 0)
    return np.where(known, np.abs(shares[0] - shares[1]).max(0), 0.0)


def ks_limit(n: int, m: int, least: float, alpha: float) -> float:
    """The greater of `least` and the distance that samples of n and m rows without drift exceed
    with probability `alpha` (Smirnov 1948)."""
    return max(least, float(kstwobign.isf(alpha)) * (1 / n + 1 / m) ** 0.5)


def missing(counts: np.ndarray) -> np.ndarray:
    """Share of missing values (features,) of counts as `histogram` has them; 0 without rows."""
    return counts[-1] / np.maximum(counts.sum(0), 1)


def _occupied(counts: np.ndarray) -> np.ndarray:
    return (counts > 0).sum(0)
