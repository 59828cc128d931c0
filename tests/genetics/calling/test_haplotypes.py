"""Windows of alleles, their haplotypes, and reads against these by a whole forward algorithm in logarithms."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genetics.calling import haplotypes
from genodl_spark.genetics.calling.alleles import Allele
from genodl_spark.genetics.calling.haplotypes import Evidence, Window, evidence, gap_qualities, reach, windows
from tests.genetics.calling.aligned import Read, letters, random_reference, reads

REFERENCE = random_reference(600, seed=4)
FLANK, BEYOND, SLACK, EXTEND, FLOOR = 30, 70, 6, 0.1, 10**-4.5
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}


def substituted(at: int, reference: str = REFERENCE) -> Allele:
    return Allele(at, at + 1, OTHER[reference[at]].encode())


def applied(reference: str, *alleles: Allele) -> str:
    for one in sorted(alleles, reverse=True):
        reference = reference[: one.start] + one.text.decode() + reference[one.end :]
    return reference


# ---- windows


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_reach_is_all_that_an_indel_can_alter(data: st.DataObject) -> None:
    unit, copies = data.draw(st.text("ACGT", min_size=1, max_size=3)), data.draw(st.integers(1, 6))
    reference = random_reference(20, 1) + unit * copies + random_reference(20, 2)
    at, size = data.draw(st.integers(18, 22)), data.draw(st.integers(1, 6))
    allele = Allele(at, at, (unit * 6)[:size].encode()) if data.draw(st.booleans()) else Allele(at, at + size, b"")
    altered = applied(reference, allele)
    places = [
        p
        for p in range(len(reference) - (0 if allele.text else size) + 1)
        if (
            reference[:p] + altered[p : p + size] + reference[p:]
            if allele.text
            else reference[:p] + reference[p + size :]
        )
        == altered
        and p >= at
    ]
    assert reach(allele, letters(reference), 0) == (at, max(places) + (0 if allele.text else size))
    moved = Allele(allele.start + 1_000, allele.end + 1_000, allele.text)
    assert reach(moved, letters(reference), 1_000) == (at + 1_000, max(places) + (0 if allele.text else size) + 1_000)


def test_reach_of_others_and_at_the_end_of_a_reference() -> None:
    assert reach(substituted(7), letters(REFERENCE), 0) == (7, 8)
    assert reach(Allele(7, 9, b"TTT"), letters(REFERENCE), 0) == (7, 9)
    assert reach(Allele(1, 2, b""), letters("CAAAAA"), 0) == (1, 6)


def test_windows_hold_alleles_within_ten_bases() -> None:
    alleles = [substituted(at) for at in (100, 111, 122, 134)]
    found = list(windows(alleles, letters(REFERENCE), 0))
    assert [(w.start, w.end, len(w.alleles)) for w in found] == [(100, 123, 3), (134, 135, 1)]
    repeat = REFERENCE[:100] + "G" + "A" * 20 + "G" + REFERENCE[122:]
    deletion, beside = Allele(101, 102, b""), substituted(131, repeat)
    assert [len(w.alleles) for w in windows([deletion, beside], letters(repeat), 0)] == [2]  # its reach counts
    assert [len(w.alleles) for w in windows([deletion, substituted(132, repeat)], letters(repeat), 0)] == [1, 1]
    assert list(windows([], letters(REFERENCE), 0)) == []


@settings(max_examples=40, deadline=None)
@given(gaps=st.lists(st.integers(0, 25), min_size=1, max_size=25), seed=st.integers(0, 9))
def test_windows_hold_every_allele_once_and_six_at_most(gaps: list[int], seed: int) -> None:
    alleles = {
        (at := 20 + total): Allele(at, at + 1, OTHER[REFERENCE[at]].encode()) for total in itertools.accumulate(gaps)
    }
    order = np.random.default_rng(seed).permutation(len(alleles))
    found = list(windows([list(alleles.values())[k] for k in order], letters(REFERENCE), 0))
    assert [a for w in found for a in w.alleles] == sorted(alleles.values())
    assert max(len(w.alleles) for w in found) <= 6
    for before, after in itertools.pairwise(found):
        assert before.end <= after.start
        if after.start - before.end < 10:  # divided as there are too many
            assert len(before.alleles) + len(after.alleles) > 6 or len(found) > 2


def test_of_very_many_alleles_of_one_place_the_most_read_stay() -> None:
    many = [Allele(100, 100, b"ACGT" * 2 + b"ACGT"[k % 4 : k % 4 + 1] * (k + 1), reads=k) for k in range(9)]
    (only,) = windows(many, letters(REFERENCE), 0)
    assert sorted(a.reads for a in only.alleles) == [3, 4, 5, 6, 7, 8]
    (only,) = windows([replace(a, forced=a.reads in (0, 2)) for a in many], letters(REFERENCE), 0)
    assert sorted(a.reads for a in only.alleles) == [0, 2, 5, 6, 7, 8]
    (only,) = windows([replace(a, forced=True) for a in many], letters(REFERENCE), 0)
    assert len(only.alleles) == 9 and len(evidence(only, reads([]), letters(REFERENCE), 0).carries) == 10


def test_haplotypes_are_all_sets_that_fit_on_a_chromosome() -> None:
    alleles = (
        Allele(100, 101, b"A"),
        Allele(100, 101, b"C"),
        Allele(101, 101, b"GG"),
        Allele(101, 104, b""),
        Allele(103, 104, b"T"),
    )
    carries = evidence(Window(100, 104, alleles), reads([]), letters(REFERENCE), 0).carries
    found = {tuple(np.flatnonzero(row).tolist()) for row in carries}
    assert len(found) == len(carries) and not carries[0].any()
    expected = {
        (),
        (0,),
        (1,),
        (2,),
        (3,),
        (4,),
        (0, 2),
        (0, 3),
        (0, 4),
        (1, 2),
        (1, 3),
        (1, 4),
        (2, 4),
        (0, 2, 4),
        (1, 2, 4),
    }
    assert found == expected


# ---- likelihoods


def open_qualities(haplotype: str) -> list[int]:
    """Phred-scaled chance of a gap at each base, by the table, for every run that repeats itself."""
    table, n = gap_qualities(), len(haplotype)
    found = [int(table[0, 1])] * n
    for period in range(1, 7):
        same = [x + period < n and haplotype[x] == haplotype[x + period] for x in range(n)]
        for first in (x for x in range(n) if same[x] and not (x and same[x - 1])):
            last = next(x for x in range(first, n) if not same[x])
            run = last - first + period
            if run // period > 1:
                q = int(table[period - 1, min(run // period, 31)]) + round(10 * math.log10(run))
                for x in range(first, first + run):
                    found[x] = min(found[x], q)
    return found


def error(quality: int) -> float:
    return 0.75 if quality < 2 else max(10 ** (-quality / 10), FLOOR)


def forward(bases: str, qualities: list[int], haplotype: str, low: int, high: int) -> float:
    """The logarithm of the chance of bases, over all alignments on diagonals [low, high]: a cell after the other."""
    opens, none = open_qualities(haplotype), -math.inf
    shape = (len(bases), len(haplotype))
    match, insertion, deletion = (np.full(shape, none) for _ in range(3))
    with np.errstate(divide="ignore"):
        for i, j in itertools.product(*map(range, shape)):
            if not low <= j - i <= high:
                continue
            gap, e = error(opens[j]), error(qualities[i])
            emit = 0.25 if qualities[i] < 6 or bases[i] == "N" else 1 - e if bases[i] == haplotype[j] else e / 3
            into = 0.0 if i == 0 else none
            if i and j:
                into = np.logaddexp(
                    match[i - 1, j - 1] + np.log(1 - 2 * gap),
                    np.logaddexp(insertion[i - 1, j - 1], deletion[i - 1, j - 1]) + np.log(1 - EXTEND),
                )
            match[i, j] = np.log(emit) + into
            if i:
                insertion[i, j] = np.logaddexp(match[i - 1, j] + np.log(gap), insertion[i - 1, j] + np.log(EXTEND))
            if j:
                deletion[i, j] = np.logaddexp(match[i, j - 1] + np.log(gap), deletion[i, j - 1] + np.log(EXTEND))
        return float(np.logaddexp.reduce(np.concatenate([match[-1], insertion[-1]])))


def judged(window: Window, row: Read, reference: str = REFERENCE) -> np.ndarray:
    found: Evidence = evidence(window, reads([row]), letters(reference), 0)
    return np.log(found.likely[0])


def judged_to_the_end(window: Window, row: Read, reference: str = REFERENCE) -> np.ndarray:
    """Though a read may be mapped to the wrong place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(haplotypes, "_MISMAPPED", 1e-25)
        return judged(window, replace(row, mapq=250), reference)


