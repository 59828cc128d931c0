"""What rows are held against: sequences without their order, without any base, or of the bases usual in training;
measured values at their training means."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from genodl_spark.core import splitmix
from genodl_spark.genome import shuffles

KINDS = ("shuffles", "mean", "zero")


def row_numbers(entities: Iterable[str]) -> np.ndarray:
    """A number of each entity's own, uint64 (rows,), by its name: 64 bits of BLAKE2."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in entities)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def shuffled(codes: np.ndarray, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` dinucleotide shuffles of each row of base codes int8 (rows, length): int8 (rows, count, length).

    They follow from a row's number, uint64 (rows,), and the seed. Padding and unknown bases stay where they are.
    """
    each = [shuffles.shuffled(codes, splitmix.keys_of(rows, seed, number)) for number in range(count)]
    return np.stack(each, 1)


def composition(bits: np.ndarray) -> np.ndarray:
    """Shares of A, C, G, T in the long run of a second-order Markov chain, float64 (4,), of the bits of each base
    after the two before it, (64,) (`genodl_spark/learning/encodings/onehot.py`)."""
    chance = np.exp2(-bits.astype(np.float64)).reshape(16, 4)
    pairs = np.full(16, 1 / 16)
    for _ in range(1000):
        # the pair (a, b) becomes (b, c)
        after = (pairs[:, None] * chance).reshape(4, 4, 4).sum(0).ravel()
        after /= after.sum()
        if np.abs(after - pairs).max() < 1e-12:
            break
        pairs = after
    found: np.ndarray = pairs.reshape(4, 4).sum(0)
    return found


def constant(codes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """`shares` (4,) of the bases at every known position of base codes int8 (rows, length), else 0:
    float32 (rows, 1, 4, length)."""
    known = codes >= 0
    return (known[:, None] * shares[None, :, None]).astype(np.float32)[:, None]
