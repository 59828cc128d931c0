"""How packed values become what networks, baselines and distances see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning import encodings
from genodl_spark.learning import scaling as quality

if TYPE_CHECKING:
    import torch


ONE_HOT = "onehot"  # transform of base codes
_UNKNOWN = np.int8(64)  # any code of a triplet with an unknown base is at least this
LINEAR_SCALE = 50.0  # log-scaled expression stays below; counts, FPKM and array intensities go far above
_LONGER = 1.5  # times the length of training sequences: beyond, a network sees what it never has
_BASES = np.arange(4, dtype=np.int8)[:, None]


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


def usual_rows(x: np.ndarray, learns: np.ndarray, transform: str, scaling: quality.Scaling, cut: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """What the training rows, of all packed rows x those where `learns` bool (rows,), are like, so that a row unlike them is noticed.

    Returns the background of base codes, float32 (64,), else float32 (0,); and the ends of what is usual, as `quality.fences` has them: of mean
    squares of standardised values, float64 (2,), or of sequences float64 (3, 2): bits per base, entropy of triplets, bases. `cut`: sequences
    may have been longer than a row.
    """
    parts = [x[start : start + 4096][learns[start : start + 4096]] for start in range(0, len(x), 4096)]
    if transform == encodings.ONE_HOT:
        bits = encodings.background(sum((encodings.triplets(part) for part in parts), np.zeros(64, np.int64)))
        distance, entropy, bases = (
            np.concatenate([of(part) for part in parts])
            for of in (lambda part: encodings.bits_per_base(part, bits), encodings.triplet_entropy, encodings.spans)
        )
        return bits, np.array([encodings.fences(distance), (encodings.fences(entropy)[0], np.inf), encodings.usual_lengths(bases, cut)])
    mean, inverse = scaling.mean[-1], scaling.inverse[-1]
    found = [encodings.mean_square((encodings.as_float(part, transform) - mean) * inverse, inverse > 0) for part in parts]
    return np.zeros(0, np.float32), np.array(encodings.fences(np.concatenate(found)))


def shape(features: int, transform: str) -> tuple[int, ...]:
    """Shape of one row as networks take it."""
    return (4, features) if transform == encodings.ONE_HOT else (features,)


def values(x: torch.Tensor, transform: str, dtype: torch.dtype) -> torch.Tensor:
    """Packed values (rows, F) as networks take them, on the device that they are on; what `quality.as_float` does in NumPy.

    int8 with -1 missing or float32 with NaN missing, to `dtype` with NaN missing; with transform onehot base codes (rows, L) to (rows, 4, L), an
    unknown base all zero.
    """
    import torch

    if transform == encodings.ONE_HOT:
        bases = torch.arange(4, dtype=x.dtype, device=x.device)
        return (x[:, None, :] == bases[:, None]).to(dtype)
    found = x.to(dtype)
    if not x.is_floating_point():
        found = found.masked_fill_(x < 0, torch.nan)
    return torch.asinh(found) if transform == "asinh" else found