def relative(logs: list[float], floor: float = FLOOR) -> np.ndarray:
    """As evidence has them: one of the best, and no less than of a read that belongs elsewhere."""
    return np.log(np.maximum(np.exp(np.array(logs) - max(logs)), floor))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_read_over_an_indel_against_the_whole_forward_algorithm(data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(["A", "CA", "GTT", "ACAC", "GATTAC"]))
    copies = data.draw(st.integers(1, 5))
    reference = REFERENCE[:200] + "G" + unit * copies + REFERENCE[230:]
    size = data.draw(st.integers(1, 4)) * (len(unit) if data.draw(st.booleans()) else 1)
    text = ((unit + REFERENCE[300:]) * 3)[:size].encode() if data.draw(st.booleans()) else b""
    allele = Allele(201, 201 if text else 201 + size, text)
    window = Window(*reach(allele, letters(reference), 0), (allele,))
    altered, change = applied(reference, allele), allele.change
    own = data.draw(st.booleans())
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    start, end = 150, window.end + 45
    bases = list((altered if own else reference)[start : end + (change if own else 0)])
    for at in np.flatnonzero(random.random(len(bases)) < 0.03).tolist():
        bases[at] = random.choice(list("ACGTN"))
    qualities = random.integers(2, 42, len(bases)).tolist()
    gap = f"{change}I" if change > 0 else f"{-change}D"
    cigar = f"51M{gap}{len(bases) - 51 - max(change, 0)}M" if own else f"{len(bases)}M"
    found = judged_to_the_end(window, Read(start, cigar, "".join(bases), tuple(qualities)), reference)
    # bases within FLANK of what is altered, against haplotypes with BEYOND beside it
    lo, hi = window.start - FLANK, window.end + FLANK
    first, last = lo - start, hi - start + (change if own else 0)
    expected = []
    for haplotype, grown in ((reference, 0), (altered, change)):
        left, right = window.start - BEYOND, window.end + BEYOND + grown
        part = haplotype[left:right]
        diagonals = (lo - left, len(part) - (window.end + BEYOND - hi) - (last - first))
        args = "".join(bases[first:last]), qualities[first:last], part
        expected.append(forward(*args, min(diagonals) - SLACK, max(diagonals) + SLACK))
    assert found == pytest.approx(relative(expected, 1e-25), abs=1e-9)


