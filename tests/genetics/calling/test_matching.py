"""Variants of two sets matched by the haplotypes they make: a table of representations with their answers by hand, all
subsets and phases tried beside the search, and random haplotypes written in random ways."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genetics.calling import matching
from genodl_spark.genetics.calling.matching import (
    ALLELE,
    GENOTYPE,
    MATCHED,
    MISSING,
    NO_VARIANT,
    UNTOLD,
    Variant,
    compared,
    labels,
    normalised,
    primitives,
)

#            1        10        20        30        40        50
REFERENCE = b"GATTACAGCGTCAAAAAATGCGTCTCTCTCAGGTACCAGTTGACTTGCATGC"
STATUS = {".": NO_VARIANT, "M": MATCHED, "g": GENOTYPE, "a": ALLELE, "-": MISSING}


def records(text: str) -> list[Variant]:
    """`POS REF ALT,ALT GT; ...`; without a genotype a candidate."""
    found = []
    for record in filter(None, map(str.strip, text.split(";"))):
        position, ref, alts, *genotype = record.split()
        assert REFERENCE[int(position) - 1 :].startswith(ref.encode()), record
        called = tuple(-1 if a == "." else int(a) for a in genotype[0].replace("|", "/").split("/")) if genotype else ()
        found.append(Variant(int(position), ref.encode(), tuple(a.encode() for a in alts.split(",")), called))
    return found


# What a case shows: truth, query, and for each record of either what becomes of it: M matched, g other genotype,
# a unmatched ones of the other side nearby, - none, . no variant.
CASES = {
    "same SNV": ("5 A G 0/1", "5 A G 0/1", "M", "M"),
    "phase and order of alleles do not count": ("5 A G 1|0", "5 A G 0/1", "M", "M"),
    "SNV with bases of no use around it": ("5 A G 0/1", "4 TAC TGC 0/1", "M", "M"),
    "heterozygous called homozygous": ("5 A G 0/1", "5 A G 1/1", "g", "g"),
    "homozygous called heterozygous": ("5 A G 1/1", "5 A G 0/1", "g", "g"),
    "another allele": ("5 A G 0/1", "5 A T 0/1", "a", "a"),
    "missed": ("5 A G 0/1", "", "-", ""),
    "too much": ("", "5 A G 0/1", "", "-"),
    "far from each other": ("2 A G 0/1", "40 T C 0/1", "-", "-"),
    "MNV split, heterozygous": ("4 TA CG 0/1", "4 T C 0/1; 5 A G 0/1", "M", "MM"),
    "MNV split, homozygous": ("4 TA CG 1/1", "4 T C 1/1; 5 A G 1/1", "M", "MM"),
    "MNV joined": ("4 T C 0/1; 5 A G 0/1; 6 C T 0/1", "4 TAC CGT 0/1", "MMM", "M"),
    "MNV with a base between that stays": ("4 TAC CAT 0/1", "4 T C 0/1; 6 C T 0/1", "M", "MM"),
    "one base of an MNV missed": ("4 TA CG 0/1", "4 T C 0/1", "a", "a"),
    "deletion at the end of its repeat": ("13 AA A 0/1", "17 AA A 0/1", "M", "M"),
    "insertion at the end of its repeat": ("12 C CAA 0/1", "18 A AAA 0/1", "M", "M"),
    "insertion written behind the base": ("12 C CA 0/1", "13 A AA 0/1", "M", "M"),
    "deletion of a unit elsewhere": ("21 CGTCT CGT 0/1", "28 CTC C 0/1", "M", "M"),
    "deletion of a unit of two": ("23 TCT T 0/1", "27 TCT T 0/1", "M", "M"),
    "two deletions are one": ("23 TCTCT T 0/1", "23 TCT T 0/1; 27 TCT T 0/1", "M", "MM"),
    "two insertions are one": ("23 T TCTCT 0/1", "23 T TCT 0/1; 27 T TCT 0/1", "M", "MM"),
    "repeat of another length": ("23 TCTCT T 0/1", "23 TCT T 0/1", "a", "a"),
    "multi-allelic split": ("23 TCTCT T,TCT 1/2", "23 TCTCT T 0/1; 27 TCT T 0/1", "M", "MM"),
    "multi-allelic joined": ("5 A G 0/1; 5 A T 0/1", "5 A T,G 1/2", "MM", "M"),
    "alleles in another order": ("5 A G,T 1/2", "5 A T,G 1/2", "M", "M"),
    "an ALT that is not called": ("5 A G,T 0/1", "5 A G 0/1", "M", "M"),
    "one of two alleles": ("5 A G,T 1/2", "5 A G 0/1", "a", "a"),
    "SNV and insertion split": ("5 A AT,G 1/2", "5 A AT 0/1; 5 A G 0/1", "M", "MM"),
    "deletion over an SNV, with a star": ("4 TAC T 0/1; 5 A G,* 1/2", "4 TAC T 0/1; 5 A G 0/1", "MM", "MM"),
    "deletion over an SNV, one record": ("4 TAC T 0/1; 5 A G 0/1", "4 TAC T,TGC 1/2", "MM", "M"),
    "overlapping deletions": ("4 TACA T 0/1; 6 CAG C 0/1", "4 TACAG TG,TAC 1/2", "MM", "M"),
    "overlapping deletions, one homozygous": ("4 TACA T 0/1; 6 CAG C 0/1", "4 TACA T 1/1; 6 CAG C 0/1", "gM", "gM"),
    "block substitution in parts": ("5 ACAG GTG 0/1", "5 A G 0/1; 6 C T 0/1; 6 CA C 0/1", "M", "MMM"),
    "insertion and deletion that undo each other": ("40 T C 0/1", "23 TCT T 0/1; 27 T TCT 0/1; 40 T C 0/1", "M", "--M"),
    "SNV as insertion and deletion": ("5 A G 0/1", "4 T TG 0/1; 5 A . 0/1; 4 TA T 0/1", "M", "M.M"),
    "half call, one copy": ("5 A G 0/1", "5 A G ./1", "M", "M"),
    "half call, two copies": ("5 A G 1/1", "5 A G ./1", "M", "M"),
    "haploid call": ("5 A G 1", "5 A G 1/1", "M", "M"),
    "no call and reference call": ("5 A G 0/1", "5 A G ./.; 6 C T 0/0", "-", ".."),
    "symbolic alleles": ("5 A <NON_REF> 0/1; 6 C T,<*> 0/1", "6 C T,<NON_REF> 0/1", ".M", "M"),
    "twice in the query": ("5 A G 0/1", "5 A G 0/1; 5 A G 0/1", "M", "M-"),
    "two heterozygous records are homozygous": ("5 A G 1/1", "5 A G 0/1; 5 A G 0/1", "M", "MM"),
    "an allele that starts later than its record": (
        "4 TACA TCA,TACG 1/2; 6 C CT 0/1",
        "4 TACA TCA 0/1; 6 CA CTG 0/1",
        "MM",
        "MM",
    ),
    "right SNV beside a wrong indel": ("5 A G 0/1; 12 C CA 0/1", "5 A G 0/1; 12 C CAA 0/1", "Ma", "Ma"),
}


@pytest.mark.parametrize("case", CASES)
def test_representations(case: str) -> None:
    truth, query, of_truth, of_query = CASES[case]
    for one, other, first, second in ((truth, query, of_truth, of_query), (query, truth, of_query, of_truth)):
        found = compared(REFERENCE, 1, records(one), records(other))
        assert [*found.truth.status] == [STATUS[s] for s in first]
        assert [*found.query.status] == [STATUS[s] for s in second]
        assert found.bounded == 0


def test_table_has_forty_cases() -> None:
    assert len(CASES) >= 40


Pairs = tuple[bytes, bytes]
Placed = tuple[int, int, bytes]


def spelled_out(reference: bytes, edits: list[Placed]) -> bytes | None:
    """A haplotype; None where edits overlap."""
    at, parts = 0, []
    for start, end, bases in sorted(edits):
        if start < at:
            return None
        parts += [reference[at:start], bases]
        at = end
    return b"".join([*parts, reference[at:]])


def most_by_trying_all(reference: bytes, truth: list[Variant], query: list[Variant]) -> int:
    """The most variants of both sides that make one pair of haplotypes: every subset in every phase."""
    best: list[dict[Pairs, int]] = []
    for side in (truth, query):
        found: dict[Pairs, int] = {}
        for ways in itertools.product(*(range(3) for _ in side)):
            sides: list[list[Placed]] = [[], []]
            for way, variant in zip(ways, side, strict=True):
                if way == 2:
                    continue
                for haplotype, allele in enumerate(variant.genotype[:: 1 if way else -1]):
                    if allele:
                        start = variant.position - 1
                        sides[haplotype].append((start, start + len(variant.ref), variant.alts[allele - 1]))
            one, other = (spelled_out(reference, edits) for edits in sides)
            if one is not None and other is not None:
                key = (min(one, other), max(one, other))
                found[key] = max(found.get(key, 0), sum(way < 2 for way in ways))
        best.append(found)
    return max(best[0][pair] + best[1][pair] for pair in best[0].keys() & best[1].keys())


@st.composite
def losses(draw: st.DrawFn) -> list[Variant]:
    """Substitutions and deletions, none of which another undoes, without bases of no use."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.integers(1, 16))
        ref = SMALL[position - 1 : position - 1 + draw(st.integers(1, 3))]
        alts = [b"" if len(ref) > 1 else bytes([base]) for base in b"ACGT" if bytes([base]) != ref]
        alt = draw(st.sampled_from(alts))
        found.append(Variant(position, ref, (alt,), draw(st.sampled_from([(0, 1), (1, 1)]))))
    return found


