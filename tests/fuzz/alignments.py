"""Mutated BAMs: what is not refused is piled up, called and drawn for a network, whatever its records say."""

from __future__ import annotations

import re

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.genetics.calling.alleles import piled
from genodl_spark.genetics.calling.gap_errors import counted, fitted_gaps
from genodl_spark.genetics.calling.pileups import of_tile
from genodl_spark.genetics.calling.tile import calls_of, reads_of
from tests.genetics.calling.aligned import Read, bam, letters, random_reference

REFERENCE = random_reference(400)
CIGARS = ["50M", "5S45M", "20M3I27M", "20M4D30M", "3H50M", "10M5N40M", "10=1X39M", "25M1P25M", "44M6S", "6S20M2I2D22M"]


def matching(pos: int, cigar: str) -> str:
    """Bases of a read that differ from the reference in what the CIGAR inserts and clips alone."""
    found = ""
    for count, kind in re.findall(r"(\d+)([MIDNSHP=X])", cigar):
        if kind in "M=X":
            found += REFERENCE[pos : pos + int(count)]
        elif kind in "IS":
            found += ("ACGT" * int(count))[: int(count)]
        if kind in "M=XDN":
            pos += int(count)
    return found


def run(n: int, seed: int) -> tuple[int, int]:
    """How many of `n` mutated BAMs were read, and how many refused."""
    random = np.random.default_rng(seed)
    rows = [Read(p, c, matching(p, c)) for p, c in zip(range(0, 300, 30), CIGARS, strict=True)]
    whole, head, reference = bam(rows, len(REFERENCE)), len(bam([], len(REFERENCE))), letters(REFERENCE)
    accepted = 0
    for _ in range(n):
        data = bytearray(whole)
        for at in random.integers(0 if random.random() < 0.1 else head, len(data), int(random.integers(1, 4))).tolist():
            data[at] = int(random.choice([0, 1, 0xFF, random.integers(256), data[at] ^ 1 << int(random.integers(8))]))
        try:
            found = reads_of(bytes(data), reference, 0)
        except InputError:
            continue
        accepted += 1
        assert (found.end > found.pos).all()
        found = found.only(np.argsort(found.pos, kind="stable"))
        pileup = piled(found, reference, 0, 10)
        assert pileup.counts.sum() <= 16 * len(data)
        calls_of(found, reference, 0, 0, len(reference), gaps=fitted_gaps(counted(pileup, found)))
        of_tile(found, reference, 0, 0, len(reference))
    return accepted, n - accepted
