"""Calls of one tile of a genome. Tiles lie on a fixed grid, so that what is called depends on no sharding.

Positions are 0-based, intervals half-open.
"""

from __future__ import annotations

import numpy as np

from genodl_spark.genetics.calling.alleles import candidates, piled
from genodl_spark.genetics.calling.genotypes import Site, sites
from genodl_spark.genetics.calling.haplotypes import evidence, windows
from genodl_spark.genetics.calling.reads import Reads
from genodl_spark.genetics.settings import Calling

TILE, MARGIN = 50_000, 600  # bases; of reference and reads on either side
_DEFAULT = Calling()


def calls_of(
    reads: Reads, reference: np.ndarray, start: int, first: int, last: int, asked: Calling = _DEFAULT
) -> list[Site]:
    """Sites within [first, last). `reference` uint8 letters from `start` on, upper case, with a margin on both
    sides."""
    pileup = piled(reads, reference, start, asked.min_base_quality)
    longest = int((reads.end - reads.pos).max(initial=0))
    found = []
    for window in windows(candidates(pileup, asked.min_reads, asked.min_share), reference, start):
        if window.end < first or window.start > last:
            continue
        over = reads.overlapping(window.start - 1, window.end + 1, longest)
        if not len(over):
            continue
        proof = evidence(window, reads.only(over), reference, start)
        found += [site for site in sites(window, proof, reference, start) if first <= site.pos < last]
    return sorted(found, key=lambda site: (site.pos, site.ref, site.alts))
