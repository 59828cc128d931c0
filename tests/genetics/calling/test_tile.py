"""Calls of reads drawn from known genomes: the same however the genome is divided and reads of a place are ordered."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from genodl_spark.genetics.calling.alleles import foreign, of_vcf
from genodl_spark.genetics.calling.genotypes import Site
from genodl_spark.genetics.calling.tile import MARGIN, calls_of, reads_of
from tests.genetics.calling.aligned import CONTIG, Read, bam, drawn, letters, random_reference, reads
from tests.genetics.calling.diploid import Genome, Variant, normalised

OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
REPEATS = {900: "A" * 9, 1_500: "CA" * 8, 2_100: "GTT" * 5}


def made(length: int = 3_000) -> str:
    found = random_reference(length, seed=12)
    for at, repeat in REPEATS.items():
        found = found[:at] + repeat + found[at + len(repeat) :]
    return found


REFERENCE = made()
LETTERS = letters(REFERENCE)


def variant(pos: int, ref: str, alts: tuple[str, ...], genotype: tuple[int, int]) -> Variant:
    at, alleles = normalised(REFERENCE, pos, (ref, *alts))
    return Variant(at, alleles[0], tuple(alleles[1:]), genotype)


def snv(pos: int, genotype: tuple[int, int]) -> Variant:
    return variant(pos, REFERENCE[pos], (OTHER[REFERENCE[pos]],), genotype)


def planted() -> Genome:
    """Substitutions alone, near each other and beside indels; indels in repeats and out of them, two of one place."""
    one, two = REFERENCE[1_200], OTHER[OTHER[REFERENCE[1_200]]]
    variants = [
        snv(300, (0, 1)),
        snv(500, (1, 1)),
        snv(504, (1, 0)),
        snv(507, (0, 1)),
        variant(700, REFERENCE[700], (REFERENCE[700] + "GATTACAGATTACA",), (0, 1)),
        variant(900, REFERENCE[900:902], (REFERENCE[900],), (1, 1)),
        variant(1_200, one, (OTHER[one], two), (1, 2)),
        variant(1_500, REFERENCE[1_500], (REFERENCE[1_500] + "AC",), (1, 0)),
        snv(1_540, (1, 1)),
        variant(1_800, REFERENCE[1_800:1_816], (REFERENCE[1_800],), (1, 1)),
        variant(2_099, REFERENCE[2_099:2_103], (REFERENCE[2_099], REFERENCE[2_099:2_103] + "GTT"), (2, 1)),
        snv(2_400, (0, 1)),
    ]
    return Genome(CONTIG, REFERENCE, 0, len(REFERENCE), variants)


def said(found: list[Site]) -> list[tuple[int, str, tuple[str, ...], tuple[int, int]]]:
    return [(s.pos, s.ref, s.alts, s.genotype) for s in found if s.genotype != (0, 0)]


def expected(genome: Genome) -> list[tuple[int, str, tuple[str, ...], tuple[int, int]]]:
    """As a VCF has them, alleles in the order of their texts in place of that of the truth."""
    found = []
    for one in genome.variants:
        alts = tuple(sorted(one.alts, key=lambda alt: (len(one.ref) - min(len(alt), len(one.ref)), alt)))
        number = [0, *(alts.index(alt) + 1 for alt in one.alts)]
        low, high = sorted(number[k] for k in one.genotype)
        found.append((one.pos, one.ref, alts, (low, high)))
    return found


def whole(rows: list[Read], reference: str = REFERENCE) -> list[Site]:
    return calls_of(reads(rows), letters(reference), 0, 0, len(reference))


@pytest.fixture(scope="module")
def rows() -> list[Read]:
    return drawn(planted(), depth=40, seed=1)


def same(one: list[Site], other: list[Site]) -> bool:
    def key(site: Site) -> tuple[object, ...]:
        arrays = (site.pl, site.posterior, site.ad)
        return (site.pos, site.ref, site.alts, site.genotype, site.variant, site.depth, *(a.tolist() for a in arrays))

    return [key(site) for site in one] == [key(site) for site in other]


def test_what_was_planted_is_called_and_nothing_else(rows: list[Read]) -> None:
    found = whole(rows)
    assert said(found) == expected(planted())
    variants = [site for site in found if site.genotype != (0, 0)]
    assert min(site.quality for site in variants) > 20 and min(site.variant for site in variants) > 40
    assert all(site.pos < after.pos or site.alts < after.alts for site, after in pairwise(found))


def test_the_same_from_tiles_of_any_start(rows: list[Read]) -> None:
    aligned = reads(rows)
    for edges in (
        [0, 1_500, 3_000],
        [0, 299, 300, 301, 506, 899, 900, 901, 1_801, 2_100, 3_000],
        [0, 700, 1_000, 3_000],
    ):
        found = []
        for first, last in pairwise(edges):
            start, stop = max(first - MARGIN, 0), min(last + MARGIN, len(REFERENCE))
            own = aligned.only((aligned.end > start) & (aligned.pos < stop))
            found += calls_of(own, letters(REFERENCE[start:stop]), start, first, last)
        assert same(found, whole(rows)), edges


def test_the_same_for_any_order_of_reads_at_a_position(rows: list[Read]) -> None:
    random = np.random.default_rng(0)
    turned = sorted((rows[k] for k in random.permutation(len(rows))), key=lambda row: row.pos)
    assert turned != rows and same(whole(rows), whole(turned))


@pytest.mark.parametrize("depth", [1, 1_000])
def test_of_one_read_and_of_a_thousand(depth: int) -> None:
    reference = random_reference(400, seed=3)
    alt, text = OTHER[reference[150]], "GATTACA"
    one = reference[:150] + alt + reference[151:250] + text + reference[250:]
    row = Read(90, f"160M{len(text)}I60M", one[90:317])
    plain = Read(90, "220M", reference[90:310])
    half = depth // 2
    found = whole([row] * (depth - half) + [plain] * half, reference)
    at, (ref, inserted) = normalised(reference, 249, (reference[249], reference[249] + text))
    assert [(s.pos, s.ref, s.alts) for s in found] == [(150, reference[150], (alt,)), (at, ref, (inserted,))]
    if depth == 1:
        assert [s.depth for s in found] == [1, 1] and all(s.quality < 10 for s in found)
        assert found[0].pl.tolist() == [35, 3, 0]
    else:
        assert [s.genotype for s in found] == [(0, 1), (0, 1)] and min(s.quality for s in found) > 40
        assert all(abs(s.ad[0] - s.ad[1]) < 80 and s.depth >= 300 for s in found)


def test_no_reads_and_no_sites() -> None:
    assert whole([]) == []
    assert whole([Read(100, "100M", REFERENCE[100:200])] * 20) == []


def test_most_reads_of_an_allele_are_never_the_reference() -> None:
    """20 of 30 reads at a mapping quality of 60, for substitutions and indels of any length, in repeats or not."""
    random = np.random.default_rng(2)
    for _ in range(15):
        at, size = int(random.integers(200, 2_800)), int(random.integers(1, 21))
        kind = random.integers(4)
        text = random_reference(size, int(random.integers(10**6)))
        ref, alt = [
            (REFERENCE[at], OTHER[REFERENCE[at]]),
            (REFERENCE[at], REFERENCE[at] + text),
            (REFERENCE[at : at + size + 1], REFERENCE[at]),
            (REFERENCE[at : at + size], "".join(OTHER[base] for base in REFERENCE[at : at + size])),
        ][kind]
        one = variant(at, ref, (alt,), (1, 1))
        genome = Genome(CONTIG, REFERENCE, at - 150, at + 150 + size, [one])
        other = drawn(replace(genome, variants=[]), 200, 1, wrong=0.0)
        over = [r for r in drawn(genome, 200, 0, wrong=0.0) if r.pos < at - 30 and r.pos + 100 > at + size + 30][:20]
        over += [r for r in other if r.pos < at - 30 and r.pos + 100 > at + size + 30][:10]
        assert len(over) == 30
        found = said(whole(over))
        changed = [(one.pos, one.ref, one.alts)]
        if kind == 3:  # base by base
            changed = [(at + k, ref[k], (alt[k],)) for k in range(size)]
        assert [(p, r, a) for p, r, a, _ in found] == changed, (kind, at, size)


def test_forced_alleles_are_answered_once_from_any_tile(rows: list[Read]) -> None:
    """Planted ones as they were, however they are written; others as the reference, and none where no reads are."""
    apart = [row for row in rows if row.pos + 120 < 2_600]  # the end has no reads
    near = variant(1_000, REFERENCE[1_000:1_003], (REFERENCE[1_000],), (0, 0))
    asked = [snv(100, (0, 0)), near, variant(1_790, REFERENCE[1_790], (REFERENCE[1_790] + "TT",), (0, 0))]
    asked += [variant(2_800, REFERENCE[2_800], (REFERENCE[2_800] + "GA",), (0, 0)), snv(2_850, (0, 0))]
    truth = planted().variants
    alleles = [
        of_vcf(one.pos, one.ref + REFERENCE[one.end : one.end + 5], alt + REFERENCE[one.end : one.end + 5], LETTERS, 0)
        for one in [*asked, *truth]
        for alt in one.alts
    ]
    aligned = reads(apart)
    found = calls_of(aligned, LETTERS, 0, 0, len(REFERENCE), forced=alleles)
    usual = {(s.pos, s.ref, s.alts): s.genotype for s in whole(apart) if s.genotype != (0, 0)}
    by_place = {(s.pos, s.ref, s.alts): s for s in found}
    assert {key: by_place[key].genotype for key in usual} == usual
    answered = {one[:3] for one in expected(Genome(CONTIG, REFERENCE, 0, len(REFERENCE), [*asked, *truth]))}
    assert answered <= by_place.keys() and len(answered) == len(asked) + len(truth) and len(found) == len(by_place)
    assert {s.genotype for key, s in by_place.items() if key not in answered} <= {(0, 0)}
    for one in asked[:2]:
        site = by_place[one.pos, one.ref, one.alts]
        assert site.genotype == (0, 0) and site.pl[0] == 0 and site.ad[1] == 0 and site.quality > 20
    for one in asked[3:]:
        site = by_place[one.pos, one.ref, one.alts]
        assert (site.genotype, site.pl.tolist(), site.depth, site.ad.tolist()) == (None, [0, 0, 0], 0, [0, 0])
    pieces = []
    for first, last in pairwise([0, 900, 1_801, 2_800, 3_000]):
        start, stop = max(first - MARGIN, 0), min(last + MARGIN, len(REFERENCE))
        own = aligned.only((aligned.end > start) & (aligned.pos < stop))
        inner = [one for one in alleles if one.start > start + 20 and one.end < stop - 20]
        pieces += calls_of(own, LETTERS[start:stop], start, first, last, forced=inner)
    assert same(pieces, found)
    assert [s.genotype for s in calls_of(reads([]), LETTERS, 0, 0, 3_000, forced=alleles)] == [None] * len(answered)


def test_reads_of_another_place_are_left_out() -> None:
    """Once in twelve bases, and five times: an aligner's guess. A long gap is one difference, as is a doubtful base
    none."""
    bases = list(REFERENCE[100:200])
    for at in range(5, 45, 4):
        bases[at] = OTHER[bases[at]]
    garbage, doubtful = "".join(bases), Read(100, "100M", "".join(bases), 10)
    few = "".join(bases[:22]) + REFERENCE[122:200]
    gap = Read(100, "50M20D50M", REFERENCE[100:150] + REFERENCE[170:220])
    rows = [Read(100, "100M", garbage), Read(100, "100M", few), doubtful, gap]
    assert not foreign(reads(rows), letters(REFERENCE), 0).any()  # the aligner is sure
    rows = [replace(row, mapq=40) for row in rows]
    there = reads(rows)
    assert foreign(there, letters(REFERENCE), 0).tolist() == [True, False, False, False]
    kept = reads_of(bam(rows), letters(REFERENCE), 0)
    assert kept.at.tolist() == there.at[1:].tolist()
    assert foreign(there, letters(REFERENCE[110:]), 110).tolist() == [True, False, False, False]
