"""INFO and FORMAT of a VCF as typed Arrow columns, made of the text columns `info`,
`format` and `fields` and the packed `gt`.

One column per key that the header declares: INFO_KEY, one value a record, and FORMAT_KEY, a list with one value
a sample. A key of Number 1 is a value, a Flag whether it is there (and not 0), any other key a list of values.
Integer is int64 in INFO and int32 in FORMAT, Float is float64, Character and String are text.
"." is NULL, and so is a list that is one lone dot; a key that a record does not have is NULL, for a Flag false.
From VCF 4.3 on text is percent-decoded (section 1.2 of the specification). GT is the call as text, "0|1".

Values go through Arrow a whole batch at a time; no value is a Python object but those that their type does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.formats.vcf.header import RESERVED_FORMAT, RESERVED_INFO, Field, Header
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.genotypes import call_texts
from genodl_spark.native import kernels

INFO, FORMAT = "INFO", "FORMAT"
_SCALARS: dict[str, dict[str, pa.DataType]] = {
    INFO: {"Integer": pa.int64(), "Float": pa.float64()},
    FORMAT: {"Integer": pa.int32(), "Float": pa.float64()},
}
# Section 1.2; the percent sign comes last, so that what it gives is not decoded again.
_ENCODED = {"%3A": ":", "%3B": ";", "%3D": "=", "%2C": ",", "%0D": "\r", "%0A": "\n", "%09": "\t", "%25": "%"}
_TAB, _COLON = ord("\t"), ord(":")
_MOST_BYTES = 2**31 - 1
Problem = tuple[int, str]  # row, what its value is not


@dataclass(frozen=True)
class Column:
    """A column to make: its name, INFO or FORMAT, the key, and type and list as the module says (for
    a FORMAT key, of one sample)."""

    name: str
    side: str
    key: str
    type: pa.DataType
    listed: bool

    @property
    def arrow(self) -> pa.DataType:
        value = pa.list_(self.type) if self.listed else self.type
        return pa.list_(value) if self.side == FORMAT else value


def columns_of(
    headers: Iterable[Header], info: Sequence[str] | None = None, format_: Sequence[str] | None = ()
) -> list[Column]:
    """The columns for files of these headers: of the keys named, of all declared keys for None.

    A key that headers declare differently is a list where one of them says so, float64 for Integer beside Float,
    text for anything else. Names that differ in case alone get _2, _3 and so on.
    InputError for a key named that no header declares and the specification does not know.
    """
    found: dict[tuple[str, str], Column] = {}
    reserved = {INFO: RESERVED_INFO, FORMAT: RESERVED_FORMAT}
    wanted = {INFO: info, FORMAT: format_}
    for header in headers:
        for side, declared in ((INFO, header.info), (FORMAT, header.format)):
            chosen = wanted[side]
            for key in declared if chosen is None else chosen:
                field = declared.get(key)
                if field is not None:
                    column = _column(side, key, field)
                    found[side, key] = _joined(found[side, key], column) if (side, key) in found else column
    for side, keys in wanted.items():
        for key in keys or ():
            if (side, key) in found:
                continue
            if key not in reserved[side]:
                raise InputError(
                    f"found no declaration of {side} {key}; expected keys of the header, check option {side.lower()}"
                )
            found[side, key] = _column(side, key, reserved[side][key][0])
    ordered = [found[place] for side in (INFO, FORMAT) for place in found if place[0] == side]
    taken: set[str] = set()
    named = []
    for column in ordered:
        name, count = f"{column.side}_{column.key}", 1
        while name.lower() in taken:
            count += 1
            name = f"{column.side}_{column.key}_{count}"
        taken.add(name.lower())
        named.append(Column(name, column.side, column.key, column.type, column.listed))
    return named


def _column(side: str, key: str, field: Field) -> Column:
    if field.type == "Flag":
        return Column("", side, key, pa.bool_(), False)
    if (side, key) == (FORMAT, "GT"):  # a call, whatever a header says
        return Column("", side, key, pa.string(), False)
    return Column("", side, key, _SCALARS[side].get(field.type, pa.string()), field.number != "1")


def _joined(one: Column, other: Column) -> Column:
    types = {one.type, other.type}
    type_ = one.type if len(types) == 1 else pa.string() if types & {pa.string(), pa.bool_()} else pa.float64()
    return Column("", one.side, one.key, type_, one.listed or other.listed)


def typed(rows: pa.RecordBatch, columns: Sequence[Column], header: Header) -> tuple[list[pa.Array], list[str | None]]:
    """The columns for V rows of `variants`, and per row what was found that its type does not hold (such
    a value is NULL), else None."""
    problems: list[Problem] = []
    decode = header.minor >= 3
    info = _Info(rows.column("info")) if any(column.side == INFO for column in columns) else None
    samples = _Samples(rows) if any(column.side == FORMAT and column.key != "GT" for column in columns) else None
    made = []
    for column in columns:
        if column.side == INFO:
            assert info is not None
            array = info.column(column, decode, problems)
        elif column.key == "GT":
            array = _gt(rows)
        else:
            assert samples is not None
            array = samples.column(column, decode, problems)
        made.append(array if array.type == column.arrow else array.cast(column.arrow))
    reasons: list[str | None] = [None] * rows.num_rows
    for row, reason in reversed(problems):
        reasons[row] = reason
    return made, reasons


class _Info:
    """INFO of V records taken apart: entry -> row, key, and value (NULL for an entry without =)."""

    def __init__(self, info: pa.Array) -> None:
        self.rows = len(info)
        entries = pc.split_pattern(info, ";")
        of = pc.list_parent_indices(entries).to_numpy()
        texts = entries.flatten()
        # Neither a list of several parts nor a regular expression: the key is cut off at the first =,
        # the value what is behind it.
        at = pc.find_substring(texts, "=").to_numpy()
        data, offsets = packing.binary(texts)
        starts, ends = offsets[:-1].astype(np.int64), offsets[1:].astype(np.int64)
        stops = np.where(at < 0, ends, starts + at)
        keys = _cut(data, starts, stops).dictionary_encode()
        self._codes, self._known = (
            keys.indices.to_numpy(),
            {key: code for code, key in enumerate(keys.dictionary.to_pylist())},
        )
        order = np.argsort(self._codes, kind="stable")
        self._order, self._bounds = order, np.searchsorted(self._codes[order], np.arange(len(self._known) + 1))
        self._of, self._data, self._starts, self._ends, self._with_value = (
            of,
            data,
            np.minimum(stops + 1, ends),
            ends,
            at >= 0,
        )

    def column(self, column: Column, decode: bool, problems: list[Problem]) -> pa.Array:
        code = self._known.get(column.key)
        entries = np.zeros(0, np.int64) if code is None else self._order[self._bounds[code] : self._bounds[code + 1]]
        # up to VCF 4.2 a key may stand twice: the first one counts
        rows, first = np.unique(self._of[entries], return_index=True)
        entries = entries[first]
        values = _cut(self._data, self._starts[entries], self._ends[entries])
        if column.type == pa.bool_():
            there = np.zeros(self.rows, bool)
            there[rows] = ~pc.equal(values, "0").to_numpy(zero_copy_only=False)
            return pa.array(there)
        values = pc.if_else(pa.array(self._with_value[entries]), values, pa.scalar(None, pa.string()))
        return _scattered(_values(values, column, decode, partial(_report, problems, column, rows)), rows, self.rows)


class _Samples:
    """Sample columns of V records taken apart, those of one FORMAT together."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._sizes = rows.column("n_samples").to_numpy().astype(np.int64)
        self.rows = rows.num_rows
        formats, fields = rows.column("format").dictionary_encode(), rows.column("fields")
        given = fields.is_valid().to_numpy(zero_copy_only=False)
        with_gt = rows.column("gt").is_valid().to_numpy(zero_copy_only=False)
        codes = formats.indices.fill_null(-1).to_numpy()
        self._groups: list[tuple[list[str], np.ndarray, _Split]] = []
        rows_of = np.flatnonzero(given & (codes >= 0))
        rows_of = rows_of[np.argsort(codes[rows_of], kind="stable")]
        bounds = np.searchsorted(codes[rows_of], np.arange(len(formats.dictionary) + 1))
        for code, text in enumerate(formats.dictionary.to_pylist()):
            of = rows_of[bounds[code] : bounds[code + 1]]
            if len(of):
                keys = text.split(":")
                keys = keys[1:] if keys[0] == "GT" and with_gt[of[0]] else keys
                self._groups.append((keys, of, _Split(fields if len(of) == self.rows else fields.take(pa.array(of)))))

    def column(self, column: Column, decode: bool, problems: list[Problem]) -> pa.Array:
        found: list[pa.Array] = []
        places: list[np.ndarray] = []
        for keys, of, split in self._groups:
            if column.key in keys:
                sizes = self._sizes[of]
                texts = split.subfields(keys.index(column.key))
                of_value = np.repeat(of, sizes)
                values = _values(_text(texts), column, decode, partial(_report, problems, column, of_value))
                found.append(
                    pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)), values)
                )
                places.append(of)
        if not found:
            return pa.nulls(self.rows, column.arrow)
        return _scattered(found[0] if len(found) == 1 else pa.concat_arrays(found), np.concatenate(places), self.rows)


