"""Sequences as indicators of their bases.

Packed rows are base codes int8 (rows, L), A C G T are 0 1 2 3, -1 is an unknown base or lies outside the sequence
(genodl_spark/genome/bases.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.core import packing
from genodl_spark.genome import bases
from genodl_spark.learning.devices import placed
from genodl_spark.learning.encodings import Pooled, alone
from genodl_spark.learning.scaling import Scaling, fences

if TYPE_CHECKING:
    import torch

KMERS = (1, 2, 3, 4)  # of baselines: 5-mers cost twice the time, for 0.01 in AUROC less or more
# in sequences up to this length the bases at each position count too: at splice sites and promoters they tell most
POSITIONS = 512
_BASES = np.arange(4, dtype=np.int8)[:, None]
_UNKNOWN = np.int8(64)  # any code of a triplet with an unknown base is at least this
_LONGER = 1.5  # times the length of training sequences: beyond, a network sees what it never has


class Encoding:
    """Indicators of A, C, G and T, (rows, 4, L), all of them 0 for an unknown base.
    They are on one scale as they are."""

    dtypes = ("int8",)
    scaled = False
    projectable = False
    by_name = False
    letters = True

    def width(self, features: int) -> int:
        return features

    def shape(self, features: int) -> tuple[int, ...]:
        return (4, features)

    def floats(self, x: np.ndarray) -> np.ndarray:
        # six times as fast as rows of a table, which come transposed
        return np.equal(x[:, None], _BASES).astype(np.float32)

    def tensor(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        import torch

        codes = torch.arange(4, dtype=x.dtype, device=x.device)
        return (x[:, None, :] == codes[:, None]).to(dtype)

    def baseline(self, x: np.ndarray) -> np.ndarray:
        """Counts of KMERS, then, where there are at most POSITIONS of them, the indicators of A at every
        position, of C, G and T."""
        counts = [bases.kmer_counts(x, k).astype(np.float32) for k in KMERS]
        positions = [self.floats(x).reshape(len(x), -1)] if x.shape[1] <= POSITIONS else []
        return np.concatenate([*counts, *positions], 1)

    def tensors(self, features: int) -> dict[str, list[tuple[int, ...]]]:
        # Models of before know nothing of length and variety.
        return {"mean": [(1,)], "inverse": [(1,)], "background": [(64,)], "usual": [(3, 2), (2,)]}

    def learnt(
        self, x: packing.Sliced, learns: np.ndarray, scaling: Scaling, cut: bool, pooled: Pooled = alone
    ) -> dict[str, np.ndarray]:
        """The background of base codes, float32 (64,), and the ends of what is usual among training rows, all packed
        rows x those where `learns` bool (rows,): of bits per base, entropy of triplets, bases, float64 (3, 2).
        `cut`: sequences may have been longer than a row."""

        def some() -> Iterator[np.ndarray]:
            return (x[part][learns[part]] for part in packing.parts(x))

        bits = background(pooled(sum(map(triplets, some()), np.zeros(64, np.int64))[None]).sum(0))
        found = [(bits_per_base(part, bits), triplet_entropy(part), spans(part)) for part in some()]
        measured = np.concatenate([np.zeros((3, 0)), *(np.stack(part) for part in found)], 1)
        distance, entropy, length = pooled(measured.T).T
        return {
            "background": bits,
            "usual": np.array([fences(distance), (fences(entropy)[0], np.inf), usual_lengths(length, cut)]),
        }

    def reader(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> SequenceReader:
        return SequenceReader(self, tensors, device)


class SequenceReader:
    """Indicators; the distance of a row is its bits per base against the background of the training sequences.

    A GPU measures rows itself: networks take less time there than a core would for that.
    """

    def __init__(self, encoding: Encoding, tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
        self.device, self.bits = device, tensors["background"].to(device)
        self.encoding, self.background, self.usual = (
            encoding,
            tensors["background"].numpy(),
            tensors["usual"].reshape(-1, 2).tolist(),
        )

    def __call__(self, x: np.ndarray, packed: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
        import torch

        inputs = self.encoding.tensor(packed, torch.float32)
        if self.device.type == "cpu":
            return inputs, bits_per_base(x, self.background)
        return inputs, bits_per_base_there(packed, self.bits).cpu().numpy()

    def unusual(self, x: np.ndarray, distance: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """Sequences whose composition is farther from the background, or nearer, than is usual,
        of unusual length, or hardly any variety."""
        low, high = self.usual[0]
        odd = ~((distance >= low) & (distance <= high))
        if len(self.usual) < 3:
            return odd
        (least, _), (shortest, longest) = self.usual[1:]
        length = spans(x) if lengths is None else lengths
        if self.device.type == "cpu":
            entropy = triplet_entropy(x)
        else:
            entropy = triplet_entropy_there(placed(x, self.device)).cpu().numpy()
        return odd | (entropy < least) | (length < shortest) | (length > longest)


def triplets(codes: np.ndarray) -> np.ndarray:
    """Counts of base triplets, int64 (64,), index 16a + 4b + c, in base codes int8 (rows, length);
    those with an unknown base are left out."""
    found = _triplets(codes)
    return np.bincount(found.ravel().view(np.uint8), minlength=256)[:64].astype(np.int64)


def background(counts: np.ndarray) -> np.ndarray:
    """Bits of each base after the two before it, float32 (64,), under a second-order Markov chain
    with the given triplet counts (64,).

    One is added to every count, so that what was never seen is rare.
    """
    smoothed = counts.reshape(16, 4) + 1.0
    return -np.log2(smoothed / smoothed.sum(1, keepdims=True)).astype(np.float32).ravel()


def bits_per_base(codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """How unlike a background sequences are: mean bits of a base after the two before it, float64 (rows,);
    NaN without a known triplet.

    `codes` int8 (rows, length), -1 unknown; `bits` float32 (64,) as `background` has them.
    """
    found = _triplets(codes)
    table = np.zeros(256, np.float32)
    table[:64] = bits
    known = (found < _UNKNOWN).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known > 0, table[found.view(np.uint8)].sum(1, dtype=np.float64) / known, np.nan)


def triplet_entropy(codes: np.ndarray) -> np.ndarray:
    """How varied sequences are: entropy in bits of a row's own triplets, float64 (rows,), at most 6;
    NaN without a known triplet.

    `codes` int8 (rows, length), -1 unknown. A run of one base has 0, whatever the background.
    """
    found = _triplets(codes)
    row, place = np.nonzero(found < _UNKNOWN)
    counts = np.bincount(row * 64 + found[row, place], minlength=64 * len(codes)).reshape(len(codes), 64)
    total = counts.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = counts / total[:, None]
        return np.where(total > 0, -np.where(share > 0, share * np.log2(share), 0).sum(1), np.nan)


def bits_per_base_there(codes: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """`bits_per_base` on any device, float64 (rows,), up to the order of the sum."""
    found, unknown = _triplets_there(codes)
    each = bits.double()[found].masked_fill_(unknown, 0.0)
    return each.sum(1) / (~unknown).sum(1)


def triplet_entropy_there(codes: torch.Tensor) -> torch.Tensor:
    """`triplet_entropy` on any device, float64 (rows,)."""
    import torch

    found, unknown = _triplets_there(codes)
    rows = torch.arange(len(codes), device=codes.device)[:, None] * 64
    counts = torch.bincount((found + rows)[~unknown], minlength=64 * len(codes)).view(-1, 64).double()
    share = counts / counts.sum(1, keepdim=True)
    return torch.special.entr(share).sum(1) / math.log(2)


def _triplets_there(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of each triplet, int64 (rows, length - 2), and which of them have an unknown base and index 0."""
    first, second, third = codes[:, :-2], codes[:, 1:-1], codes[:, 2:]
    unknown = (first | second | third) < 0
    return (first * 16 + second * 4 + third).masked_fill_(unknown, 0).long(), unknown


def spans(codes: np.ndarray) -> np.ndarray:
    """Bases from the first known one of each row to the last, int64 (rows,), of base codes int8 (rows,
    length); 0 without any."""
    known = codes >= 0
    width = codes.shape[1]
    return (
        np.where(known.any(1), width - known[:, ::-1].argmax(1) - known.argmax(1), 0)
        if width
        else np.zeros(len(codes), np.int64)
    )


def usual_lengths(found: np.ndarray, cut: bool = False) -> tuple[float, float]:
    """Shortest and longest sequence that is no surprise after training sequences of these lengths, int (rows,).

    From two thirds of the shortest to half more than the longest, each of 99 in 100 rows;
    without an upper end where longer ones were `cut`.
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
