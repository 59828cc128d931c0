"""Stretches in which reads show the reference, as a gVCF has them between the sites that are called.

Each base is judged by itself: the reference against any other allele at all, by how many reads show the one and the
other; an insertion or deletion that follows it is another allele, too. Positions are 0-based, intervals half-open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genodl_spark.genetics.calling.alleles import DELETED, INDEL, Pileup
from genodl_spark.genetics.calling.genotypes import Site

# Neighbours of one band of GQ are one block: steps of ten, as the Broad Institute's pipelines ask GATK for (its option
# --gvcf-gq-bands); 0, where reads do not tell, is apart.
BANDS = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90)
ERROR = 1e-3  # that a base of enough quality is wrong; fixed, so that a base is judged alike in any tile
HIGHEST = 99  # GQ
_LARGEST = 10_000  # of a phred-scaled likelihood
_LETTERS = np.frombuffer(b"ACGT", np.uint8)


@dataclass(frozen=True)
class Block:
    """[start, end), whose first base is `ref`. `quality`: the least GQ in it; `depth`: the fewest reads over a base
    (MIN_DP); `pl`: the least phred-scaled likelihood of each genotype: reference, with one other allele, with two."""

    start: int
    end: int
    ref: str
    quality: int
    depth: int
    pl: tuple[int, int, int]

    @property
    def genotype(self) -> tuple[int, int] | None:
        """None where reads do not tell, so that it is no call of the reference."""
        return (0, 0) if self.quality else None


def blocks(pileup: Pileup, sites: Sequence[Site], first: int, last: int, error: float = ERROR) -> list[Block]:
    """Every base of [first, last) once that no site's reference bases cover, in order. `sites` are those within, and
    those before `first` that reach into it."""
    at, to = first - pileup.start, last - pileup.start
    one, two = _likelihoods(pileup, at, to, error)
    quality = np.minimum(np.minimum(one, two), HIGHEST)
    band = np.searchsorted(BANDS, quality, "right")
    for site in sites:
        band[max(site.pos - first, 0) : max(site.pos + len(site.ref) - first, 0)] = -1
    starts = np.flatnonzero(np.diff(band, prepend=-2))
    if not len(starts):
        return []
    ends = np.append(starts[1:], last - first)
    least = [np.minimum.reduceat(x, starts) for x in (quality, pileup.depth[at:to], one, two)]
    letters = pileup.reference[at:to][starts].tobytes().decode()
    kept = np.flatnonzero(band[starts] >= 0).tolist()
    columns = [x.tolist() for x in (starts + first, ends + first, *least)]
    return [
        Block(columns[0][k], columns[1][k], letters[k], columns[2][k], columns[3][k], (0, columns[4][k], columns[5][k]))
        for k in kept
    ]


def joined(pieces: Iterable[Block]) -> Iterator[Block]:
    """Blocks in order, those of one band that a border of tiles alone divides as one."""
    before: Block | None = None
    for block in pieces:
        if before is not None and before.end == block.start and _band(before) == _band(block):
            pl = (0, min(before.pl[1], block.pl[1]), min(before.pl[2], block.pl[2]))
            quality, depth = min(before.quality, block.quality), min(before.depth, block.depth)
            before = replace(before, end=block.end, quality=quality, depth=depth, pl=pl)
            continue
        if before is not None:
            yield before
        before = block
    if before is not None:
        yield before


def _band(block: Block) -> int:
    return int(np.searchsorted(BANDS, block.quality, "right"))


def _likelihoods(pileup: Pileup, at: int, to: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Phred-scaled likelihoods of one and of two other alleles, that of none 0, int64 (to - at): at least 0, as a base
    that is likelier something else, and yet no site, is one of which reads do not tell."""
    counts = pileup.counts[at:to].sum(1, dtype=np.int64)
    same = pileup.reference[at:to, None] == _LETTERS
    shown, gaps = counts[:, :4], counts[:, INDEL]
    reference = np.maximum((shown * same).sum(1) - gaps, 0)  # a read with a gap shows the base before it
    other = (shown * ~same).sum(1) + counts[:, DELETED] + gaps
    known = same.any(1)
    scale = -10 / np.log(10)
    none = reference * np.log1p(-error) + other * np.log(error)
    one = scale * ((reference + other) * np.log(0.5) - none)
    two = scale * (reference * np.log(error) + other * np.log1p(-error) - none)
    told = [np.where(known, np.clip(x, 0, _LARGEST), 0).round().astype(np.int64) for x in (one, two)]
    return told[0], told[1]
