"""Folders with a MatrixMarket file of counts, genes x cells, and tables of its genes and cells beside it.

Tables are found by the name of the matrix: genes.tsv or features.tsv, and cells.tsv or barcodes.tsv, behind the prefix
that it has before counts or matrix, gzipped or not. Whether such a table has a header shows in how many lines it has.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import known, shown
from genodl_spark.formats import counted_cells, delimited
from genodl_spark.formats.counted_cells import AT_ONCE, Genes, Header, Run, checked_columns, checked_features
from genodl_spark.formats.delimited import Unreadable
from genodl_spark.formats.streams import line_blocks

FILE_NAME = re.compile(r"\.mtx(\.b?gz)?$", re.IGNORECASE)
_STEM = re.compile(r"(.*?)(?:counts|matrix)?\.mtx(?:\.b?gz)?$", re.IGNORECASE)
_GENES, _CELLS = ("genes", "features"), ("cells", "barcodes")
_ENDINGS = (".tsv", ".tsv.gz", ".tsv.bgz")
_FIELDS = ("integer", "real", "double")
_IDS = {"genes": ("gene_id", "feature_id", "id", "gene"), "cells": ("cell_id", "barcode", "cell", "id")}
_TYPE = "feature_type"
_ENTRY = re.compile(rb"\s*(\d+)\s+(\d+)\s+([-+.\deE]+)\s*")


@dataclass(frozen=True)
class _Layout:
    """`turned`: cells x genes. `first`: line of the first entry. `entries`: how many. `kept`: the type of features
    that are read, where there are several. `in_all`: features of every type."""

    genes: str
    cells: str
    in_all: int
    entries: int
    first: int
    turned: bool
    kept: str | None


@dataclass(frozen=True)
class _Side:
    """A table of genes or cells: `names`, `first` the line of the first, further `columns` with their values."""

    names: list[str]
    first: int
    columns: dict[str, list[str | None]]
    notes: list[str]


def beside(uri: str) -> list[str]:
    """The tables of a matrix. InputError where one is not there, or two are."""
    found = []
    stem = _STEM.fullmatch(uri)
    prefix = posixpath.dirname(uri) + "/" if stem is None else stem[1]
    for names in (_GENES, _CELLS):
        there = [at for name in names for end in _ENDINGS if storage.is_file(at := f"{prefix}{name}{end}")]
        if len(there) != 1:
            what = "none" if not there else " and ".join(map(posixpath.basename, there))
            expected = (
                f"{' or '.join(posixpath.basename(prefix) + name for name in names)}.tsv, gzipped or not, beside it"
            )
            raise InputError(f"found {what} of {' and '.join(names)}; expected one of {expected}", uri)
        found += there
    return found


def header_of(uri: str, feature_type: str) -> Header:
    """InputError for a file that is no such matrix, tables that lack a row or have one too many, and a feature or
    column of cells that cannot be told apart."""
    genes, cells = beside(uri)
    rows, columns, entries, first = _dimensions(uri)
    texts = {at: _lines(at) for at in (genes, cells)}
    sizes = [len(texts[at]) for at in (genes, cells)]
    fits = [
        all(n in (size, size + 1) for size, n in zip(shape, sizes, strict=True))
        for shape in ((rows, columns), (columns, rows))
    ]
    if not any(fits):
        found = f"{rows} rows and {columns} columns, where {posixpath.basename(genes)} has {sizes[0]} lines and "
        found += f"{posixpath.basename(cells)} has {sizes[1]}"
        raise InputError(
            f"found {found}; expected a row per gene, a column per cell, and a header in each table or none",
            uri,
            first - 1,
        )
    turned = not fits[0]
    if turned:
        rows, columns = columns, rows
    of_genes, of_cells = _side(genes, texts[genes], rows, "genes"), _side(cells, texts[cells], columns, "cells")
    kept = None
    names = of_genes.names
    types = of_genes.columns.get(_TYPE)
    notes = [*of_genes.notes, *of_cells.notes]
    if types is not None and len(set(types)) > 1:
        kept = feature_type
        names = of_type(names, types, feature_type, genes)
        notes.append(
            f"{len(names)} features of type {feature_type} are read, {rows - len(names)} of other types are not"
        )
    if turned:
        notes.append("the matrix is read as cells x genes")
    if not columns:
        raise InputError("found no cell in the matrix; expected counts of some", uri, first - 1)
    feature_set = checked_features(names, genes, of_genes.first)
    described = f"MatrixMarket, {'cells x genes' if turned else 'genes x cells'}"
    layout = _Layout(genes, cells, rows, entries, first, turned, kept)
    others = checked_columns(list(of_cells.columns), cells, 1)
    return Header(layout, described, columns, len(names), feature_set, others, tuple(notes))


def genes(header: Header) -> Genes:
    """The features, in order."""
    layout: _Layout = header.layout
    side = _read_side(layout.genes, header, "genes")
    found = Genes.of(side.names, side.columns.__getitem__, side.columns)
    return found if layout.kept is None else found.of_type(side.columns[_TYPE], layout.kept)


def of_type(names: Sequence[str], types: Sequence[str | None], wanted: str, place: str) -> list[str]:
    """Names of features of one type. InputError, at `place`, where there is none."""
    found = [name for name, type_ in zip(names, types, strict=True) if type_ == wanted]
    if not found:
        there = ", ".join(sorted({str(type_) for type_ in types}))
        raise InputError(f"found features of types {there}; expected one of them as ingest.feature_type", place)
    return found


def read(
    uri: str, header: Header, cohort: str, block: str, file: str
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Rows of `cells` and `labels`.

    InputError, with the line, for an entry that is none or lies outside the matrix, fewer or more entries than the
    file says, and a compressed stream that is not whole.
    """
    layout: _Layout = header.layout
    side = _read_side(layout.cells, header, "cells")
    number = None
    if layout.kept is not None:
        of_genes = _read_side(layout.genes, header, "genes")
        chosen = np.array([type_ == layout.kept for type_ in of_genes.columns[_TYPE]])
        number = np.where(chosen, np.cumsum(chosen) - 1, -1)
    ids = pa.array(side.names, pa.string())
    columns = [pa.array(values, pa.string()) for values in side.columns.values()]
    for run in _runs(uri, header, number):
        first, counts, *_ = run
        part = [column.slice(first, len(counts)) for column in (ids, *columns)]
        yield counted_cells.batch(run, part[0], part[1:], header, cohort, block, file, uri)


