"""Motifs found in attributions: planted ones, through a network that was taught them and through ones that were not;
chance, strands, the order of rows; and the files that they are written to."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from genodl_spark.learning.explain import meme, motifs
from genodl_spark.learning.explain.motifs import Motif
from tests.learning.explain.planted import LENGTH, MOTIFS, explained, network, pearson_of_logos, sequences, trained


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows to learn from, with labels; and others, with what is planted in them."""
    codes, label, _ = sequences(4000, 0)
    other, _, planted = sequences(300, 9)
    return codes, label, other, planted


def found(codes: np.ndarray, contributions: np.ndarray, either: bool = True) -> list[Motif]:
    return motifs.find(codes, contributions, np.arange(len(codes), dtype=np.uint64), either)[0]


def best_logos(made: list[Motif]) -> list[float]:
    return [max((pearson_of_logos(one.probabilities, motif) for one in made), default=0.0) for motif in MOTIFS]


def test_what_is_planted_is_found_and_without_learning_it_is_not(data: tuple[np.ndarray, ...]) -> None:
    codes, label, other, planted = data
    taught = trained(codes, label, 8)
    has = planted.any(1)
    base = planted[has].mean()
    for method in ("integrated_gradients", "deeplift"):
        made = explained(taught, other, method, 16)
        contributions = made.contributions.sum(1)
        assert (np.abs(made.error) <= 0.01 * np.abs(made.output - made.reference) + 1e-4).all()
        assert average_precision_score(planted[has].ravel(), contributions[has].ravel()) >= 0.9
        of = found(other, contributions)
        raising = [one for one in of if one.sign > 0]
        assert min(best_logos(raising)) >= 0.95
        assert len(raising) == 2 and all(40 <= one.entities <= 100 for one in raising)
        assert {one.consensus.strip("N") for one in raising} <= {"AGATAAGG", "AGATAAG", "TGACTCAC", "TGACTCA"}
    # The same network before it has learnt, and one that has learnt labels of other rows.
    shuffled = trained(codes, np.random.default_rng(3).permutation(label), 3)
    for untaught in (network(), shuffled):
        contributions = explained(untaught, other, "deeplift", 6).contributions.sum(1)
        assert average_precision_score(planted[has].ravel(), contributions[has].ravel()) <= 1.3 * base
        assert max(best_logos(found(other, contributions))) < 0.8


