"""Sets of genes, such as pathways, among the genes that were measured and tested: which hold more of the selected ones
than chance would have, and which lie higher or lower than the others.

Over-representation: the hypergeometric distribution. By statistics: a two-sample t of the set against the others, whose
variance is raised for genes of a set that go together (Wu and Smyth 2012, as limma's cameraPR computes it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from genodl_spark.learning.biomarkers.differences import Differences

FURTHEST = 37.0  # standard deviations: what lies beyond has p-values of 0
CORRELATION = 0.01  # of the statistics of two genes of a set, where nothing is known: what limma takes


@dataclass(frozen=True)
class Enriched:
    """Of S sets, float64 (S,), NaN where a set has no gene in it or none beside it. `members` int: genes of the set
    that were tested; `selected` int: of these; `expected`: as many by chance; `p_over`: that so many or more are.
    `shift`: by how much their statistics lie above those of all others; `p_shift`: two-sided, or, of statistics that
    have no sign, that they lie so high."""

    members: np.ndarray
    selected: np.ndarray
    expected: np.ndarray
    p_over: np.ndarray
    shift: np.ndarray
    p_shift: np.ndarray


def normal_scores(found: Differences, signed: bool) -> np.ndarray:
    """Statistics of features as a normal would have them by their p-values, float64 (F,), NaN where there is none:
    with the sign of the effect, or, where they have none, the greater the smaller the p-value."""
    p = found.p_value
    if not signed:
        return np.clip(stats.norm.isf(p), -FURTHEST, FURTHEST)
    return np.sign(found.effect) * np.minimum(stats.norm.isf(p / 2), FURTHEST)


def enriched(
    member: list[np.ndarray], selected: np.ndarray, score: np.ndarray, signed: bool, correlation: float = CORRELATION
) -> Enriched:
    """Tests sets of G genes: `member` their places, int each; `selected` bool (G,); `score` float64 (G,), no NaN."""
    genes, chosen = len(score), int(selected.sum())
    m = np.array([len(own) for own in member], np.int64)
    hits = np.array([int(selected[own].sum()) for own in member], np.int64)
    inside = np.array([score[own].sum() for own in member], np.float64)
    good = (m > 0) & (m < genes) & (genes > 2)
    nothing = np.full(len(member), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        over = np.where(good, stats.hypergeom.sf(hits - 1, genes, chosen, m), nothing)
        rest = genes - m
        shift = genes / rest * (inside / m - score.mean())
        pooled = ((genes - 1) * score.var(ddof=1) - np.square(shift) * m * rest / genes) / (genes - 2)
        t = shift / np.sqrt(pooled * ((1 + (m - 1) * correlation) / m + 1 / rest))
        tail = special.stdtr(genes - 2, -np.abs(t) if signed else -t)
    return Enriched(
        m,
        hits,
        np.where(good, m * chosen / max(genes, 1), nothing),
        np.minimum(over, 1),
        np.where(good, shift, nothing),
        np.where(good, 2 * tail if signed else tail, nothing),
    )
