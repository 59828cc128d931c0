"""Treatment of features, fitted on training rows only: pure NumPy.

A training set is a choice of rows: those outside one fold of a cross-validation, the rows marked train, or all of them.
Every set has its own statistics, so that nothing of a held-out row reaches the network that is tested on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ONE_HOT = "onehot"  # transform of base codes
_UNKNOWN = np.int8(64)  # any code of a triplet with an unknown base is at least this
LINEAR_SCALE = 50.0  # log-scaled expression stays below; counts, FPKM and array intensities go far above
_LONGER = 1.5  # times the length of training sequences: beyond, a network sees what it never has
_BASES = np.arange(4, dtype=np.int8)[:, None]
CONSTANT = 1e-6  # standard deviations below this, relative to the feature's size, carry no information


def on_linear_scale(largest: float) -> bool:
    """Whether values up to `largest` are on a linear scale, so that asinh (log for large, linear for small values) suits them."""
    return largest > LINEAR_SCALE


def as_float(x: np.ndarray, transform: str) -> np.ndarray:
    """Stored values (rows, features), int8 with -1 missing or float32 with NaN missing, as float32 with NaN missing.

    `transform`: none, asinh, or onehot, which makes base codes int8 (rows, length) indicators of A, C, G and T, float32
    (rows, 4, length), all of them 0 for an unknown base.
    """
    if transform == ONE_HOT:
        return np.equal(x[:, None], _BASES).astype(np.float32)  # six times as fast as rows of a table, which come transposed
    values = np.where(x < 0, np.float32(np.nan), x.astype(np.float32)) if x.dtype == np.int8 else x.astype(np.float32, copy=False)
    return np.arcsinh(values) if transform == "asinh" else values


@dataclass
class Moments:
    """Sums over the rows of each of S training sets; sums of disjoint parts add up, so ranks can share the work.

    `present`, `total`, `squares`: float64 (S, F), over values that are not missing, taken relative to `origin` (F,), which keeps
    the squares small. `by_class`: per class the same three (S, C, F), only where features are selected.
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


def moments(values: np.ndarray, members: np.ndarray, origin: np.ndarray, classes: np.ndarray | None = None, count: int = 0) -> Moments:
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

    `mean`, `inverse` float32 (S, F). `inverse` is 0 for a feature that is constant, too often missing, not allowed or not selected.
    """

    mean: np.ndarray
    inverse: np.ndarray


def fit(m: Moments, rows: np.ndarray, max_missing: float = 1.0, select: int = 0, allowed: np.ndarray | None = None) -> Scaling:
    """Scaling from the moments of all training rows; `rows` (S,): rows of each training set. `allowed` bool (S, F): features that each may use."""
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
    """Axes of the space that training rows span, float32 (F, width <= rows), for rows z float32 (rows, F) with rows < F.

    In their coordinates z @ axes the training rows are whole; what is left out of another row is a direction in which no
    gradient ever moved a weight. Scaled so that a coordinate has mean square 1 over rows and axes; each axis points to where
    its largest row is positive.
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


def triplets(codes: np.ndarray) -> np.ndarray:
    """Counts of base triplets, int64 (64,), index 16a + 4b + c, in base codes int8 (rows, length); those with an unknown base are left out."""
    found = _triplets(codes)
    return np.bincount(found.ravel().view(np.uint8), minlength=256)[:64].astype(np.int64)


def background(counts: np.ndarray) -> np.ndarray:
    """Bits of each base after the two before it, float32 (64,), under a second-order Markov chain with the given triplet counts (64,).

    One is added to every count, so that what was never seen is rare.
    """
    smoothed = counts.reshape(16, 4) + 1.0
    return -np.log2(smoothed / smoothed.sum(1, keepdims=True)).astype(np.float32).ravel()


def bits_per_base(codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """How unlike a background sequences are: mean bits of a base after the two before it, float64 (rows,); NaN without a known triplet.

    `codes` int8 (rows, length), -1 unknown; `bits` float32 (64,) as `background` has them.
    """
    found = _triplets(codes)
    table = np.zeros(256, np.float32)
    table[:64] = bits
    known = (found < _UNKNOWN).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known > 0, table[found.view(np.uint8)].sum(1, dtype=np.float64) / known, np.nan)


def triplet_entropy(codes: np.ndarray) -> np.ndarray:
    """How varied sequences are: entropy in bits of a row's own triplets, float64 (rows,), at most 6; NaN without a known triplet.

    `codes` int8 (rows, length), -1 unknown. A run of one base has 0, whatever the background.
    """
    found = _triplets(codes)
    row, place = np.nonzero(found < _UNKNOWN)
    counts = np.bincount(row * 64 + found[row, place], minlength=64 * len(codes)).reshape(len(codes), 64)
    total = counts.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = counts / total[:, None]
        return np.where(total > 0, -np.where(share > 0, share * np.log2(share), 0).sum(1), np.nan)


def spans(codes: np.ndarray) -> np.ndarray:
    """Bases from the first known one of each row to the last, int64 (rows,), of base codes int8 (rows, length); 0 without any."""
    known = codes >= 0
    width = codes.shape[1]
    return np.where(known.any(1), width - known[:, ::-1].argmax(1) - known.argmax(1), 0) if width else np.zeros(len(codes), np.int64)


def usual_lengths(found: np.ndarray, cut: bool = False) -> tuple[float, float]:
    """Shortest and longest sequence that is no surprise after training sequences of these lengths, int (rows,).

    From two thirds of the shortest to half more than the longest, each of 99 in 100 rows; without an upper end where longer ones were `cut`.
    """
    if not len(found):
        return 0.0, np.inf
    low, high = np.quantile(found, [0.01, 0.99])
    return float(low / _LONGER), np.inf if cut else float(high * _LONGER)


def _triplets(codes: np.ndarray) -> np.ndarray:
    """Index of each triplet, int8 (rows, length - 2); 64 and above where a base is unknown."""
    if codes.shape[1] < 3:
        return np.empty((len(codes), 0), np.int8)
    index = codes[:, :-2] * np.int8(16) + codes[:, 1:-1] * np.int8(4) + codes[:, 2:]
    return np.where((codes[:, :-2] | codes[:, 1:-1] | codes[:, 2:]) < 0, _UNKNOWN, index)


def mean_square(z: np.ndarray, used: np.ndarray) -> np.ndarray:
    """How far rows lie from the centre of a training set: mean square of z float32 (rows, F), NaN missing, over the features `used` bool (F,)
    that a row has; float64 (rows,), NaN where it has none. 1 on average over the training set."""
    known = ~np.isnan(z) & used
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.square(np.where(known, z, 0), dtype=np.float64).sum(1) / known.sum(1)


def fences(distances: np.ndarray) -> tuple[float, float]:
    """Lower and upper end of what is usual among the distances of training rows, float64 (rows,); NaN are left out.

    Tukey's rule in the tails: beyond the 1st and 99th percentile by 1.5 times their distance from the median, which a few dozen rows can
    tell as well as a million.
    """
    low, middle, high = np.nanquantile(distances, [0.01, 0.5, 0.99]) if np.isfinite(distances).any() else (-np.inf, 0.0, np.inf)
    return float(low - 1.5 * (middle - low)), float(high + 1.5 * (high - middle))
