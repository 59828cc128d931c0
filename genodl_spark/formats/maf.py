"""Mutation annotation files (MAF) of TCGA and the GDC: a line per somatic mutation, columns found by their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import MISSING, fault_of_name, number, shown
from genodl_spark.formats import barcodes, named_columns, streams
from genodl_spark.formats.streams import Split
from genodl_spark.lake.tables.portals import MUTATIONS

# Columns of the table, and what releases call them; those that a file has to have come first.
_REQUIRED = {
    "sample_id": ("Tumor_Sample_Barcode",),
    "chrom": ("Chromosome",),
    "pos": ("Start_Position",),
    "end": ("End_Position",),
    "ref": ("Reference_Allele",),
    "alt": ("Tumor_Seq_Allele2",),
}
_OPTIONAL = {
    "first": ("Tumor_Seq_Allele1",),
    "gene": ("Hugo_Symbol",),
    "normal": ("Matched_Norm_Sample_Barcode",),
    "classification": ("Variant_Classification",),
    "type": ("Variant_Type",),
    "build": ("NCBI_Build",),
    "protein": ("HGVSp_Short", "Protein_Change", "amino_acid_change"),
}
_NOTHING = {"gene": ("Unknown",)}
_HEAD_LINES = 1000
BARCODE = "Tumor_Sample_Barcode"


@dataclass(frozen=True)
class Header:
    """`line`: number of the header; `names`: of its columns; `at`: places of those with a meaning here. `level`: what
    barcodes are cut to."""

    line: int
    names: list[str]
    at: dict[str, int]
    level: str


def read_header(uri: str, level: str) -> Header:
    """The line with the columns' names, below comments. InputError where it lacks one that is needed."""
    for at, line in enumerate(streams.first_lines(uri, _HEAD_LINES), 1):
        if line.strip() and not line.startswith(b"#"):
            names = named_columns.header(line, uri, at)
            places = {
                what: place
                for what, wanted in (_REQUIRED | _OPTIONAL).items()
                if (place := named_columns.place(names, wanted)) is not None
            }
            for what, wanted in _REQUIRED.items():
                if what not in places:
                    there = ", ".join(map(shown, names[:8]))
                    raise InputError(
                        f"found columns {there}; expected {wanted[0]} among them: rename it in the header",
                        uri,
                        at,
                    )
            return Header(at, names, places, level)
    raise InputError("the file is empty; expected a MAF with a header line", uri, 1)


Bad = list[tuple[int, str, str]]  # line, what was found and expected, the record


def read(
    uri: str, split: Split, first: int, header: Header, cohort: str, file: str
) -> Iterator[tuple[pa.RecordBatch, Bad]]:
    """Rows of `mutations` for a piece of a file, whose first line has the number `first`, block by block; and records
    that are none: ragged, without a sample or a place, or without an allele that is not the reference's."""
    for start, block in streams.numbered_blocks(uri, split, first):
        while start <= header.line and block:
            block, start = block.partition(b"\n")[2], start + 1
        if block:
            yield parse(block, start, header, cohort, file)


