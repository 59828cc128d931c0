"""A published linear model as a table: a feature's identifier in the first column, its coefficient in another, and a
line for the intercept. Such are the files of epigenetic clocks."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass

import numpy as np

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import known, number, shown
from genodl_spark.formats import delimited
from genodl_spark.formats.delimited import Unreadable

_INTERCEPT = ("intercept", "(intercept)")
_NAMED = "coefficient"  # how the name of the column begins, in any case, where none is named


@dataclass(frozen=True)
class Coefficients:
    """`names`: identifiers of the features, in the order of the file; `values` float64 (F,), of each; the intercept,
    0 where the file has none; `digest`: of all that, hexadecimal."""

    names: list[str]
    values: np.ndarray
    intercept: float

    @property
    def digest(self) -> str:
        content = "\n".join([*self.names, self.values.tobytes().hex(), self.intercept.hex()])
        return hashlib.sha256(content.encode()).hexdigest()


def read(uri: str, column: str = "") -> Coefficients:
    """The model of a TSV or CSV, gzipped or not. `column`: that of the coefficients; empty for the first one whose name
    begins with `coefficient`, or the second of two. Features without a coefficient are not part of it.

    InputError, with the line, for what is no such table: no such column, a cell that is no number, a feature twice.
    """
    content = storage.read_bytes(uri)
    try:
        lines = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"found damaged compression ({error}); expected a whole file", uri) from error
    if len(lines) < 2:
        raise InputError("found no line below a header; expected features and their coefficients", uri)
    names: dict[str, float] = {}
    intercept: float | None = None
    try:
        delimiter = delimited.delimiter_of(lines[0], lambda cells, _: len(cells) > 1)
        header = [name.strip() for name in delimited.cells(lines[0], delimiter)]
    except Unreadable as error:
        raise InputError(str(error), uri, 1) from error
    place = _place(header, column, uri)
    for count, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            cells = delimited.cells(line, delimiter)
        except Unreadable as error:
            raise InputError(str(error), uri, count) from error
        if len(cells) <= place:
            raise InputError(f"found {len(cells)} cells; expected one below {header[place]}", uri, count)
        name, text = cells[0].strip(), known(cells[place])
        if text is None:
            continue
        value = number(text)
        if value is None or not math.isfinite(value):
            found = f"found {shown(text)} below {header[place]}"
            raise InputError(f"{found}; expected a finite number, or clock.column for another column", uri, count)
        of_all = name.lower() in _INTERCEPT
        if name in names or (of_all and intercept is not None):
            raise InputError(f"found {shown(name)} a second time; expected each once, remove one", uri, count)
        if of_all:
            intercept = value
        elif name:
            names[name] = value
        else:
            raise InputError("found a coefficient without a name; expected that of its feature", uri, count)
    if not names:
        raise InputError(f"found no coefficient below {header[place]}; expected some", uri)
    return Coefficients(list(names), np.array(list(names.values())), intercept or 0.0)


def _place(header: list[str], column: str, uri: str) -> int:
    """Where the coefficients stand."""
    if column:
        if column not in header[1:]:
            text = f"found no column {shown(column)}; expected one of {', '.join(map(shown, header[1:]))}"
            raise InputError(text, "clock.column")
        return header.index(column, 1)
    found = [i for i, name in enumerate(header) if i and name.lower().startswith(_NAMED)]
    if not found and len(header) == 2:
        return 1
    if not found:
        text = f"found the columns {', '.join(map(shown, header))}"
        raise InputError(f"{text}; expected one that begins with {_NAMED!r}, or clock.column to name it", uri, 1)
    return found[0]