def test_a_read_within_a_repeat() -> None:
    """It has no place of its own: diagonals as far as the haplotypes differ."""
    reference = REFERENCE[:200] + "G" + "CA" * 60 + "G" + REFERENCE[322:]
    allele = Allele(201, 241, b"")
    window = Window(*reach(allele, letters(reference), 0), (allele,))
    bases, part = "CA" * 30, applied(reference, allele)
    expected = [
        forward(bases, [30] * 60, reference[131:391], 120 - SLACK, 120 + SLACK),
        forward(bases, [30] * 60, part[131:351], 120 - 40 - SLACK, 120 + 40 + SLACK),
    ]
    assert judged_to_the_end(window, Read(251, "60M", bases), reference) == pytest.approx(relative(expected), abs=1e-9)


def test_the_band_holds_all_that_matters() -> None:
    """Against alignments of any diagonals, and of reads that begin or end in a window or are clipped there."""
    allele = Allele(300, 300, b"GATTACAGATTACA")
    window, altered = Window(300, 300, (allele,)), applied(REFERENCE, allele)
    size = allele.change
    cases = [
        (Read(250, f"50M{size}I40M", altered[250 : 340 + size]), altered[270 : 330 + size]),
        (Read(255, "90M", REFERENCE[255:345]), REFERENCE[270:330]),
        (Read(250, f"50M{size + 6}S", altered[250 : 300 + size + 6]), altered[270 : 300 + size + 6]),  # clipped there
        (Read(300, f"{size - 2}S70M", altered[302 : 370 + size]), altered[302 : 330 + size]),
        (Read(250, "57M", altered[250:307]), altered[270:307]),  # ends in what is inserted, unaligned
        (Read(293, "70M", altered[293 + size : 363 + size]), altered[293 + size : 330 + size]),
    ]
    for row, bases in cases:
        qualities = [30] * len(bases)
        expected = [
            forward(bases, qualities, text[230 : 370 + grown], -200, 200)
            for text, grown in ((REFERENCE, 0), (altered, size))
        ]
        assert judged(window, row) == pytest.approx(relative(expected), abs=0.02), row


def test_without_gaps_bases_are_compared_where_they_lie() -> None:
    window = Window(200, 206, (substituted(200), substituted(205)))
    for qualities in ((30,) * 60, tuple(range(60)), (40,) * 10 + (1,) * 50):
        bases = applied(REFERENCE, window.alleles[1])[180:240]
        found = judged_to_the_end(window, Read(180, "60M", bases, qualities))
        logs = []
        for alleles in ((), window.alleles[:1], window.alleles[1:], window.alleles):
            text = applied(REFERENCE, *alleles)[180:236]  # FLANK beside the altered part
            terms = zip(text, bases, qualities, strict=False)
            logs.append(sum(math.log(0.25 if q < 6 else 1 - error(q) if x == b else error(q) / 3) for x, b, q in terms))
        assert found == pytest.approx(relative(logs, 1e-25), abs=1e-9)


