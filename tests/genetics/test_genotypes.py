"""Packed genotypes: exact round trips for any ploidy, phase, allele number and missingness;
counts and dosages against plain NumPy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError
from genodl_spark.genetics import genotype_text, genotypes


@st.composite
def calls(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Alleles and phases of some records: from all alike to all different, so that every form is met."""
    records, samples, ploidy = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 6))
    highest, rare, shape = (
        draw(st.sampled_from([1, 1, 2, 80, 16000])),
        draw(st.booleans()),
        draw(st.sampled_from(["plain", "phased", "mixed"])),
    )
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    alleles = generator.integers(-1, highest + 1, (records, samples, ploidy)).astype(np.int16)
    if rare:
        alleles = np.where(generator.random((records, samples, 1)) < 0.9, generator.integers(0, 2), alleles).astype(
            np.int16
        )
    if draw(st.booleans()):
        called = generator.integers(1, ploidy + 1, (records, samples, 1))
        alleles = np.where(np.arange(ploidy) < called, alleles, genotype_text.ABSENT).astype(np.int16)
    phased = {"plain": np.zeros_like(alleles, bool), "phased": np.arange(ploidy) > np.zeros_like(alleles)}.get(shape)
    if phased is None:
        phased = generator.random(alleles.shape) < 0.5
    return alleles, phased & (alleles != genotype_text.ABSENT)


@settings(max_examples=150, deadline=None)
@given(calls(), st.integers(0, 2), st.data())
def test_packed_and_back(given_calls: tuple[np.ndarray, np.ndarray], allele: int, data: st.DataObject) -> None:
    alleles, phased = given_calls
    records, samples, _ = alleles.shape
    gt = genotypes.pack(alleles, phased)
    back, back_phased = genotypes.unpack(gt, samples)
    ploidy = back.shape[2]
    assert (alleles[:, :, ploidy:] == genotype_text.ABSENT).all()
    np.testing.assert_array_equal(back, alleles[:, :, :ploidy])
    np.testing.assert_array_equal(back_phased, phased[:, :, :ploidy])
    missing = (alleles == -1).any(2)
    copies = (alleles == allele).sum(2)
    np.testing.assert_array_equal(genotypes.dosages(gt, samples, allele), np.where(missing, -1, copies))
    others = ((alleles >= 0) & (alleles != allele)).sum(2)
    np.testing.assert_array_equal(
        genotypes.dosages(gt, samples, allele, np.ones(records)), np.where(missing, -1, others)
    )
    chosen = np.array(data.draw(st.lists(st.integers(0, samples - 1), max_size=5)), int)
    np.testing.assert_array_equal(
        genotypes.dosages(gt, samples, allele, chosen=chosen), np.where(missing, -1, copies)[:, chosen]
    )
    np.testing.assert_array_equal(genotypes.unpack(gt, samples, chosen)[0][:, :, :ploidy], alleles[:, chosen, :ploidy])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=samples, max_size=samples)))
    for chosen_mask, given_mask in ((np.ones(samples, bool), None), (mask, mask)):
        inside = alleles[:, chosen_mask]
        first = inside[:, :, :1]
        het = ~(inside == -1).any(2) & ((inside != first) & (inside != genotype_text.ABSENT)).any(2)
        whole = ~(inside == -1).any(2)
        reference = whole & ~het & (first[:, :, 0] == 0)
        expected = [
            *((inside == allele).sum((1, 2)), (inside >= 0).sum((1, 2)), whole.sum(1)),
            *(reference.sum(1), het.sum(1), (whole & ~het & ~reference).sum(1), (~whole).sum(1)),
        ]
        np.testing.assert_array_equal(genotypes.counts(gt, samples, allele, given_mask), np.stack(expected, 1))
    for record in range(records):
        text = genotypes.sample_text(gt[record].as_py(), None, samples, False)
        assert text.decode().split("\t") == genotype_text.format_calls(alleles[record], phased[record])


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
    for broken in (
        b"",
        whole[:-1],
        whole + b"\0",
        bytes([255]) + whole[1:],
        bytes([16, 9]),
        bytes([16, 0, 120]),
        bytes([16, 0, 128]),
    ):
        column = pa.array([whole, broken], pa.binary())
        for function in (genotypes.unpack, genotypes.dosages, genotypes.counts):
            with pytest.raises(genotypes.Damaged, match="record 1"):
                function(column, 20)


