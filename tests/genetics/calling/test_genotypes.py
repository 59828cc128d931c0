"""Genotypes, qualities and counts of sites against closed formulas and sums in plain Python."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from genodl_spark.genetics.calling.alleles import Allele
from genodl_spark.genetics.calling.genotypes import MISREAD, SYSTEMATIC, Site, order, phred, rate, sites
from genodl_spark.genetics.calling.haplotypes import Evidence, Window, evidence
from tests.genetics.calling.aligned import Read, letters, random_reference, reads

REFERENCE = random_reference(400, seed=8)
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
AT = 200
ALT = OTHER[REFERENCE[AT]]
SNV = Allele(AT, AT + 1, ALT.encode())
FLOOR = 10**-4.5
RATE = 1e-3 / 6  # of a transversion
PRIORS = [1 - 1.5 * RATE, RATE, RATE / 2]


def row(base: str, quality: int = 30, mapq: int = 60) -> Read:
    return Read(170, "60M", REFERENCE[170:AT] + base + REFERENCE[AT + 1 : 230], quality, mapq)


def called(alleles: tuple[Allele, ...], rows: list[Read]) -> list[Site]:
    window = Window(min(a.start for a in alleles), max(a.end for a in alleles), alleles)
    return sites(window, evidence(window, reads(rows), letters(REFERENCE), 0), letters(REFERENCE), 0)


def told(alleles: tuple[Allele, ...], carries: list[list[int]], likely: list[list[float]]) -> list[Site]:
    """Sites of molecules whose chances are given; each was read on both strands."""
    strand = np.full(len(likely), 2, np.int8)
    found = Evidence(np.array(carries, bool), np.array(likely, float).reshape(-1, len(carries)), strand)
    return sites(Window(0, 400, alleles), found, letters(REFERENCE), 0)


@pytest.mark.parametrize(
    ("refs", "alts", "genotype"), [(30, 0, (0, 0)), (15, 15, (0, 1)), (0, 30, (1, 1)), (1, 0, (0, 0)), (9, 2, (0, 0))]
)
@pytest.mark.parametrize(("quality", "mapq"), [(30, 60), (20, 60), (40, 13)])
def test_a_substitution_by_the_closed_formula(
    refs: int, alts: int, genotype: tuple[int, int], quality: int, mapq: int
) -> None:
    (site,) = called((SNV,), [row(REFERENCE[AT], quality, mapq)] * refs + [row(ALT, quality, mapq)] * alts)
    e = 10 ** (-quality / 10)
    wrong = max(e / 3 / (1 - e), 10 ** (-mapq / 10), FLOOR)
    shown = [(1, wrong), ((1 + wrong) / 2, (1 + wrong) / 2), (wrong, 1)]  # by no, one and two copies: reference, alt
    logs = []
    for (one, other), misread in zip(shown, reversed(shown), strict=True):
        made = one**refs * other**alts
        # all reads are forward: backward, and at any share, a misread base would change nothing
        by_share = [
            ((1 - s) * one + s * misread[0]) ** refs * ((1 - s) * other + s * misread[1]) ** alts for s in MISREAD
        ]
        logs.append(math.log(made + SYSTEMATIC / 2 * made + SYSTEMATIC / 2 * sum(by_share) / len(MISREAD)))
    joint = [math.exp(x - max(logs)) * p for x, p in zip(logs, PRIORS, strict=True)]
    posterior = [x / sum(joint) for x in joint]
    assert site.pl.tolist() == [round(-10 * (x - max(logs)) / math.log(10)) for x in logs]
    assert site.posterior == pytest.approx(posterior, rel=1e-6)
    likeliest = posterior.index(max(posterior))
    assert site.genotype == [(0, 0), (0, 1), (1, 1)][likeliest]
    if quality == 30:
        assert site.genotype == genotype
    assert site.quality == pytest.approx(phred(1 - posterior[likeliest]), abs=0.01)
    assert site.variant == pytest.approx(-10 * math.log10(posterior[0]), abs=0.01)
    assert (site.pos, site.ref, site.alts) == (AT, REFERENCE[AT], (ALT,))
    assert site.depth == refs + alts and site.ad.tolist() == [refs, alts]


def test_a_read_that_tells_nothing_counts_in_the_depth_alone() -> None:
    (site,) = called((SNV,), [row(REFERENCE[AT])] * 4 + [row(ALT)] * 3 + [row(ALT, mapq=0), row(ALT, quality=3)])
    assert (site.ad.tolist(), site.depth) == ([4, 3], 9)


def test_genotypes_stand_in_the_order_of_vcf() -> None:
    pairs = [(low, high) for high in range(6) for low in range(high + 1)]
    assert [order(*pair) for pair in pairs] == list(range(21))
    assert phred(0.001) == pytest.approx(30) and phred(0) == 100


MULTI = (Allele(AT, AT + 1, b"A"), Allele(AT, AT + 1, b"C"), Allele(AT, AT + 1, b"G"), Allele(AT, AT + 1, b"T"))


def test_a_site_keeps_the_alleles_of_its_genotype() -> None:
    two = tuple(a for a in MULTI if a.text != REFERENCE[AT].encode())[:2]
    first, second = (a.text.decode() for a in two)
    (site,) = called(two, [row(first)] * 10 + [row(second)] * 12)
    assert (site.alts, site.genotype, site.ad.tolist(), len(site.pl)) == ((first, second), (1, 2), [0, 10, 12], 6)
    assert site.pl[order(1, 2)] == 0 and site.posterior.sum() == pytest.approx(1)
    (site,) = called(two, [row(REFERENCE[AT])] * 10 + [row(second)] * 12 + [row(first)])
    assert (site.alts, site.genotype, site.ad.tolist(), len(site.pl)) == ((second,), (0, 1), [10, 12], 3)
    (site,) = called(two, [row(REFERENCE[AT])] * 30 + [row(second)] * 2 + [row(first)])
    assert (site.alts, site.genotype, site.ad.tolist()) == ((second,), (0, 0), [30, 2])


def test_a_genotype_sums_over_all_pairs_of_haplotypes() -> None:
    """Two sites of a window, any chances: plain sums over ordered pairs."""
    alleles = (SNV, Allele(AT + 4, AT + 5, OTHER[REFERENCE[AT + 4]].encode()))
    carries = [[0, 0], [1, 0], [0, 1], [1, 1]]
    random = np.random.default_rng(5)
    likely = random.random((6, 4))
    found = told(alleles, carries, likely.tolist())
    second = rate(REFERENCE[AT + 4], alleles[1].text.decode())
    assert second == RATE
    prior = dict(enumerate(PRIORS))
    for number, site in enumerate(found):
        joint, chance = [0.0] * 3, [0.0] * 3
        for one, other in itertools.combinations_with_replacement(range(4), 2):
            made = math.prod((m[one] + m[other]) / 2 for m in likely)
            dosages = [carries[one][s] + carries[other][s] for s in (0, 1)]
            joint[dosages[number]] += made * prior[dosages[0]] * prior[dosages[1]]
            chance[dosages[number]] += made * prior[dosages[1 - number]]
        assert site.posterior == pytest.approx([x / sum(joint) for x in joint])
        assert site.pl.tolist() == [round(-10 * math.log10(x / max(chance))) for x in chance]
        assert site.variant == pytest.approx(phred(joint[0] / sum(joint)))


def pair_of(first: str, second: str) -> Read:
    return Read(170, "60M", REFERENCE[170:AT] + first + REFERENCE[AT + 1 : AT + 4] + second + REFERENCE[AT + 5 : 230])


def test_two_substitutions_of_a_window_in_and_out_of_phase() -> None:
    """Reads that show both or neither, and reads that show one each: heterozygous at both either way. A base of low
    quality is read by what the other says of its haplotype."""
    alleles = (SNV, Allele(AT + 4, AT + 5, OTHER[REFERENCE[AT + 4]].encode()))
    ref, alt = REFERENCE[AT + 4], OTHER[REFERENCE[AT + 4]]
    for rows in ([(REFERENCE[AT], ref), (ALT, alt)], [(REFERENCE[AT], alt), (ALT, ref)]):
        found = called(alleles, [pair_of(*one) for one in rows for _ in range(8)])
        assert [(s.pos, s.genotype, s.ad.tolist()) for s in found] == [(AT, (0, 1), [8, 8]), (AT + 4, (0, 1), [8, 8])]
        assert min(s.quality for s in found) > 40


def test_alleles_that_overlap_are_of_two_chromosomes() -> None:
    """A deletion, and a substitution of a base that it deletes: a record each, heterozygous."""
    at = next(
        p
        for p in range(150, 250)
        if len({*REFERENCE[p - 1 : p + 3]}) == 4 and REFERENCE[p + 3] not in REFERENCE[p : p + 2]
    )
    deletion, inner = Allele(at, at + 3, b""), Allele(at + 1, at + 2, OTHER[REFERENCE[at + 1]].encode())
    rows = [Read(at - 40, "40M3D40M", REFERENCE[at - 40 : at] + REFERENCE[at + 3 : at + 43])] * 9
    rows += [Read(at - 40, "80M", REFERENCE[at - 40 : at + 1] + inner.text.decode() + REFERENCE[at + 2 : at + 40])] * 11
    found = called((deletion, inner), rows)
    assert [(s.pos, s.ref, s.alts, s.genotype) for s in found] == [
        (at - 1, REFERENCE[at - 1 : at + 3], (REFERENCE[at - 1],), (0, 1)),
        (at + 1, REFERENCE[at + 1], (inner.text.decode(),), (0, 1)),
    ]
    assert [s.ad.tolist() for s in found] == [[11, 9], [9, 11]]


def test_indels_of_one_place_share_their_reference_bases() -> None:
    at = next(p for p in range(150, 250) if len({*REFERENCE[p - 1 : p + 3]}) == 4)
    alleles = (
        Allele(at, at, b"TTTT" if REFERENCE[at - 1] != "T" else b"GGGG"),
        Allele(at, at + 1, b""),
        Allele(at, at + 3, b""),
    )
    carries = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    (site,) = told(alleles, carries, [[0.01, 0.01, 1, 0.01]] * 9 + [[0.01, 0.01, 0.01, 1]] * 8)
    anchor = REFERENCE[at - 1]
    assert (site.pos, site.ref) == (at - 1, REFERENCE[at - 1 : at + 3])
    assert site.alts == (anchor + REFERENCE[at + 1 : at + 3], anchor) and site.genotype == (1, 2)
    (site,) = told(alleles, carries, [[0.01, 1, 0.01, 0.01]] * 9)
    assert (site.ref, site.alts, site.genotype) == (anchor, (anchor + alleles[0].text.decode(),), (1, 1))


def test_a_substitution_before_an_indel_on_the_same_chromosome() -> None:
    """Both are called: a record of both could not say that one haplotype has both."""
    insertion = Allele(AT + 1, AT + 1, (OTHER[REFERENCE[AT]] * 2).encode())
    carries = [[0, 0], [1, 0], [0, 1], [1, 1]]
    found = told((SNV, insertion), carries, [[1e-4, 1e-2, 1e-2, 1]] * 20)
    assert [(s.pos, s.ref, s.genotype, s.ad.tolist()) for s in found] == [
        (AT, REFERENCE[AT], (1, 1), [0, 20]),
        (AT, REFERENCE[AT], (1, 1), [0, 20]),
    ]
    assert [s.alts for s in found] == [(ALT,), (REFERENCE[AT] + insertion.text.decode(),)]


def test_no_molecule_leaves_the_prior() -> None:
    (site,) = told((SNV,), [[0], [1]], [])
    assert site.pl.tolist() == [0, 0, 0] and site.posterior == pytest.approx(PRIORS)
    assert (site.depth, site.ad.tolist(), site.genotype) == (0, [0, 0], (0, 0))


def test_very_unlikely_genotypes_have_finite_likelihoods() -> None:
    (site,) = told((SNV,), [[0], [1]], [[1, FLOOR]] * 400)
    assert site.pl.tolist() == [0, round(400 * 10 * math.log10(2 / (1 + FLOOR))), 10_000] and site.quality == 100


@pytest.mark.parametrize(
    ("reads_", "depth", "genotype"), [(20, 30, (0, 1)), (20, 60, (0, 1)), (20, 61, (0, 0)), (19, 30, (0, 0))]
)
def test_what_most_reads_show_is_never_the_reference(reads_: int, depth: int, genotype: tuple[int, int]) -> None:
    """However likely errors are: as QUAL says."""
    (site,) = told((replace(SNV, reads=reads_, depth=depth),), [[0], [1]], [[1, 0.8]] * 20)
    assert site.genotype == genotype
    assert site.variant < 1e-2
    assert site.pl[0] == 0


def test_a_forced_allele_is_answered_whatever_reads_say() -> None:
    two = tuple(a for a in MULTI if a.text != REFERENCE[AT].encode())[:2]
    forced = (replace(two[0], forced=True), two[1])
    (site,) = called(forced, [row(REFERENCE[AT])] * 9 + [row(two[1].text.decode())] * 8)
    assert (site.alts, site.genotype) == (tuple(a.text.decode() for a in two), (0, 2))
    assert (site.ad.tolist(), len(site.pl), site.pl[order(0, 2)]) == ([9, 0, 8], 6, 0)
    (site,) = called(forced, [row(REFERENCE[AT])] * 20)
    assert (site.alts, site.genotype, site.ad.tolist()) == ((two[0].text.decode(),), (0, 0), [20, 0])
    assert site.pl[0] == 0 and site.pl[1] == 60 and site.quality == pytest.approx(98, abs=1)
    (site,) = told(forced, [[0, 0], [1, 0], [0, 1]], [])
    assert (site.genotype, site.pl.tolist(), site.depth, site.quality) == (None, [0, 0, 0], 0, 0)
    (site,) = told(forced, [[0, 0], [1, 0], [0, 1]], [[1, 1, 1]] * 3)
    assert (site.genotype, site.pl.tolist(), site.depth) == (None, [0, 0, 0], 3)