@pytest.mark.parametrize("mapq", [0, 3, 20, 60])
def test_no_read_says_more_than_its_place_is_sure(mapq: int) -> None:
    window = Window(200, 204, tuple(map(substituted, (200, 201, 203))))
    found = judged(window, Read(150, "100M", REFERENCE[150:250], 40, mapq=mapq))
    assert found[0] == 0 and found.min() == pytest.approx(math.log(max(10 ** (-mapq / 10), FLOOR)))


def test_a_molecule_counts_once() -> None:
    """Mates that both cover a base say what one read of the better quality says; beside it they add up."""
    window, altered = Window(200, 201, (substituted(200),)), applied(REFERENCE, substituted(200))
    one = Read(150, "60M", altered[150:210], 20, name="m")
    other = Read(180, "60M", altered[180:240], 30, name="m", flag=16)
    both = evidence(window, reads([one, other]), letters(REFERENCE), 0)
    alone = evidence(window, reads([other]), letters(REFERENCE), 0)
    assert both.likely.shape == (1, 2) and both.likely == pytest.approx(alone.likely, rel=1e-9)
    apart = evidence(window, reads([one, Read(180, "60M", altered[180:240], 30, name="n")]), letters(REFERENCE), 0)
    assert apart.likely.shape == (2, 2)
    # mates on two alleles of one haplotype: their product
    two = Window(200, 206, (substituted(200), substituted(205)))
    altered = applied(REFERENCE, *two.alleles)
    pair = [Read(150, "53M", altered[150:203], 20, name="m"), Read(203, "60M", altered[203:263], 20, name="m")]
    (found,) = evidence(two, reads(pair), letters(REFERENCE), 0).likely
    wrong = (0.01 / 3) / 0.99
    assert found == pytest.approx([max(wrong**2, FLOOR), wrong, wrong, 1])


def test_reads_that_say_nothing_and_none() -> None:
    window = Window(300, 301, (substituted(300),))
    assert evidence(window, reads([]), letters(REFERENCE), 0).likely.shape == (0, 2)
    far = [Read(100, "50M", REFERENCE[100:150]), Read(250, "20M80N20M", REFERENCE[250:270] + REFERENCE[350:370])]
    assert evidence(window, reads(far), letters(REFERENCE), 0).likely.tolist() == [[1, 1], [1, 1]]
    without = reads([Read(270, "60M", "")])
    assert evidence(window, without, letters(REFERENCE), 0).likely.tolist() == [[1, 1]]


def test_many_molecules_are_as_good_as_very_many() -> None:
    window = Window(300, 301, (substituted(300),))
    rows = [Read(280, "40M", REFERENCE[280:320], name=f"n{k}") for k in range(1_000)]
    found = evidence(window, reads(rows), letters(REFERENCE), 0)
    assert 300 <= len(found.likely) <= 1_000
    turned = evidence(window, reads(rows[::-1]), letters(REFERENCE), 0)
    assert np.array_equal(found.likely, turned.likely)


@pytest.mark.parametrize("at", [0, 2, 597, 599])
def test_windows_at_the_ends_of_a_contig(at: int) -> None:
    allele = substituted(at)
    left, right = max(at - 40, 0), min(at + 40, 600)
    altered = applied(REFERENCE, allele)[left:right]
    found = judged(Window(at, at + 1, (allele,)), Read(left, f"{right - left}M", altered))
    assert found == pytest.approx([math.log(0.001 / 3 / 0.999), 0], abs=1e-6)


def test_gaps_are_likelier_in_longer_repeats() -> None:
    table = gap_qualities()
    assert table.shape == (6, 32) and table.dtype == np.uint8
    assert (np.diff(table.astype(int), axis=1) <= 0).all()
    assert table[0, 1] == 45


@pytest.mark.parametrize(("mapq", "says"), [(59, False), (60, True)])
def test_a_read_that_no_haplotype_makes_says_nothing_unless_the_aligner_is_sure(mapq: int, says: bool) -> None:
    other = {"A": "C", "C": "A", "G": "T", "T": "G"}
    allele = Allele(300, 301, other[REFERENCE[300]].encode())
    bases = list(REFERENCE[250:350])
    for at in (30, 35, 40, 45, 50, 60):  # the fifth is the allele
        bases[at] = other[bases[at]]
    found = evidence(
        Window(300, 301, (allele,)), reads([Read(250, "100M", "".join(bases), 40, mapq)]), letters(REFERENCE), 0
    )
    assert (found.likely[0, 0] < found.likely[0, 1]) == says
