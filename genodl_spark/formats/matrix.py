"""Feature matrices (expression, methylation): text, features x samples, to packed float32 in sample-major pieces."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from genodl_spark.core import text_values
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import MISSING, WORDS, fault_of_name, known, order_hash, shown, with_point
from genodl_spark.formats import delimited
from genodl_spark.formats.delimited import DELIMITERS, Unreadable
from genodl_spark.formats.streams import line_blocks

_HELD = 64 << 20  # bytes of values that wait in memory
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Header:
    """First line of a matrix: its sample identifiers in column order, and the delimiter (tab, comma or semicolon).

    `bare`: R's layout, without a cell above the features. Between semicolons numbers have a decimal
    comma, as R's csv2 writes them.
    """

    samples: list[str]
    delimiter: str
    bare: bool = False

    @property
    def decimal(self) -> str:
        return "," if self.delimiter == ";" else "."

    def described(self) -> str:
        text = f"{DELIMITERS[self.delimiter]} between cells"
        return (
            text
            + (", decimal commas" if self.decimal == "," else "")
            + (", no cell above the features" if self.bare else "")
        )


def read_header(raw: BinaryIO, file: str) -> Header:
    """The header of a matrix. InputError for an empty file, no samples, or a sample named twice, not at all,
    or so that it cannot be told apart.

    Both layouts are read: a header with a cell for the feature column, and R's, which lacks it.
    """
    lines = (
        (number + offset, line)
        for number, block in line_blocks(raw, file)
        for offset, line in enumerate(block.split(b"\n")[:-1])
        if line or number + offset == 1
    )
    head = next(lines, (1, b""))[1]
    if not head.strip():
        raise InputError(
            "the file is empty or starts with an empty line; expected a matrix, features x samples, with a header line",
            file,
            1,
        )
    try:
        delimited.text_of(head)
    except Unreadable as error:
        raise InputError(str(error), file, 1) from error
    number_of_first, first = next(lines, (2, b""))
    if not first:
        raise InputError("the matrix has no feature below its header; expected one line per feature", file, 2)
    line = 1
    try:
        delimiter = delimited.delimiter_of(
            head, lambda names, cut: (width := len(delimited.cells(first, cut))) > 1 and width - len(names) in (0, 1)
        )
        names = delimited.cells(head, delimiter)
        line = number_of_first
        row = delimited.cells(first, delimiter)
    except Unreadable as error:
        raise InputError(str(error), file, line) from error
    bare = len(row) == len(names) + 1
    if bare and not row[-1].strip():
        raise InputError(
            f"found an empty cell behind the last column, {len(row)} cells below a header of {len(names)}; expected "
            "as many as the header has (take the delimiter at the end of lines away), or in R's layout a value or NA",
            file,
            number_of_first,
        )
    samples = names if bare else names[1:]
    if not samples:
        raise InputError(
            "the header names no sample; expected a feature column, then one column per sample, tab or comma separated",
            file,
            1,
        )
    seen: set[str] = set()
    for column, sample in enumerate(samples, 1 if bare else 2):
        fault = fault_of_name(sample) or (f"a word for a missing value, {shown(sample)}" if sample in MISSING else None)
        if fault is not None:
            raise InputError(
                f"found {fault} in column {column} of the header; expected a sample identifier, mend it", file, 1
            )
        if sample in seen:
            raise InputError(
                f"sample {sample} stands twice in the header; expected each once, remove or rename one", file, 1
            )
        seen.add(sample)
    return Header(samples, delimiter, bare)


def read_features(raw: BinaryIO, header: Header, file: str) -> Iterator[tuple[list[str], np.ndarray]]:
    """Blocks of (feature identifiers, values): float32 of shape (features, samples), NaN for a missing value.

    Blank lines are passed over. InputError, with the line, for a ragged line, a cell that is no number or beyond
    float32, a feature without a name, named twice, or with blanks around its name or a control character in it.
    """
    lines_of: dict[str, int] = {}
    for start, block in line_blocks(raw, file):
        if start == 1:
            block, start = block.partition(b"\n")[2], 2
        if not block.strip():
            continue
        features, values, lines = _fast(block, header, start) or _slow(block, header, file, start)
        for line, feature in zip(lines, features, strict=True):
            if feature in lines_of:
                raise InputError(
                    f"feature {feature} stands twice, first on line {lines_of[feature]}; "
                    "expected each once, merge or rename them",
                    file,
                    line,
                )
            lines_of[feature] = line
        yield features, values


_Block = tuple[list[str], np.ndarray, Iterable[int]]  # features, values (features, samples), and their lines


def _fast(block: bytes, header: Header, start: int) -> _Block | None:
    """A block by Arrow's reader; None where anything in it is out of order."""
    width = len(header.samples) + 1
    types = {f"f{i}": pa.float32() for i in range(1, width)}
    types["f0"] = pa.string()
    if b"\r" in block or (b'"' in block and not _plainly_quoted(block, header.delimiter)):
        return None
    try:
        table = pacsv.read_csv(
            pa.py_buffer(block),
            pacsv.ReadOptions(use_threads=False, autogenerate_column_names=True, block_size=len(block) + 1),
            pacsv.ParseOptions(delimiter=header.delimiter, ignore_empty_lines=False),
            pacsv.ConvertOptions(
                column_types=types, null_values=sorted(MISSING), strings_can_be_null=False, decimal_point=header.decimal
            ),
        ).combine_chunks()
    except pa.ArrowInvalid:
        return None
    if table.num_columns != width or table.num_rows != block.count(b"\n"):
        return None
    names = table.column(0)
    if pc.any(delimited.odd_names(names)).as_py():
        return None
    values = np.empty((table.num_rows, width - 1), np.float32)
    missing = 0
    for i in range(1, width):
        values[:, i - 1] = table.column(i).to_numpy()
        missing += table.column(i).null_count
    # Arrow reads `inf`, numbers beyond float32 and words such as `nan(1)` or `-nan` as well.
    if np.isinf(values).any() or int(np.isnan(values).sum()) != missing:
        return None
    return names.to_pylist(), values, range(start, start + len(values))


