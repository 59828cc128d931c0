"""The SQL functions' kernels on Series as Spark hands them over, against the text
and dosages of each record; no JVM."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError
from genodl_spark.genetics import genotype_text, genotypes, sql_functions


def taken(series: pd.Series, type_: pa.DataType) -> list:
    """As PySpark takes a result back."""
    return pa.Array.from_pandas(series, type=type_).to_pylist()


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[bytes | None], list[int | None], list[list[str] | None]]:
    """Packed records of some sample counts, NULLs between, and their calls as text."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes, highest = draw(st.lists(st.integers(1, 6), min_size=1, max_size=2)), draw(st.sampled_from([1, 2, 300]))
    packed: list[bytes | None] = []
    counts: list[int | None] = []
    texts: list[list[str] | None] = []
    for _ in range(draw(st.integers(0, 8))):
        size, ploidy = int(generator.choice(sizes)), draw(st.integers(1, 4))
        alleles = generator.integers(-1, highest + 1, (1, size, ploidy)).astype(np.int16)
        alleles = np.where(
            np.arange(ploidy) < generator.integers(1, ploidy + 1, (1, size, 1)), alleles, genotype_text.ABSENT
        ).astype(np.int16)
        phased = (generator.random(alleles.shape) < 0.5) & (np.arange(ploidy) > 0) & (alleles != genotype_text.ABSENT)
        null = draw(st.integers(0, 5))
        packed.append(None if null == 0 else genotypes.pack(alleles, phased)[0].as_py())
        counts.append(None if null == 1 else size)
        texts.append(None if null < 2 else genotype_text.format_calls(alleles[0], phased[0]))
    return packed, counts, texts


def series(values: list) -> pd.Series:
    return pd.Series(values, dtype=object)


def numbers(values: list) -> pd.Series:
    return pa.array(values, pa.int32()).to_pandas()  # float64 with NaN where there are NULLs, as in Spark


def dosage_of(text: str, allele: int) -> int | None:
    found = text.replace("|", "/").split("/")
    return None if "." in found else found.count(str(allele))


@settings(max_examples=150, deadline=None)
@given(batches(), st.data())
def test_functions_agree_with_the_text_of_calls(batch: tuple, data: st.DataObject) -> None:
    packed, counts, texts = batch
    gt, n = series(packed), numbers(counts)
    assert taken(sql_functions.alleles(gt, n), pa.list_(pa.string())) == texts
    expected = [None if row is None else [dosage_of(text, 1) for text in row] for row in texts]
    assert taken(sql_functions.dosage(gt, n), pa.list_(pa.int8())) == expected
    allele = data.draw(st.lists(st.integers(0, 2) | st.none(), min_size=len(texts), max_size=len(texts)))
    expected = [
        None if row is None or a is None else [dosage_of(text, a) for text in row]
        for row, a in zip(texts, allele, strict=True)
    ]
    assert taken(sql_functions.dosage(gt, n, numbers(allele)), pa.list_(pa.int8())) == expected
    position = [data.draw(st.none() | st.integers(0, (count or 1) - 1)) for count in counts]
    at = [None if row is None or p is None else row[p] for row, p in zip(texts, position, strict=True)]
    assert taken(sql_functions.genotype_at(gt, n, numbers(position)), pa.string()) == at
    assert taken(sql_functions.dosage_at(gt, n, numbers(position)), pa.int8()) == [
        None if t is None else dosage_of(t, 1) for t in at
    ]
    twos = numbers([2] * len(texts))
    assert taken(sql_functions.dosage_at(gt, n, numbers(position), twos), pa.int8()) == [
        None if t is None else dosage_of(t, 2) for t in at
    ]
    counted = sql_functions.allele_counts(gt, n)
    for i, row in enumerate(texts):
        found = [
            taken(counted[name], pa.int64())[i] for name in ("copies", "called", "hom_ref", "het", "hom_alt", "missing")
        ]
        if row is None:
            assert found == [None] * 6
            continue
        calls = [text.replace("|", "/").split("/") for text in row]
        whole = [call for call in calls if "." not in call]
        zeros, same = [set(c) == {"0"} for c in whole], [len(set(c)) == 1 for c in whole]
        assert found[:2] == [sum(c.count("1") for c in calls), sum(len(c) - c.count(".") for c in calls)]
        assert found[2:] == [sum(zeros), len(whole) - sum(same), sum(same) - sum(zeros), len(calls) - len(whole)]


def test_phase_of_the_first_allele_and_a_wrong_position() -> None:
    alleles = np.array([[[0, 1], [0, 1], [1, -2]]], np.int16)
    phased = np.array([[[True, False], [True, True], [True, False]]])
    gt, n = series([genotypes.pack(alleles, phased)[0].as_py()]), numbers([3])
    assert taken(sql_functions.alleles(gt, n), pa.list_(pa.string())) == [["|0/1", "0|1", "1"]]
    for wrong in (3, -1):
        with pytest.raises(InputError, match=f"position {wrong} of 3 samples"):
            sql_functions.genotype_at(gt, n, numbers([wrong]))
    with pytest.raises(genotypes.Damaged):
        sql_functions.dosage(gt, numbers([40]))


def test_numbers_of_samples_and_of_calls_that_are_too_many() -> None:
    sparse = series([b"\x10\0"] * 20)
    for wrong in (-5, 1 << 28):
        with pytest.raises(InputError, match=f"found {wrong} as a number of samples"):
            sql_functions.allele_counts(sparse, numbers([wrong] * 20))
    for function in (sql_functions.dosage, sql_functions.alleles):
        with pytest.raises(InputError, match="found 2684354560 calls in 20 records at a time"):
            function(sparse, numbers([1 << 27] * 20))
    one, n = sparse[:1], numbers([3])
    assert taken(sql_functions.dosage(one, n, pd.Series([(1 << 32) + 0])), pa.list_(pa.int8())) == [[0, 0, 0]]
