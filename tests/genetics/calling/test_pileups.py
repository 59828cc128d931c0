"""Candidates as packed rows: held against what pysam says of the same reads, base by base, and against sums over all
pairs of haplotypes; the order of reads and the borders of tiles do not matter."""

from __future__ import annotations

from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import numpy as np
import pysam
import pytest

from genodl_spark.formats.alignment import region_bam
from genodl_spark.genetics.calling import pileups
from genodl_spark.genetics.calling.alleles import Allele, piled
from genodl_spark.genetics.calling.haplotypes import Evidence, Window, evidence
from genodl_spark.genetics.calling.pileups import COUNTS, EVIDENCE, IMAGE, WIDTH, Candidates
from genodl_spark.genetics.calling.reads import Reads, of_bam
from genodl_spark.native import kernels
from tests.genetics.calling import diploid, sequencing
from tests.genetics.calling.diploid import Rates, Variant
from tests.genetics.calling.sequencing import Machine

AT = int(np.prod(COUNTS))
# fragments so long that mates do not overlap: qualities stay those of the file
APART = Machine(depth=14, length=80, insert=400, spread=20, worse=0.3, levels=(37, 25, 12))
LENGTH = 9_000


@pytest.fixture(scope="module")
def reference() -> str:
    random = np.random.default_rng(3)
    return "".join(random.choice(list("ACGT"), LENGTH))