def _plainly_quoted(block: bytes, delimiter: str) -> bool:
    """Whether all quotes stand around whole cells that hold no delimiter, as R writes names."""
    cut = re.escape(delimiter.encode())
    return block.count(b'"') == 2 * len(re.findall(rb'(?:^|[\n%b])"[^"\n%b]*"(?=[\n%b])' % (cut, cut, cut), block))


def _slow(block: bytes, header: Header, file: str, start: int) -> _Block:
    """A block line by line, as `read_features` gives it; InputError for the first line that is wrong."""
    width = len(header.samples) + 1
    features: list[str] = []
    lines: list[int] = []
    texts: list[str | None] = []
    for number, line in enumerate(block[:-1].split(b"\n"), start):
        if not line:
            continue
        try:
            row = delimited.cells(line, header.delimiter)
        except Unreadable as error:
            raise InputError(str(error), file, number) from error
        fault = delimited.too_long(row)
        if fault is None and len(row) != width:
            fault = f"found {len(row)} columns; expected {width}, as many as the header has"
        if fault is None and (wrong := fault_of_name(row[0])) is not None:
            fault = f"found {wrong}; expected a feature identifier in the first column, mend it"
        if fault is not None:
            raise InputError(fault, file, number)
        for sample, cell in zip(header.samples, row[1:], strict=True):
            text = known(cell)
            if text is not None:
                # A point between semicolons may part decimals or thousands.
                ambiguous = header.decimal == "," and "." in text
                value = None if ambiguous else text_values.number(with_point(text) if header.decimal == "," else text)
                if value is None or abs(value) > _LARGEST:
                    raise InputError(_no_number(cell, row[0], sample, header), file, number)
                text = (with_point(text) if header.decimal == "," else text).removeprefix("+")
            texts.append(text)
        features.append(row[0])
        lines.append(number)
    # rounds as the fast way does
    values = pc.cast(pa.array(texts, pa.string()), pa.float32()).to_numpy(zero_copy_only=False)
    return features, values.astype(np.float32).reshape(len(features), width - 1), lines


