"""Which features are selected again and again in halves of the rows, and how stable a selection is.

Stability selection: Meinshausen and Buhlmann (2010), in complementary pairs of halves (Shah and Samworth 2013). The
index of stability, with its interval: Nogueira, Sechidis and Brown (2018), which is 1 where all sets are the same, and
0 on average where they are drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Score = Callable[[np.ndarray], np.ndarray]  # rows to scores of features, the best the greatest, NaN of none


@dataclass(frozen=True)
class Stability:
    """An index in [-1 / (sets - 1), 1], with its 95% interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


def halves(codes: np.ndarray, pairs: int, seed: list[int]) -> Iterator[np.ndarray]:
    """Rows of 2 * pairs subsamples: each pair deals the rows of every class of `codes` int (n,) to two halves. A row
    that is left over, of classes with an odd number, goes to neither or either by chance."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    for _ in range(pairs):
        first: list[np.ndarray] = []
        second: list[np.ndarray] = []
        for own in members:
            order = generator.permutation(own)
            half = len(order) // 2
            first.append(order[:half])
            second.append(order[half : 2 * half])
        for chosen in (first, second):
            yield np.sort(np.concatenate(chosen))


def selections(score: Score, codes: np.ndarray, features: int, most: int, pairs: int, seed: list[int]) -> np.ndarray:
    """Which features are the best `most` of each subsample, bool (2 * pairs, F); fewer where fewer have a score. Ties
    go to the feature that comes first."""
    found = np.zeros((2 * pairs, features), bool)
    for number, rows in enumerate(halves(codes, pairs, seed)):
        scores = score(rows)
        order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), kind="stable")[:most]
        found[number, order[~np.isnan(scores[order])]] = True
    return found


def falsely_selected(most: float, features: int, threshold: float) -> float:
    """The bound on the expected number of features that are selected and tell nothing, of those whose frequency in the
    subsamples is at least `threshold` > 0.5, where each selects `most`: most^2 / ((2 threshold - 1) F)."""
    return most**2 / ((2 * threshold - 1) * features) if features else 0.0


def most_for(false: float, features: int, threshold: float) -> int:
    """How many features a subsample may select for that bound to be `false`; 1 at least."""
    return max(1, int(np.sqrt(false * (2 * threshold - 1) * features) + 1e-9))


def index(selected: np.ndarray) -> Stability:
    """The index of sets, bool (M, F), of 2 or more selections; not defined where all features or none are in all."""
    sets, features = selected.shape
    if sets < 2 or not features:
        return Stability(np.nan, np.nan, np.nan)
    z = selected.astype(np.float64)
    frequency, size = z.mean(0), z.sum(1)
    share = size.mean() / features
    chance = share * (1 - share)
    if chance <= 0:
        return Stability(np.nan, np.nan, np.nan)
    varied = sets / (sets - 1) * (frequency * (1 - frequency))
    value = 1 - varied.mean() / chance
    own = size / features
    each = ((z @ frequency) / features - own * share + value / 2 * (2 * share * own - own - share + 1)) / chance
    error = 2 / sets * np.sqrt(np.square(each - each.mean()).sum())
    return Stability(float(value), float(value - 1.959963984540054 * error), float(value + 1.959963984540054 * error))