SMALL = b"CAACACACATTTGCGCGCAGTT"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(losses(), losses())
def test_no_subset_is_larger(truth: list[Variant], query: list[Variant]) -> None:
    found = compared(SMALL, 1, truth, query)
    matched = sum(int((side.status == MATCHED).sum()) for side in (found.truth, found.query))
    assert found.bounded == 0
    assert matched == most_by_trying_all(SMALL, truth, query)


def drawn_edits(draw: random.Random, reference: bytes) -> list[Placed]:
    """Edits of a haplotype, far enough from each other for indels to be moved."""
    edits, at = [], draw.randrange(8, 16)
    while at < len(reference) - 30:
        kind = draw.randrange(4)
        size = draw.choice([1, 1, 2, 2, 3, 4, 6])
        if kind == 0:  # a substitution of one base or several
            there = reference[at : at + min(size, 3)]
            edits.append((at, at + len(there), bytes(draw.choice([b for b in b"ACGT" if b != base]) for base in there)))
        elif kind == 1:
            edits.append((at, at + size, b""))
        elif kind == 2:  # bases that are there already, so that they may stand elsewhere as well
            edits.append((at, at, reference[at - size : at]))
        else:
            edits.append((at, at, bytes(draw.choice(b"ACGT") for _ in range(size))))
        at += draw.randrange(12, 40)
    return edits


