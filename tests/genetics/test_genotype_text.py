"""Sample columns of VCF text: exact round trips for any ploidy, phase, allele number and missingness."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genetics import genotype_text

allele = st.one_of(st.just("."), st.integers(0, 199).map(str))
call = st.lists(allele, min_size=1, max_size=4).flatmap(
    lambda alleles: st.lists(st.sampled_from("/|"), min_size=len(alleles) - 1, max_size=len(alleles) - 1).map(
        lambda separators: alleles[0] + "".join(s + a for s, a in zip(separators, alleles[1:], strict=True))
    )
)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(call, min_size=n, max_size=n), min_size=1, max_size=4)),
    st.booleans(),
)
def test_text_to_alleles_and_back(records: list[list[str]], more: bool) -> None:
    samples = len(records[0])
    texts = ["\t".join(c + (f":{i},x:." if more else "") for i, c in enumerate(calls)).encode() for calls in records]
    keys = np.full(len(records), 3 if more else 1)
    parsed = genotype_text.parse_calls(texts, keys, np.full(len(records), 200), samples)
    assert parsed.errors == {}
    for record, calls in enumerate(records):
        ploidy = int(parsed.ploidy[record])
        assert ploidy == max(c.count("/") + c.count("|") + 1 for c in calls)
        assert (
            genotype_text.format_calls(parsed.alleles[record, :, :ploidy], parsed.phased[record, :, :ploidy]) == calls
        )
        assert parsed.fields[record] == ("\t".join(f"{i},x:." for i in range(samples)).encode() if more else None)


def test_errors_name_the_record() -> None:
    texts = [b"0/1\t1/1", b"0/2\t0/0", b"0/x\t0/0", b"0//1\t0/1", b"0/1:5\t0/1", b"0/.1\t0/0", b"\t0/1", b"0/1\t1|."]
    parsed = genotype_text.parse_calls(texts, np.ones(8, int), np.full(8, 2), 2)
    assert sorted(parsed.errors) == [1, 2, 3, 4, 5, 6]
    assert "found allele 2" in parsed.errors[1]
    assert "found 2 subfields" in parsed.errors[4]


def test_trailing_subfields_may_be_left_out() -> None:
    parsed = genotype_text.parse_calls([b"0/1:3:4\t./.\t1|0:7"], np.array([3]), np.array([2]), 3)
    assert parsed.fields == [b"3:4\t\t7"]
    assert parsed.alleles.tolist() == [[[0, 1], [-1, -1], [1, 0]]]


def test_leading_phase_of_vcf_4_4() -> None:
    text = [b"|0\t/0\t/1|0\t1|0\t1/0\t|1/0"]
    parsed = genotype_text.parse_calls(text, np.array([1]), np.array([2]), 6, first_phased=True)
    assert parsed.errors == {}
    assert parsed.phased[0, :, 0].tolist() == [True, False, False, True, False, True]
    # What is stated and what is implied are written alike: |0 is 0.
    assert genotype_text.format_calls(parsed.alleles[0], parsed.phased[0], True) == [
        "0",
        "/0",
        "/1|0",
        "1|0",
        "1/0",
        "|1/0",
    ]
    assert "malformed" in genotype_text.parse_calls(text, np.array([1]), np.array([2]), 6).errors[0]
    square = genotype_text.parse_calls([b"1|0\t0/1"], np.array([1]), np.array([2]), 2, first_phased=True)
    assert square.phased[0].tolist() == [[True, True], [False, False]]


def test_what_cannot_be_packed_is_an_error() -> None:
    parsed = genotype_text.parse_calls(
        [b"16383/0\t0", b"0/0\t" + b"/".join([b"1"] * 300)], np.ones(2, int), np.full(2, 20000), 2
    )
    assert "expected at most 16382" in parsed.errors[0]
    assert "ploidy 300" in parsed.errors[1]
    assert parsed.alleles.shape == (2, 2, genotype_text.HIGHEST_PLOIDY)