def handmade(rows: int = 200, seed: int = 0, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences with AGATAAGG in each, in every second one on the other strand, contributions of 1 at its bases beside
    noise, and where it begins."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 4, (rows, LENGTH)).astype(np.int8)
    contributions = generator.normal(0, noise, codes.shape)
    word = MOTIFS[0].argmax(1)
    start = generator.integers(5, LENGTH - 15, rows)
    for i, at in enumerate(start):
        codes[i, at : at + 8] = word if i % 2 else 3 - word[::-1]
        contributions[i, at : at + 8] += 1.0
    return codes, contributions, start


def test_strands_are_one_where_they_do_not_matter() -> None:
    codes, contributions, start = handmade()
    (one,) = found(codes, contributions)
    order = np.argsort(one.row)
    assert one.consensus in ("AGATAAGG", "CCTTATCT") and one.seqlets == one.entities == 200
    np.testing.assert_array_equal(one.row[order], np.arange(200))
    np.testing.assert_array_equal(one.start[order], start)
    forward = one.consensus == "AGATAAGG"
    np.testing.assert_array_equal(one.turned[order], (np.arange(200) % 2 == 0) == forward)
    assert one.probabilities.max(1).min() > 0.99 and np.allclose(one.contributions.sum(1), 1.0, atol=0.05)
    np.testing.assert_allclose(one.probabilities.sum(1), 1.0)
    assert one.information.min() > 1.9
    two = found(codes, contributions, either=False)
    assert sorted(motif.consensus for motif in two) == ["AGATAAGG", "CCTTATCT"]
    assert all(motif.seqlets == 100 and not motif.turned.any() for motif in two)


def test_what_lowers_the_output_is_a_motif_too() -> None:
    codes, contributions, _ = handmade()
    (one,) = found(codes, -contributions)
    assert one.sign == -1 and one.contributions.sum(1).max() < 0


def test_the_order_of_rows_and_their_padding_do_not_matter() -> None:
    codes, contributions, _ = handmade(noise=0.3)
    rows = np.random.default_rng(5).permutation(len(codes)).astype(np.uint64)
    whole, *thresholds = motifs.find(codes, contributions, rows, True)
    order = np.random.default_rng(1).permutation(len(codes))
    again, *others = motifs.find(codes[order], contributions[order], rows[order], True)
    padded = np.pad(codes, ((0, 0), (0, 9)), constant_values=-1), np.pad(contributions, ((0, 0), (0, 9)))
    wider, *wide = motifs.find(*padded, rows, True)
    assert thresholds == others == wide and len(whole) == len(again) == len(wider) >= 1
    for one, other, third in zip(whole, again, wider, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        np.testing.assert_array_equal(one.probabilities, third.probabilities)
        assert set(zip(one.row, one.start, strict=True)) == set(zip(order[other.row], other.start, strict=True))


def test_noise_has_no_motifs() -> None:
    generator = np.random.default_rng(2)
    codes = generator.integers(0, 4, (300, 50)).astype(np.int8)
    assert found(codes, generator.normal(size=codes.shape)) == []
    assert found(codes, np.zeros(codes.shape)) == []
    assert found(codes[:, :5], np.ones((300, 5))) == []
    assert found(codes[:0], np.zeros((0, 50))) == []


def test_thresholds_are_those_of_chance() -> None:
    sums = np.arange(1.0, 101.0)[None]
    chance = np.array([[50.0, 20.0, -3.0]])  # at most one by chance of 51 windows, two of 81
    assert motifs.threshold(sums, chance) == 1.0
    assert motifs.threshold(sums, np.full((1, 10), 80.5)) == 81.0
    assert motifs.threshold(sums, np.array([[90.0] * 6])) == 91.0  # six of a hundred would be too many
    assert motifs.threshold(sums, np.full((1, 10), 200.0)) == float("inf")
    assert motifs.threshold(-sums, chance) == float("inf")


def test_windows_do_not_overlap_and_have_no_unknown_base() -> None:
    codes = np.zeros((1, 40), np.int8)
    codes[0, 15] = -1
    values = np.ones((1, 40))
    sums = motifs._window_sums(values, codes)
    assert np.isnan(sums[0, 15 - motifs.CORE + 1 : 16]).all() and np.isfinite(sums).sum() == 32 - motifs.CORE
    row, middle = motifs._peaks(sums, 0.5)
    middle = np.sort(middle)
    assert (np.diff(middle) >= motifs.CORE).all() and len(middle) >= 3 and (row == 0).all()


@pytest.mark.parametrize(
    ("shares", "letter"),
    [
        ([0.9, 0.05, 0.03, 0.02], "A"),
        ([0.45, 0.05, 0.45, 0.05], "R"),
        ([0.55, 0.30, 0.1, 0.05], "M"),
        ([0.4, 0.3, 0.2, 0.1], "N"),
        ([0, 0, 0, 1], "T"),
    ],
)
def test_a_consensus_is_written_by_iupac(shares: list[float], letter: str) -> None:
    nothing = np.zeros(0, np.int64)
    assert Motif(1, np.array([shares]), np.array([shares]), nothing, nothing, nothing).consensus == letter


def test_meme_format_reads_back() -> None:
    text = meme.text([("positive_1", "TGA", MOTIFS[1], 12)], [0.3, 0.2, 0.2, 0.3], True)
    lines = text.splitlines()
    assert lines[0] == "MEME version 5" and "ALPHABET= ACGT" in lines and "strands: + -" in lines
    assert lines[lines.index("Background letter frequencies") + 1].split()[1::2] == [
        f"{f:.6f}" for f in (0.3, 0.2, 0.2, 0.3)
    ]
    at = lines.index("MOTIF positive_1 TGA")
    assert lines[at + 1] == "letter-probability matrix: alength= 4 w= 8 nsites= 12 E= 0"
    read = np.array([[float(cell) for cell in line.split()] for line in lines[at + 2 : at + 10]])
    np.testing.assert_allclose(read, MOTIFS[1] / MOTIFS[1].sum(1, keepdims=True), atol=1e-6)
    assert (np.abs(read.sum(1) - 1) < 1e-9).all()
