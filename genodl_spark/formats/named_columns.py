"""Some columns of a block of delimited text, found by their names in the header: how files of portals are read.

A block goes through a kernel where its numbers are counts, or through Arrow's reader; where that finds anything out of
order, line by line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from genodl_spark.core import text_values
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import MISSING, WORDS, known, shown
from genodl_spark.formats import delimited
from genodl_spark.formats.delimited import Unreadable
from genodl_spark.native import kernels

_LARGEST = float(np.finfo(np.float32).max)


def header(line: bytes, file: str, number: int) -> list[str]:
    """Names of the columns of a line between tabs, without blanks around them, and without empty ones at its end.
    InputError for one that stands twice."""
    try:
        names = [name.strip() for name in delimited.cells(line, "\t")]
    except Unreadable as error:
        raise InputError(str(error), file, number) from error
    while names and not names[-1]:
        names.pop()
    folded: dict[str, str] = {}
    for name in names:
        if name and name.lower() in folded:
            raise InputError(
                f"column {shown(name)} stands twice in the header; expected each once, remove one", file, number
            )
        folded[name.lower()] = name
    return names


def place(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Where the first of `wanted` stands among `names`, in any case; None where none does."""
    at = {name.lower(): i for i, name in reversed(list(enumerate(names)))}
    return next((at[name.lower()] for name in wanted if name.lower() in at), None)


def read(
    block: bytes, width: int, texts: Sequence[int], numbers: Sequence[int], first: int, file: str, start: int = 0
) -> tuple[list[pa.Array], list[pa.Array], np.ndarray]:
    """Columns of the whole lines from `start` on in a block, between tabs, by their places among `width`: `texts` as
    strings, without a missing value; `numbers` as float32, NULL where missing; and the lines of the rows, of which
    `first` is the first.

    Blank lines are passed over, and so are empty cells behind the last column. InputError, with the line, for one
    of another number of cells, and for a cell in `numbers` that is no number within float32.
    """
    found = _counts(np.frombuffer(block, np.uint8, offset=start), width, texts, numbers, first)
    if found is not None:
        return found
    block = block[start:]
    return _fast(block, width, texts, numbers, first) or _slow(block, width, texts, numbers, first, file)


_Read = tuple[list[pa.Array], list[pa.Array], np.ndarray]


def _counts(block: np.ndarray, width: int, texts: Sequence[int], numbers: Sequence[int], first: int) -> _Read | None:
    """Where all numbers are digits, cells are ASCII, and every line has as many: less than half of Arrow's time."""
    if width < 2 or len({*texts, *numbers}) < len(texts) + len(numbers):
        return None
    role = np.zeros(width, np.int8)
    role[list(texts)], role[list(numbers)] = np.arange(1, len(texts) + 1), -np.arange(1, len(numbers) + 1)
    room = len(block) // width  # a line has a byte for each cell at least
    cells = np.empty((len(texts), len(block)), np.uint8)
    ends = np.empty((len(texts), room + 1), np.int32)
    values = np.empty((len(numbers), room), np.float32)
    rows = kernels.call("columns", block, len(block), width, role, room, cells, ends, values)
    if rows < 0:
        return None
    named = [
        pa.StringArray.from_buffers(rows, pa.py_buffer(end[: rows + 1].copy()), pa.py_buffer(cell[: end[rows]].copy()))
        for cell, end in zip(cells, ends, strict=True)
    ]
    return named, [pa.array(value[:rows]) for value in values], np.arange(first, first + rows)


def _fast(block: bytes, width: int, texts: Sequence[int], numbers: Sequence[int], first: int) -> _Read | None:
    if b'"' in block or b"\r" in block:
        return None
    types = {f"f{i}": pa.string() for i in texts} | {f"f{i}": pa.float32() for i in numbers}
    try:
        table = pacsv.read_csv(
            pa.py_buffer(block),
            pacsv.ReadOptions(
                use_threads=False, column_names=[f"f{i}" for i in range(width)], block_size=len(block) + 1
            ),
            pacsv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            pacsv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=sorted(MISSING),
                strings_can_be_null=False,
            ),
        ).combine_chunks()
    except pa.ArrowInvalid:
        return None
    # A line of blanks alone is a row of empty cells where there is one column.
    if table.num_rows != kernels.call("count_lines", block, len(block)) or width < 2:
        return None
    read = [table.column(f"f{i}").chunk(0) if table.num_rows else pa.array([], types[f"f{i}"]) for i in numbers]
    for column in read:
        values = column.to_numpy(zero_copy_only=False)
        # Arrow reads `inf`, numbers beyond float32 and words such as `nan(1)` as well.
        if np.isinf(values).any() or int(np.isnan(values).sum()) != column.null_count:
            return None
    named = [table.column(f"f{i}").chunk(0) if table.num_rows else pa.array([], pa.string()) for i in texts]
    return named, read, np.arange(first, first + table.num_rows)


def _slow(block: bytes, width: int, texts: Sequence[int], numbers: Sequence[int], first: int, file: str) -> _Read:
    rows: list[list[str]] = []
    lines: list[int] = []
    for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), first):
        if not line.strip():
            continue
        try:
            cells = delimited.cells(line, "\t")
        except Unreadable as error:
            raise InputError(str(error), file, number) from error
        fault = delimited.too_long(cells)
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        if fault is None and len(cells) != width:
            fault = f"found {len(cells)} columns; expected {width}, as many as the header has"
        if fault is not None:
            raise InputError(fault, file, number)
        for i in numbers:
            text = known(cells[i])
            value = None if text is None else text_values.number(text)
            if text is not None and (value is None or abs(value) > _LARGEST):
                found = f"found {shown(cells[i])} in column {i + 1}"
                raise InputError(f"{found}; expected a number within float32, or {WORDS}", file, number)
            cells[i] = "" if text is None else text.removeprefix("+")
        rows.append(cells)
        lines.append(number)
    read = [
        pa.array([row[i] or None for row in rows], pa.string()).cast(pa.float32()) for i in numbers
    ]  # rounds as the fast way does
    return [pa.array([row[i] for row in rows], pa.string()) for i in texts], read, np.array(lines, np.int64)


def floats(column: pa.Array) -> np.ndarray:
    """A column of numbers as float32, NaN where missing."""
    return column.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)


def whole(value: str) -> int | None:
    """A count as text; None for what is none."""
    number = text_values.number(value)
    return int(number) if number is not None and math.floor(number) == number and number >= 0 else None
