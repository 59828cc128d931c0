"""Simulated reads: aligned to where they come from, wrong as often as their qualities say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.genetics.calling import diploid, sequencing
from tests.genetics.calling.diploid import Genome, Rates, Variant
from tests.genetics.calling.sequencing import CLIPPED, DELETION, DUPLICATE, INSERTION, MATCH, REVERSE, Machine, Read

START, END = 1_000, 29_000
EXACT = Machine(levels=(93,), length=80, depth=20)


@pytest.fixture(scope="module")
def of() -> Genome:
    random = np.random.default_rng(0)
    reference = "".join(random.choice(list("ACGT"), 30_000))
    return diploid.genome(
        "c", reference, START, END, 1, Rates(snv=1 / 200, indel=1 / 200, margin=200, multi_allelic=0.2)
    )


def spelled(read: Read, reference: str) -> tuple[str, list[tuple[int, str, str]]]:
    """What the CIGAR leaves of a read, and each difference of it to the reference: place, taken away, put in."""
    text, at, base, found = read.bases.tobytes().decode(), read.pos, 0, []
    for kind, size in read.cigar:
        if kind == MATCH:
            found += [
                (at + k, reference[at + k], text[base + k]) for k in range(size) if reference[at + k] != text[base + k]
            ]
        elif kind == INSERTION:
            found.append((at, "", text[base : base + size]))
        elif kind == DELETION:
            found.append((at, reference[at : at + size], ""))
        at += size * (kind in (MATCH, DELETION))
        base += size * (kind in (MATCH, INSERTION, CLIPPED))
    assert base == len(text)
    assert at == read.end
    return text, found


def test_reads_without_errors_differ_from_the_reference_by_the_truth_alone(of: Genome) -> None:
    planted = {one.edit(which) for one in of.variants for which in (0, 1)}
    planted = {edit for edit in planted if edit[1] != edit[2]}
    seen = set()
    for read in sequencing.sequenced(of, 1, EXACT):
        seen |= set(spelled(read, of.reference)[1])
    assert seen <= planted
    assert len(seen) > 0.97 * len(planted)


def test_depth_strands_and_pairs(of: Genome) -> None:
    reads = sequencing.sequenced(of, 2, Machine(depth=40, duplicates=0.1, unsure=0.2))
    first = [read for read in reads if not read.flag & DUPLICATE]
    assert sum(len(read.bases) for read in first) / (END - START) == pytest.approx(40, rel=0.06)
    assert 1 - len(first) / len(reads) == pytest.approx(0.1 / 1.1, abs=0.02)
    assert np.mean([read.mapq == 0 for read in reads]) == pytest.approx(0.2, abs=0.04)
    by_name: dict[str, list[Read]] = {}
    for read in reads:
        by_name.setdefault(read.name, []).append(read)
    for pair in by_name.values():
        left, right = sorted(pair, key=lambda read: read.flag & REVERSE)
        assert (left.mate, right.mate, left.template) == (right.pos, left.pos, -right.template)
        assert left.flag & right.flag & 0x3 == 0x3
        assert {left.flag & 0xC0, right.flag & 0xC0} == {0x40, 0x80}
    spans = [abs(pair[0].template) for pair in by_name.values()]
    assert np.mean(spans) == pytest.approx(300, rel=0.02)
    assert [read.pos for read in reads] == sorted(read.pos for read in reads)


def test_bases_are_wrong_as_often_as_their_quality_says() -> None:
    random = np.random.default_rng(3)
    machine = Machine(levels=(30, 20, 10), worse=0.5)
    bases = sequencing.LETTERS[random.integers(0, 4, (20_000, 100))]
    reverse = np.arange(20_000) % 2 == 1
    told, qualities = sequencing.misread(bases, reverse, machine, random)
    for level in machine.levels:
        assert (told != bases)[qualities == level].mean() == pytest.approx(10 ** (-level / 10), rel=0.15)
    bad = (qualities < 30).mean(0, where=~reverse[:, None])
    assert bad[-1] > 0.7 > 0.05 > bad[0]  # in the direction of reading
    assert (qualities < 30).mean(0, where=reverse[:, None]) == pytest.approx(bad[::-1], abs=0.05)


@given(st.lists(st.tuples(st.sampled_from([MATCH, INSERTION, DELETION]), st.integers(1, 5)), min_size=1, max_size=8))
def test_cigars_say_what_places_say(ops: list[tuple[int, int]]) -> None:
    at, places = 7, []
    for kind, size in ops:
        places += list(range(at, at + size)) if kind == MATCH else [-1] * (size if kind == INSERTION else 0)
        at += size * (kind != INSERTION)
    of = np.array(places, np.int64)
    if not (of >= 0).any():
        with pytest.raises(ValueError, match="no base"):
            sequencing.cigar(of)
        return
    start, found = sequencing.cigar(of)
    again, pos = [], start
    for kind, size in found:
        again += list(range(pos, pos + size)) if kind == MATCH else [-1] * (size if kind != DELETION else 0)
        pos += size * (kind in (MATCH, DELETION))
    assert again == places
    kinds = [kind for kind, _ in found]
    assert all(a != b for a, b in pairwise(kinds))
    assert {kinds[0], kinds[-1]} <= {MATCH, CLIPPED}
    assert all(size > 0 for _, size in found)


@pytest.mark.parametrize("alts", [("A", "T"), ("A", "ACCCG"), ("ACGT", "A")])
def test_reads_over_a_site_support_it_as_often_as_asked(alts: tuple[str, str]) -> None:
    random = np.random.default_rng(1)
    ref, alt = alts
    reference = "".join(random.choice(list("CG"), 300)) + ref + "".join(random.choice(list("CG"), 300))
    variant = Variant(300, ref, (alt,), (0, 1))
    reads = sequencing.over(variant, reference, 20, 13, 1, Machine(levels=(93,)))
    with_it = [read for read in reads if spelled(read, reference)[1]]
    assert (len(with_it), len(reads)) == (20, 33)
    assert len({tuple(spelled(read, reference)[1]) for read in with_it}) == 1
    assert all(read.pos <= 290 and read.end >= 300 + len(ref) + 10 for read in reads)
    assert {bool(read.flag & REVERSE) for read in reads} == {False, True}
    assert {read.flag for read in sequencing.over(variant, reference, 5, 5, 1, strand=True)} == {REVERSE}


@pytest.mark.parametrize("suffix", [".bam", ".cram"])
def test_files_hold_what_was_drawn(tmp_path: Path, of: Genome, suffix: str) -> None:
    fasta = tmp_path / "ref.fa"
    fasta.write_text(f">c\n{of.reference}\n")
    pysam.faidx(str(fasta))
    reads = sequencing.sequenced(of, 4, Machine(depth=3), group="g")
    head = sequencing.header({"c": of.reference}, {"g": "S"})
    path = sequencing.write(tmp_path / f"reads{suffix}", {"c": reads}, head, fasta)
    with pysam.AlignmentFile(str(path), reference_filename=str(fasta)) as file:
        found = list(file.fetch("c"))
        assert file.header.to_dict()["SQ"][0]["M5"] == "".join(head["SQ"][0]["M5"])  # type: ignore[index]
    assert len(found) == len(reads)
    for line, read in zip(found, reads, strict=True):
        assert (line.query_name, line.reference_start, line.reference_end) == (read.name, read.pos, read.end)
        assert line.query_sequence == read.bases.tobytes().decode()
        assert list(line.query_qualities or []) == read.qualities.tolist()
        assert (line.template_length, line.mapping_quality) == (read.template, read.mapq)