def moved(draw: random.Random, reference: bytes, edit: Placed) -> Placed:
    """The same indel elsewhere in its repeat."""
    start, end, bases = edit
    for _ in range(draw.randrange(8)):
        gone = reference[start:end]
        if bases and gone:
            break
        if draw.random() < 0.5:
            before = reference[start - 1 : start]
            if (bases or gone)[-1:] != before:
                break
            start, end, bases = start - 1, end - 1, before + bases[:-1] if bases else b""
        else:
            if (bases or gone)[:1] != reference[end : end + 1]:
                break
            start, end, bases = start + 1, end + 1, bases[1:] + reference[end : end + 1] if bases else b""
    return start, end, bases


def rewritten(draw: random.Random, reference: bytes, edits: list[Placed]) -> list[Placed]:
    """Edits that make the same haplotype."""
    parts: list[Placed] = []
    for edit in edits:
        start, end, bases = moved(draw, reference, edit)
        if len(bases) == end - start > 1 and draw.random() < 0.5:
            parts += [(start + i, start + i + 1, bases[i : i + 1]) for i in range(len(bases))]
        elif not bases and end - start > 1 and draw.random() < 0.3:
            middle, last = draw.randrange(start + 1, end), end  # the second half further along the repeat
            while reference[last - end + middle] == reference[last]:
                last += 1
            parts += [(start, middle, b""), (last - end + middle, last, b"")] if last > end else [(start, end, b"")]
        else:
            parts.append((start, end, bases))
    joined: list[Placed] = []
    for part in parts:
        if joined and part[0] - joined[-1][1] < 14 and draw.random() < 0.2:
            start, end, bases = joined.pop()
            part = start, part[1], bases + reference[end : part[0]] + part[2]
        joined.append(part)
    return joined if spelled_out(reference, joined) == spelled_out(reference, edits) else edits