def _runs(uri: str, header: Header, number: np.ndarray | None) -> Iterator[Run]:
    """Runs of cells. A file whose first entries are in the order of cells is read as it comes."""
    entries = _entries(uri, header, number)
    start = next(entries, None)
    if start is None or (np.diff(start[1].astype(np.int64)) < 0).any():
        yield from counted_cells.by_cell(
            (one[1:] for part in ([] if start is None else [start], entries) for one in part),
            header.cells,
            header.layout.entries,
        )
        return
    first = 0  # the first cell that has not left
    held: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    size = 0
    for part in ([start], entries):
        for line, cell, place, value in part:
            before = held[-1][0][-1] if held else first
            if len(cell) and (cell[0] < before or (np.diff(cell.astype(np.int64)) < 0).any()):
                raise InputError(
                    "found an entry behind those of a later cell, where those before are in the order of cells; "
                    "expected one order throughout, sort the file",
                    uri,
                    line,
                )
            if len(cell):
                held.append((cell, place, value))
                size += len(cell)
            if size >= AT_ONCE and held[-1][0][-1] > first:
                run, rest = _cut(held, first, int(held[-1][0][-1]))
                yield run
                first, held, size = first + len(run[1]), [rest], len(rest[0])
    yield _cut(held, first, header.cells)[0]


