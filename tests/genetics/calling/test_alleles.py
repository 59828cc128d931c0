"""Pileups against htslib's, events of every placement of an indel, and which alleles are candidates."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError
from genodl_spark.genetics.calling.alleles import (
    CLIPPED,
    DELETED,
    INDEL,
    LOW,
    A,
    Allele,
    Pileup,
    T,
    candidates,
    leftmost,
    merged,
    of_vcf,
    piled,
)
from tests.fuzz.alignments import CIGARS, REFERENCE, matching
from tests.genetics.calling.aligned import CONTIG, Read, letters, random_reference, reads, write
from tests.genetics.calling.diploid import normalised

LEAST = 10


def of_cigars(seed: int) -> list[Read]:
    """Reads of every kind of CIGAR with some wrong bases, on both strands."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(150):
        cigar, pos = CIGARS[number % len(CIGARS)], int(random.integers(0, 330))
        bases = list(matching(pos, cigar))
        for at in np.flatnonzero(random.random(len(bases)) < 0.1).tolist():
            bases[at] = random.choice(list("ACGTN"))
        whole = len(bases) == sum(int(n) for n, kind in re.findall(r"(\d+)([MIS=X])", cigar))
        quality = tuple(random.integers(0, 42, len(bases)).tolist()) if number % 5 else None
        if whole:  # not beyond the end of the reference
            rows.append(Read(pos, cigar, "".join(bases), quality, flag=16 * int(random.integers(2)), name=f"r{number}"))
    return sorted(rows, key=lambda row: row.pos)


def seen(pileup: Pileup) -> Counter[tuple[int, int, bytes]]:
    """Events: the base before, the size, the inserted bases."""
    texts = [pileup.pool[t : t + max(s, 0)].tobytes() for t, s in zip(pileup.text, pileup.size, strict=True)]
    return Counter(zip(pileup.where.tolist(), pileup.size.tolist(), texts, strict=True))


@pytest.mark.parametrize(("start", "stop"), [(0, 400), (57, 301)])
def test_counts_are_those_of_htslib(tmp_path: Path, start: int, stop: int) -> None:
    rows = of_cigars(1)
    write(rows, tmp_path / "r.bam")
    pysam.index(str(tmp_path / "r.bam"))
    expected = np.zeros((stop - start, 2, 8), np.int64)
    with pysam.AlignmentFile(str(tmp_path / "r.bam")) as file:
        columns = file.pileup(
            CONTIG, start, stop, truncate=True, stepper="nofilter", min_base_quality=0, ignore_overlaps=False
        )
        for column in columns:
            for one in column.pileups:
                at = expected[column.reference_pos - start, int(one.alignment.is_reverse)]
                if one.is_del:
                    at[DELETED] += not one.is_refskip
                    continue
                qualities = one.alignment.query_qualities
                quality = 25 if qualities is None else qualities[one.query_position]
                base = one.alignment.query_sequence[one.query_position]
                if quality:
                    at[LOW if quality < LEAST or base == "N" else "ACGT".index(base)] += 1
    found = piled(reads(rows), letters(REFERENCE)[start:stop], start, LEAST)
    assert found.counts[:, :, : DELETED + 1].tolist() == expected[:, :, : DELETED + 1].tolist()
    assert found.depth.tolist() == expected.sum((1, 2)).tolist()
    assert expected.sum() > 4_000


def test_events_are_those_of_the_cigars_moved_to_the_left() -> None:
    rows, expected, anchors, clips = of_cigars(2), Counter(), Counter(), Counter()
    for row in rows:
        p, i, reverse = row.pos, 0, row.flag // 16
        for count, kind in ((int(n), kind) for n, kind in re.findall(r"(\d+)([MIDNSHP=X])", row.cigar)):
            enough = row.qualities is None or sum(row.qualities[i : i + count]) >= LEAST * count
            if kind == "D" or (kind == "I" and enough):
                long = REFERENCE[p - 1] + (row.bases[i : i + count] if kind == "I" else REFERENCE[p : p + count])
                short = REFERENCE[p - 1]
                at, (ref, alt) = normalised(REFERENCE, p - 1, (short, long) if kind == "I" else (long, short))
                expected[at, len(alt) - len(ref), alt[1:].encode()] += 1
                anchors[at, reverse] += 1
            if kind == "S" and count >= 5:
                clips[p if i == 0 else p - 1, reverse] += 1
            i += count * (kind in "MIS=X")
            p += count * (kind in "MDN=X")
    found = piled(reads(rows), letters(REFERENCE), 0, LEAST)
    assert seen(found) == expected and sum(expected.values()) > 40
    for what, counted in ((INDEL, anchors), (CLIPPED, clips)):
        assert {(p, s): int(found.counts[p, s, what]) for p, s in np.argwhere(found.counts[:, :, what])} == counted