class _Split:
    """Sample columns split at tabs and colons: the bytes of all subfields, joined,
    and how many each sample column has."""

    def __init__(self, fields: pa.Array) -> None:
        data, offsets = packing.binary(fields)
        # A tab in place of nothing between two records.
        records = len(fields)
        whole = np.empty(int(offsets[-1] - offsets[0]) + records, np.uint8)
        ends = (offsets[1:] - offsets[0] + np.arange(1, records + 1) - 1).astype(np.int64)
        inside = np.ones(len(whole), bool)
        inside[ends] = False
        whole[inside], whole[ends] = data[offsets[0] : offsets[-1]], _TAB
        tabs = whole == _TAB
        breaks = np.flatnonzero(tabs | (whole == _COLON))
        last = np.flatnonzero(tabs[breaks])
        self._counts = np.diff(last, prepend=-1)
        self._first = last - self._counts + 1
        self._data, self._ends = whole, breaks
        self._starts = np.concatenate([[0], breaks[:-1] + 1])

    def subfields(self, place: int) -> pa.BinaryArray:
        """The subfield at a place of FORMAT in every sample column of every record;
        empty where trailing ones are left out."""
        there = self._counts > place
        chosen = np.where(there, self._first + place, 0)
        starts, ends = self._starts[chosen], np.where(there, self._ends[chosen], self._starts[chosen])
        return _cut(self._data, starts, ends, pa.binary())


