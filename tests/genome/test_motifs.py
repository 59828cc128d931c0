"""Changes of motif scores against a loop over sites, strands and alleles; the file of motifs that the package ships."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genome.motifs import HALF, STEPS, Motifs, bound, by_family, changes, jaspar
from genodl_spark.genome.surroundings import Surroundings

FLANK = 12
OTHER = dict(zip("ACGTN", "TGCAN", strict=True))


def of_rows(rows: list[tuple[str, str, str, str]], flank: int = FLANK) -> Surroundings:
    return Surroundings.of(*(pa.array(column, pa.string()) for column in zip(*rows, strict=True)), flank)


def some_motifs(seed: int = 0) -> Motifs:
    """Random ones of 1 to 7 positions, two of a width."""
    draw = np.random.default_rng(seed)
    widths = [3, 1, 7, 3, 5]
    weights = draw.integers(-400, 128, (sum(widths), 4)).astype(np.int16)
    ends = np.concatenate([[0], np.cumsum(widths)])
    members = np.array([[0, 0], [1, 1], [2, 1], [3, 0], [3, 1]], np.int32)
    return Motifs(weights, ends, list("abcde"), list("vwxyz"), ["one", "two"], members)


def bound_naively(before: str, allele: str, after: str, matrix: np.ndarray) -> float:
    """By its definition: every site of the sequence on both strands that reaches into the allele, or lies around it."""
    text, width, total = before + allele + after, len(matrix), 0.0
    for start in range(-width, len(text) + width):
        end = start + width
        begins, ends = len(before), len(before) + len(allele)
        if not (start < max(ends, begins + 1) and end > begins) or (not allele and not (start < begins < end)):
            continue
        site = "".join(text[i] if 0 <= i < len(text) else "N" for i in range(start, end))
        for strand in (site, "".join(OTHER[base] for base in reversed(site))):
            bits = sum(int(row["ACGT".index(base)]) for row, base in zip(matrix, strand, strict=True) if base != "N")
            total += 2.0 ** (bits / STEPS - HALF)
    return float(np.log1p(total))


ALLELES = st.text("ACGTN", max_size=4).map(lambda text: text or "-")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text("ACGTN", max_size=FLANK), ALLELES, ALLELES, st.text("ACGTN", max_size=FLANK)),
                min_size=1, max_size=6))  # fmt: skip
def test_changes_are_those_of_a_loop_over_sites(rows: list[tuple[str, str, str, str]]) -> None:
    motifs = some_motifs()
    change, before = changes(of_rows(rows), motifs)
    assert change.dtype == before.dtype == np.float32
    for row, (left, ref, alt, right) in enumerate(rows):
        for m in range(len(motifs)):
            matrix = motifs.weights[motifs.ends[m] : motifs.ends[m + 1]]
            of = [bound_naively(left, "" if allele == "-" else allele, right, matrix) for allele in (ref, alt)]
            assert before[row, m] == pytest.approx(of[0], abs=1e-5)
            assert change[row, m] == pytest.approx(of[1] - of[0], abs=2e-5)


def test_a_site_that_is_lost_and_one_that_is_made() -> None:
    weights = np.full((4, 4), -400, np.int16)
    weights[np.arange(4), [3, 0, 3, 0]] = 120  # TATA, which is its own reverse complement
    motifs = Motifs(weights, np.array([0, 4]), ["t"], ["TBP"], ["TATA"], np.array([[0, 0]], np.int32))
    strong = np.log1p(2 * 2 ** (4 * 120 / STEPS - HALF))
    rows = [("GGTA", "T", "C", "AGG"), ("GGTA", "C", "T", "AGG"), ("GGTA", "C", "-", "TAGG"), ("GGG", "C", "A", "GGG")]
    change, before = changes(of_rows(rows), motifs)
    np.testing.assert_allclose(before[:, 0], [strong, 0, 0, 0], atol=0.01)
    np.testing.assert_allclose(change[:, 0], [-strong, strong, strong, 0], atol=0.01)
    assert by_family(change, motifs).tolist() == change.tolist()


def test_no_bit_depends_on_what_else_is_scored() -> None:
    """Alone, in pieces of other sizes and in another order: the same float32."""
    draw = np.random.default_rng(1)
    motifs, reach = jaspar(), int(jaspar().widths.max()) - 1
    codes = draw.integers(-1, 4, (23, 2 * reach + 1)).astype(np.int8)
    whole = bound(codes, reach, motifs)
    for rows in (np.arange(7), np.array([22, 3, 3, 11]), np.array([5])):
        assert bound(codes[rows], reach, motifs).tobytes() == whole[rows].tobytes()
    other = bound(np.where(codes < 0, codes, 3 - codes)[:, ::-1], reach, motifs)
    np.testing.assert_allclose(other, whole, rtol=1e-6, atol=1e-6)  # either strand may be read


def test_families_are_means_over_their_motifs() -> None:
    motifs = some_motifs()
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    assert by_family(x, motifs).tolist() == [[1.5, 2.0], [6.5, 7.0]]


def test_the_motifs_of_the_package() -> None:
    """Counts as JASPAR 2024 has them, and and what four factors are known to bind."""
    motifs = jaspar()
    assert (len(motifs), len(set(motifs.ids)), len(motifs.families)) == (879, 879, 78)
    assert motifs.weights.dtype == np.int16 and motifs.ends[-1] == len(motifs.weights) == 8870
    assert np.abs(motifs.weights).max() * int(motifs.widths.max()) < 1 << 24  # whole numbers that float32 holds
    # of each place: shares of bases, which add up to one
    np.testing.assert_allclose((2 ** (motifs.weights / STEPS) / 4).sum(1), 1, atol=0.02)
    best = {
        id_: "".join("ACGT"[base] for base in motifs.weights[motifs.ends[m] : motifs.ends[m + 1]].argmax(1))
        for m, id_ in enumerate(motifs.ids)
    }
    known = {"MA0079.5": "GGGGCGGGG", "MA0108.3": "TATAAAA", "MA0139.2": "GCCACCAGGGGGCGC", "MA0148.5": "GTAAACAT"}
    assert {id_: best[id_] for id_ in known} == known  # SP1, TBP, CTCF, FOXA1
    named = dict(zip(motifs.ids, motifs.names, strict=True))
    assert [named[id_] for id_ in known] == ["SP1", "TBP", "CTCF", "FOXA1"]
    of = {motifs.ids[m]: motifs.families[k] for m, k in motifs.members.tolist()}
    assert of["MA0139.2"] == "More than 3 adjacent zinc fingers" and of["MA0148.5"] == "FOX"
    folder = resources.files("genodl_spark.genome")
    assert "CC BY 4.0" in folder.joinpath("motifs.NOTICE").read_text()
    assert len(folder.joinpath("motifs.npz").read_bytes()) < 100_000