def test_a_clip_after_a_hard_one_is_where_the_read_begins() -> None:
    rows = [Read(100, "5H6S20M", "ACGTAC" + REFERENCE[100:120]), Read(100, "20M6S3H", REFERENCE[100:120] + "ACGTAC")]
    clipped = piled(reads(rows), letters(REFERENCE), 0, LEAST).counts[:, 0, CLIPPED]
    assert np.flatnonzero(clipped).tolist() == [100, 119]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_placement_of_an_indel_is_one_event(data: st.DataObject) -> None:
    """In a repeat aligners put an indel anywhere: the event is the same, and its reach holds all of them."""
    unit = data.draw(st.text("ACGT", min_size=1, max_size=4))
    copies = data.draw(st.integers(1, 9))
    left, right = random_reference(60, 5), random_reference(60, 6)
    reference = left + unit * copies + right
    at = data.draw(st.integers(58, 62 + len(unit) * copies))
    size = data.draw(st.integers(1, 2 * len(unit)))
    inserted = data.draw(st.sampled_from([(unit * 3)[:size], "GATTACAG"[:size], None]))
    altered = (
        reference[:at] + reference[at + size :] if inserted is None else reference[:at] + inserted + reference[at:]
    )
    found = set()
    places = []
    for p in range(20, len(reference) - 20):
        if inserted is None and reference[:p] + reference[p + size :] == altered:
            cigar = f"{p - 10}M{size}D{len(reference) - 20 - p - size}M"
        elif inserted is not None and reference[:p] + altered[p : p + size] + reference[p:] == altered:
            cigar = f"{p - 10}M{size}I{len(reference) - 20 - p}M"
        else:
            continue
        places.append(p)
        change = -size if inserted is None else size
        row = Read(10, cigar, altered[10 : len(reference) - 20 + change])
        pileup = piled(reads([row]), letters(reference), 0, LEAST)
        found |= {(*event, n) for event, n in seen(pileup).items()}
        (allele,) = (one for one in candidates(pileup, 1, 0) if one.change)
        assert allele.start == min(places)
    anchor = min(places) - 1
    text = b"" if inserted is None else altered[anchor + 1 : anchor + 1 + size].encode()
    assert found == {(anchor, -size if inserted is None else size, text, 1)}
    assert places == list(range(min(places), max(places) + 1))


def test_candidates_with_their_counts() -> None:
    at = 200
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    wrong, third = other[REFERENCE[at]], other[other[REFERENCE[at]]]

    def read(base: str, quality: int = 30, flag: int = 0) -> Read:
        return Read(170, "60M", REFERENCE[170:at] + base + REFERENCE[at + 1 : 230], quality, flag=flag)

    plain = [read(REFERENCE[at]) for _ in range(25)]
    alternate = [read(wrong, flag=16 * (k % 2)) for k in range(4)]

    def found(rows: list[Read], least_reads: int = 2, share: float = 0.1) -> list[Allele]:
        return candidates(piled(reads(rows), letters(REFERENCE), 0, LEAST), least_reads, share)

    assert found(plain) == []
    assert found(plain + alternate) == [Allele(at, at + 1, wrong.encode(), 4, 29)]
    assert found(plain + alternate, share=0.14) == []
    assert found(plain + alternate, least_reads=5) == []
    assert found(plain + [read(wrong, quality=9)] * 9) == []  # of low quality, and counted in the depth
    # one read is enough where it is a fifth of them
    assert found(plain[:4] + alternate[:1]) == [Allele(at, at + 1, wrong.encode(), 1, 5)]
    assert found(plain[:5] + alternate[:1]) == []
    both = found(plain[:10] + alternate + [read(third)] * 3)
    assert both == sorted([Allele(at, at + 1, wrong.encode(), 4, 17), Allele(at, at + 1, third.encode(), 3, 17)])


