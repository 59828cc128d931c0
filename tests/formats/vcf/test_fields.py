"""Typed INFO and FORMAT columns: real files against cyvcf2, made ones against a plain reading of their text."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError
from genodl_spark.formats.vcf import fields as vcf_fields
from genodl_spark.formats.vcf import reader as vcf
from genodl_spark.formats.vcf.header import Field, Header
from genodl_spark.genetics import genotypes

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


def header(info: dict[str, Field], format_: dict[str, Field], samples: int = 2, minor: int = 3) -> Header:
    return Header(minor, "", 1, [f"s{i}" for i in range(samples)], info, format_, {}, True)


def batch(*records: dict[str, Any]) -> pa.RecordBatch:
    """Rows of `variants` of these columns; the others are NULL."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array([{"n_samples": 2, "info": ".", **r}.get(f.name) for r in records], f.type)
            for f in vcf.VARIANTS_SCHEMA
        ],
        schema=vcf.VARIANTS_SCHEMA,
    )


def typed(rows: pa.RecordBatch, head: Header) -> tuple[dict[str, list], list[str | None]]:
    columns = vcf_fields.columns_of([head], None, None)
    arrays, reasons = vcf_fields.typed(rows, columns, head)
    for array, column in zip(arrays, columns, strict=True):
        array.validate(full=True)
        assert array.type == column.arrow
    return {c.name: a.to_pylist() for c, a in zip(columns, arrays, strict=True)}, reasons


