"""Delimited tables of entities that are no person (sequences, variants): columns of their own and any others, which go
to `labels` as text.

A line is a record. A block of lines goes through Arrow's reader; where that finds anything out of order, line by line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import MISSING, shown
from genodl_spark.formats import delimited, streams
from genodl_spark.formats.delimited import Unreadable
from genodl_spark.formats.sample_table import column_name
from genodl_spark.formats.streams import Note, Split
from genodl_spark.lake.schema import COHORT, Column, Table
from genodl_spark.lake.tables.ingested import LABELS, QUARANTINE

_KEPT = 4096  # characters of a record in quarantine
_QUOTE = b'"'
Batches = tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]
# columns (text, or bytes where asked for), lines from 0, line -> what is wrong
Cells = tuple[dict[str, pa.Array], np.ndarray, dict[int, str]]


@dataclass(frozen=True)
class Header:
    """First line of a table: its columns in order, as named there, and the delimiter (tab or comma).

    `own`: columns that are not for `labels`. `repeats`: place of a column that stands again -> that of the first one
    of its name, for a kind of table that takes such.
    """

    columns: list[str]
    delimiter: str
    own: tuple[str, ...] = ("id", "sequence")
    repeats: dict[int, int] = field(default_factory=dict)

    @property
    def others(self) -> dict[str, str]:
        """Columns that are not the table's own, with the names under which `labels` has them."""
        kept = (name for place, name in enumerate(self.columns) if name not in self.own and place not in self.repeats)
        return {name: LABELS.beside(column_name(name)) for name in kept}

    @property
    def labels(self) -> Table:
        """The table `labels` as far as the file fills it."""
        others = (Column(stored, "string", f"Column {name} of the file") for name, stored in self.others.items())
        return Table(LABELS.name, LABELS.doc, (*LABELS.columns, *others), LABELS.key, checks=LABELS.checks)


def check_names(columns: Sequence[str], own: Sequence[str], place: str) -> None:
    """InputError for columns that lack one of `own`, or that cannot be stored."""
    for name in own:
        if name not in columns:
            raise InputError(
                f"found columns {', '.join(map(shown, columns[:8]))}; expected one called {name}, "
                "rename it in the header",
                place,
                1,
            )
    seen = {COHORT.name}
    for name in columns:
        stored = column_name(name).lower()
        stored = stored if stored == COHORT.name else LABELS.beside(stored)
        if not stored or stored in seen:
            raise InputError(
                f"column {name!r} stands twice, is empty or reserved; expected distinct names, rename it", place, 1
            )
        seen.add(stored)


def header_of(uri: str, own: tuple[str, ...], repeated: bool = False) -> Header:
    """The header of the table at `uri`. InputError for an empty file, none of a column of `own`,
    a column that stands twice (unless `repeated`: its values are held against the first one's) or cannot be stored."""
    line = streams.first_line(uri)
    if not line.strip():
        raise InputError(f"the file is empty; expected a table with columns {', '.join(own)} in its header", uri, 1)
    delimiter = "\t" if b"\t" in line else ","
    try:
        columns = [name.strip() for name in delimited.cells(line, delimiter)]
    except Unreadable as error:
        raise InputError(str(error), uri, 1) from error
    first = {name: place for place, name in reversed(list(enumerate(columns)))}
    repeats = {place: first[name] for place, name in enumerate(columns) if first[name] != place} if repeated else {}
    check_names([name for place, name in enumerate(columns) if place not in repeats], own, uri)
    return Header(columns, delimiter, own, repeats)


def blocks(uri: str, split: Split, first: int) -> Iterator[tuple[int, bytes]]:
    """(Number of its first line, block of whole lines) of a piece of a table, without the header's line.
    InputError for a compressed stream that is not whole."""
    for number, block in streams.numbered_blocks(uri, split, first):
        if number == 1:
            number, block = 2, block[block.index(b"\n") + 1 :]
        if block:
            yield number, block


def cells(block: bytes, header: Header, binary: Sequence[str] = ()) -> Cells:
    """Cells of a block of whole lines by column, those of `binary` as bytes. Blank lines are passed over."""
    return _fast(block, header, binary) or _slow(block, header, binary)