def _cut(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, type_: pa.DataType | None = None) -> pa.Array:
    """Pieces of `data` as an Arrow array, text unless said otherwise."""
    n, size = len(starts), int((ends - starts).sum())
    if max(size, len(data)) > _MOST_BYTES:
        raise ValueError(
            f"{max(size, len(data))} bytes of sample columns at once; expected {_MOST_BYTES} at most, "
            "that Arrow's offsets reach"
        )
    out, offsets = np.empty(size, np.uint8), np.empty(n + 1, np.int32)
    starts, ends = np.ascontiguousarray(starts, np.int32), np.ascontiguousarray(ends, np.int32)
    kernels.call("gather", np.ascontiguousarray(data), n, starts, ends, 1, out, offsets)
    return packing.binary_array(out, offsets, type_=type_ or pa.string())


def _text(values: pa.BinaryArray) -> pa.StringArray:
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:  # sample columns are not checked for UTF-8
        return pa.array([value.decode("utf-8", "replace") for value in values.to_pylist()], pa.string())


def _report(
    problems: list[Problem], column: Column, rows: np.ndarray, places: np.ndarray, texts: Sequence[str]
) -> None:
    kind = {pa.string(): "text", pa.float64(): "Float"}.get(column.type, "Integer of this size")
    problems += [
        (int(rows[place]), f"found {column.side} {column.key}={text[:40]}; expected {kind}")
        for place, text in zip(places, texts, strict=True)
    ]


