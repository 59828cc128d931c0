"""Rows of PLINK's .bed, against the two bits of each sample written out, and the decoder of packed.py."""

from __future__ import annotations

import random

import numpy as np

from genodl_spark.native import kernels
from tests.fuzz import packed

CALLS = ([(1, 1), (-1, -1), (0, 1), (0, 0)], [(0, 0), (-1, -1), (0, 1), (1, 1)])  # by code; REF the second, the first


def run(n: int, seed: int) -> tuple[int, int]:
    """Packs `n` rows; all are read, none refused. AssertionError where calls are not those of the row."""
    random_ = random.Random(seed)
    for i in range(n):
        samples = random_.choice((1, 2, 3, 4, 5, 31, 32, 33, 63, 64, 65, random_.randrange(1, 300)))
        usual, rare = random_.randrange(4), random_.choice((0.0, 0.01, 0.06, 0.07, 0.5, 1.0))
        codes = [random_.randrange(4) if random_.random() < rare else usual for _ in range(samples)]
        width = (samples + 3) // 4
        behind = [random_.randrange(4) for _ in range(4 * width - samples)]  # counts for nobody
        row = np.array([codes + behind], np.uint8).reshape(width, 4)
        data = (row << np.array([0, 2, 4, 6], np.uint8)).sum(1).astype(np.uint8)
        exchanged = random_.randrange(2)
        out, offsets = np.empty(2 * width + 16, np.uint8), np.empty(2, np.int32)
        assert not kernels.call("bed", data, 1, samples, np.array([exchanged], np.uint8), out, offsets)
        calls, ploidy = packed.decode(out[: offsets[1]].tobytes(), samples)
        expected = [[(allele, False) for allele in CALLS[exchanged][code]] for code in codes]
        assert (calls, ploidy) == (expected, 2), f"row {i} of seed {seed}: {data.tobytes().hex()} of {samples} samples"
    return n, 0