@pytest.mark.parametrize(
    ("payload", "samples", "wrong"),
    [
        ("000201010202" + "00" + "00", 4, "a call that its palette lacks"),  # one call, and a sample with another
        ("0102010102020f", 4, "a call that its palette lacks"),  # one bit a sample, one call
        ("0802010202020204" + "00ff0001", 4, "a call that its palette lacks"),
        ("0402010202020204" + "1032", 4, "a call that its palette lacks"),
        ("0202010302020204040464", 3, "a body of another size"),
        ("02020103020202040404" + "39", 3, "a call that its palette lacks"),
        ("1415161718", 8, "a call that its palette lacks"),  # four calls, four bits a sample
        ("1000" + "00" * 9, 8, "calls of more samples"),
        ("1004", 8, "a call that its palette lacks"),
        ("10008080808080808080807f", 8, "a body of another size"),
        ("12ff", 3, "a body of another size"),  # bits of nobody
        ("0fc8010100", 1, "a first byte or palette that is none"),
        ("0f020100" + "02fb", 1, "an allele that is none"),
        ("0f020100" + "8102", 1, "an allele that is none"),  # an allele behind the end
        ("000201020202fbfb00", 1, "an allele that is none"),
        ("00c80101" + "02" * 200 + "00", 1, "a first byte or palette that is none"),
    ],
)
def test_a_body_that_its_palette_does_not_hold_is_refused(payload: str, samples: int, wrong: str) -> None:
    whole = bytes.fromhex("1000")
    column = pa.array([whole, bytes.fromhex(payload)], pa.binary())
    for function in (genotypes.unpack, genotypes.dosages, genotypes.counts):
        with pytest.raises(
            genotypes.Damaged,
            match=f"found {wrong} in record 1 of the batch; expected packed genotypes of {samples} samples",
        ):
            function(column, samples)
    with pytest.raises(genotypes.Damaged, match=wrong):
        genotypes.sample_text(bytes.fromhex(payload), None, samples, False)
    with pytest.raises(genotypes.Damaged, match=wrong):
        genotypes.counts(column, samples, mask=np.zeros(samples, bool))


def test_a_dosage_that_its_byte_does_not_hold_is_refused() -> None:
    alleles = np.stack([np.ones((1, 200), np.int16), np.zeros((1, 200), np.int16), np.ones((1, 200), np.int16)])
    alleles[2, :, 127:] = genotype_text.ABSENT
    gt = genotypes.pack(alleles, np.zeros(alleles.shape, bool))
    for wrong, exchanged in ((gt, None), (gt.slice(1, 1), np.ones(1))):
        with pytest.raises(InputError, match="more than 127 copies of an allele in a call of record 0"):
            genotypes.dosages(wrong, 1, exchanged=exchanged)
    assert genotypes.dosages(gt.slice(1), 1).tolist() == [[0], [127]]
    assert genotypes.counts(gt, 1).tolist() == [
        [200, 200, 1, 0, 0, 1, 0],
        [0, 200, 1, 1, 0, 0, 0],
        [127, 127, 1, 0, 0, 1, 0],
    ]
    assert (
        genotypes.dosages(gt.slice(1, 1), 1, 1 << 40).tolist()
        == [[0]]
        == genotypes.dosages(gt.slice(1, 1), 1, -(1 << 40)).tolist()
    )


def test_numbers_of_samples_that_no_record_has() -> None:
    gt = pa.array([b"\x10\0"], pa.binary())
    assert genotypes.counts(gt, genotypes.MOST_SAMPLES)[0].tolist() == [0, 2 << 27, 1 << 27, 1 << 27, 0, 0, 0]
    for samples in (-1, genotypes.MOST_SAMPLES + 1, 2**62):
        for function in (genotypes.unpack, genotypes.counts):
            with pytest.raises(InputError, match=f"found {samples} as a number of samples"):
                function(gt, samples)
    empty = genotypes.pack(np.zeros((2, 0, 2), np.int16), np.zeros((2, 0, 2), bool))
    assert [column.shape for column in genotypes.unpack(empty, 0)] == [(2, 0, 2)] * 2
    with pytest.raises(ValueError, match="alleles from -3 to -3"):
        genotypes.pack(np.full((1, 1, 2), -3, np.int16), np.zeros((1, 1, 2), bool))


def test_text_of_samples_with_their_subfields() -> None:
    gt = genotypes.pack(np.array([[[0, 1], [-1, -1], [1, -2]]], np.int16), np.zeros((1, 3, 2), bool))[0].as_py()
    assert genotypes.sample_text(gt, b"3:4\t\t7", 3, False) == b"0/1:3:4\t./.\t1:7"
    assert genotypes.sample_text(gt, b"3:4\t\t7", 3, False, np.array([2, 0])) == b"1:7\t0/1:3:4"
    assert genotypes.sample_text(None, b"3:4\t.\t7", 3, False, np.array([1, 2])) == b".\t7"
    for fields in (b"3\t4", b"3\t4\t5\t6"):
        with pytest.raises(genotypes.Damaged, match="a body of another size"):
            genotypes.sample_text(gt, fields, 3, False)
    long = b"x" * 100_000
    expected = b"\t".join([b"0/1:" + long, b"1:" + long, b"0/1:" + long])
    assert genotypes.sample_text(gt, long + b"\t\t" + long, 3, False, np.array([0, 2, 0])) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([3, 4])), max_size=12), st.sampled_from([1, 8, 1 << 40])
)
def test_records_alike_come_together(kinds: list[tuple[str, int]], calls_at_once: int) -> None:
    columns = {
        "sample_set": pa.array([k[0] for k in kinds], pa.string()),
        "n_samples": pa.array([k[1] for k in kinds], pa.int32()),
    }
    batch = pa.RecordBatch.from_arrays(
        [*columns.values(), pa.array(range(len(kinds)), pa.int32())], [*columns, "row"]
    ).slice(1)
    found = list(genotypes.alike(batch, calls_at_once))
    assert sorted(row for rows, *_ in found for row in rows.tolist()) == list(range(batch.num_rows))
    for rows, records, samples, sample_set in found:
        assert records.column("row").to_pylist() == (rows + 1).tolist() == sorted((rows + 1).tolist())
        assert {kinds[row + 1] for row in rows.tolist()} == {(sample_set, samples)}
        assert len(rows) <= max(calls_at_once // samples, 1)
