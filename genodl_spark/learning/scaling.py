"""Treatment of features, fitted on training rows only: pure NumPy.

A training set is a choice of rows: those outside one fold of a cross-validation, the rows marked train, or all of them.
Every set has its own statistics, so that nothing of a held-out row reaches the network that is tested on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CONSTANT = 1e-6  # standard deviations below this, relative to the feature's size, carry no information


@dataclass
class Moments:
    """Sums over the rows of each of S training sets; sums of disjoint parts add up, so ranks can share the work.

    `present`, `total`, `squares`: float64 (S, F), over values that are not missing, taken relative to `origin` (F,),
    which keeps the squares small. `by_class`: per class the same three (S, C, F), only where features are selected.
    """

    origin: np.ndarray
    present: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    by_class: tuple[np.ndarray, ...] | None

    def __add__(self, other: Moments) -> Moments:
        pairs = zip(self.by_class or (), other.by_class or (), strict=True)
        return Moments(
            self.origin,
            self.present + other.present,
            self.total + other.total,
            self.squares + other.squares,
            None if self.by_class is None else tuple(a + b for a, b in pairs),
        )

    def over(self, summed: Callable[[np.ndarray], np.ndarray]) -> Moments:
        """Those of the rows of all ranks; `summed`: an array's sum over them."""
        return Moments(
            self.origin,
            summed(self.present),
            summed(self.total),
            summed(self.squares),
            None if self.by_class is None else tuple(map(summed, self.by_class)),
        )


def moments(
    values: np.ndarray, members: np.ndarray, origin: np.ndarray, classes: np.ndarray | None = None, count: int = 0
) -> Moments:
    """Moments of `values` float32 (rows, F), NaN missing, over training sets `members` bool (S, rows).

    `classes` int (rows,): class of each row, one of `count`, when sums per class are wanted.
    """
    known = ~np.isnan(values)
    shifted = np.where(known, values - origin, 0).astype(np.float64)
    weights = members.astype(np.float64)
    present, total, squares = weights @ known, weights @ shifted, weights @ (shifted * shifted)
    by_class = None
    if classes is not None:
        per = [weights * (classes == c) for c in range(count)]
        by_class = (np.stack([w @ known for w in per], 1), np.stack([w @ shifted for w in per], 1))
    return Moments(origin.astype(np.float64), present, total, squares, by_class)


@dataclass(frozen=True)
class Scaling:
    """What a training set teaches about its features: z = (value - mean) * inverse, 0 where the value is missing.

    `mean`, `inverse` float32 (S, F). `inverse` is 0 for a feature that is constant, too often missing,
    not allowed or not selected.
    """

    mean: np.ndarray
    inverse: np.ndarray


def fit(
    m: Moments, rows: np.ndarray, max_missing: float = 1.0, select: int = 0, allowed: np.ndarray | None = None
) -> Scaling:
    """Scaling from the moments of all training rows; `rows` (S,): rows of each training set. `allowed` bool (S, F):
    features that each may use."""
    present = np.maximum(m.present, 1)
    shift = m.total / present
    variance = np.maximum(m.squares / present - shift**2, 0)
    deviation = np.sqrt(variance)
    mean = m.origin + shift
    kept = (deviation > CONSTANT * np.maximum(np.abs(mean), 1)) & (m.present >= (1 - max_missing) * rows[:, None])
    if allowed is not None:
        kept &= allowed
    if select:
        scores = np.where(kept, f_statistics(m), -1.0)
        for s in range(len(scores)):
            if kept[s].sum() > select:
                # A stable sort: among equals the earlier feature stays, whatever the machine.
                kept[s, np.argsort(-scores[s], kind="stable")[select:]] = False
    inverse = np.where(kept, 1 / np.where(kept, deviation, 1), 0)
    return Scaling(mean.astype(np.float32), inverse.astype(np.float32))


def f_statistics(m: Moments) -> np.ndarray:
    """One-way analysis of variance between classes, (S, F); 0 where undefined."""
    assert m.by_class is not None
    counts, sums = m.by_class
    known = np.maximum(counts, 1)
    overall = m.total**2 / np.maximum(m.present, 1)
    between = np.maximum((sums**2 / known).sum(1) - overall, 0)
    within = np.maximum(m.squares - overall - between, 0)
    groups = (counts > 0).sum(1)
    freedom = np.maximum(m.present - groups, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        f = (between / np.maximum(groups - 1, 1)) / (within / freedom)
    return np.where((groups > 1) & (within > 0), f, np.where(between > 0, np.inf, 0.0))


def principal_axes(z: np.ndarray) -> np.ndarray:
    """Axes of the space that training rows span, float32 (F, width <= rows), for rows z
    float32 (rows, F) with rows < F.

    In their coordinates z @ axes the training rows are whole; what is left out of another row is a direction
    in which no gradient ever moved a weight. Scaled so that a coordinate has mean square 1 over rows and axes;
    each axis points to where its largest row is positive.
    """
    z = z.astype(np.float64)
    size, vectors = np.linalg.eigh(z @ z.T)
    kept = size > 1e-6 * max(size[-1], 1e-300)
    size, vectors = size[kept][::-1], vectors[:, kept][:, ::-1]
    if not len(size):
        return np.zeros((z.shape[1], 1), np.float32)
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(size))])
    axes = z.T @ (vectors / np.sqrt(size))
    return (axes * np.sqrt(len(size) * len(z) / size.sum())).astype(np.float32)


def fences(distances: np.ndarray) -> tuple[float, float]:
    """Lower and upper end of what is usual among the distances of training rows, float64 (rows,); NaN are left out.

    Tukey's rule in the tails: beyond the 1st and 99th percentile by 1.5 times their distance from the median,
    which a few dozen rows can tell as well as a million.
    """
    low, middle, high = (
        np.nanquantile(distances, [0.01, 0.5, 0.99]) if np.isfinite(distances).any() else (-np.inf, 0.0, np.inf)
    )
    return float(low - 1.5 * (middle - low)), float(high + 1.5 * (high - middle))
