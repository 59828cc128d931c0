"""Lines of delimited text to cells: what may stand in a line, quotes, and the delimiter that a header shows."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.text_values import LONGEST

DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon"}


class Unreadable(ValueError):
    """Why a line has no cells, as "found ...; expected ..."."""


def cells(line: bytes, delimiter: str) -> list[str]:
    """The cells of a line, without its end; in quotes they may hold delimiters, and quotes twice. Unreadable."""
    return split(text_of(line), delimiter)


def text_of(line: bytes) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"found bytes that are not UTF-8 ({line[error.start : error.start + 4].hex(' ')}); expected UTF-8 text"
        ) from error
    if "\r" in text:
        raise Unreadable(
            "found a carriage return within the line; expected lines that end in LF or CRLF: convert the file"
        )
    return text


def split(text: str, delimiter: str) -> list[str]:
    if '"' not in text:
        return text.split(delimiter)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # chromosomes are longer than the module's limit
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise Unreadable(
            f"found quotes that do not end, or text behind them ({error}); "
            "expected quotes around whole cells, on one line"
        ) from error


def delimiter_of(head: bytes, fits: Callable[[list[str], str], bool]) -> str:
    """The delimiter of a header: tab where there is one, else that of comma and semicolon
    by which `fits` takes its cells.

    In a header of a single cell tab counts too. Comma where none fits, Unreadable where two do.
    """
    text = text_of(head)
    if "\t" in text:
        return "\t"
    single = not any(delimiter in text for delimiter in DELIMITERS)
    fitting = []
    for delimiter in DELIMITERS:
        with contextlib.suppress(Unreadable):
            if (single or delimiter in text) and fits(split(text, delimiter), delimiter):
                fitting.append(delimiter)
    if len(fitting) > 1 and not single:
        raise Unreadable(
            "found a header that commas and semicolons cut into as many cells as the line below; "
            "expected one of them, write tabs"
        )
    return fitting[0] if fitting else ","


def too_long(values: Sequence[str]) -> str | None:
    """The message for a cell that is longer than any label or number; None where there is none."""
    longest = max(map(len, values), default=0)
    if longest <= LONGEST:
        return None
    return (
        f"found a cell of {longest:,} characters; expected at most {LONGEST:,}: "
        "close its quotes, or leave the column out"
    )


def odd_names(names: pa.Array) -> pa.Array:
    """Which of some identifiers `fault_of_name` has something to say of."""
    odd = pc.or_(
        pc.not_equal(pc.utf8_trim_whitespace(names), names), pc.match_substring_regex(names, r"[\p{Cc}\p{Zl}\p{Zp}]")
    )
    return pc.or_(odd, pc.or_(pc.equal(names, ""), pc.greater(pc.utf8_length(names), LONGEST)))
