"""Packed genotypes: exact round trips for any ploidy, phase, allele number and missingness; counts and dosages against plain NumPy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark import encode, genotypes


@st.composite
def calls(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Alleles and phases of some records: from all alike to all different, so that every form is met."""
    records, samples, ploidy = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 6))
    highest, rare, shape = draw(st.sampled_from([1, 1, 2, 80, 16000])), draw(st.booleans()), draw(st.sampled_from(["plain", "phased", "mixed"]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    alleles = generator.integers(-1, highest + 1, (records, samples, ploidy)).astype(np.int16)
    if rare:
        alleles = np.where(generator.random((records, samples, 1)) < 0.9, generator.integers(0, 2), alleles).astype(np.int16)
    if draw(st.booleans()):
        called = generator.integers(1, ploidy + 1, (records, samples, 1))
        alleles = np.where(np.arange(ploidy) < called, alleles, encode.ABSENT).astype(np.int16)
    phased = {"plain": np.zeros_like(alleles, bool), "phased": np.arange(ploidy) > np.zeros_like(alleles)}.get(shape)
    if phased is None:
        phased = generator.random(alleles.shape) < 0.5
    return alleles, phased & (alleles != encode.ABSENT)


@settings(max_examples=150, deadline=None)
@given(calls(), st.integers(0, 2), st.data())
def test_packed_and_back(given_calls: tuple[np.ndarray, np.ndarray], allele: int, data: st.DataObject) -> None:
    alleles, phased = given_calls
    records, samples, _ = alleles.shape
    gt = genotypes.pack(alleles, phased)
    back, back_phased = genotypes.unpack(gt, samples)
    ploidy = back.shape[2]
    assert (alleles[:, :, ploidy:] == encode.ABSENT).all()
    np.testing.assert_array_equal(back, alleles[:, :, :ploidy])
    np.testing.assert_array_equal(back_phased, phased[:, :, :ploidy])
    missing = (alleles == -1).any(2)
    copies = (alleles == allele).sum(2)
    np.testing.assert_array_equal(genotypes.dosages(gt, samples, allele), np.where(missing, -1, copies))
    others = ((alleles >= 0) & (alleles != allele)).sum(2)
    np.testing.assert_array_equal(genotypes.dosages(gt, samples, allele, np.ones(records)), np.where(missing, -1, others))
    chosen = np.array(data.draw(st.lists(st.integers(0, samples - 1), max_size=5)), int)
    np.testing.assert_array_equal(genotypes.dosages(gt, samples, allele, chosen=chosen), np.where(missing, -1, copies)[:, chosen])
    np.testing.assert_array_equal(genotypes.unpack(gt, samples, chosen)[0][:, :, :ploidy], alleles[:, chosen, :ploidy])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=samples, max_size=samples)))
    for chosen_mask, given_mask in ((np.ones(samples, bool), None), (mask, mask)):
        inside = alleles[:, chosen_mask]
        first = inside[:, :, :1]
        het = ~(inside == -1).any(2) & ((inside != first) & (inside != encode.ABSENT)).any(2)
        whole = ~(inside == -1).any(2)
        reference = whole & ~het & (first[:, :, 0] == 0)
        expected = [
            *((inside == allele).sum((1, 2)), (inside >= 0).sum((1, 2)), whole.sum(1)),
            *(reference.sum(1), het.sum(1), (whole & ~het & ~reference).sum(1), (~whole).sum(1)),
        ]
        np.testing.assert_array_equal(genotypes.counts(gt, samples, allele, given_mask), np.stack(expected, 1))
    for record in range(records):
        text = genotypes.sample_text(gt[record].as_py(), None, samples, False)
        assert text.decode().split("\t") == encode.format_calls(alleles[record], phased[record])


def form(alleles: list[list[int]], phased: bool) -> tuple[int, int, int]:
    """Palette and form of one packed record, and its bytes."""
    array = np.array([alleles], np.int16)
    packed = genotypes.pack(array, (np.arange(array.shape[2]) > 0) & np.full(array.shape, phased))[0].as_py()
    return packed[0] >> 4, packed[0] & 15, len(packed)