def as_records(draw: random.Random, reference: bytes, haplotypes: list[list[Placed]]) -> list[Variant]:
    """Edits of two haplotypes as a VCF may have them: a base before, records of two alleles, homozygous ones."""
    found = []
    waiting = [list(edits) for edits in haplotypes]
    for edit in haplotypes[0]:
        same = edit in waiting[1] and draw.random() < 0.8
        over = [other for other in waiting[1] if other[0] < edit[1] and edit[0] < other[1] and other != edit]
        if same:
            waiting[1].remove(edit)
            alts, genotype = [edit], (1, 1)
        elif len(over) == 1 and draw.random() < 0.7:
            waiting[1].remove(over[0])
            alts, genotype = [edit, over[0]], draw.choice([(1, 2), (2, 1)])
        else:
            alts, genotype = [edit], draw.choice([(0, 1), (1, 0)])
        found.append((alts, genotype))
    found += [([edit], draw.choice([(0, 1), (1, 0)])) for edit in waiting[1]]
    made = []
    for alts, genotype in found:
        first = min(start for start, _, _ in alts) - draw.choice([1, 1, 1, 2])
        last = max(end for _, end, _ in alts)
        if not any(last <= start <= last + 2 for edits in haplotypes for start, _, _ in edits):
            last += draw.choice([0, 0, 0, 1])
        texts = tuple(reference[first:start] + bases + reference[end:last] for start, end, bases in alts)
        made.append(Variant(first + 1, reference[first:last], texts, genotype))
    draw.shuffle(made)
    return made


@st.composite
def people(draw: st.DrawFn) -> tuple[random.Random, bytes, list[list[Placed]]]:
    chance = random.Random(draw(st.integers(0, 10**9)))
    letters = chance.choice([b"ACGT", b"ACGT", b"AAAC", b"ACACACT"])
    reference = bytes(chance.choice(letters) for _ in range(chance.randrange(80, 240)))
    one = drawn_edits(chance, reference)
    other = drawn_edits(chance, reference) if chance.random() < 0.5 else [e for e in one if chance.random() < 0.6]
    return chance, reference, [one, other]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(people())
def test_the_same_person_written_twice_is_all_matched(person: tuple) -> None:
    chance, reference, haplotypes = person
    sides = [
        as_records(chance, reference, [rewritten(chance, reference, edits) for edits in haplotypes]) for _ in range(2)
    ]
    found = compared(reference, 1, *sides)
    assert found.bounded == 0
    assert set(found.truth.status) | set(found.query.status) <= {MATCHED}
    again = compared(b"N" * 7 + reference, 10**6 - 7, *([*map(later, side)][::-1] for side in sides))
    assert [*again.truth.status] == [*found.truth.status][::-1]
    apart = [[part for variant in side for part in primitives(variant)] for side in sides]
    found = compared(reference, 1, *apart)
    assert set(found.truth.status) | set(found.query.status) <= {MATCHED}


def later(variant: Variant) -> Variant:
    return Variant(variant.position + 10**6 - 1, variant.ref, variant.alts, variant.genotype)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(people())
