"""Joint decisions of trios against sums over all combinations in plain Python, and simulated families."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genetics.calling.genotypes import INDELS, SUBSTITUTIONS, Site, log_prior, order, pairs
from genodl_spark.genetics.calling.tile import MARGIN, calls_of
from genodl_spark.genetics.calling.trio import (
    INDEL,
    SUBSTITUTION,
    Decision,
    TrioSite,
    decided,
    mutations,
    together,
    trio_calls_of,
)
from tests.genetics.calling.aligned import CONTIG, Read, drawn, letters, random_reference, reads
from tests.genetics.calling.diploid import Genome, Variant

Pair = tuple[int, int]


def passes(allele: int, parent: Pair, mutates: list[list[float]]) -> float:
    return sum(mutates[own][allele] for own in parent) / 2


def slowly(
    likelihood: np.ndarray, prior: np.ndarray, mutates: np.ndarray
) -> tuple[tuple[int, ...], np.ndarray, float, float]:
    """Every combination, every way that two alleles arrive, whether copied or not."""
    rates = mutates.tolist()
    copies = [[rates[a][b] if a == b else 0.0 for b in range(len(rates))] for a in range(len(rates))]
    every = [(low, high) for high in range(len(rates)) for low in range(high + 1)]
    chances, same = {}, {}
    for numbers in itertools.product(range(len(every)), repeat=3):
        c, f, m = (every[k] for k in numbers)
        data = math.prod(math.exp(likelihood[who, k]) for who, k in enumerate(numbers))
        data *= math.exp(prior[numbers[1]]) * math.exp(prior[numbers[2]])
        ways = {(c[0], c[1]), (c[1], c[0])}
        chances[numbers] = data * sum(passes(x, f, rates) * passes(y, m, rates) for x, y in ways)
        same[numbers] = data * sum(passes(x, f, copies) * passes(y, m, copies) for x, y in ways)
    total = sum(chances.values())
    posteriors = np.zeros((3, len(every)))
    for numbers, chance in chances.items():
        for who, k in enumerate(numbers):
            posteriors[who, k] += chance / total
    best = max(chances, key=lambda numbers: chances[numbers])
    return best, posteriors, 1 - sum(same.values()) / total, chances[0, 0, 0] / total


@settings(max_examples=40, deadline=None)
@given(alleles=st.integers(2, 4), seed=st.integers(0, 10**6), rate=st.sampled_from([0.2, 1e-3]))
def test_the_decision_is_the_sum_over_all_combinations(alleles: int, seed: int, rate: float) -> None:
    random = np.random.default_rng(seed)
    indel = [False, *(random.random(alleles - 1) < 0.5).tolist()]
    prior, mutates = (
        log_prior([INDELS if other else SUBSTITUTIONS for other in indel[1:]]),
        mutations(indel, rate, rate / 3),
    )
    likelihood = np.log(random.random((3, len(prior))) ** random.integers(1, 9))
    found = decided(likelihood, prior, mutates)
    best, posteriors, de_novo, reference = slowly(likelihood, prior, mutates)
    assert found.genotypes == best
    assert found.posteriors == pytest.approx(posteriors, rel=1e-9)
    assert found.de_novo == pytest.approx(de_novo, rel=1e-6)
    assert math.exp(found.log_reference) == pytest.approx(reference, rel=1e-9)


def test_rates_of_mutations() -> None:
    found = mutations([False, False, True])
    assert found.sum(1) == pytest.approx([1, 1, 1]) and SUBSTITUTION == 1.2e-8 and INDEL == 9.3e-10
    assert found.tolist()[0][1:] == [SUBSTITUTION, INDEL] and found[1, 2] == found[2, 1] == INDEL


def told(*of: tuple[int, int, int]) -> Decision:
    """Of a substitution, by the PL of child, father and mother."""
    return decided(np.array(of) * -math.log(10) / 10, log_prior([SUBSTITUTIONS]), mutations([False, False]))


REFERENCE, HETEROZYGOUS, HOMOZYGOUS, NOTHING = (0, 90, 900), (500, 0, 500), (900, 90, 0), (0, 0, 0)


def test_what_is_inherited_and_what_is_not() -> None:
    assert told(HETEROZYGOUS, HETEROZYGOUS, REFERENCE).de_novo < 1e-6
    assert told(HETEROZYGOUS, NOTHING, REFERENCE).de_novo < 1e-3  # the father was not looked at
    new = told(HETEROZYGOUS, REFERENCE, REFERENCE)
    assert new.genotypes == (1, 0, 0) and new.de_novo > 0.99
    # parents of ten reads each may have it, and not show it
    assert 1e-6 < told(HETEROZYGOUS, (0, 30, 300), (0, 30, 300)).de_novo < 0.05
    # a child that seems to lack what its father must have passed on
    found = told((0, 12, 200), HOMOZYGOUS, REFERENCE)
    assert found.genotypes == (1, 2, 0) and found.de_novo < 1e-4
    # and who is not looked at is as parents make it likely
    assert told(NOTHING, HOMOZYGOUS, HOMOZYGOUS).posteriors[0] == pytest.approx([0, 0, 1], abs=1e-6)
    assert told(NOTHING, HOMOZYGOUS, REFERENCE).posteriors[0] == pytest.approx([0, 1, 0], abs=1e-6)


def test_the_chance_of_a_mutation_is_calibrated() -> None:
    """Families drawn by the model, with mutations that are frequent: of those with a chance of about p, p have one."""
    random = np.random.default_rng(11)
    prior, mutates = log_prior([SUBSTITUTIONS]), mutations([False, False], 0.03, 0.03)
    chances, truth, sure, right = [], [], [], []
    start = np.exp(prior) / np.exp(prior).sum()
    start = (start + np.array([0, 0.15, 0.1])) / 1.25
    every = pairs(2)
    for _ in range(4_000):
        parents = [every[k] for k in random.choice(3, 2, p=start)]
        given = [parent[random.integers(2)] for parent in parents]
        arrived = [int(random.random() < mutates[own, 1]) for own in given]
        genotypes = [order(min(arrived), max(arrived)), *(order(*parent) for parent in parents)]
        logs = np.zeros((3, 3))
        for who, genotype in enumerate(genotypes):
            depth = random.poisson(8)
            alts = random.binomial(depth, [0.01, 0.5, 0.99][genotype])
            logs[who] = [alts * math.log(p) + (depth - alts) * math.log(1 - p) for p in (0.01, 0.5, 0.99)]
        found = decided(logs, np.log(start), mutates)
        chances.append(found.de_novo)
        truth.append(arrived != given)
        sure.append(found.posteriors[0].max())
        right.append(int(found.posteriors[0].argmax()) == genotypes[0])
    p, had = np.array(chances), np.array(truth)
    for low, high in ((0, 0.02), (0.02, 0.1), (0.1, 0.4), (0.4, 0.8), (0.8, 1)):
        mine = (p >= low) & (p <= high)
        error = 4 * math.sqrt(p[mine].mean() * (1 - p[mine].mean()) / mine.sum()) + 0.002
        assert mine.sum() > 20 and abs(had[mine].mean() - p[mine].mean()) < error, (low, mine.sum())
    assert np.mean(right) == pytest.approx(np.mean(sure), abs=0.012)


def site(alts: tuple[str, ...], pl: list[int], ad: list[int], genotype: Pair | None = (0, 0), ref: str = "C") -> Site:
    flat = np.ones(len(pl)) / len(pl)
    return Site(100, ref, alts, genotype, np.array(pl), flat, 0.0, np.array(ad), sum(ad))


def test_alleles_that_nobody_has_leave() -> None:
    alts, reference = ("A", "G", "T"), [0, 60, 600, 60, 90, 600, 60, 90, 90, 600]
    child = [400, 400, 400, 0, 400, 400, 400, 400, 400, 400]  # 0/2
    found = together(
        site(alts, child, [9, 1, 11, 0]), site(alts, child, [8, 0, 9, 0]), site(alts, reference, [20, 0, 0, 1])
    )
    assert [m.alts for m in found.members] == [("G",)] * 3 and found.de_novo < 1e-6
    assert [m.genotype for m in found.members] == [(0, 1), (0, 1), (0, 0)]
    assert [m.ad.tolist() for m in found.members] == [[9, 11], [8, 9], [20, 0]]
    assert found.child.pl.tolist() == [400, 0, 400] and found.mother.pl.tolist() == [0, 60, 600]
    assert min(m.quality for m in found.members) > 50 and found.variant > 300
    # nobody has any: one stays, and QUAL says that nothing is there
    none = together(*[site(alts, reference, [20, 0, 0, 0])] * 3)
    assert len(none.child.alts) == 1 and [m.genotype for m in none.members] == [(0, 0)] * 3 and none.variant < 0.1


def test_bases_of_an_allele_that_leaves_leave_with_it() -> None:
    """CTTA to C (nobody's), CTT to CT as CTTA to CTA."""
    alts, het = ("CTA", "C"), [300, 0, 300, 300, 300, 300]
    found = together(*[replace(site(alts, het, [9, 9, 0]), ref="CTTA")] * 3)
    assert (found.child.ref, found.child.alts) == ("CT", ("C",)) or (found.child.ref, found.child.alts) == (
        "CTT",
        ("CT",),
    )
    both = [300, 300, 300, 300, 0, 300]
    found = together(site(alts, both, [0, 9, 9], ref="CTTA"), *[site(alts, het, [9, 9, 0], ref="CTTA")] * 2)
    assert (found.child.ref, found.child.alts, found.child.genotype) == ("CTTA", alts, (1, 2)) and found.de_novo > 0.5


def test_a_sample_without_reads_stays_open() -> None:
    open_site = site(("A",), [0, 0, 0], [0, 0], None)
    found = together(open_site, site(("A",), [900, 90, 0], [0, 30]), site(("A",), [900, 90, 0], [0, 30]))
    assert (found.child.genotype, found.child.quality, found.child.pl.tolist()) == (None, 0, [0, 0, 0])
    assert found.father.genotype == (1, 1)


def test_what_most_reads_show_is_no_reference_though_errors_are_likelier() -> None:
    """Of a child alone that was called so by itself; and of reads, a run of 30 that lacks a base in most of them."""
    own = replace(site(("A",), [0, 20, 90], [5, 25], (0, 1)), posterior=np.array([0.99, 0.01, 0]))
    parent = site(("A",), [0, 60, 600], [20, 0])
    found = together(own, parent, parent)
    assert [m.genotype for m in found.members] == [(0, 1), (0, 0), (0, 0)] and found.child.quality < 1
    assert together(replace(own, genotype=(0, 0)), parent, parent).child.genotype == (0, 0)

    text = random_reference(200, 1) + "C" + "A" * 30 + "G" + random_reference(200, 2)
    plain = [Read(170, "95M", text[170:265])] * 4
    lacking = [Read(170, "31M1D63M", text[170:201] + text[202:265])] * 26
    table = np.full((6, 32), 45, np.uint8)
    table[0, 25:] = 0  # a read has a gap here more often than not
    child, other = reads(plain + lacking), reads(plain * 8)
    (found,) = trio_calls_of(child, other, other, letters(text), 0, 0, len(text), gaps=(table,) * 3)
    assert found.child.genotype == (1, 1) and found.child.posterior[0] > 0.9
    assert [m.genotype for m in found.members[1:]] == [(0, 0), (0, 0)]


def test_of_very_many_alleles_the_likeliest_are_tried() -> None:
    alts = tuple("C" + "A" * k for k in range(1, 10))
    every = pairs(10)
    pl = [0 if pair == (0, 9) else 300 + 10 * sum(pair) for pair in every]
    found = together(*[site(alts, pl, [10] * 10)] * 3)
    assert found.child.alts == (alts[8],) and [m.genotype for m in found.members] == [(0, 1)] * 3


# ---- families from reads

LENGTH = 6_000
TEXT = random_reference(LENGTH, seed=21)
OTHER = dict(zip("ACGT", "CGTA", strict=True))


def family(seed: int) -> tuple[Genome, Genome, Genome, list[int]]:
    """Child, father, mother, and where the child has what neither has: substitutions, and indels every fourth."""
    random = np.random.default_rng(seed)
    of: list[list[Variant]] = [[], [], []]
    new = []
    for number, at in enumerate(range(150, LENGTH - 200, 110)):
        if number % 4 == 3:
            unit = TEXT[at + 1]
            ref, alt = TEXT[at], TEXT[at] + OTHER[unit] + OTHER[OTHER[unit]] + OTHER[unit]
            if OTHER[unit] == TEXT[at]:
                alt = TEXT[at] + OTHER[OTHER[unit]] * 3
        else:
            ref, alt = TEXT[at], OTHER[TEXT[at]]
        parents: list[Pair] = [(int(random.integers(2)), int(random.integers(2))) for _ in range(2)]
        if number % 10 == 5:
            parents = [(0, 0), (0, 0)]
            born = (1, 0)
            new.append(at)
        else:
            born = (parents[0][random.integers(2)], parents[1][random.integers(2)])
        for who, genotype in enumerate((born, *parents)):
            if genotype != (0, 0):
                of[who].append(Variant(at, ref, (alt,), genotype))
    found = [Genome(CONTIG, TEXT, 0, LENGTH, variants) for variants in of]
    return found[0], found[1], found[2], new


def violates(child: Pair, father: Pair, mother: Pair) -> bool:
    return not any({*child} == {x, y} and sorted((x, y)) == sorted(child) for x in father for y in mother)


def truth(genome: Genome) -> dict[int, Pair]:
    return {one.pos: (min(one.genotype), max(one.genotype)) for one in genome.variants}


def test_a_family_of_few_reads_has_fewer_violations_together() -> None:
    *members, new = family(4)
    aligned = [reads(drawn(one, 7, 30 + k)) for k, one in enumerate(members)]
    jointly = trio_calls_of(aligned[0], aligned[1], aligned[2], letters(TEXT), 0, 0, LENGTH)
    alone = [{s.pos: s.genotype for s in calls_of(one, letters(TEXT), 0, 0, LENGTH)} for one in aligned]
    true = [truth(one) for one in members]
    places = sorted(set().union(*true) - set(new))
    by_place = {s.pos: [m.genotype or (0, 0) for m in s.members] for s in jointly}
    nothing: list[Pair] = [(0, 0)] * 3
    together_, apart = (
        [by_place.get(p, nothing) for p in places],
        [[one.get(p, (0, 0)) for one in alone] for p in places],
    )
    assert sum(violates(*g) for g in apart) >= 3 and sum(violates(*g) for g in together_) == 0
    right = [[one.get(p, (0, 0)) for one in true] for p in places]
    wrong = [
        sum(a != b for x, y in zip(found, right, strict=True) for a, b in zip(x, y, strict=True))
        for found in (together_, apart)
    ]
    assert wrong[0] < 0.75 * wrong[1]


def test_what_is_new_in_a_child_is_found_from_any_tiles() -> None:
    *members, new = family(5)
    aligned = [reads(drawn(one, 45, 60 + k)) for k, one in enumerate(members)]
    found = trio_calls_of(aligned[0], aligned[1], aligned[2], letters(TEXT), 0, 0, LENGTH)
    variants = [s for s in found if any(m.genotype != (0, 0) for m in s.members)]
    true = [truth(one) for one in members]
    assert {s.pos for s in variants} == set().union(*true) and len(new) >= 5
    for one in variants:
        assert [m.genotype for m in one.members] == [of.get(one.pos, (0, 0)) for of in true]
        assert one.de_novo > 0.9 if one.pos in new else one.de_novo < 1e-3, one.pos
        assert len({(m.pos, m.ref, m.alts) for m in one.members}) == 1
    pieces: list[TrioSite] = []
    for first, last in ((0, 2_000), (2_000, 3_121), (3_121, LENGTH)):
        start, stop = max(first - MARGIN, 0), min(last + MARGIN, LENGTH)
        own = [one.only((one.end > start) & (one.pos < stop)) for one in aligned]
        pieces += trio_calls_of(own[0], own[1], own[2], letters(TEXT[start:stop]), start, first, last)
    assert [(s.child.pos, s.de_novo, s.variant) for s in pieces] == [(s.child.pos, s.de_novo, s.variant) for s in found]