def test_every_record_takes_the_form_that_suits_it() -> None:
    assert form([[0, 0]] * 1000, True) == (1, 0, 2)
    assert form([[0, 0]] * 997 + [[0, 1]] * 3, True) == (1, 0, 2 + 2 + 1 + 1)
    assert form([[1, 1]] * 997 + [[0, 1]] * 3, False) == (3, 0, 6)  # what most samples have need not be the reference
    assert form([[0, 1], [0, 0]] * 500, True) == (1, 2, 1 + 250)
    assert form([[0, 1], [-1, -1]] * 500, False) == (3, 2, 1 + 250)
    assert form([[0, 1], [0, -1]] * 500, False) == (0, 1, 4 + 4 + 125)
    assert form([[0, 1], [0, 2], [1, 2], [2, 2], [0, 0]] * 200, True) == (0, 4, 4 + 10 + 500)
    assert form([[0, n % 60] for n in range(1000)], True) == (0, 8, 4 + 120 + 1000)
    assert form([[n % 300, 1] for n in range(1000)], True) == (0, 15, 4 + 4000)
    assert form([[0] * 6] * 10, True) == (0, 15, 4 + 60)


def test_what_is_no_packed_column_is_refused() -> None:
    whole = genotypes.pack(np.array([[[0, 1], [0, 0]] * 10], np.int16), np.zeros((1, 20, 2), bool))[0].as_py()
    for broken in (b"", whole[:-1], whole + b"\0", bytes([255]) + whole[1:], bytes([16, 9]), bytes([16, 0, 120]), bytes([16, 0, 128])):
        column = pa.array([whole, broken], pa.binary())
        for function in (genotypes.unpack, genotypes.dosages, genotypes.counts):
            if broken[:2] == bytes([16, 0]) and broken[2] == 120 and function is genotypes.counts:
                continue  # counting does not look where a listed sample stands
            with pytest.raises(genotypes.Damaged, match="record 1"):
                function(column, 20)


def test_text_of_samples_with_their_subfields() -> None:
    gt = genotypes.pack(np.array([[[0, 1], [-1, -1], [1, -2]]], np.int16), np.zeros((1, 3, 2), bool))[0].as_py()
    assert genotypes.sample_text(gt, b"3:4\t\t7", 3, False) == b"0/1:3:4\t./.\t1:7"
    assert genotypes.sample_text(gt, b"3:4\t\t7", 3, False, np.array([2, 0])) == b"1:7\t0/1:3:4"
    assert genotypes.sample_text(None, b"3:4\t.\t7", 3, False, np.array([1, 2])) == b".\t7"
    long = b"x" * 100_000
    expected = b"\t".join([b"0/1:" + long, b"1:" + long, b"0/1:" + long])
    assert genotypes.sample_text(gt, long + b"\t\t" + long, 3, False, np.array([0, 2, 0])) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([3, 4])), max_size=12), st.sampled_from([1, 8, 1 << 40]))
def test_records_alike_come_together(kinds: list[tuple[str, int]], calls_at_once: int) -> None:
    columns = {"sample_set": pa.array([k[0] for k in kinds], pa.string()), "n_samples": pa.array([k[1] for k in kinds], pa.int32())}
    batch = pa.RecordBatch.from_arrays([*columns.values(), pa.array(range(len(kinds)), pa.int32())], [*columns, "row"]).slice(1)
    found = list(genotypes.alike(batch, calls_at_once))
    assert sorted(row for rows, *_ in found for row in rows.tolist()) == list(range(batch.num_rows))
    for rows, records, samples, sample_set in found:
        assert records.column("row").to_pylist() == (rows + 1).tolist() == sorted((rows + 1).tolist())
        assert {kinds[row + 1] for row in rows.tolist()} == {(sample_set, samples)}
        assert len(rows) <= max(calls_at_once // samples, 1)
