"""Sequence tables: `id`, `sequence` and any other columns (label or value, split, group columns) to base
codes and text, in Arrow batches.

A line is a record. A block of lines goes through Arrow's reader; where that finds anything out of order, line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import MISSING, character, fault_of_name, shown
from genodl_spark.formats import delimited, streams
from genodl_spark.formats.delimited import Unreadable
from genodl_spark.formats.sample_table import column_name
from genodl_spark.formats.streams import Note, Split
from genodl_spark.genome import bases
from genodl_spark.lake.schema import COHORT, Column, Table
from genodl_spark.lake.tables.ingested import LABELS, QUARANTINE, SEQUENCES

SOURCE = "sequences"
FILE_NAME = re.compile(r"\.(tsv|csv)(\.b?gz)?$", re.IGNORECASE)
ID, SEQUENCE = "id", "sequence"
_KEPT = 4096  # characters of a record in quarantine
_QUOTE = b'"'
_LONGEST_CHARACTER = 4  # bytes of UTF-8

Batches = tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]


@dataclass(frozen=True)
class Header:
    """First line of a sequence table: its columns in order, as named there, and the delimiter (tab or comma)."""

    columns: list[str]
    delimiter: str

    @property
    def others(self) -> dict[str, str]:
        """All columns but `id` and `sequence`, with the names under which `labels` has them."""
        return {name: LABELS.beside(column_name(name)) for name in self.columns if name not in (ID, SEQUENCE)}

    @property
    def labels(self) -> Table:
        """The table `labels` as far as the file fills it."""
        others = (Column(stored, "string", f"Column {name} of the file") for name, stored in self.others.items())
        return Table(LABELS.name, LABELS.doc, (*LABELS.columns, *others), LABELS.key, checks=LABELS.checks)


def header_of(uri: str) -> Header:
    """The header of the table at `uri`. InputError for an empty file, no `id` or `sequence`,
    a column that stands twice or cannot be stored."""
    line = streams.first_line(uri)
    if not line.strip():
        raise InputError("the file is empty; expected a table with columns id and sequence in its header", uri, 1)
    delimiter = "\t" if b"\t" in line else ","
    try:
        columns = [name.strip() for name in delimited.cells(line, delimiter)]
    except Unreadable as error:
        raise InputError(str(error), uri, 1) from error
    for name in (ID, SEQUENCE):
        if name not in columns:
            raise InputError(
                f"found columns {', '.join(map(shown, columns[:8]))}; expected one called {name}, "
                "rename it in the header",
                uri,
                1,
            )
    seen = {COHORT.name}
    for name in columns:
        stored = column_name(name).lower()
        stored = stored if stored == COHORT.name else LABELS.beside(stored)
        if not stored or stored in seen:
            raise InputError(
                f"column {name!r} stands twice, is empty or reserved; expected distinct names, rename it", uri, 1
            )
        seen.add(stored)
    return Header(columns, delimiter)


def read(
    uri: str, split: Split, first: int, header: Header, cohort: str, file: str, note: Note = lambda line, what: None
) -> Iterator[Batches]:
    """Rows of `sequences`, of `labels` (those of the header) and of `quarantine` for a piece of a file, block by block.

    `first`: the number of its first line, from 1. The rows of the first two are of the same records.
    In quarantine are records of another number of columns than the header's, without an id or a sequence, with a letter
    outside IUPAC, or not in UTF-8; blank lines are passed over, blanks around values go, and `note` is told of these.
    InputError for a compressed stream that is not whole.
    """
    for number, block in streams.numbered_blocks(uri, split, first):
        if number == 1:
            number, block = 2, block[block.index(b"\n") + 1 :]
        if block:
            yield parse(block, number, header, cohort, file, note)


def parse(
    block: bytes, number: int, header: Header, cohort: str, file: str, note: Note = lambda line, what: None
) -> Batches:
    """One block of whole lines, of which `number` is the first, as `read` gives it."""
    columns, lines, bad = _fast(block, header) or _slow(block, header)
    sequences, codes = columns[SEQUENCE], pa.array([], pa.binary())
    if len(lines):
        codes, broken = encoded(sequences)
        for row in np.flatnonzero(delimited.odd_names(columns[ID]).to_numpy(zero_copy_only=False)):
            bad[int(lines[row])] = (
                f"found {fault_of_name(columns[ID][row].as_py())} as id; expected a name for the sequence, mend it"
            )
        for row, reason in broken.items():
            bad[int(lines[row])] = reason
        if bad:
            kept = pa.array(~np.isin(lines, list(bad)))
            columns, codes, lines = (
                {name: column.filter(kept) for name, column in columns.items()},
                codes.filter(kept),
                lines[kept],
            )
    n = len(lines)
    cohorts, files = (pa.repeat(pa.scalar(value, pa.string()), n) for value in (cohort, file))
    places = [files, pa.array(lines + number, pa.int64())]
    rows = [cohorts, columns[ID], codes, pc.binary_length(codes), *places]
    named = [cohorts, pa.repeat(pa.scalar(SEQUENCES.kind), n), columns[ID], *places]
    missing, nothing = pa.array(sorted(MISSING)), pa.scalar(None, pa.string())
    trimmed = [pc.utf8_trim_whitespace(columns[name]) for name in header.others]
    for name, column in zip(header.others, trimmed, strict=True):
        for row in np.flatnonzero(pc.not_equal(column, columns[name]).to_numpy(zero_copy_only=False)):
            note(number + int(lines[row]), f"have blanks around a value of column {name}, which are not stored")
    others = [pc.if_else(pc.is_in(column, missing), nothing, column) for column in trimmed]
    return (
        pa.RecordBatch.from_arrays(rows, schema=SEQUENCES.arrow_schema()),
        pa.RecordBatch.from_arrays([*named, *others], schema=header.labels.arrow_schema()),
        _quarantined(block, number, bad, cohort, file),
    )


# columns (text; the sequence as bytes), lines from 0, line -> what is wrong
_Found = tuple[dict[str, pa.Array], np.ndarray, dict[int, str]]


def _fast(block: bytes, header: Header) -> _Found | None:
    """All lines of a block by Arrow's reader; None where one of them is blank, ragged, not UTF-8 or has
    quotes or a carriage return."""
    if _QUOTE in block or b"\r" in block or block.startswith(b"\n") or b"\n\n" in block:
        return None
    try:
        table = pacsv.read_csv(
            pa.py_buffer(block),
            pacsv.ReadOptions(use_threads=False, column_names=header.columns, block_size=len(block) + 1),
            pacsv.ParseOptions(delimiter=header.delimiter, quote_char=False, ignore_empty_lines=False),
            pacsv.ConvertOptions(
                column_types={name: pa.binary() if name == SEQUENCE else pa.string() for name in header.columns},
                strings_can_be_null=False,
            ),
        ).combine_chunks()
    except pa.ArrowInvalid:
        return None
    return {name: table.column(name).chunk(0) for name in header.columns}, np.arange(table.num_rows), {}


def _slow(block: bytes, header: Header) -> _Found:
    cells: list[list[str]] = []
    lines: list[int] = []
    bad: dict[int, str] = {}
    for number, line in enumerate(block[:-1].split(b"\n")):
        if not line.rstrip(b"\r"):
            continue
        try:
            found = delimited.cells(line.rstrip(b"\r"), header.delimiter)
        except Unreadable as error:
            bad[number] = str(error)
            continue
        if len(found) != len(header.columns):
            bad[number] = f"found {len(found)} columns; expected {len(header.columns)}, as many as the header has"
        else:
            cells.append(found)
            lines.append(number)
    columns = {name: pa.array([row[i] for row in cells], pa.string()) for i, name in enumerate(header.columns)}
    columns[SEQUENCE] = columns[SEQUENCE].cast(pa.binary())
    return columns, np.array(lines, np.int64), bad


def encoded(sequences: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Base codes of sequences (binary to binary, the same lengths), and what is wrong with some of them, by row."""
    text, ends = packing.binary(sequences)
    text, ends = text[ends[0] : ends[-1]], ends - ends[0]
    codes = bases.base_codes(text)
    broken = {int(row): "found an empty sequence; expected its bases" for row in np.flatnonzero(np.diff(ends) == 0)}
    places = np.flatnonzero(codes == bases.NO_BASE)
    rows = np.searchsorted(ends, places, "right") - 1
    for row, first in zip(*np.unique(rows, return_index=True), strict=True):
        at, end = places[first], ends[row + 1]
        letter = text[at : min(at + _LONGEST_CHARACTER, end)].tobytes().decode("utf-8", "replace")[0]
        broken[int(row)] = (
            f"found {character(letter)} at base {at - ends[row] + 1}; expected letters of IUPAC, "
            "A C G T U R Y S W K M B D H V N"
        )
    return packing.binary_array(codes.view(np.uint8), ends), broken


def _quarantined(block: bytes, number: int, bad: dict[int, str], cohort: str, file: str) -> pa.RecordBatch:
    lines = block.split(b"\n") if bad else []
    rows = [
        {
            COHORT.name: cohort,
            "source": SOURCE,
            "file": file,
            "line": number + line,
            "reason": reason,
            "text": lines[line].decode("utf-8", "replace")[:_KEPT],
        }
        for line, reason in sorted(bad.items())
    ]
    return pa.RecordBatch.from_pylist(rows, schema=QUARANTINE.arrow_schema())