@pytest.fixture(scope="module")
def bam(reference: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    genome = diploid.genome("c", reference, 500, 8_500, 1, Rates(snv=1 / 120, indel=1 / 150, margin=300))
    found = sequencing.sequenced(genome, 5, APART)
    path = tmp_path_factory.mktemp("pileups") / "reads.bam"
    return sequencing.write(path, {"c": found}, sequencing.header({"c": reference}, {}))


@pytest.fixture(scope="module")
def reads(bam: Path) -> Reads:
    return of_bam(region_bam(str(bam), "c", 1, LENGTH))


@pytest.fixture(scope="module")
def found(reads: Reads, reference: str) -> Candidates:
    return pileups.of_tile(reads, letters(reference), 0, 0, LENGTH)


def letters(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def parts(row: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    image = row[AT : AT + int(np.prod(IMAGE))]
    told = dict(zip(EVIDENCE, row[AT + image.size :].tolist(), strict=True))
    return row[:AT].reshape(COUNTS), image.reshape(IMAGE), told


def shown(read: pysam.AlignedSegment, reference: str, centre: int) -> np.ndarray:
    """uint8 (6, 41) of a read, without its support, by pysam alone."""
    made = np.zeros((6, IMAGE[2]), np.uint8)
    left, pairs, last = centre - IMAGE[2] // 2, read.get_aligned_pairs(with_cigar=True), None
    assert read.query_sequence is not None
    assert read.query_qualities is not None
    for number, (base, place, how) in enumerate(pairs):
        if place is None:
            before = pairs[number - 1][1] if number else None
            if how == sequencing.INSERTION and before is not None and 0 <= before - left < IMAGE[2]:
                made[5, before - left] |= 2
            last = base
            continue
        column = place - left
        if base is not None:
            last = base
        if 0 <= column < IMAGE[2]:
            letter = None if base is None else read.query_sequence[base]
            made[0, column] = 6 if letter is None else "ACGT".find(letter) + 1 or 5
            made[1, column] = read.query_qualities[last]
            made[2, column] = read.mapping_quality
            made[3, column] = 2 if read.is_reverse else 1
            made[5, column] |= letter is None or letter != reference[place]
    return made


def test_images_are_the_reads_as_pysam_has_them(bam: Path, found: Candidates, reference: str) -> None:
    kinds = {np.sign(allele.change) for allele in found.alleles}
    assert kinds == {-1, 0, 1}
    with pysam.AlignmentFile(str(bam)) as file:
        for allele, row in list(zip(found.alleles, found.x, strict=True))[::3]:
            pos = pileups.position(allele)
            image = parts(row)[1]
            expected = {
                shown(read, reference, pos).tobytes()
                for read in file.fetch("c", max(allele.start - 40, 0), allele.end + 40)
            }
            left = pos - IMAGE[2] // 2
            codes = ["ACGT".find(letter) + 1 for letter in reference[left : left + IMAGE[2]]]
            assert image[0, 0].tolist() == codes
            assert not image[1:, 0].any()
            rows = np.flatnonzero(image[4].any(1))
            assert len(rows) > 0
            for number in rows:
                own = image[:, number].copy()
                support = own[4][own[0] > 0]
                assert len(set(support.tolist())) == 1
                own[4] = 0
                assert own.tobytes() in expected
            strength = image[4].max(1)[rows].astype(int)
            assert (np.diff(strength) <= 0).all()


def test_counts_are_those_of_the_pileup(found: Candidates, reads: Reads, reference: str) -> None:
    pileup = piled(reads, letters(reference), 0, 10)
    for allele, row in zip(found.alleles, found.x, strict=True):
        pos = pileups.position(allele)
        assert np.array_equal(parts(row)[0], np.minimum(pileup.counts[pos - 12 : pos + 13], 255))


def test_evidence_of_a_planted_site(reference: str, tmp_path: Path) -> None:
    pos = 4_000
    ref = reference[pos]
    alt = next(base for base in "ACGT" if base != ref)
    made = sequencing.over(Variant(pos, ref, (alt,), (0, 1)), reference, 12, 9, 1, Machine(levels=(37,), worse=0.0))
    path = sequencing.write(tmp_path / "r.bam", {"c": made}, sequencing.header({"c": reference}, {}))
    there = of_bam(region_bam(str(path), "c", 1, LENGTH))
    found = pileups.of_tile(there, letters(reference), 0, 0, LENGTH)
    at = [pileups.written(allele, letters(reference), 0) for allele in found.alleles].index((pos, ref, alt))
    told = parts(found.x[at])[2]
    assert (told["molecules"], told["molecules_for"], told["molecules_against"]) == (21, 12, 9)
    assert told["share"] == round(255 * 12 / 21)
    reverse = sum(read.flag & 16 > 0 for read in made if "alt" in read.name)
    assert (told["for_forward"], told["for_reverse"]) == (12 - reverse, reverse)
    assert (told["quality_for"], told["quality_against"], told["mapping_for"]) == (37, 37, 60)
    assert (told[f"reference_{ref}"], told[f"allele_{alt}"], told["change"]) == (255, 255, 128)
    assert told["clipped_for"] == 0
    assert told["likelihood_1"] == 0
    assert told["likelihood_0"] > 200
    assert told["starts_for"] == len({read.pos for read in made if "alt" in read.name})
    ends = [min(pos - read.pos, read.end - 1 - pos) for read in made if "alt" in read.name]
    assert told["to_end_for"] == round(np.mean(ends))
    assert found.posterior[at].argmax() == 1


def test_copies_are_sums_over_all_pairs_of_haplotypes() -> None:
    random = np.random.default_rng(0)
    alleles = (Allele(10, 11, b"A"), Allele(14, 14, b"CC"), Allele(14, 15, b"G"))
    carries = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
    proof = Evidence(carries, random.random((7, 5)) ** 3 + 1e-3, np.full(7, 2, np.int8))
    rates = [1e-3, 2e-4, 1e-3]
    logs, chances = pileups.copies(Window(10, 15, alleles), proof, rates)
    joint = np.zeros((3, 3))
    for a, b in combinations_with_replacement(range(5), 2):
        number = carries[a].astype(int) + carries[b]
        prior = np.prod([(1 - 1.5 * r, r, r / 2)[n] for r, n in zip(rates, number, strict=True)])
        made = prior * np.prod(0.5 * (proof.likely[:, a] + proof.likely[:, b]))
        for allele, n in enumerate(number):
            joint[allele, n] += made
    assert np.allclose(chances, joint / joint.sum(1, keepdims=True))
    own = np.array([[1 - 1.5 * r, r, r / 2] for r in rates])
    with np.errstate(divide="ignore"):
        expected = np.log(joint / own)
    assert np.allclose(logs - logs[:, :1], expected - expected[:, :1])


def test_neither_the_order_of_reads_nor_the_borders_of_tiles_matter(
    found: Candidates, reads: Reads, reference: str
) -> None:
    order = np.lexsort((np.random.default_rng(1).random(len(reads)), reads.pos))
    turned = pileups.of_tile(reads.only(order), letters(reference), 0, 0, LENGTH)
    assert turned.alleles == found.alleles
    assert np.array_equal(turned.x, found.x)
    cut = [0, 2_000, 2_001, 5_500, LENGTH]
    pieces = [pileups.of_tile(reads, letters(reference), 0, a, b) for a, b in pairwise(cut)]
    assert [allele for piece in pieces for allele in piece.alleles] == found.alleles
    assert np.array_equal(np.concatenate([piece.x for piece in pieces]), found.x)
    assert len(found.x) > 60
    assert found.x.shape[1] == WIDTH


def test_of_many_reads_a_sample_by_name_is_shown(reference: str, tmp_path: Path) -> None:
    pos = 4_000
    variant = Variant(pos, reference[pos], ("A" if reference[pos] != "A" else "C",), (0, 1))
    made = sequencing.over(variant, reference, 60, 60, 1)
    path = sequencing.write(tmp_path / "r.bam", {"c": made}, sequencing.header({"c": reference}, {}))
    there = of_bam(region_bam(str(path), "c", 1, LENGTH))
    window = Window(pos, pos + 1, (Allele(pos, pos + 1, variant.alts[0].encode()),))
    pileup = piled(there, letters(reference), 0, 10)
    x, _ = pileups.of_window(window, evidence(window, there, letters(reference), 0), there, pileup)
    image = parts(x[0])[1]
    assert image[4].any(1).sum() == IMAGE[1] - 1
    first = there.only(np.argsort(there.name)[: IMAGE[1] - 1])
    assert sorted(image[2].max(1)[1:]) == sorted(first.mapq)
    strands = np.bincount(image[3].max(1)[1:], minlength=3)
    assert strands[2] == (first.flag & 16 > 0).sum()


def test_molecules_are_kept_whole_by_a_share_of_their_names(reads: Reads) -> None:
    some = pileups.thinned(reads, 6, 12, 1)
    kept = set(some.name.tolist())
    assert set(reads.name.tolist()) - kept == set(reads.only(~np.isin(reads.name, some.name)).name.tolist())
    assert (np.isin(reads.name, some.name).sum()) == len(some)
    molecules = len(np.unique(reads.name))
    assert abs(len(kept) - molecules / 2) < 3 * np.sqrt(molecules / 4)
    assert set(pileups.thinned(reads, 6, 12, 2).name.tolist()) != kept
    assert len(pileups.thinned(reads, 30, 12, 1)) == len(reads)
    later = reads.only(reads.pos > 4_000)
    assert set(pileups.thinned(later, 6, 12, 1).name.tolist()) == kept & set(later.name.tolist())
    assert pileups.mean_depth(reads, 2_000, 7_000) == pytest.approx(14, rel=0.15)


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("GATTTTTCG", 2, [5, 2, 1, 1, 1, 1]),
        ("GATTTTTCG", 7, [5, 2, 1, 1, 1, 1]),
        ("GCACACACAT", 1, [1, 4, 1, 2, 1, 1]),
        ("GATCAGCAGCAGT", 4, [1, 1, 3, 1, 1, 1]),
    ],
)
def test_units_around_a_boundary(text: str, at: int, expected: list[int]) -> None:
    units = np.zeros(6, np.uint8)
    kernels.call("units", letters(text), len(text), at, units)
    assert units.tolist() == expected