def test_another_haplotype_is_never_all_matched(person: tuple) -> None:
    chance, reference, haplotypes = person
    other = [list(edits) for edits in haplotypes]
    edits = other[chance.randrange(2)]
    if edits and chance.random() < 0.5:
        edits.remove(chance.choice(edits))  # whatever the phases, both haplotypes together have other bases now
    else:
        at = chance.randrange(len(reference) - 12, len(reference) - 2)
        base = chance.choice([b for b in b"ACGT" if b != reference[at]])
        edits.append((at, at + 1, bytes([base])))
    sides = [
        as_records(chance, reference, [rewritten(chance, reference, edits) for edits in pair])
        for pair in (haplotypes, other)
    ]
    found = compared(reference, 1, *sides)
    statuses = [*found.truth.status, *found.query.status]
    assert not set(statuses) <= {MATCHED}
    # Those that are matched do make one pair of haplotypes: compared alone, they match again.
    kept = [
        [variant for variant, status in zip(side, of.status, strict=True) if status == MATCHED]
        for side, of in zip(sides, (found.truth, found.query), strict=True)
    ]
    alone = compared(reference, 1, *kept)
    assert set(alone.truth.status) | set(alone.query.status) <= {MATCHED}


def test_groups_say_what_matches_what() -> None:
    truth = records("4 TA CG 0/1; 27 TCT T 1/1; 40 T C 0/1")
    query = records("5 A G 0/1; 4 T C 0/1; 23 TCT T 1/1")
    found = compared(REFERENCE, 1, truth, query)
    assert [*found.truth.group] == [0, 1, -1]
    assert [*found.query.group] == [0, 0, 1]


def test_clusters_reach_over_deletions_and_repeats() -> None:
    reference = b"GC" * 20 + b"A" * 60 + b"CG" * 60
    over = [Variant(5, reference[4:75], (reference[4:5],), (0, 1)), Variant(10, b"C", (b"T",), (0, 1))]
    beside = [Variant(100, b"A", (b"T",), (0, 1)), Variant(140, b"G", (b"T",), (0, 1))]
    found = compared(reference, 1, [*over, *beside], [])
    assert [*found.truth.cluster] == [0, 0, 0, 1]
    # a deletion at the end of its repeat may stand at the start
    late = Variant(99, b"AA", (b"A",), (0, 1))
    found = compared(reference, 1, [Variant(38, b"C", (b"T",), (0, 1)), late], [])
    assert [*found.truth.cluster] == [0, 0]


def test_beyond_its_bound_alleles_and_genotypes_are_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "STATES", 1)
    truth = records("5 A G 0/1; 13 AA A 0/1; 23 TCTCT T 1/1; 4 TAC CGT 0/1")
    query = records("5 A G 0/1; 17 AA A 1/0; 27 TCTCA A 1/1")
    found = compared(REFERENCE, 1, truth, query)
    assert [*found.truth.status] == [MATCHED, MATCHED, MATCHED, MISSING]
    assert [*found.query.status] == [MATCHED, MATCHED, MATCHED]
    assert found.bounded == 1
    assert [*labels(REFERENCE, 1, truth[:3], records("5 A G; 5 A T; 17 AA A; 27 TCTCA A,TCA"))] == [
        *(1, 0, 1),
        *(2, UNTOLD),
    ]


def test_normalised_alleles() -> None:
    assert normalised(REFERENCE, 1, 17, b"AA", b"A") == (12, 13, b"")
    assert normalised(REFERENCE, 1, 27, b"T", b"TCT") == (22, 22, b"TC")
    assert normalised(REFERENCE, 1, 4, b"TAC", b"TGC") == (4, 5, b"G")
    assert normalised(REFERENCE, 1, 4, b"T", b"<DEL>") is None
    assert normalised(REFERENCE[12:], 13, 17, b"AA", b"A") == (12, 13, b"")