def _no_number(cell: str, feature: str, sample: str, header: Header) -> str:
    decimal = (
        "with a decimal comma, as cells are between semicolons" if header.decimal == "," else "with a decimal point"
    )
    return (
        f"found {shown(cell)} for feature {feature}, sample {sample}; expected a number {decimal}, "
        f"within float32, or {WORDS}"
    )


@contextlib.contextmanager
def transposed(
    blocks: Iterable[tuple[list[str], np.ndarray]], samples: int, run: int
) -> Iterator[tuple[list[str], Iterator[np.ndarray]]]:
    """Reads blocks of (features, values (features, samples)) to their end: the features,
    and the values by sample, `run` samples at a time.

    Values are float32 (samples, features), in the order of the samples. They wait in a file without a name where they
    are many: memory holds one block, then one run.
    """
    with tempfile.SpooledTemporaryFile(_HELD) as spool:
        features: list[str] = []
        widths: list[int] = []
        for names, values in blocks:
            features += names
            widths.append(len(names))
            spool.write(np.ascontiguousarray(values.T, np.float32).tobytes())

        def runs() -> Iterator[np.ndarray]:
            for start in range(0, samples, run):
                count, at, parts = min(run, samples - start), 0, []
                for width in widths:
                    spool.seek(4 * (at + start * width))
                    parts.append(np.frombuffer(spool.read(4 * count * width), np.float32).reshape(count, width))
                    at += samples * width
                yield np.concatenate(parts, axis=1) if parts else np.empty((count, 0), np.float32)

        yield features, runs()


def feature_set(features: list[str]) -> str:
    """Identifier of an ordered list of feature identifiers."""
    return order_hash(features)


@dataclass(frozen=True)
class Row:
    """What is known of one sample: float32 `values` of `features`, each from one of `files`,
    which `origin` (int64) numbers."""

    features: list[str]
    values: np.ndarray
    files: list[str]
    origin: np.ndarray

    def without(self, files: Collection[str]) -> Row | None:
        """The row without what some files brought; None where nothing is left."""
        gone = [i for i, file in enumerate(self.files) if file in files]
        kept = np.flatnonzero(~np.isin(self.origin, gone))
        if len(kept) == len(self.origin):
            return self
        return (
            self._of([self.features[i] for i in kept], self.values[kept], self.files, self.origin[kept])
            if len(kept)
            else None
        )

    def with_file(self, features: list[str], values: np.ndarray, file: str) -> Row:
        """The row with what a file brings; where both have a feature the new value stands,
        unless it is missing and the old one is not."""
        position = {feature: i for i, feature in enumerate(self.features)}
        more = [feature for feature in features if feature not in position]
        position |= {feature: i for i, feature in enumerate(more, len(self.features))}
        joint = np.concatenate([self.values, np.full(len(more), np.nan, np.float32)])
        origin = np.concatenate([self.origin, np.full(len(more), len(self.files))])
        columns = np.array([position[feature] for feature in features], np.int64)
        taken = ~np.isnan(values) | np.isnan(joint[columns])
        joint[columns[taken]] = values[taken]
        origin[columns[taken]] = len(self.files)
        return self._of([*self.features, *more], joint, [*self.files, file], origin)

    @staticmethod
    def _of(features: list[str], values: np.ndarray, files: list[str], origin: np.ndarray) -> Row:
        """The row with those files alone that have a value in it."""
        used, numbers = np.unique(origin, return_inverse=True)
        return Row(features, values, [files[i] for i in used], numbers)
