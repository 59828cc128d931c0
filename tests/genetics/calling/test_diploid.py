"""Simulated genomes: their truth is what was planted, as bcftools reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pytest

from tests.genetics.calling import diploid
from tests.genetics.calling.diploid import Genome, Rates, Variant

START, END = 2_000, 198_000


def reference(length: int = 200_000) -> str:
    """Random bases with planted repeats and two gaps."""
    random = np.random.default_rng(0)
    bases = random.choice(list("ACGT"), length)
    for period in range(1, 7):
        for at in random.integers(0, length - 100, 40):
            copies = int(random.integers(4, 12))
            bases[at : at + period * copies] = np.tile(random.choice(list("ACGT"), period), copies)
    bases[:1_000] = "N"
    bases[90_000:95_000] = "N"
    return "".join(bases)


@pytest.fixture(scope="module")
def of() -> Genome:
    return diploid.genome("c", reference(), START, END, seed=4, rates=Rates(indel=1 / 400, multi_allelic=0.1))


@pytest.fixture(scope="module")
def folder(of: Genome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("genome")
    (made / "ref.fa").write_text(f">c\n{of.reference}\n")
    pysam.faidx(str(made / "ref.fa"))
    diploid.write_truth(of, made, {"c": len(of.reference)}, "S")
    return made


def test_the_truth_applied_to_the_reference_is_the_haplotypes(of: Genome, folder: Path) -> None:
    for which in (0, 1):
        found = pysam.bcftools.consensus(
            *("-H", str(which + 1), "-f", str(folder / "ref.fa"), str(folder / "truth.vcf.gz"))
        )
        applied = "".join(found.split("\n")[1:])
        bases, places = of.haplotype(which)
        assert applied == of.reference[:START] + bases.tobytes().decode() + of.reference[END:]
        kept = places[places >= 0]
        assert (np.diff(kept) > 0).all()
        lost = sum(max(0, len(one.ref) - len(one.allele(which))) for one in of.variants)
        assert len(kept) == END - START - lost
        changed = sum(len(taken) == len(put) == 1 for _, taken, put in (one.edit(which) for one in of.variants))
        here = np.frombuffer(of.reference.encode(), np.uint8)
        assert (bases[places >= 0] != here[kept]).sum() == changed


def test_the_truth_is_normalised_and_sorted(of: Genome, folder: Path) -> None:
    normal = pysam.bcftools.norm("-f", str(folder / "ref.fa"), str(folder / "truth.vcf.gz"))
    written = [line for line in normal.split("\n") if line and line[0] != "#"]
    assert written == [line for line in diploid.records(of, {"c": 1}, "S") if line[0] != "#"]
    assert len(written) == len(of.variants) > 500


def test_variants_keep_apart_from_gaps_and_ends_and_each_other(of: Genome) -> None:
    assert of.confident() == [(START, 90_000), (95_000, END)]
    starts, ends = (np.array([getattr(one, part) for one in of.variants]) for part in ("pos", "end"))
    assert (starts[1:] > ends[:-1]).all()
    assert starts.min() >= START + 1000
    assert ends.max() <= END - 1000
    assert not ((ends > 89_950) & (starts < 95_050)).any()
    assert ((starts[1:] - ends[:-1]) < 10).sum() > 10  # clusters


def test_rates_are_those_asked_for() -> None:
    of = diploid.genome("c", reference(), START, END, 1, Rates(snv=1 / 300, indel=1 / 150, clusters=0, long=0.5))
    snvs = [one for one in of.variants if {*map(len, (one.ref, *one.alts))} == {1}]
    indels = [one for one in of.variants if one not in snvs]
    room = END - START - 2000 - 5100
    assert len(snvs) == pytest.approx(room / 300, rel=0.2)
    assert len(indels) == pytest.approx(room / 150, rel=0.2)
    both = [one for one in snvs if len(one.alts) == 1]
    assert np.mean([sum(one.genotype) == 1 for one in both]) == pytest.approx(2 / 3, abs=0.08)
    changes = [diploid.TRANSITION[one.ref] == one.alts[0] for one in both]
    assert np.mean(changes) == pytest.approx(2 / 3, abs=0.08)
    size = np.array([len(one.alts[0]) - len(one.ref) for one in indels])
    assert np.mean(size > 0) == pytest.approx(0.5, abs=0.08)
    for sign in (1, -1):
        assert np.isin(np.arange(8, 21), sign * size).all()
    assert np.abs(size).max() == diploid.LONGEST
    assert len({one.pos for one in of.variants if len(one.alts) == 2}) > 5


def test_one_seed_gives_one_genome() -> None:
    first, again, other = (diploid.genome("c", reference(60_000), START, 58_000, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.variants != other.variants


@pytest.mark.parametrize(
    ("variant", "edits"),
    [
        (Variant(5, "A", ("C",), (0, 1)), [(5, "", ""), (5, "A", "C")]),
        (Variant(5, "ACT", ("A", "AGGCT"), (1, 2)), [(6, "CT", ""), (6, "", "GG")]),
        (Variant(5, "CAA", ("CA", "C"), (2, 1)), [(6, "AA", ""), (6, "A", "")]),
    ],
)
def test_each_allele_of_a_site_is_an_edit_by_itself(variant: Variant, edits: list[tuple[int, str, str]]) -> None:
    assert [variant.edit(which)[1:] for which in (0, 1)] == [edit[1:] for edit in edits]
    changes = [edit[0] for edit in edits if edit[1] != edit[2]]
    assert [place for place, taken, put in map(variant.edit, (0, 1)) if taken != put] == changes


@pytest.mark.parametrize(
    ("pos", "alleles", "expected"),
    [
        (5, ["C", "CC"], (3, ["G", "GC"])),  # GCCC: an inserted C belongs before the first
        (3, ["GCC", "GC"], (3, ["GC", "G"])),
        (0, ["AAG", "AAT"], (2, ["G", "T"])),
        (0, ["A", "AA"], (0, ["A", "AA"])),  # there is nothing to the left
        (3, ["GC", "GCC", "G"], (3, ["GC", "GCC", "G"])),  # two alleles of one site move together
        (5, ["CC", "CCC", "C"], (3, ["GC", "GCC", "G"])),
    ],
)
def test_normalised_alleles(pos: int, alleles: list[str], expected: tuple[int, list[str]]) -> None:
    assert diploid.normalised("AAGGCCCT", pos, alleles) == expected


def test_repeats_are_found_once_by_their_smallest_unit() -> None:
    assert diploid.repeats("GTAAAAAACGACGACGTTNNNNNNNNN") == [(2, 8, 1), (7, 16, 3)]
