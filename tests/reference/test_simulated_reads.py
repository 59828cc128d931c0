"""What is added to simulated reads, and how calls are counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pysam
import pytest

from tests.reference import calling, simulated_reads
from tests.reference.calling import Counts
from tests.reference.simulated_reads import LENGTH, Case, Hardness

LETTERS = np.frombuffer(b"ACGT", np.uint8)


def drawn(n: int, seed: int = 0) -> np.ndarray:
    return LETTERS[np.random.default_rng(seed).integers(0, 4, (n, LENGTH))]


def test_contexts_are_misread_at_their_rate_and_always_as_the_same_base() -> None:
    hard, bases = Hardness(systematic=1 / 200, misread=0.25), drawn(4000)
    qualities = np.full_like(bases, ord("I"))
    found, doubted = simulated_reads.systematic(bases, qualities, hard, np.random.default_rng(1))
    room = 4000 * (LENGTH - 11)
    assert (doubted != qualities).sum() == pytest.approx(room / 200, rel=0.1)
    assert set(np.unique(doubted)) == {ord("I"), ord("!") + hard.doubted}
    wrong = found != bases
    assert (doubted[wrong] == ord("!") + hard.doubted).all()
    assert wrong.sum() == pytest.approx((doubted != qualities).sum() / 4, rel=0.1)
    as_what: dict[bytes, set[int]] = {}
    for row, column in np.argwhere(wrong):
        as_what.setdefault(bases[row, column - 11 : column + 1].tobytes(), set()).add(int(found[row, column]))
    assert {len(one) for one in as_what.values()} == {1}
    drawn_by = []
    for draw in (0, 1):
        other = replace(hard, contexts=draw)
        drawn_by.append(simulated_reads.systematic(bases, qualities, other, np.random.default_rng(1))[1] < ord("I"))
    assert (drawn_by[0] == (doubted < ord("I"))).all()
    assert drawn_by[1].sum() == pytest.approx(room / 200, rel=0.1)
    assert not (drawn_by[0] & drawn_by[1]).any()


def test_runs_slip_at_the_rate_of_their_length() -> None:
    hard, bases = Hardness(slippage=0.01, growth=1.5, most=1.0), drawn(20_000)
    bases[:, 49], bases[:, 60] = ord("G"), ord("C")
    bases[:, 50:60] = ord("A")
    found = simulated_reads.slipped(bases, hard, np.random.default_rng(1))
    run = (found[:, 50:60] == ord("A")).all(1) & (found[:, 60] == ord("C"))
    assert 1 - run.mean() == pytest.approx(0.01 * 1.5**5, rel=0.15)
    shorter = (found[:, 50:59] == ord("A")).all(1) & (found[:, 59] == ord("C"))
    longer = (found[:, 50:61] == ord("A")).all(1) & (found[:, 61] == ord("C"))
    assert shorter.sum() / (shorter | longer).sum() == pytest.approx(0.7, abs=0.05)
    assert (found[shorter, 60:-1] == bases[shorter, 61:]).mean() > 0.99  # what follows moves with it


def test_harder_reads_are_the_old_ones_and_the_same_pairs_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated_reads, "_CHUNK", 64)  # 300 reads come in parts
    for mate in (1, 2):
        bases = drawn(300, mate)
        lines = [f"@r{n}/{mate}\n{row.tobytes().decode()}\n+\n{'I' * LENGTH}\n" for n, row in enumerate(bases)]
        (tmp_path / f"r{mate}.fq").write_text("".join(lines))
    none = Hardness(slippage=0, systematic=0, duplicates=0.1, overstated=1)
    simulated_reads.harder(tmp_path, 1, none)
    names = []
    for mate in (1, 2):
        lines = (tmp_path / f"r{mate}.fq").read_text().split("\n")
        bases, read = drawn(300, mate), dict(zip(lines[::4], lines[1::4], strict=False))
        assert all(read[f"@r{n}/{mate}"] == bases[n].tobytes().decode() for n in range(300))
        twice = [name for name in read if name.startswith("@dr")]
        assert all(read[name] == read[f"@{name[2:]}"] for name in twice)
        assert set(lines[3::4]) == {"J" * LENGTH}
        names.append([name[:-2] for name in read if name])
    assert names[0] == names[1]
    assert 300 < len(names[0]) < 360


HEAD = """##fileformat=VCFv4.3
##contig=<ID=c,length=60>
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="Quality">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts"""


def vcf(path: Path, *lines: str) -> Path:
    rows = [f"c\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\tGT:GQ\t{call}" for pos, ref, alt, call in map(str.split, lines)]
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    pysam.tabix_index(str(path), preset="vcf", force=True)
    return Path(f"{path}.gz")


def test_calls_are_compared_by_their_haplotypes(tmp_path: Path) -> None:
    (tmp_path / "ref.fa").write_text(">c\nACGTACGTTTTTACGATCAGGATTACAGACCCATGCATTTGACCAGATAGACATTACAGAT\n")
    (tmp_path / "confident.bed").write_text("c\t0\t50\n")
    truth = vcf(
        tmp_path / "truth.vcf", "3 G C 0|1:.", "7 G GTT 1|1:.", "16 A G,T 1|2:.", "27 A T 0|1:.", "55 T A 0|1:."
    )
    # an insertion written elsewhere in its run; two alleles in two records; a genotype that is wrong; one too many
    query = vcf(
        tmp_path / "query.vcf",
        *("3 G C 0/1:50", "10 T TTT 1/1:40", "16 A G 0/1:30", "16 A T 0/1:20", "27 A T 1/1:10", "30 C A 0/1:5"),
    )
    case = Case(tmp_path, tmp_path / "ref.fa", "c", 1, 60)
    assert truth == case.truth
    counts, quality, right = calling.compared(case, query, case.confident)
    assert counts["SNP"] == Counts(tp=2, fn=1, right=3, fp=2)  # records of the truth, alleles of the calls
    assert counts["INDEL"] == counts["ins 1-3"] == Counts(1, 0, 1, 0)
    assert {int(one) for one in quality[right]} == {50, 40, 30, 20}
    assert {int(one) for one in quality[~right]} == {10, 5}
    assert (counts["SNP"].recall, counts["SNP"].precision) == (pytest.approx(2 / 3), 0.6)
    assert counts["SNP"].f1 == pytest.approx(2 / (3 / 2 + 5 / 3))
