"""Values and counts of classes in which some genes differ by a known factor, and what the tests of biomarkers find of
these: power, false discoveries, and the same of a test that knows each gene's variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from genodl_spark.learning.biomarkers import consensus, negative_binomial, stability
from genodl_spark.learning.biomarkers.consensus import Asked
from genodl_spark.learning.biomarkers.differences import benjamini_hochberg

RATE = 0.1


@dataclass(frozen=True)
class Design:
    """How data are drawn.

    `rows` of each of `classes`; `genes`, of which `share` differ, in one class chosen by chance, by 2 to the power of
    a number drawn evenly from `low` to `high`, up or down. Genes go together in modules of `module` with `correlation`
    within classes.

    Counts: means of a gene at a library of size 1 are lognormal (`mean`, standard deviation `spread` of the natural
    logarithm), drawn again below `least`; libraries are 2 to the power of a number from -1 to 1; the dispersion is
    (`dispersion` + `shot` / mean) times a lognormal of standard deviation `scatter`. sqrt(.16) is the coefficient of
    variation of .4 that the edgeR User's Guide calls typical of human data.

    Values, on a log2 scale: a gene's variance is `deviation`^2 times `freedom` / chi-square(`freedom`), as in Smyth
    (2004).
    """

    rows: int = 20
    classes: int = 2
    genes: int = 5000
    share: float = 0.1
    low: float = 1.0
    high: float = 2.0
    module: int = 50
    correlation: float = 0.0
    mean: float = 300.0
    spread: float = 1.5
    least: float = 10.0
    dispersion: float = 0.16
    shot: float = 3.0
    scatter: float = 0.5
    deviation: float = 0.5
    freedom: float = 4.0


@dataclass(frozen=True)
class Planted:
    """`x` float64 (n, F), its classes int (n,), and bool (F,): which genes differ. `variance` float64 (F,): of values;
    of counts the dispersion, and `size` (n,) the libraries, None of values."""

    x: np.ndarray
    codes: np.ndarray
    true: np.ndarray
    variance: np.ndarray
    size: np.ndarray | None


def _drawn(design: Design, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Classes (n,), which genes differ (F,), by how much in log2 in each row (n, F), and standard normals (n, F)."""
    codes = np.repeat(np.arange(design.classes), design.rows)
    n, genes = len(codes), design.genes
    true = np.zeros(genes, bool)
    true[generator.choice(genes, round(design.share * genes), replace=False)] = True
    change = generator.uniform(design.low, design.high, genes) * generator.choice([-1, 1], genes) * true
    of = generator.integers(0, design.classes, genes)
    effect = change * (codes[:, None] == of)
    common = generator.normal(size=(n, -(-genes // design.module))).repeat(design.module, 1)[:, :genes]
    own = generator.normal(size=(n, genes))
    noise = np.sqrt(design.correlation) * common + np.sqrt(1 - design.correlation) * own
    return codes, true, effect, noise


def values(design: Design, seed: int) -> Planted:
    """Measured values on a log2 scale."""
    generator = np.random.default_rng(seed)
    codes, true, effect, noise = _drawn(design, generator)
    variance = design.deviation**2 * design.freedom / generator.chisquare(design.freedom, design.genes)
    level = generator.normal(8, 2, design.genes)
    return Planted(level + effect + noise * np.sqrt(variance), codes, true, variance, None)


def counts(design: Design, seed: int) -> Planted:
    """Counts: Poisson about gammas, which are drawn by quantiles, so that genes may go together."""
    generator = np.random.default_rng(seed)
    codes, true, effect, noise = _drawn(design, generator)
    low = stats.norm.cdf(np.log(design.least / design.mean) / design.spread)
    level = design.mean * np.exp(design.spread * stats.norm.ppf(generator.uniform(low, 1, design.genes)))
    dispersion = (design.dispersion + design.shot / level) * np.exp(generator.normal(0, design.scatter, design.genes))
    size = 2 ** generator.uniform(-1, 1, len(codes))
    gamma = special.gammaincinv(1 / dispersion, special.ndtr(noise)) * dispersion
    x = generator.poisson(level * 2**effect * size[:, None] * gamma).astype(np.float64)
    return Planted(x, codes, true, dispersion, size)


@dataclass(frozen=True)
class Found:
    """Of what differs the share that is found at the rate, and of what is found the share that does not, by the test,
    and by one of two classes that knows variances (NaN for more); how many features are stable in halves that differ,
    and how many that do not."""

    power: float
    false: float
    known_power: float
    known_false: float
    stable: int
    stable_false: int


def found(planted: Planted, pairs: int = 0) -> Found:
    """What `explain biomarkers` would say of a training set of these rows."""
    counted, classes = planted.size is not None, int(planted.codes.max()) + 1
    asked = Asked(counted, False, RATE, pairs, stability.most_for(1, len(planted.true), 0.75))
    said = consensus.of_training_set(planted.x, planted.x, planted.codes, classes, asked, [0])
    power, false = shares(said.significant, planted.true)
    known = (np.nan, np.nan)
    if classes == 2:
        known = shares(benjamini_hochberg(known_variances(planted)) <= RATE, planted.true)
    often = np.nan_to_num(said.frequency) >= 0.75
    return Found(power, false, *known, int((often & planted.true).sum()), int((often & ~planted.true).sum()))


def shares(chosen: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Power, NaN where nothing differs, and the share of false discoveries, 0 where there are none."""
    power = float(chosen[true].mean()) if true.any() else np.nan
    return power, float((chosen & ~true).sum() / max(chosen.sum(), 1))


def known_variances(planted: Planted) -> np.ndarray:
    """p-values (F,) of two classes by normal tests that know the variance of each gene, of counts by Wald's with the
    dispersion and the libraries that they were drawn with."""
    x, codes = planted.x, planted.codes
    if planted.size is None:
        n = np.bincount(codes)
        apart = x[codes == 1].mean(0) - x[codes == 0].mean(0)
        z = apart / np.sqrt(planted.variance * (1 / n).sum())
    else:
        there = x.sum(0) > 0
        z = np.full(len(planted.true), np.nan)
        fit = negative_binomial.fit(x[:, there], planted.size, codes, 2, planted.variance[there])
        z[there] = fit.coefficients[1] / fit.errors[1]
    p: np.ndarray = 2 * special.ndtr(-np.abs(z))
    return p
