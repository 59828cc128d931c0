"""Errors of reads: how often bases and runs of one base are misread, by the reads at hand, and more of the same put
into them, for a network to learn from.

Positions are 0-based, intervals half-open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from genodl_spark.genetics.calling.reads import Reads
from genodl_spark.native import kernels

QUALITIES, RUNS = 94, 32
_PRIOR = 200.0  # bases, or runs, that what is usual weighs beside those that were seen
_SLIP, _STEEPER = 1e-5, 1.5  # that a base by itself is lost or gained, and how often more with each one of a run


@dataclass(frozen=True)
class Errors:
    """`bases` float64 (94): chance that a base of a quality is another one; `slips` float64 (32): that a run of one
    base, by its length, loses or gains a base."""

    bases: np.ndarray
    slips: np.ndarray


def fitted(reads: Reads, reference: np.ndarray, start: int, sure: np.ndarray) -> Errors:
    """Errors of reads over letters uint8 (L) from `start` on, where `sure` bool (L) says that the genome is the
    reference. What is seen seldom is mixed with what a quality says, and with slips that grow with the run."""
    bases, slips = np.zeros((QUALITIES, 2), np.int64), np.zeros((RUNS, 2), np.int64)
    found = kernels.call(
        "errors", reads.data, reads.at, len(reads), reference, start, len(reference), sure.view(np.uint8), bases, slips
    )
    if found < 0:
        raise MemoryError
    stated = np.minimum(10.0 ** (-np.arange(QUALITIES) / 10), 0.75)
    usual = np.minimum(_SLIP * _STEEPER ** np.maximum(np.arange(RUNS) - 1, 0), 0.2)
    return Errors(_mixed(bases, stated), _mixed(slips, usual))


def _mixed(counts: np.ndarray, usual: np.ndarray) -> np.ndarray:
    found: np.ndarray = (counts[:, 1] + _PRIOR * usual) / (counts[:, 0] + _PRIOR)
    return found


def added(reads: Reads, reference: np.ndarray, start: int, of: Errors, times: float, seed: int) -> Reads:
    """The reads with `times` as many errors put into them as they have; each read's by its name and `seed` alone."""
    at = np.empty(len(reads), np.int64)
    longest = len(reads.data) + 8 * len(reads)
    while True:
        out = np.empty(longest, np.uint8)
        used = kernels.call(
            "misread", reads.data, reads.at, len(reads), reads.name, reference, start, len(reference),
            np.minimum(of.bases * times, 0.75), np.minimum(of.slips * times, 0.5), seed, longest, out, at,
        )  # fmt: skip
        if used >= 0:
            return replace(reads, data=out[:used], at=at)
        longest *= 2
        if longest > 64 * (len(reads.data) + 1024):
            raise MemoryError
