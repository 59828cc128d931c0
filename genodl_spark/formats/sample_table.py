"""Sample tables: a `sample_id` column and any others (label, split, batch, patient, traits), as text.

Clinical tables of portals have other names for that column, several rows of one case, words of their own for a
missing value, and in TCGA's two more lines of names below the header: `_PORTALS` tells one by its column.
"""

from __future__ import annotations

import csv
import itertools
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
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
    `merged`: how many rows of the file one row here is made of, where these are several. `portal`: whether it is a
    portal's, whose rows may be of cases that samples are named after. `file`: its name.
    """

    columns: list[str]
    rows: dict[str, list[str | None]]
    renamed: dict[str, str]
    notes: list[str] = field(default_factory=list)
    merged: dict[str, int] = field(default_factory=dict)
    portal: bool = False
    file: str = ""


# What portals call the column that names rows, samples before cases.
_PORTALS = (
    "Tumor_Sample_Barcode", "bcr_sample_barcode", "sample_submitter_id", "cases.samples.submitter_id",
    "bcr_patient_barcode", "case_submitter_id", "cases.submitter_id", "submitter_id", "geo_accession",
)  # fmt: skip
_ALIKE = re.compile(r"samples?([ _.-]?(ids?|names?))?", re.IGNORECASE)  # what else says that a column names samples
_PORTALS_MISSING = re.compile(r"'?--|\[(not |unknown|discrepancy|pending|completed|unavailable)[^]]*\]", re.IGNORECASE)


def is_missing_at_portals(text: str) -> bool:
    return _PORTALS_MISSING.fullmatch(text.strip()) is not None


def column_name(name: str) -> str:
    """The name under which a column of the user is stored."""
    return _UNSTORABLE.sub("_", name.strip())


def column_names(names: Iterable[str]) -> dict[str, str]:
    """Names under which columns that a portal has named are stored, each another one in any case."""
    stored: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        made = base = column_name(name) or "column"
        number = 2
        while made.lower() in taken:
            made, number = f"{base}_{number}", number + 1
        taken.add(made.lower())
        stored[name] = made
    return stored


def read(raw: BinaryIO, file: str) -> SampleTable:
    """Reads TSV or CSV, gzipped or not. Rows are named by the column sample_id, a portal's, or the only one whose name
    says it (sample, Sample ID). InputError, with the line, for none of these, a repeated column or sample,
    a ragged line.

    Semicolons may stand between cells too: then numbers have a decimal comma, and are stored with a point.
    A quoted cell may hold line ends, unless what it holds could be rows of the table:
    then a quote is not closed, and the file is refused.
    """
    text = b"".join(block for _, block in line_blocks(raw, file))
    head = text.partition(b"\n")[0]
    try:
        delimiter = delimited.delimiter_of(head, lambda names, _: any(map(_ALIKE.fullmatch, map(str.strip, names))))
        names = [name.strip() for name in delimited.cells(head, delimiter)]
    except Unreadable as error:
        raise InputError(str(error), file, 1) from error
    folded_names = {name.lower(): name for name in reversed(names)}
    own = (
        ID
        if ID in names
        else next((folded_names[one.lower()] for one in _PORTALS if one.lower() in folded_names), None)
    )
    portal = own not in (ID, None)
    alike = [name for name in names if _ALIKE.fullmatch(name)]
    if own is None and len(alike) == 1:
        own = alike[0]
    if own is None:
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
    key = names.index(own)
    others = [i for i in range(len(names)) if i != key]
    rows: dict[str, list[str | None]] = {}
    lines_of: dict[str, int] = {}
    merged: dict[str, int] = {}
    trimmed, words = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for line, row in _records(text, delimiter, len(names), file):
        sample = row[key]
        if portal and line <= 3 and (sample.lower() == own.lower() or sample.startswith("CDE_ID:")):
            continue  # TCGA's further lines of names
        fault = fault_of_name(sample) or (f"a word for a missing value, {shown(sample)}" if sample in MISSING else None)
        if fault is not None:
            raise InputError(
                f"found {fault} as {ID}; expected the sample's identifier as in the data files, mend it", file, line
            )
        if portal and sample in rows:
            merged[sample] = merged.get(sample, 1) + 1
        elif sample in rows:
            raise InputError(
                f"{ID} {sample!r} stands twice, first on line {lines_of[sample]}; expected each sample once", file, line
            )
        lines_of[sample] = line
        if portal:
            row = ["" if is_missing_at_portals(cell) else cell for cell in row]
        cells = [with_point(row[i]) if delimiter == ";" else row[i] for i in others]
        told = [known(cell) for cell in cells]
        rows[sample] = [_both(*pair) for pair in zip(rows[sample], told, strict=True)] if sample in rows else told
        for i, cell, value in zip(others, cells, told, strict=True):
            if cell != cell.strip() and value is not None:
                trimmed[stored[i], value] += 1
            if cell.strip() in DOUBTFUL or (value is None and cell.strip() not in ("", "NA")):
                words[stored[i], cell.strip()] += 1
    if not rows:
        raise InputError("no sample below the header; expected one line per sample", file, 2)
    renamed = {names[i]: stored[i] for i in others if names[i] != stored[i]}
    notes = list(_notes(delimiter, trimmed, words))
    if own != ID:
        notes.append(f"rows are named by column {own}")
    if merged:
        notes.append(
            f"{sum(merged.values())} rows of {len(merged)} names are one row each, {next(iter(merged))} the first"
        )
    base = posixpath.basename(file)
    columns = [stored[i] for i in others]
    return SampleTable(columns, rows, renamed, [f"{base}: {note}" for note in notes], merged, portal, base)


def _both(first: str | None, second: str | None) -> str | None:
    """Cells of two rows that are one: texts that differ stand with semicolons between them."""
    if first is None or second is None:
        return first or second
    return first if second in first.split("; ") else f"{first}; {second}"


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
    """Tables that follow each other and have the same columns as one, in which the last row of a sample stands;
    of portals all, as a file for each case has the columns that it needs."""
    for _, alike in itertools.groupby(tables, key=lambda table: () if table.portal else tuple(table.columns)):
        first, *more = alike
        columns = list(dict.fromkeys(name for table in (first, *more) for name in table.columns))
        rows, renamed, merged = dict[str, list[str | None]](), dict[str, str](), dict[str, int]()
        for table in (first, *more):
            places = {name: i for i, name in enumerate(table.columns)}
            for sample, cells in table.rows.items():
                rows[sample] = [cells[places[name]] if name in places else None for name in columns]
            renamed |= table.renamed
            merged |= table.merged
        notes = [note for table in (first, *more) for note in table.notes]
        yield SampleTable(columns, rows, renamed, notes, merged, first.portal, first.file)


def check_covers(table: SampleTable, samples: list[str], table_file: str, data_file: str) -> list[str]:
    """Samples of the table that the data lack. InputError when the table lacks a sample of the data."""
    lacking = [sample for sample in samples if sample not in table.rows and not table.portal]
    if lacking:
        raise InputError(
            f"found no row for {len(lacking)} of {len(samples)} samples of {data_file}, {lacking[0]!r} the first; "
            "expected one row for each, add them or drop them from the data",
            table_file,
        )
    known = set(samples)
    return [sample for sample in table.rows if sample not in known]