def _cut(
    held: list[tuple[np.ndarray, np.ndarray, np.ndarray]], first: int, end: int
) -> tuple[Run, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cells from `first` to before `end`, and the entries of those behind."""
    empty = (np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0, np.float32))
    cell, place, value = (np.concatenate(parts) for parts in zip(*(held or [empty]), strict=True))
    at = int(np.searchsorted(cell, end))
    counts = np.bincount(cell[:at].astype(np.int64) - first, minlength=end - first)
    places, values = counted_cells.sorted_places(counts, place[:at], value[:at])
    return (first, counts, places, values), (cell[at:], place[at:], value[at:])


def _entries(
    uri: str, header: Header, number: np.ndarray | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """(Line of the first, cells from 0, places, values) of blocks of entries. `number`: places of the genes that are
    kept, by gene, -1 for others."""
    layout: _Layout = header.layout
    genes = layout.in_all
    seen = 0
    with storage.open_input(uri) as raw:
        for line, block in line_blocks(raw, uri):
            if line < layout.first:
                skipped = layout.first - line
                parts = block.split(b"\n", skipped)
                if len(parts) <= skipped:
                    continue
                line, block = layout.first, parts[skipped]
            if not block.strip():
                continue
            row, column, value = _parsed(block, line, uri)
            seen += len(row)
            gene, cell = (column, row) if layout.turned else (row, column)
            outside = (gene < 1) | (gene > genes) | (cell < 1) | (cell > header.cells)
            if outside.any() or seen > layout.entries:
                at = int(np.argmax(outside)) if outside.any() else len(row) - (seen - layout.entries)
                what = f"an entry of row {row[at]} and column {column[at]}"
                expected = f"{layout.entries} entries within the matrix, as its first line that is no comment says"
                raise InputError(f"found {what}; expected {expected}", uri, _line_of(block, line, at))
            place = gene - 1 if number is None else number[gene - 1]
            if number is not None:
                cell, place, value = cell[place >= 0], place[place >= 0], value[place >= 0]
            for start in range(0, max(len(cell), 1), AT_ONCE):
                part = slice(start, start + AT_ONCE)
                yield (
                    line,
                    (cell[part] - 1).astype(np.uint32),
                    place[part].astype(np.uint32),
                    value[part].astype(np.float32),
                )
    if seen != layout.entries:
        raise InputError(f"found {seen} entries; expected {layout.entries}, as the file says: fetch it again", uri)


def _line_of(block: bytes, line: int, entry: int) -> int:
    """The line of an entry, where blank lines may stand between."""
    full = [i for i, text in enumerate(block.split(b"\n")) if text.strip()]
    return line + full[entry]


def _parsed(block: bytes, line: int, uri: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column, both int64, and value, float64, of each entry of a block."""
    try:
        table = pacsv.read_csv(
            pa.py_buffer(block),
            pacsv.ReadOptions(use_threads=False, column_names=["row", "column", "value"], block_size=len(block) + 1),
            pacsv.ParseOptions(delimiter=" ", quote_char=False),
            pacsv.ConvertOptions(
                column_types={"row": pa.int64(), "column": pa.int64(), "value": pa.float64()}, null_values=[]
            ),
        )
        row, column, value = (table.column(name).to_numpy() for name in table.column_names)
        return row, column, value
    except pa.ArrowInvalid:
        pass
    found = []
    for at, text in enumerate(block.split(b"\n")[:-1], line):
        if not text.strip():
            continue
        match = _ENTRY.fullmatch(text)
        try:
            found.append((int(match[1]), int(match[2]), float(match[3])) if match else None)
        except ValueError:
            found.append(None)
        if found[-1] is None:
            raise InputError(
                f"found {shown(text.decode('utf-8', 'replace'))}; expected an entry: row, column and value", uri, at
            )
    rows, columns, values = zip(*found, strict=True)
    return np.array(rows, np.int64), np.array(columns, np.int64), np.array(values)


def _dimensions(uri: str) -> tuple[int, int, int, int]:
    """Rows, columns and entries that the file says it has, and the line of the first entry."""
    with storage.open_input(uri) as raw:
        for number, block in line_blocks(raw, uri):
            for line, text in enumerate(block.split(b"\n")[:-1], number):
                if line == 1:
                    _check_banner(text, uri)
                elif text.strip() and not text.startswith(b"%"):
                    cells = text.split()
                    if len(cells) != 3 or not all(cell.isdigit() for cell in cells):
                        found = shown(text.decode("utf-8", "replace"))
                        raise InputError(
                            f"found {found}; expected how many rows, columns and entries there are", uri, line
                        )
                    rows, columns, entries = map(int, cells)
                    return rows, columns, entries, line + 1
    raise InputError("found no line with the size of the matrix; expected MatrixMarket, rows, columns and entries", uri)


def _check_banner(line: bytes, uri: str) -> None:
    words = line.decode("utf-8", "replace").lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        found = shown(line[:80].decode("utf-8", "replace"))
        raise InputError(f"found {found}; expected %%MatrixMarket matrix coordinate integer general", uri, 1)
    if words[2] != "coordinate" or words[3] not in _FIELDS or words[4] != "general":
        found = " ".join(words[2:])
        raise InputError(
            f"found a matrix that is {found}; expected coordinate, {' or '.join(_FIELDS)}, general", uri, 1
        )


def _lines(uri: str) -> list[str]:
    """The lines of a table, without blank ones at its end."""
    with storage.open_input(uri) as raw:
        text = b"".join(block for _, block in line_blocks(raw, uri))
    try:
        lines = delimited.text_of(text).split("\n")
    except Unreadable as error:
        raise InputError(str(error), uri) from error
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _read_side(uri: str, header: Header, what: str) -> _Side:
    return _side(uri, _lines(uri), header.cells if what == "cells" else header.layout.in_all, what)


def _side(uri: str, lines: list[str], count: int, what: str) -> _Side:
    """A table of `count` genes or cells. The column of identifiers is the first, unless a header names another so."""
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(delimited.split(line, "\t"))
        except Unreadable as error:
            raise InputError(str(error), uri, number) from error
    if len(rows) == count and rows and rows[0][0].strip() in _IDS[what]:
        raise InputError(f"found {count - 1} lines below the header; expected {count}, one for each of {what}", uri, 1)
    head = rows.pop(0) if len(rows) == count + 1 else None
    first = 1 if head is None else 2
    if not rows:
        return _Side([], first, {}, [])
    width = len(head) if head is not None else len(rows[0])
    for number, row in enumerate(rows, first):
        if len(row) != width:
            raise InputError(f"found {len(row)} columns; expected {width}, as many as the first line has", uri, number)
    key, notes = 0, []
    if head is not None:
        named = [name.strip() for name in head]
        key = next((named.index(name) for name in _IDS[what] if name in named), 0)
        columns = {name: [known(row[i]) for row in rows] for i, name in enumerate(named) if i != key}
        if len(columns) != width - 1:
            checked_columns([name for i, name in enumerate(named) if i != key], uri, 1)
    else:
        # 10x writes identifier, symbol and type of a feature.
        columns = {"symbol": [known(row[1]) for row in rows]} if what == "genes" and width > 1 else {}
        columns |= {_TYPE: [row[2] for row in rows]} if what == "genes" and width > 2 else {}
        if what == "cells" and width > 1:
            notes = [f"{posixpath.basename(uri)} has {width - 1} columns without a name, which are not read"]
    return _Side([row[key] for row in rows], first, columns, notes)