def _internal(header: Header) -> list[str]:
    """Names of columns of which each is another."""
    return [name if place not in header.repeats else f"{place}\0" for place, name in enumerate(header.columns)]


def _fast(block: bytes, header: Header, binary: Sequence[str]) -> Cells | None:
    """All lines of a block by Arrow's reader; None where one of them is blank, ragged, not UTF-8 or has
    quotes or a carriage return."""
    if _QUOTE in block or b"\r" in block or block.startswith(b"\n") or b"\n\n" in block:
        return None
    names = _internal(header)
    try:
        table = pacsv.read_csv(
            pa.py_buffer(block),
            pacsv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
            pacsv.ParseOptions(delimiter=header.delimiter, quote_char=False, ignore_empty_lines=False),
            pacsv.ConvertOptions(
                column_types={name: pa.binary() if name in binary else pa.string() for name in names},
                strings_can_be_null=False,
            ),
        ).combine_chunks()
    except pa.ArrowInvalid:
        return None
    columns = {name: table.column(name).chunk(0) for name in names}
    return _unrepeated(columns, np.arange(table.num_rows), {}, header)


def _slow(block: bytes, header: Header, binary: Sequence[str]) -> Cells:
    rows: list[list[str]] = []
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
            rows.append(found)
            lines.append(number)
    columns = {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(_internal(header))}
    columns |= {name: columns[name].cast(pa.binary()) for name in binary}
    return _unrepeated(columns, np.array(lines, np.int64), bad, header)


def _unrepeated(columns: dict[str, pa.Array], lines: np.ndarray, bad: dict[int, str], header: Header) -> Cells:
    """Without columns that stand again; records that say something else there are bad."""
    for place, first in header.repeats.items():
        again, name = columns.pop(f"{place}\0"), header.columns[first]
        for row in np.flatnonzero(pc.not_equal(again, columns[name]).to_numpy(zero_copy_only=False)).tolist():
            found = f"found {shown(columns[name][row].as_py())} and {shown(again[row].as_py())}"
            bad[int(lines[row])] = f"{found} in two columns called {name}; expected one value"
    return (*kept(columns, lines, bad), bad)


def kept(
    columns: dict[str, pa.Array], lines: np.ndarray, bad: dict[int, str]
) -> tuple[dict[str, pa.Array], np.ndarray]:
    """Columns and lines without those that are bad."""
    if not bad:
        return columns, lines
    chosen = ~np.isin(lines, list(bad))
    return {name: column.filter(pa.array(chosen)) for name, column in columns.items()}, lines[chosen]


def labels(
    header: Header, columns: dict[str, pa.Array], named: Sequence[pa.Array], number: int, lines: np.ndarray, note: Note
) -> pa.RecordBatch:
    """Rows of `labels` of the header: `named` are its own columns, the others are those of the file, blanks around
    values gone, missing ones NULL. `number`: of line 0."""
    missing, nothing = pa.array(sorted(MISSING)), pa.scalar(None, pa.string())
    trimmed = [pc.utf8_trim_whitespace(columns[name]) for name in header.others]
    for name, column in zip(header.others, trimmed, strict=True):
        for row in np.flatnonzero(pc.not_equal(column, columns[name]).to_numpy(zero_copy_only=False)):
            note(number + int(lines[row]), f"have blanks around a value of column {name}, which are not stored")
    others = [pc.if_else(pc.is_in(column, missing), nothing, column) for column in trimmed]
    return pa.RecordBatch.from_arrays([*named, *others], schema=header.labels.arrow_schema())


def set_aside(block: bytes, number: int, bad: dict[int, str], cohort: str, source: str, file: str) -> pa.RecordBatch:
    """Rows of `quarantine` for lines of a block, of which `number` is the first."""
    lines = block.split(b"\n") if bad else []
    rows = [
        {
            COHORT.name: cohort,
            "source": source,
            "file": file,
            "line": number + line,
            "reason": reason,
            "text": lines[line].decode("utf-8", "replace")[:_KEPT],
        }
        for line, reason in sorted(bad.items())
    ]
    return pa.RecordBatch.from_pylist(rows, schema=QUARANTINE.arrow_schema())
