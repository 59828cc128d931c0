"""How far clusters come back on other cells of the same kind, and the resolution that this speaks for.

At each resolution subsamples of the cells are clustered anew, neighbours and all, and any two compared on the cells
that both have. The resolution is the finest of those as stable as any: whose agreement is not below the highest lower
end of the 95% intervals of all (the rule of chooseR: Patterson-Cross, Levine and Menon 2021, there of silhouettes).
Labels play no part.

Whether there is anything to find is another question: the same is done with cells drawn from one normal distribution
that has the variances of the components, one cluster of any shape that components can have (the null hypothesis of
SigClust: Liu, Hayes, Nobel and Marron 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from genodl_spark.cells.communities import leiden
from genodl_spark.cells.neighbours import neighbours, shared_graph

_NORMAL = 1.96  # standard errors of a 95% interval, on either side
RESOLUTIONS = 0.1 * 10 ** (np.arange(14) / 10)  # 0.1 to 2, ten to a decade


def contingency(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cells by their labels in `a` and `b`, whole numbers from 0, int64 (labels of a, labels of b)."""
    width, height = int(b.max(initial=-1)) + 1, int(a.max(initial=-1)) + 1
    return np.bincount(a * width + b, minlength=height * width).reshape(height, width)


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Adjusted Rand index of two labellings (Hubert and Arabie 1985); 1 where both have one label."""
    table = contingency(a, b).astype(float)
    n = table.sum()
    both, rows, columns = ((x * (x - 1) / 2).sum() for x in (table, table.sum(1), table.sum(0)))
    expected = rows * columns / max(n * (n - 1) / 2, 1)
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((both - expected) / (most - expected))


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information of two labellings, by the mean of both entropies; 1 where both have one label."""
    table = contingency(a, b) / max(len(a), 1)
    rows, columns = table.sum(1), table.sum(0)
    there = table > 0
    shared = float((table[there] * np.log(table[there] / np.outer(rows, columns)[there])).sum())
    entropies = [-float((p[p > 0] * np.log(p[p > 0])).sum()) for p in (rows, columns)]
    return 1.0 if sum(entropies) == 0 else max(0.0, 2 * shared / sum(entropies))


def subsample(n: int, share: float, seed: int, run: int) -> np.ndarray:
    """Numbers of the cells that a run has, ascending, int64."""
    return np.sort(np.random.default_rng([seed, run]).permutation(n)[: max(2, round(share * n))])


def communities_of(
    scores: np.ndarray, members: np.ndarray, k: int, resolutions: Sequence[float], seed: int
) -> np.ndarray:
    """Communities of some of the cells at each resolution, int32 (resolutions, n), -1 for the other cells.

    scores: float64 (n, components), whole numbers; members: numbers of cells; k: neighbours.
    """
    found = np.full((len(resolutions), len(scores)), -1, np.int32)
    graph = shared_graph(neighbours(scores[members], k))
    for place, resolution in enumerate(resolutions):
        found[place, members] = leiden(graph, resolution, seed)
    return found


def one_cluster(scores: np.ndarray, seed: int, number: int) -> np.ndarray:
    """As many cells, drawn from one normal distribution with the variances of the components."""
    drawn = np.random.default_rng([seed, 1, number]).standard_normal(scores.shape)
    return np.rint(drawn * np.sqrt(np.maximum(_variances(scores), 0)))


def _variances(scores: np.ndarray) -> np.ndarray:
    """Of whole numbers, from sums that are exact."""
    mean = scores.sum(0) / len(scores)
    return (scores * scores).sum(0) / len(scores) - mean * mean


def agreement(runs: np.ndarray) -> tuple[float, float]:
    """Mean adjusted Rand index of any two runs, on the cells that both have, and its standard error, by leaving out a
    run in turn; 0 counts where one of two runs tells no cells apart, as any cells would come back so.

    runs: int (runs, n), two or more, -1 absent.
    """
    found = np.zeros((len(runs), len(runs)))
    for a, b in combinations(range(len(runs)), 2):
        one, other = runs[a].astype(np.int64), runs[b].astype(np.int64)
        both = (one >= 0) & (other >= 0)
        if one.max() > 0 and other.max() > 0:
            found[a, b] = found[b, a] = adjusted_rand(one[both], other[both])
    m, total = len(runs), found.sum()
    if m < 3:
        return float(total / (m * (m - 1))), 0.0
    without = (total - 2 * found.sum(1)) / ((m - 1) * (m - 2))
    error = np.sqrt((m - 1) / m * ((without - without.mean()) ** 2).sum())
    return float(total / (m * (m - 1))), float(error)


def of_cells(labels: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """How well each cell keeps its company, float64 (n,): the mean over runs of the share, among the other cells of
    its cluster, that the run puts together with it; NaN for a cell that no run has with others of its cluster.

    labels: int64 (n,), from 0; runs: int (runs, n), -1 absent.
    """
    total, seen = np.zeros(len(labels)), np.zeros(len(labels))
    for run in runs:
        there = np.flatnonzero(run >= 0)
        a, b = labels[there], run[there].astype(np.int64)
        table = contingency(a, b)
        others = table.sum(1)[a] - 1
        some = others > 0
        total[there[some]] += (table[a, b][some] - 1) / others[some]
        seen[there[some]] += 1
    return np.divide(total, seen, out=np.full(len(labels), np.nan), where=seen > 0)


@dataclass(frozen=True)
class Choice:
    """The place of the resolution, how far runs agree at each (`stability`), those of null sets on the mean (`null`),
    and the chance that one cluster stands out as far above these at any resolution (`p_value`)."""

    place: int
    stability: np.ndarray
    null: np.ndarray
    p_value: float


def choose(stability: np.ndarray, errors: np.ndarray, nulls: np.ndarray) -> Choice:
    """stability and its standard errors: float64 (resolutions,), ascending, of the cells; nulls: float64
    (null sets, resolutions), two sets or more."""
    stability, errors, nulls = (np.round(x, 9) for x in (stability, errors, nulls))
    place = int(np.flatnonzero(stability >= (stability - _NORMAL * errors).max()).max())
    mean = nulls.mean(0)
    count = len(nulls)
    # each null set against the others, as the cells are against all of them
    others = (nulls.sum(0) - nulls) / (count - 1)
    highest = (nulls - others).max(1)
    p = (1 + int((highest >= (stability - mean).max()).sum())) / (count + 1)
    return Choice(place, stability, mean, p)
