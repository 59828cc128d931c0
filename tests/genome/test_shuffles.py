"""Dinucleotide shuffles: what they keep, and that all sequences that keep it come equally often."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from genodl_spark.core.splitmix import keys_of
from genodl_spark.genome.bases import UNKNOWN_BASE, base_codes, kmer_counts, spelled
from genodl_spark.genome.shuffles import shuffled
from tests.fuzz.shuffles import slow


def _rows(*texts: str) -> np.ndarray:
    return np.stack([base_codes(np.frombuffer(text.encode(), np.uint8)) for text in texts])


def _random(rows: int, length: int, seed: int, p: list[float] | None = None) -> np.ndarray:
    return np.random.default_rng(seed).choice(4, (rows, length), p=p).astype(np.int8)


def _of_one(text: str, n: int) -> Counter[str]:
    """How often each sequence came, by the keys 0 to n - 1."""
    found = shuffled(np.repeat(_rows(text), n, 0), np.arange(n, dtype=np.uint64))
    return Counter(spelled(row) for row in found)


def _pairs(text: str) -> Counter[str]:
    return Counter(text[i : i + 2] for i in range(len(text) - 1))


def _alike(text: str) -> list[str]:
    """All sequences with the same bases, ends and dinucleotides."""
    inner = {"".join(some) for some in permutations(text[1:-1])}
    return [made for some in sorted(inner) if _pairs(made := text[0] + some + text[-1]) == _pairs(text)]


_batches = st.tuples(st.integers(0, 4), st.integers(0, 70)).flatmap(
    lambda shape: st.tuples(
        st.just(shape),
        st.lists(
            st.one_of(st.integers(0, 1), st.integers(0, 3), st.integers(-1, 3)),
            min_size=shape[0] * shape[1],
            max_size=shape[0] * shape[1],
        ),
        st.lists(st.integers(0, 2**64 - 1), min_size=shape[0], max_size=shape[0]),
    )
)


@settings(max_examples=300, deadline=None)
@given(_batches)
def test_what_a_shuffle_keeps(batch: tuple[tuple[int, int], list[int], list[int]]) -> None:
    """Its shape, what is unknown, the ends of each run of known bases and every dinucleotide, those with an unknown
    base among them."""
    shape, values, keys = batch
    codes = np.array(values, np.int8).reshape(shape)
    before = codes.copy()
    found = shuffled(codes, np.array(keys, np.uint64))
    assert (codes == before).all()
    assert (found.shape, found.dtype) == (codes.shape, np.int8)
    assert ((found < 0) == (codes < 0)).all()
    for row, original, key in zip(found.tolist(), codes.tolist(), keys, strict=True):
        assert row == slow(original, key)
        assert Counter(pairwise(row)) == Counter(pairwise(original))
        for i, base in enumerate(original):
            if i in (0, len(row) - 1) or min(original[i - 1], original[i + 1]) < 0:
                assert row[i] == base


@pytest.mark.parametrize("length", [101, 1001, 20_000])
def test_counts_of_long_sequences(length: int) -> None:
    codes = _random(300_000 // length, length, 1, [0.4, 0.1, 0.2, 0.3])
    found = shuffled(codes, keys_of(np.arange(len(codes))))
    for k in (1, 2):
        assert (kmer_counts(found, k) == kmer_counts(codes, k)).all()
    assert (kmer_counts(found, 3) != kmer_counts(codes, 3)).any(1).all()
    assert (found[:, [0, -1]] == codes[:, [0, -1]]).all()


@pytest.mark.parametrize(
    "text",
    [
        "AACA",
        "AACAG",
        "TTCGAAGTAT",  # begins and ends with the same base
        "CAAGACGCCC",
        "TTACGGTCTG",
        "CCCAGCGACA",
        "CGACTCATGG",
        "AAACAAGAAT",  # loops, and a base that only the end has
    ],
)
def test_every_sequence_comes_equally_often(text: str) -> None:
    alike = _alike(text)
    assert len(alike) >= (2 if len(text) < 10 else 28)
    n = 2000 * len(alike)
    came = _of_one(text, n)
    assert came.keys() == set(alike)
    assert stats.chisquare([came[one] for one in alike]).pvalue > 0.001


def test_keys_that_differ_by_a_step_of_the_generator() -> None:
    """Such keys would share their draws if a key were the state itself."""
    step = 0x9E3779B97F4A7C15
    keys = np.array([i * step % 2**64 for i in range(40_000)], np.uint64)
    found = shuffled(np.repeat(_rows("TTACGGTCTG"), len(keys), 0), keys)
    numbers = {text: i for i, text in enumerate(_alike("TTACGGTCTG"))}
    place = np.array([numbers[spelled(row)] for row in found])
    one_after_other = np.zeros((len(numbers), len(numbers)), int)
    np.add.at(one_after_other, (place[:-1], place[1:]), 1)
    assert stats.chisquare(one_after_other.ravel()).pvalue > 0.001


def test_a_row_depends_on_its_bases_and_its_key_alone() -> None:
    codes, keys = _random(200, 60, 2), keys_of(np.arange(200), 7, 3)
    found = shuffled(codes, keys)
    order = np.random.default_rng(3).permutation(200)
    assert (shuffled(codes[order], keys[order]) == found[order]).all()
    for cut in (1, 57, 199):
        parts = [shuffled(codes[part], keys[part]) for part in (slice(None, cut), slice(cut, None))]
        assert (np.concatenate(parts) == found).all()
    padded = np.pad(codes, ((0, 0), (5, 9)), constant_values=UNKNOWN_BASE)
    assert (shuffled(padded, keys)[:, 5:-9] == found).all()
    for strided in (np.asfortranarray(codes), np.repeat(codes, 2, 1)[:, ::2]):
        assert (shuffled(strided, np.repeat(keys, 2)[::2]) == found).all()


def test_other_keys_give_other_shuffles() -> None:
    codes = np.repeat(_random(1, 101, 4), 5000, 0)
    rows = np.arange(5000)
    keys = [keys_of(rows, seed, epoch) for seed in (0, 1, -1) for epoch in (0, 1)]
    assert len(np.unique(np.concatenate(keys))) == 6 * 5000
    assert (keys_of(rows[::-1], 0, 1) == keys[1][::-1]).all()
    found = [shuffled(codes, each) for each in keys]
    assert len(np.unique(np.concatenate(found), axis=0)) == 6 * 5000
    assert (shuffled(codes, np.full(5000, 9, np.uint64)) == shuffled(codes[:1], np.array([9], np.uint64))).all()


def test_unknown_bases_stay_and_part_what_is_shuffled() -> None:
    text = "NNTTACGGTCTGNCCCAGCGACANNNCGTNA"
    came = _of_one(text, 3000)
    assert len(came) > 1000
    assert all([i for i, base in enumerate(one) if base == "N"] == [0, 1, 12, 23, 24, 25, 29] for one in came)
    for run in (slice(2, 12), slice(13, 23)):
        assert {one[run] for one in came} == set(_alike(text[run]))
    assert {one[23:] for one in came} == {"NNNCGTNA"}
    odd = np.array([[0, 1, 0, 2, -2, 4, -128, 127, 1, 0]], np.int8)
    assert (shuffled(odd, np.zeros(1, np.uint64)) == odd).all()


def test_unknown_bases_part_independent_shuffles() -> None:
    text = "TTACGGTCTG"
    numbers = {one: i for i, one in enumerate(_alike(text))}
    table = np.zeros((len(numbers), len(numbers)), int)
    for one, n in _of_one(f"{text}N{text}", 20_000).items():
        table[numbers[one[:10]], numbers[one[11:]]] += n
    assert stats.chisquare(table.ravel()).pvalue > 0.001


@pytest.mark.parametrize("text", ["", "A", "CT", "GAC", "AAAAAAAAAAAA", "ACGT", "AAAAT", "ACACACA", "NNNN"])
def test_sequences_that_have_no_other_order(text: str) -> None:
    assert _of_one(text, 50) == {text: 50}


def test_no_rows() -> None:
    assert shuffled(np.zeros((0, 7), np.int8), np.zeros(0, np.uint64)).shape == (0, 7)


@pytest.mark.parametrize(
    ("codes", "keys"),
    [
        (np.zeros((2, 9), np.int8), np.zeros(1, np.uint64)),
        (np.zeros((2, 9), np.int64), np.zeros(2, np.uint64)),
        (np.zeros((2, 9), np.int8), np.zeros(2, np.int64)),
        (np.zeros(9, np.int8), np.zeros(9, np.uint64)),
    ],
)
def test_other_arrays_are_refused(codes: np.ndarray, keys: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected int8 \(rows, length\) and uint64 \(rows,\)"):
        shuffled(codes, keys)


@pytest.mark.parametrize("text", ["TTCGAAGTAT", "CCCAGCGACA", "AAACAAGAAT"])
def test_similarity_to_a_short_sequence_is_that_of_all(text: str) -> None:
    """Hamming similarity, on average over keys: that of the sequence to all that are alike."""
    codes, alike = _rows(text), (_rows(*_alike(text)) == _rows(text)).mean(1)
    n = 20_000
    found = (shuffled(np.repeat(codes, n, 0), np.arange(n, dtype=np.uint64)) == codes).mean(1)
    assert abs(found.mean() - alike.mean()) < 4 * alike.std() / n**0.5


@pytest.mark.parametrize("p", [[0.25, 0.25, 0.25, 0.25], [0.4, 0.1, 0.1, 0.4]])
def test_similarity_to_a_long_sequence_is_that_of_its_bases(p: list[float]) -> None:
    """Away from its ends, which stay, a base meets one of the same kind by their shares."""
    codes = _random(4000, 201, 5, p)
    inner = slice(50, 151)
    similar = (shuffled(codes, keys_of(np.arange(4000)))[:, inner] == codes[:, inner]).mean()
    shares = kmer_counts(codes, 1) / 201
    assert abs(similar - (shares**2).sum(1).mean()) < 0.005
