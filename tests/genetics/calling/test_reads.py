"""Records of a BAM against htslib's own reading of them, and bytes that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pysam
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.genetics.calling.alleles import piled
from genodl_spark.genetics.calling.reads import of_bam
from genodl_spark.genetics.calling.tile import calls_of
from tests.fuzz import alignments
from tests.fuzz.alignments import CIGARS, REFERENCE
from tests.genetics.calling.aligned import Read, bam, letters, reads, write


def of_cigars() -> list[Read]:
    random = np.random.default_rng(3)
    rows = []
    for number in range(200):
        flag = int(random.choice([0, 16, 99, 147, 0x400, 0x100, 0x800, 0x200, 0x4 | 0x1]))
        rows.append(
            Read(
                int(random.integers(0, 300)),
                CIGARS[number % len(CIGARS)],
                "".join(random.choice(list("ACGTN"), 50)),
                tuple(random.integers(0, 42, 50).tolist()) if number % 7 else None,
                int(random.choice([0, 3, 10, 60, 255])),
                flag,
                f"pair{number // 2}",
            )
        )
    return [*sorted(rows, key=lambda row: row.pos), Read(-1, "", "ACGT", flag=4), Read(-1, "4M", "ACGT")]


@pytest.mark.parametrize("least", [0, 10])
def test_records_are_decoded_as_htslib_does(tmp_path: Path, least: int) -> None:
    write(of_cigars(), tmp_path / "r.bam")
    with pysam.AlignmentFile(str(tmp_path / "r.bam"), check_sq=False) as file:
        expected = [
            (one.reference_start, one.reference_end, one.flag, one.mapping_quality % 255, one.query_name)
            for one in file.fetch(until_eof=True)
            if not one.flag & 0xF04 and one.mapping_quality % 255 >= least and one.reference_start >= 0
        ]
    found = of_bam(bam(of_cigars()), least)
    assert len(found) == len(expected) > 30
    rows = zip(found.pos, found.end, found.flag, found.mapq, strict=True)
    assert [tuple(map(int, row)) for row in rows] == [row[:4] for row in expected]
    names = dict(zip([row[4] for row in expected], found.name.tolist(), strict=True))
    assert found.name.tolist() == [names[row[4]] for row in expected]  # mates have one hash
    assert len(set(names.values())) == len(names)


def test_the_stretch_that_flags_leave_out_is_asked_for() -> None:
    rows = [Read(5, "4M", "ACGT", flag=flag) for flag in (0, 16, 0x400, 0x100)]
    assert of_bam(bam(rows), without=0x100).flag.tolist() == [0, 16, 0x400]
    assert of_bam(bam(rows)).only(np.array([False, True])).flag.tolist() == [16]


def mates(left: str, right: str, one: tuple[int, ...], other: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """What is left of the qualities of two mates at 10 and at 12."""
    pair = [Read(10, f"{len(left)}M", left, one, name="m"), Read(12, f"{len(right)}M", right, other, name="m")]
    found = reads(pair)
    qualities = []
    for at, bases in zip(found.at.tolist(), (left, right), strict=True):
        begin = at + 36 + int(found.data[at + 12]) + 4 + (len(bases) + 1) // 2
        qualities.append(found.data[begin : begin + len(bases)].tolist())
    return qualities[0], qualities[1]


def test_where_mates_overlap_a_base_counts_once() -> None:
    # the same base: the better one stands, the first of equals; another base: what the better has more
    assert mates("AACC", "CCTT", (30, 30, 20, 25), (30, 10, 7, 7)) == ([30, 30, 0, 25], [30, 0, 7, 7])
    assert mates("AACC", "GCTT", (30, 30, 20, 25), (32, 25, 7, 7)) == ([30, 30, 0, 25], [12, 0, 7, 7])
    found = reads([Read(0, "40M", REFERENCE[:40], name="m"), Read(20, "40M", REFERENCE[20:60], name="m", flag=16)])
    assert piled(found, letters(REFERENCE), 0, 10).depth[:62].tolist() == [1] * 60 + [0, 0]


def test_mates_overlap_by_what_is_aligned() -> None:
    """Across a deletion of one and an insertion of the other, bases of the same place are compared."""
    rows = [
        Read(0, "10M5D25M", REFERENCE[:10] + REFERENCE[15:40], name="m"),
        Read(5, "20M2I20M", REFERENCE[5:25] + "GG" + REFERENCE[25:45], name="m", flag=16),
    ]
    counts = piled(reads(rows), letters(REFERENCE), 0, 10).counts
    assert counts[:, :, :4].sum((1, 2)).tolist() == [1] * 45 + [0] * 355
    assert [REFERENCE.encode()[p] for p in range(45)] == [b"ACGT"[k] for k in counts[:45, :, :4].sum(1).argmax(1)]


def test_bytes_that_are_no_bam() -> None:
    whole = bam(of_cigars())
    for broken in (b"", b"BAM", b"SAM\x01" + whole[4:], whole[:7], whole[:30]):
        with pytest.raises(InputError, match="header of a BAM"):
            of_bam(broken)
    cut = [len(whole) - 1, len(whole) - 30, len(whole) - 60]
    for end in cut:
        with pytest.raises(InputError, match="records that are none"):
            of_bam(whole[:end])
    with pytest.raises(InputError, match="cut off"):  # contigs without end, of names of negative length
        of_bam(whole[:4] + (0).to_bytes(4, "little") + b"\xff\xff\xff\x7f" + b"\xf8\xff\xff\xff" * 4)


def test_every_cut_is_found_or_between_records() -> None:
    rows = of_cigars()[:8]
    whole = bam(rows)
    ends = set()
    at = len(bam([]))
    while at <= len(whole):
        ends.add(at)
        at += 4 + int.from_bytes(whole[at : at + 4], "little") if at < len(whole) else 1
    for end in range(len(whole) + 1):
        try:
            of_bam(whole[:end])
            assert end in ends
        except InputError:
            assert end not in ends


def test_mutated_bytes_are_refused_or_read() -> None:
    """Whatever bytes say, no kernel leaves its arrays; tests/native has the same under sanitizers."""
    accepted, refused = alignments.run(300, seed=0)
    assert min(accepted, refused) > 50


def test_reads_without_bases_or_with_operations_of_no_length() -> None:
    """SEQ `*` is allowed by the format; 0I and 0D say nothing."""
    rows = [Read(100, "10M", "ACGTACGTAC"), Read(100, "50M", ""), Read(95, "20M0I20M0D10M", REFERENCE[95:145])]
    rows += [Read(90, "30M2I28M", REFERENCE[90:120] + "TT" + REFERENCE[120:148]) for _ in range(5)]
    found = reads(rows)
    assert len(found) == 8
    pileup = piled(found, letters(REFERENCE), 0, 10)
    assert len(pileup.where) == 5 and pileup.depth[104] == 7
    assert [(site.alts[0][1:], site.depth) for site in calls_of(found, letters(REFERENCE), 0, 110, 130)] == [("TT", 7)]