def _values(
    texts: pa.StringArray, column: Column, decode: bool, report: Callable[[np.ndarray, Sequence[str]], None]
) -> pa.Array:
    """Texts, each of them all values of one key, as values or lists of them.
    `report` is told the places of those that fit no type."""
    texts = _without_missing(texts)
    if not column.listed:
        return _cast(texts, column.type, decode, report)
    lists = pc.split_pattern(texts, ",")
    of = pc.list_parent_indices(lists).to_numpy()
    values = _cast(_without_missing(lists.flatten()), column.type, decode, lambda places, bad: report(of[places], bad))
    mask = (
        None
        if not lists.null_count
        else pa.py_buffer(np.packbits(lists.is_valid().to_numpy(zero_copy_only=False), bitorder="little"))
    )
    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum(lists.value_lengths().fill_null(0).to_numpy(), out=offsets[1:])
    return pa.Array.from_buffers(
        pa.list_(column.type), len(lists), [mask, pa.py_buffer(offsets)], null_count=lists.null_count, children=[values]
    )


def _without_missing(texts: pa.StringArray) -> pa.StringArray:
    missing = pc.or_(pc.equal(texts, "."), pc.equal(texts, ""))
    return pc.if_else(missing, pa.scalar(None, pa.string()), texts)


def _cast(
    texts: pa.StringArray, type_: pa.DataType, decode: bool, report: Callable[[np.ndarray, Sequence[str]], None]
) -> pa.Array:
    if type_ == pa.string():
        if decode and pc.any(pc.match_substring(texts, "%")).as_py():
            for encoded, text in _ENCODED.items():
                texts = pc.replace_substring(texts, encoded, text)
        return texts
    try:
        return texts.cast(type_)
    except pa.ArrowInvalid:
        pass
    distinct = texts.dictionary_encode()
    parse = _float if type_ == pa.float64() else _integer
    parsed = [None if text is None else parse(text) for text in distinct.dictionary.to_pylist()]
    low, high = (
        (None, None) if type_ == pa.float64() else (-(2 ** (type_.bit_width - 1)), 2 ** (type_.bit_width - 1) - 1)
    )
    kept = [None if v is None or (low is not None and high is not None and not low <= v <= high) else v for v in parsed]
    values = pa.array(kept, type_).take(distinct.indices)
    bad = np.flatnonzero(
        texts.is_valid().to_numpy(zero_copy_only=False) & values.is_null().to_numpy(zero_copy_only=False)
    )
    if len(bad):
        report(bad, texts.take(pa.array(bad)).to_pylist())
    return values


def _float(text: str) -> float | None:
    try:
        return float(text) if "_" not in text and text == text.strip() else None
    except ValueError:
        return None


def _integer(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 40 else None


def _scattered(values: pa.Array, rows: np.ndarray, n: int) -> pa.Array:
    """`values` at their places among `n` rows, NULL elsewhere."""
    if len(rows) == n and (np.diff(rows) == 1).all():
        return values
    where = np.full(n, -1, np.int64)
    where[rows] = np.arange(len(rows))
    return values.take(pa.array(where, mask=where < 0))


def _gt(rows: pa.RecordBatch) -> pa.Array:
    """Calls as text, a list per record; NULL without GT."""
    packed, sizes = rows.column("gt"), rows.column("n_samples").to_numpy()
    given = np.flatnonzero(packed.is_valid().to_numpy(zero_copy_only=False))
    if not len(given):
        return pa.nulls(rows.num_rows, pa.list_(pa.string()))
    samples = int(sizes[given[0]])  # one file, one number of samples
    texts = call_texts(
        *genotypes.unpack(packed if len(given) == len(packed) else packed.take(pa.array(given)), samples)
    )
    return _scattered(
        pa.ListArray.from_arrays(pa.array(np.arange(len(given) + 1, dtype=np.int32) * np.int32(samples)), texts),
        given,
        rows.num_rows,
    )