def test_indels_of_one_place_and_other_bases_are_apart() -> None:
    def inserted(text: str) -> Read:
        return Read(170, f"30M{len(text)}I30M", REFERENCE[170:200] + text + REFERENCE[200:230])

    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    first = other[REFERENCE[199]]  # so that none can move
    one, two = "AC" + first, "CA" + first
    rows = [inserted(one)] * 3 + [inserted(two)] * 2 + [inserted(one + first)] * 2
    rows += [Read(170, "30M7D30M", REFERENCE[170:200] + REFERENCE[207:237])] * 2
    found = [a for a in candidates(piled(reads(rows), letters(REFERENCE), 0, LEAST), 2, 0.1) if a.start == 200]
    left = [a for a in candidates(piled(reads(rows), letters(REFERENCE), 0, LEAST), 2, 0.1) if a.change == -7]
    assert sorted((a.text.decode(), a.reads) for a in found if a.text) == sorted([(one, 3), (two, 2), (one + first, 2)])
    assert [(a.reads, a.depth) for a in left] == [(2, 9)] and all(a.depth == 9 for a in found)


def test_none_beside_unknown_bases() -> None:
    reference = REFERENCE[:200] + "N" + REFERENCE[201:]
    rows = [Read(170, "60M", REFERENCE[170:230])] * 5
    rows += [Read(170, "30M5D30M", REFERENCE[170:200] + REFERENCE[205:235])] * 5
    rows += [Read(170, "15M3I45M", REFERENCE[170:185] + "NNN" + REFERENCE[185:230])] * 5
    assert candidates(piled(reads(rows), letters(reference), 0, LEAST), 2, 0.1) == []


def test_more_events_than_room_and_nothing_at_all() -> None:
    rows = [Read(100, "10M200I10M", REFERENCE[100:110] + "ACGTC" * 40 + REFERENCE[110:120])] * 500
    found = piled(reads(rows), letters(REFERENCE), 0, LEAST)
    assert len(found.where) == 500 and list(seen(found).values()) == [500]
    assert found.counts[100:110, 0].sum(1).max() <= 1_000
    empty = piled(reads([]), letters(REFERENCE), 0, LEAST)
    assert not empty.counts.any() and candidates(empty, 1, 0) == []


def test_counts_stop_where_they_would_begin_anew() -> None:
    rows = [Read(10, "1M", "A")] * 300
    found = reads(rows)
    many = found.only(np.tile(np.arange(300), 250))
    assert int(piled(many, letters("T" * 20), 0, LEAST).counts[10, 0, A]) == 65_535
    assert int(piled(many, letters("T" * 20), 0, LEAST).counts[10, 0, T]) == 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_alleles_of_a_vcf_are_as_candidates_are(data: st.DataObject) -> None:
    unit, copies = data.draw(st.text("ACGT", min_size=1, max_size=3)), data.draw(st.integers(1, 6))
    reference = random_reference(40, 1) + unit * copies + random_reference(40, 2)
    at = data.draw(st.integers(30, 50))
    ref = reference[at : at + data.draw(st.integers(1, 8))]
    alt = data.draw(st.one_of(st.text("ACGT", min_size=1, max_size=8), st.just(ref[0] + unit * 2 + ref[1:])))
    found = of_vcf(at + 1_000, ref, alt, letters(reference), 1_000)
    start, end = found.start - 1_000, found.end - 1_000
    assert (
        reference[:start] + found.text.decode() + reference[end:] == reference[:at] + alt + reference[at + len(ref) :]
    )
    pos, (old, new) = normalised(reference, at, (ref, alt)) if ref != alt else (0, ("", ""))
    if len(old) != len(new) and min(len(old), len(new)) == 1 and old[0] == new[0]:
        assert (start, end, found.text.decode()) == (pos + 1, pos + len(old), new[1:])
    elif ref != alt:
        assert (len(found.text) - (end - start)) == len(alt) - len(ref) and start >= pos
    assert leftmost(found, letters(reference), 1_000) == found


@pytest.mark.parametrize(
    ("ref", "alt", "why"),
    [
        ("A", "<DEL>", "expected bases"),
        ("A", "*", "expected bases"),
        ("A", "", "bases"),
        ("T", "G", "reference"),
        ("", "A", "ref"),
    ],
)
def test_alleles_that_are_none(ref: str, alt: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        of_vcf(2, ref, alt, letters("CCACC"), 0)


def test_alleles_of_several_samples_together() -> None:
    one, other = Allele(5, 6, b"A", 3, 9), Allele(4, 4, b"A", 1, 8)
    found = merged([one, other, replace(one, reads=2, depth=7, forced=True), one])
    assert found == [other, Allele(5, 6, b"A", 8, 25, True)]