def test_primitives() -> None:
    def shown(text: str) -> list[tuple[int, str, str, tuple[int, ...]]]:
        return [
            (part.position, part.ref.decode(), ",".join(alt.decode() for alt in part.alts), part.genotype)
            for part in primitives(records(text)[0])
        ]

    assert shown("4 TACAG CACTG 0/1") == [(4, "T", "C", (0, 1)), (7, "A", "T", (0, 1))]
    assert shown("23 TCTCT T,TCT 1/2") == [(23, "TCTCT", "TCT", (0, 1)), (23, "TCTCT", "T", (1, 0))]
    assert shown("5 A AT,G 1/2") == [(5, "A", "G", (0, 1)), (6, "", "T", (1, 0))]
    assert shown("5 A ATC,ATT 2|1") == [(6, "", "TC,TT", (2, 1))]
    assert shown("5 A G,* 1/2") == [(5, "A", "G", (1, 0))]
    assert shown("5 A G ./1") == [(5, "A", "G", (-1, 1))]
    assert shown("5 A G 1") == [(5, "A", "G", (1,))]
    assert shown("5 A G 0/0") == []
    assert shown("4 TA CG,C 1/2") == [(4, "T", ",C", (2, 1)), (5, "A", "C,G", (2, 1))]
    assert shown("5 ACAGCGTCA GCAGCGTA 0/1") == [(5, "A", "G", (0, 1)), (12, "C", "", (0, 1))]


LABELS = {
    "by position": ("5 A G 0/1; 40 T C 1/1", "5 A G; 40 T C; 45 T C", [1, 2, 0]),
    "by haplotype": ("13 AA A 0/1; 23 TCTCT T 1/1", "17 AA A; 23 TCT T; 27 TCT T", [1, 2, 2]),
    "a record in parts": ("4 TAC CAT 0/1", "4 T C; 6 C T", [1, 1]),
    "a part of a record": ("4 TAC CAT 0/1", "4 T C", [1]),
    "one record for two": ("4 T C 0/1; 5 A G 0/1", "4 TA CG; 5 A T", [1, 0]),
    "several alleles": ("5 A G,T 1/2", "5 A C,G,T", [0, 1, 1]),
    "a star": ("5 A G 0/1", "5 A *,G", [UNTOLD, 1]),
    "a half call": ("5 A G ./1", "5 A G; 6 C T", [UNTOLD, 0]),
    "the right length beside wrong ones": ("12 C CAA 0/1", "12 C CA,CAA,CAAA", [0, 1, 0]),
    "a wrong length alone": ("12 C CAA 0/1", "12 C CA", [UNTOLD]),
    "another base": ("5 A G 0/1", "5 A C", [0]),
    "no truth": ("", "5 A C", [0]),
    "one for all its parts": ("4 TA CG 1/1", "4 T C; 5 A G; 4 TA CG", [0, 0, 2]),
    "one for all its parts, behind them": ("23 T TCTCT 0/1", "23 T TCT; 27 T TCT; 29 T TCTCT", [0, 0, 1]),
    "as few as do": ("5 A G 1/1", "5 A G; 4 TA TG", [2, 0]),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels(case: str) -> None:
    truth, candidates, expected = LABELS[case]
    found = labels(REFERENCE, 1, records(truth), records(candidates))
    assert found.dtype == np.int8
    assert [*found] == expected


@settings(max_examples=100, deadline=None, derandomize=True)
@given(people())
def test_labels_of_another_writing_make_the_same_person(person: tuple) -> None:
    chance, reference, haplotypes = person
    truth, other = (
        as_records(chance, reference, [rewritten(chance, reference, edits) for edits in haplotypes]) for _ in range(2)
    )
    sites: dict[tuple[int, bytes, bytes], None] = {}
    for variant in other:
        for alt in variant.alts:
            sites[variant.position, variant.ref, alt] = None
    at = chance.randrange(2, len(reference) - 2)
    noise = Variant(
        at + 1, reference[at : at + 1], (bytes([chance.choice([b for b in b"ACGT" if b != reference[at]])]),)
    )
    candidates = [*(Variant(position, ref, (alt,)) for position, ref, alt in sites), noise]
    found = labels(reference, 1, truth, candidates)
    assert (found >= 0).all()
    called = [
        Variant(c.position, c.ref, c.alts, ((0, 0), (0, 1), (1, 1))[int(copies)])
        for c, copies in zip(candidates, found, strict=True)
    ]
    again = compared(reference, 1, truth, called)
    assert set(again.truth.status) <= {MATCHED}
    assert set(again.query.status) <= {MATCHED, NO_VARIANT}
