"""Calls of one tile of a genome. Tiles lie on a fixed grid, so that what is called depends on no sharding.

Positions are 0-based, intervals half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from genodl_spark.genetics.calling.alleles import Allele, Pileup, candidates, foreign, leftmost, merged, piled
from genodl_spark.genetics.calling.genotypes import Site, sites
from genodl_spark.genetics.calling.haplotypes import evidence, windows
from genodl_spark.genetics.calling.reads import Reads, of_bam
from genodl_spark.genetics.settings import Calling

TILE, MARGIN = 50_000, 600  # bases; of reference and reads on either side
_DEFAULT = Calling()


def reads_of(bam: bytes | bytearray, reference: np.ndarray, start: int, asked: Calling = _DEFAULT) -> Reads:
    """Reads of a tile that calls are made of, from an inflated BAM; `reference` as of `calls_of`."""
    reads = of_bam(bam, asked.min_mapping_quality)
    return reads.only(~foreign(reads, reference, start))


def calls_of(
    reads: Reads,
    reference: np.ndarray,
    start: int,
    first: int,
    last: int,
    asked: Calling = _DEFAULT,
    forced: Sequence[Allele] = (),
    gaps: np.ndarray | None = None,
) -> list[Site]:
    """Sites within [first, last). `reference` uint8 letters from `start` on, upper case, with a margin on both sides.
    Alleles that are `forced` are answered whatever the reads say, of no depth, too. `gaps`: how often reads have gaps
    by error, see `gap_errors`."""
    pileup = piled(reads, reference, start, asked.min_base_quality)
    return called(pileup, reads, first, last, asked, forced, gaps)


def called(
    pileup: Pileup,
    reads: Reads,
    first: int,
    last: int,
    asked: Calling = _DEFAULT,
    forced: Sequence[Allele] = (),
    gaps: np.ndarray | None = None,
) -> list[Site]:
    """The same of reads that are piled up already."""
    reference, start = pileup.reference, pileup.start
    found = candidates(pileup, asked.min_reads, asked.min_share)
    wanted = [replace(leftmost(one, reference, start), forced=True) for one in forced]
    return sites_of(merged(found + wanted), reads, reference, start, first, last, gaps)


def sites_of(
    alleles: Sequence[Allele],
    reads: Reads,
    reference: np.ndarray,
    start: int,
    first: int,
    last: int,
    gaps: np.ndarray | None = None,
) -> list[Site]:
    """The sites of alleles, within [first, last)."""
    longest = int((reads.end - reads.pos).max(initial=0))
    found = []
    for window in windows(alleles, reference, start):
        if window.end < first or window.start > last:
            continue
        over = reads.overlapping(window.start - 1, window.end + 1, longest)
        if not len(over) and not any(allele.forced for allele in window.alleles):
            continue
        proof = evidence(window, reads.only(over), reference, start, gaps)
        found += [site for site in sites(window, proof, reference, start) if first <= site.pos < last]
    return sorted(found, key=lambda site: (site.pos, site.ref, site.alts))
