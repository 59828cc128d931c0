"""Blocks of the reference against plain loops over bases, however they are divided into tiles."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genetics.calling.alleles import Pileup, piled
from genodl_spark.genetics.calling.genotypes import Site
from genodl_spark.genetics.calling.reference_blocks import BANDS, ERROR, Block, blocks, joined
from genodl_spark.genetics.calling.tile import calls_of
from tests.genetics.calling.aligned import CONTIG, Read, drawn, letters, random_reference, reads
from tests.genetics.calling.diploid import Genome, Variant

REFERENCE = random_reference(300, seed=2)
NOTHING = np.zeros(0, np.int32)


def site(pos: int, ref: str) -> Site:
    return Site(pos, ref, ("A",), (0, 1), np.zeros(3), np.ones(3) / 3, 0.0, np.zeros(2), 0)


def pileup_of(counts: np.ndarray, start: int = 0) -> Pileup:
    reference = letters(REFERENCE)[: len(counts)]
    return Pileup(start, reference, counts.astype(np.uint16), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


def likelihoods(counts: np.ndarray, reference: str) -> tuple[int, int]:
    """Of one base, counts (2, 8)."""
    a, c, g, t, _, deleted, gaps, _ = counts.sum(0).tolist()
    shown = dict(zip("ACGT", (a, c, g, t), strict=True))
    same = max(shown.get(reference, 0) - gaps, 0)
    other = sum(shown.values()) - shown.get(reference, 0) + deleted + gaps
    none = (1 - ERROR) ** same * ERROR**other
    one, two = 0.5 ** (same + other), ERROR**same * (1 - ERROR) ** other
    if reference not in "ACGT":
        return 0, 0
    return max(round(-10 * math.log10(one / none)), 0), max(round(-10 * math.log10(two / none)), 0)


def band(quality: int) -> int:
    return sum(quality >= least for least in BANDS)


def slowly(counts: np.ndarray, covered: set[int], first: int, last: int) -> list[Block]:
    found: list[Block] = []
    for p in range(first, last):
        if p in covered:
            continue
        one, two = likelihoods(counts[p], REFERENCE[p])
        quality, depth = min(one, two, 99), int(counts[p, :, :6].sum())
        if found and found[-1].end == p and band(found[-1].quality) == band(quality):
            b = found[-1]
            pl = (0, min(one, b.pl[1]), min(two, b.pl[2]))
            found[-1] = Block(b.start, p + 1, b.ref, min(quality, b.quality), min(depth, b.depth), pl)
        else:
            found.append(Block(p, p + 1, REFERENCE[p], quality, depth, (0, one, two)))
    return found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_blocks_are_those_of_a_loop_over_bases_in_any_tiles(seed: int, data: st.DataObject) -> None:
    random = np.random.default_rng(seed)
    length = 120
    counts = np.zeros((length, 2, 8), np.int64)
    depth = np.repeat(random.integers(0, 40, length // 10), 10)
    for p in range(length):
        counts[p, :, "ACGT".index(REFERENCE[p])] = random.multinomial(depth[p], [0.5, 0.5])
        if random.random() < 0.2:
            counts[p, random.integers(2), random.integers(8)] += random.integers(1, 4)
    spans = [(int(p), int(random.choice([1, 1, 2, 15]))) for p in random.integers(0, length - 15, 6)]
    sites = [site(p, REFERENCE[p : p + n]) for p, n in spans]
    covered = {q for p, n in spans for q in range(p, p + n)}
    expected = slowly(counts, covered, 0, length)
    assert blocks(pileup_of(counts), sites, 0, length) == expected
    edges = sorted({0, length, *data.draw(st.lists(st.integers(0, length), max_size=5))})
    pieces = []
    for first, last in pairwise(edges):
        own = [one for one in sites if one.pos < last]
        found = blocks(pileup_of(counts), own, first, last)
        assert all(first <= b.start < b.end <= last for b in found)
        pieces += found
    assert sorted(q for b in pieces for q in range(b.start, b.end)) == sorted(set(range(length)) - covered)
    assert list(joined(pieces)) == expected


@pytest.mark.parametrize(
    ("same", "other", "gaps", "quality", "genotype"),
    [(0, 0, 0, 0, None), (1, 0, 0, 3, (0, 0)), (10, 0, 0, 30, (0, 0)), (40, 0, 0, 99, (0, 0)), (30, 1, 0, 63, (0, 0)),
     (30, 0, 1, 60, (0, 0)), (10, 10, 0, 0, None), (0, 3, 0, 0, None), (20, 0, 6, 0, None)],
)  # fmt: skip
def test_a_base(same: int, other: int, gaps: int, quality: int, genotype: tuple[int, int] | None) -> None:
    """Three to a read of the reference, 27 less for one of anything else; nothing is no call of the reference."""
    counts = np.zeros((1, 2, 8))
    counts[0, 0, "ACGT".index(REFERENCE[0])] = same
    counts[0, 1, "CGTA".index(REFERENCE[0])] += other
    counts[0, 1, 6] = gaps
    (found,) = blocks(pileup_of(counts), [], 0, 1)
    assert (found.quality, found.genotype, found.depth) == (quality, genotype, same + other)


def test_unknown_bases_and_nothing() -> None:
    counts = np.full((4, 2, 8), 9)
    pileup = Pileup(10, letters("NNNN"), counts.astype(np.uint16), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
    assert blocks(pileup, [], 10, 14) == [Block(10, 14, "N", 0, 108, (0, 0, 0))]
    assert blocks(pileup, [site(8, "ACGTACGT")], 10, 14) == [] and blocks(pileup, [], 12, 12) == []
    assert list(joined([])) == []


def test_blocks_and_calls_of_reads_cover_a_genome_once() -> None:
    """A heterozygous site that is called is no block; one that is left out is no call of the reference."""
    reference = random_reference(1_200, seed=7)
    alt = "ACGT"["CGTA".index(reference[400])]
    variants = [
        Variant(400, reference[400], (alt,), (0, 1)),
        Variant(700, reference[700:712], (reference[700],), (1, 1)),
    ]
    rows = drawn(Genome(CONTIG, reference, 0, 1_200, variants), 40, 3)
    rows = [row for row in rows if row.pos > 80] + [Read(5, "50M", reference[5:55])]
    aligned = reads(rows)
    sites = [s for s in calls_of(aligned, letters(reference), 0, 0, 1_200) if s.genotype != (0, 0)]
    assert [len(s.ref) for s in sites] == [1, 12]
    pileup = piled(aligned, letters(reference), 0, 10)
    found = blocks(pileup, sites, 0, 1_200)
    spans = [(b.start, b.end) for b in found] + [(s.pos, s.pos + len(s.ref)) for s in sites]
    assert sorted(p for a, b in spans for p in range(a, b)) == list(range(1_200))
    assert all(b.ref == reference[b.start] for b in found)
    assert [b.genotype for b in found if b.start < 60] == [None, (0, 0), None]
    inner = [b for b in found if b.start >= 150 and b.end <= 1_100]
    assert np.mean([b.quality for b in inner]) > 30 and all(b.depth > 10 for b in inner)
    (over,) = (b for b in blocks(pileup, sites[1:], 0, 1_200) if b.start <= 400 < b.end)
    assert over.genotype is None and (over.start, over.end) == (400, 401)
