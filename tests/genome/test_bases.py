"""Texts as base codes, against Python's own letters."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.genome.bases import single_bases, text_codes

ALLELES = ["A", "AC", None, "g", "", "T", "N", "*", "GUt", "C"]
_CODES = {**dict(zip("ACGTacgt", [*range(4)] * 2, strict=True)), "U": 3, "N": -1, "*": -2}


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("part", [slice(0, 10), slice(3, 9), slice(4, 4)])
def test_texts_one_behind_the_other(type_: pa.DataType, part: slice) -> None:
    codes, ends = text_codes(pa.array(ALLELES, type_)[part])
    texts = [text or "" for text in ALLELES[part]]
    assert codes.dtype == np.int8 and codes.tolist() == [_CODES[letter] for text in texts for letter in text]
    assert ends.tolist() == np.cumsum([0, *map(len, texts)]).tolist()


def test_alleles_of_one_base() -> None:
    codes = single_bases(pa.array(ALLELES))
    assert codes.dtype == np.int8
    assert codes.tolist() == [_CODES[text] if text in {*"ACGT"} else -1 for text in ALLELES]