def parse(block: bytes, start: int, header: Header, cohort: str, file: str) -> tuple[pa.RecordBatch, Bad]:
    """One block of whole lines, of which `start` is the first."""
    width = len(header.names)
    bad: dict[int, str] = {}
    try:
        columns, _, lines = named_columns.read(block, width, range(width), [], start, file)
    except InputError:  # line by line: one that is ragged keeps no other away
        found = []
        for line, record in enumerate(block.removesuffix(b"\n").split(b"\n"), start):
            try:
                found.append(named_columns.read(record + b"\n", width, range(width), [], line, file))
            except InputError as error:
                bad[line] = error.message
        columns = [pa.chunked_array([one[0][i] for one in found], pa.string()).combine_chunks() for i in range(width)]
        lines = np.concatenate([one[2] for one in found]) if found else np.zeros(0, np.int64)
    n = len(lines)
    text = {what: pc.utf8_trim_whitespace(columns[place]) for what, place in header.at.items()}
    missing = pa.array(sorted(MISSING))
    # Oncotator and others write the reference's allele as the first one.
    alt, empty = text["alt"], pa.scalar("")
    same = pc.or_(pc.equal(alt, text["ref"]), pc.is_in(alt, missing))
    alt = pc.if_else(same, text.get("first", pa.repeat(empty, n)), alt)
    none = pc.or_(pc.equal(alt, text["ref"]), pc.is_in(alt, missing))
    places = {what: _positions(text[what]) for what in ("pos", "end")}

    def refuse(which: np.ndarray, reason: str) -> None:
        for row in np.flatnonzero(which):
            bad.setdefault(int(lines[row]), reason)

    for what in ("sample_id", "chrom"):
        for row in np.flatnonzero(pc.is_in(text[what], missing).to_numpy(zero_copy_only=False)):
            bad.setdefault(int(lines[row]), f"found no {_REQUIRED[what][0]}; expected one")
    refuse(places["pos"] < 1, "found no position of the start; expected a number from 1")
    refuse(places["end"] < places["pos"], "found no end at or behind the start; expected one")
    refuse(pc.is_in(text["ref"], missing).to_numpy(zero_copy_only=False), "found no reference allele; expected one")
    refuse(none.to_numpy(zero_copy_only=False), "found no tumour allele other than the reference's; expected one")
    names = text["sample_id"]
    uniques = names.unique().to_pylist()
    for name in uniques:
        if name and (fault := fault_of_name(name)) is not None:
            refuse(pc.equal(names, name).to_numpy(zero_copy_only=False), f"found {fault}; expected a sample's barcode")
    cut = {name: barcodes.cut(name, header.level) for name in uniques}
    kept = pa.array(~np.isin(lines, list(bad)))
    sample = pa.array([cut[name] for name in names.to_pylist()], pa.string())
    others = {name: columns[i] for i, name in enumerate(header.names) if i not in header.at.values() and name}
    if any(old != new for old, new in cut.items()):
        others[BARCODE] = names
    nothing = pa.scalar(None, pa.string())
    values: dict[str, pa.Array] = {
        "cohort": pa.repeat(pa.scalar(cohort, pa.string()), n),
        "sample_id": sample,
        "chrom": text["chrom"],
        "pos": pa.array(places["pos"]),
        "end": pa.array(places["end"]),
        "ref": text["ref"],
        "alt": alt,
        "fields": _map({name: column.filter(kept) for name, column in others.items()}, pc.sum(kept).as_py() or 0),
        "file": pa.repeat(pa.scalar(file, pa.string()), n),
        "line": pa.array(lines),
    }
    for what in ("normal", "gene", "classification", "type", "build", "protein"):
        column = text.get(what, pa.repeat(empty, n))
        unknown = pa.array([*sorted(MISSING), *_NOTHING.get(what, ())])
        values[what] = pc.if_else(pc.is_in(column, unknown), nothing, column)
    schema = MUTATIONS.arrow_schema()
    arrays = [(values[f.name] if f.name == "fields" else values[f.name].filter(kept)).cast(f.type) for f in schema]
    texts = block.split(b"\n") if bad else []
    refused = [(line, reason, texts[line - start].decode("utf-8", "replace")) for line, reason in sorted(bad.items())]
    return pa.RecordBatch.from_arrays(arrays, schema=schema), refused


def _positions(column: pa.Array) -> np.ndarray:
    """Positions as int64, 0 for what is none."""
    try:
        return column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        found = (number(text) for text in column.to_pylist())
        return np.array([0 if one is None or one != int(one) else int(one) for one in found], np.int64)


def _map(columns: dict[str, pa.Array], rows: int) -> pa.Array:
    """Maps of name to text for rows, of the cells that say something."""
    count = len(columns)
    if not count or not rows:
        return pa.MapArray.from_arrays(
            np.zeros(rows + 1, np.int32), pa.array([], pa.string()), pa.array([], pa.string())
        )
    trimmed = [pc.utf8_trim_whitespace(column) for column in columns.values()]
    missing = pa.array(sorted(MISSING))
    says = np.stack([~pc.is_in(column, missing).to_numpy(zero_copy_only=False) for column in trimmed], axis=1)
    row, column = np.nonzero(says)
    items = pa.chunked_array(trimmed).combine_chunks().take(pa.array(column * rows + row))
    keys = pa.array(list(columns), pa.string()).take(pa.array(column))
    ends = np.concatenate([[0], np.cumsum(says.sum(1))]).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(ends), keys, items)