@pytest.mark.parametrize(
    "file",
    [
        "vcf_hail_sample/sample.vcf.gz",
        "vcf_1000g_chr22_variantspark/chr22_1000.vcf.gz",
        "vcf_ceu_exon_seqarray/CEU_Exon.vcf.gz",
        "gvcf_1kg_chr22_hail/HG00187.hg38.g.vcf.gz",
        "vc_na12878_chr20/truth.vcf.gz",
    ],
)
def test_real_files_as_cyvcf2_reads_them(file: str) -> None:
    cyvcf2 = pytest.importorskip("cyvcf2")
    path = SHARED / file
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    head = vcf.header_of(str(path))
    columns = vcf_fields.columns_of([head], None, None)
    reader = vcf.Reader(head, "", "x")
    oracle = iter(cyvcf2.VCF(str(path)))
    compared = 0
    for number, block in vcf.split_lines(str(path), vcf.splits(str(path), 1 << 40)[0], 1, head):
        for rows, _ in reader.batches(number, block, 700):
            arrays, reasons = vcf_fields.typed(rows, columns, head)
            # GIAB declares a list of names as Integer.
            assert all(reason is None or reason.startswith("found INFO datasetsmissingcall=") for reason in reasons)
            step = max(1, rows.num_rows * len(head.samples) // 20_000)
            chosen = np.arange(0, rows.num_rows, step)
            sampled = [array.take(pa.array(chosen)).to_pylist() for array in arrays]
            for row in range(rows.num_rows):
                expected = next(oracle)
                if row % step:
                    continue
                for column, values in zip(columns, sampled, strict=True):
                    value = values[row // step]
                    if column.key == "datasetsmissingcall":
                        continue
                    if column.side == "INFO":
                        check_info(column, value, expected)
                    elif column.key != "GT":
                        check_format(column, value, expected, len(head.samples))
                    compared += 1
    assert compared > 100


def check_info(column: vcf_fields.Column, value: Any, record: Any) -> None:
    other = record.INFO.get(column.key)
    if column.type == pa.bool_():
        assert value == bool(other)
    elif other is None:
        assert value is None or set(value) == {None}
    elif column.type == pa.string():
        assert (",".join("." if v is None else v for v in value) if column.listed else value) == str(other)
    else:
        others = list(other) if isinstance(other, tuple) else [other]
        values = value if column.listed else [value]
        assert [v is None for v in values] == [o is None for o in others]
        assert [v for v in values if v is not None] == pytest.approx([o for o in others if o is not None], rel=1e-6)


def check_format(column: vcf_fields.Column, value: Any, record: Any, samples: int) -> None:
    if column.key not in record.FORMAT:
        assert value is None
        return
    assert len(value) == samples
    if column.type == pa.string():
        return
    other = record.format(column.key)
    for mine, theirs in zip(value, other, strict=True):
        present = [float(t) for t in np.atleast_1d(theirs) if not math.isnan(t) and t > -(2**31) + 1]
        assert [v for v in ((mine or []) if column.listed else [mine]) if v is not None] == pytest.approx(
            present, rel=1e-5
        )


WHOLE = st.integers(-(2**31), 2**31 - 1).map(str)
REAL = st.floats(allow_nan=False, width=32).map(repr) | st.sampled_from(["+1.5", "1.", ".5", "-inf", "1e3", "-3"])
WORD = st.text("ab%C2é|/", min_size=1, max_size=6).filter(lambda t: t != ".") | st.just("a%3Ab%2C%253A")
KINDS = {"Integer": WHOLE, "Float": REAL, "String": WORD}


def one(type_: str, text: str) -> Any:
    if text == ".":
        return None
    if type_ == "String":
        for encoded, plain in {
            "%3A": ":",
            "%3B": ";",
            "%3D": "=",
            "%2C": ",",
            "%0D": "\r",
            "%0A": "\n",
            "%09": "\t",
            "%25": "%",
        }.items():
            text = text.replace(encoded, plain)
        return text
    return int(text) if type_ == "Integer" else float(text)


def plain(field: Field, text: str | None) -> Any:
    if text in (None, ".", ""):
        return None
    return one(field.type, text) if field.number == "1" else [one(field.type, part) for part in text.split(",")]


@st.composite
def values(draw: st.DrawFn, field: Field) -> str:
    each = KINDS[field.type] | st.just(".")
    return draw(each) if field.number == "1" else ",".join(draw(st.lists(each, min_size=1, max_size=3)))


FIELDS = {f"{t[0]}{n}": Field(n, t) for t in KINDS for n in ("1", "A", "2", ".")}
FLAG = Field("0", "Flag")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_made_records_as_their_text_says(data: st.DataObject) -> None:
    keys = list(FIELDS)
    rows, info, samples = [], [], []
    for _ in range(data.draw(st.integers(0, 5))):
        entries = {
            key: data.draw(values(FIELDS[key]))
            for key in data.draw(st.lists(st.sampled_from(keys), unique=True, max_size=5))
        }
        flag = data.draw(st.sampled_from(["", "FLAG", "FLAG=1", "FLAG=0"]))
        parts = data.draw(
            st.permutations([*(f"{k}={v}" for k, v in entries.items()), "OTHER=x=y", "FREE", *filter(None, [flag])])
        )
        info.append((entries, flag in ("FLAG", "FLAG=1")))
        form = data.draw(st.none() | st.lists(st.sampled_from(keys), unique=True, min_size=1, max_size=4))
        columns = [
            [data.draw(values(FIELDS[key])) for key in form or []][: data.draw(st.integers(1, 4))] for _ in range(2)
        ]
        samples.append(None if form is None else [dict(zip(form, column, strict=False)) for column in columns])
        fields = None if form is None else "\t".join(":".join(column) for column in columns).encode()
        row = {"info": ";".join(parts), "format": None if form is None else ":".join(form), "fields": fields}
        rows.append(row)
    head = header({**FIELDS, "FLAG": FLAG}, FIELDS)
    found, reasons = typed(batch(*rows), head)
    assert set(reasons) <= {None}
    assert found["INFO_FLAG"] == [flag for _, flag in info]
    for key, field in FIELDS.items():
        assert found[f"INFO_{key}"] == [plain(field, entries.get(key)) for entries, _ in info]
        expected = [
            None
            if s is None or (rows[i]["format"].split(":").count(key) == 0)
            else [plain(field, c.get(key)) for c in s]
            for i, s in enumerate(samples)
        ]
        assert found[f"FORMAT_{key}"] == expected


def test_what_a_type_does_not_hold_is_null_and_told() -> None:
    head = header(
        {"N": Field(".", "Integer"), "F": Field("1", "Float"), "B": Field("1", "Integer")}, {"D": Field("1", "Integer")}
    )
    rows = batch(
        {"info": "N=1,x,3;F=a_1;B=3000000000", "format": "GT:D", "gt": b"\x10\x00", "fields": b"7\t3000000000"},
        {"info": "N=5;F=1.5;B=99999999999999999999", "format": "D", "fields": b"\t."},
        {"info": "N=+2"},
    )
    found, reasons = typed(rows, head)
    assert found == {
        "INFO_N": [[1, None, 3], [5], [2]],
        "INFO_F": [None, 1.5, None],
        "INFO_B": [3000000000, None, None],
        "FORMAT_D": [[7, None], [None, None], None],
    }
    assert reasons == [
        "found INFO N=x; expected Integer of this size",
        "found INFO B=99999999999999999999; expected Integer of this size",
        None,
    ]


def test_text_before_and_from_4_3_and_what_is_no_utf8() -> None:
    row = {"info": "T=a%3Bb;T=second", "format": "X", "fields": b"%25\t\xff"}
    for minor, text, sample in ((2, "a%3Bb", "%25"), (3, "a;b", "%")):
        head = header({"T": Field("1", "String")}, {"X": Field("1", "String")}, minor=minor)
        assert typed(batch(row), head)[0] == {"INFO_T": [text], "FORMAT_X": [[sample, "�"]]}


def test_gt_as_text() -> None:
    alleles = np.array([[[0, 1, -2], [-1, -1, -2]], [[2, -2, -2], [0, 1, 1]]], np.int16)
    phased = np.array([[[False, True, False], [False, False, False]], [[False, False, False], [False, True, False]]])
    packed = genotypes.pack(alleles, phased).to_pylist()
    rows = batch({"gt": packed[0], "format": "GT"}, {}, {"gt": packed[1], "format": "GT"})
    assert typed(rows, header({}, {"GT": Field("1", "String")}))[0] == {
        "FORMAT_GT": [["0|1", "./."], None, ["2", "0|1/1"]]
    }


def test_names_and_types_over_several_headers() -> None:
    one, other = Field("1", "Integer"), Field("A", "Float")
    first = header({"AF": one, "af": other, "AF_2": one, "S": one}, {"DP": one})
    second = header({"AF": other, "S": Field("1", "Flag"), "NEW": one}, {})
    columns = vcf_fields.columns_of([first, second], None, None)
    assert [(c.name, c.type, c.listed) for c in columns] == [
        ("INFO_AF", pa.float64(), True),
        ("INFO_af_2", pa.float64(), True),
        ("INFO_AF_2_2", pa.int64(), False),
        ("INFO_S", pa.string(), False),
        ("INFO_NEW", pa.int64(), False),
        ("FORMAT_DP", pa.int32(), False),
    ]
    # DP, GT: reserved
    assert [c.name for c in vcf_fields.columns_of([first], ["AF", "DP"], ["GT"])] == ["INFO_AF", "INFO_DP", "FORMAT_GT"]
    with pytest.raises(InputError, match="no declaration of FORMAT NOPE"):
        vcf_fields.columns_of([first], None, ["NOPE"])


def test_a_call_is_text_whatever_its_header_says() -> None:
    for field in (Field("G", "String"), Field(".", "Integer", otherwise=Field("1", "String"))):
        found, reasons = typed(batch({"format": None, "gt": None}), header({}, {"GT": field}))
        assert (found, reasons) == ({"FORMAT_GT": [None]}, [None])
