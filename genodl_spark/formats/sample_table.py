"""Sample tables: a `sample_id` column and any others (label, split, batch, patient, traits), as text."""

from __future__ import annotations

import csv
import itertools
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import DOUBTFUL, MISSING, WORDS, fault_of_name, known, shown, with_point
from genodl_spark.formats import delimited
from genodl_spark.formats.delimited import DELIMITERS, Unreadable
from genodl_spark.formats.streams import line_blocks

ID = "sample_id"
_UNSTORABLE = re.compile(r"[ ,;{}()\n\t=]+")  # characters that Parquet columns may not hold


@dataclass(frozen=True)
class SampleTable:
    """Rows of a sample table by sample_id; every value text without blanks around it, None where missing.

    `renamed`: columns stored under another name. `notes`: what was odd and is read all the same, for the run report.
    """

    columns: list[str]
    rows: dict[str, list[str | None]]
    renamed: dict[str, str]
    notes: list[str] = field(default_factory=list)


def column_name(name: str) -> str:
    """The name under which a column of the user is stored."""
    return _UNSTORABLE.sub("_", name.strip())


def read(raw: BinaryIO, file: str) -> SampleTable:
    """Reads TSV or CSV, gzipped or not. InputError, with the line, for no sample_id column,
    a repeated column or sample, a ragged line.

    Semicolons may stand between cells too: then numbers have a decimal comma, and are stored with a point.
    A quoted cell may hold line ends, unless what it holds could be rows of the table:
    then a quote is not closed, and the file is refused.
    """
    text = b"".join(block for _, block in line_blocks(raw, file))
    head = text.partition(b"\n")[0]
    try:
        delimiter = delimited.delimiter_of(head, lambda names, _: ID in map(str.strip, names))
        names = [name.strip() for name in delimited.cells(head, delimiter)]
    except Unreadable as error:
        raise InputError(str(error), file, 1) from error
    if ID not in names:
        raise InputError(
            f"found columns {', '.join(map(shown, names[:8]))}; expected one called {ID}, rename it in the header",
            file,
            1,
        )
    stored = [column_name(name) for name in names]
    folded: set[str] = set()
    for name, column in zip(names, stored, strict=True):
        if not column or column.lower() in folded or column.lower() == "cohort":
            raise InputError(
                f"column {column!r} stands twice, is empty or reserved; expected distinct names, rename it", file, 1
            )
        if (fault := fault_of_name(name)) is not None:
            raise InputError(f"found {fault}; expected a column name, mend it", file, 1)
        folded.add(column.lower())
    key = names.index(ID)
    others = [i for i in range(len(names)) if i != key]
    rows: dict[str, list[str | None]] = {}
    lines_of: dict[str, int] = {}
    trimmed, words = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for line, row in _records(text, delimiter, len(names), file):
        sample = row[key]
        fault = fault_of_name(sample) or (f"a word for a missing value, {shown(sample)}" if sample in MISSING else None)
        if fault is not None:
            raise InputError(
                f"found {fault} as {ID}; expected the sample's identifier as in the data files, mend it", file, line
            )
        if sample in rows:
            raise InputError(
                f"{ID} {sample!r} stands twice, first on line {lines_of[sample]}; expected each sample once", file, line
            )
        lines_of[sample] = line
        cells = [with_point(row[i]) if delimiter == ";" else row[i] for i in others]
        rows[sample] = [known(cell) for cell in cells]
        for i, cell, value in zip(others, cells, rows[sample], strict=True):
            if cell != cell.strip() and value is not None:
                trimmed[stored[i], value] += 1
            if cell.strip() in DOUBTFUL or (value is None and cell.strip() not in ("", "NA")):
                words[stored[i], cell.strip()] += 1
    if not rows:
        raise InputError("no sample below the header; expected one line per sample", file, 2)
    renamed = {names[i]: stored[i] for i in others if names[i] != stored[i]}
    return SampleTable(
        [stored[i] for i in others],
        rows,
        renamed,
        [f"{posixpath.basename(file)}: {note}" for note in _notes(delimiter, trimmed, words)],
    )


def _notes(delimiter: str, trimmed: Counter[tuple[str, str]], words: Counter[tuple[str, str]]) -> Iterator[str]:
    if delimiter == ";":
        yield f"read with a {DELIMITERS[delimiter]} between cells: decimal commas are stored as points"
    by_column: dict[str, list[tuple[str, int]]] = {}
    for (column, value), times in trimmed.items():
        by_column.setdefault(column, []).append((value, times))
    for column, found in by_column.items():
        value, times = found[0][0], sum(times for _, times in found)
        yield f"column {column}: {times} values without the blanks around them, of {shown(value)} the first"
    for (column, word), times in words.items():
        read = "read as missing" if word in MISSING else f"kept as text; a missing value is {WORDS}"
        yield f"column {column}: {times} cells {word!r} are {read}"


def _records(text: bytes, delimiter: str, width: int, file: str) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, with the lines on which they start; blank lines are passed over. InputError."""
    lines = (delimited.text_of(line) + "\n" for line in text.split(b"\n")[1:-1])
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    start = 2
    try:
        for row in reader:
            if row:
                fault = delimited.too_long(row) or _swallowed(row, delimiter, width)
                if fault is None and len(row) != width:
                    fault = f"found {len(row)} columns; expected {width}, as many as the header has"
                if fault is not None:
                    raise InputError(fault, file, start)
                yield start, row
            start = reader.line_num + 2
    except Unreadable as error:
        raise InputError(str(error), file, reader.line_num + 2) from error
    except csv.Error as error:
        raise InputError(
            f"found quotes that do not end, or text behind them ({error}); expected quotes around whole cells",
            file,
            start,
        ) from error


def _swallowed(row: list[str], delimiter: str, width: int) -> str | None:
    """The message for a quoted cell that could be rows of the table:
    with a line end for every `width` - 1 delimiters."""
    for cell in row:
        ends = cell.count("\n")
        if ends and cell.count(delimiter) >= ends * (width - 1):
            return (
                f"found a quoted cell over {ends + 1} lines that reads as rows of the table, {shown(cell)}; "
                "expected its quotes to end: close them"
            )
    return None


def joined(tables: list[SampleTable]) -> Iterator[SampleTable]:
    """Tables that follow each other and have the same columns as one, in which the last row of a sample stands."""
    for _, alike in itertools.groupby(tables, key=lambda table: table.columns):
        first, *more = alike
        rows, notes, renamed = dict(first.rows), list(first.notes), dict(first.renamed)
        for table in more:
            rows |= table.rows
            notes += table.notes
            renamed |= table.renamed
        yield SampleTable(first.columns, rows, renamed, notes)


def check_covers(table: SampleTable, samples: list[str], table_file: str, data_file: str) -> list[str]:
    """Samples of the table that the data lack. InputError when the table lacks a sample of the data."""
    lacking = [sample for sample in samples if sample not in table.rows]
    if lacking:
        raise InputError(
            f"found no row for {len(lacking)} of {len(samples)} samples of {data_file}, {lacking[0]!r} the first; "
            "expected one row for each, add them or drop them from the data",
            table_file,
        )
    known = set(samples)
    return [sample for sample in table.rows if sample not in known]
