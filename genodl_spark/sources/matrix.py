"""Feature matrices (expression, methylation): text, features x samples, to packed float32 in sample-major pieces."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from genodl_spark.errors import InputError
from genodl_spark.sources.streams import line_blocks

MISSING = ["", "NA", "NaN", "nan", "N/A", "null", "NULL"]


@dataclass(frozen=True)
class Header:
    """First line of a matrix: its sample identifiers in column order, and the delimiter (tab or comma)."""

    samples: list[str]
    delimiter: str


def read_header(raw: BinaryIO, file: str) -> Header:
    """The header of a matrix. InputError for an empty file, no samples, or a sample named twice or not at all.

    Both layouts are read: a header with a cell for the feature column, and R's, which lacks it.
    """
    blocks = line_blocks(raw, file)
    number, block = next(blocks, (1, b""))
    head, _, rest = block.partition(b"\n")
    if not head.strip():
        raise InputError("the file is empty; expected a matrix, features x samples, with a header line", file, number)
    delimiter = "\t" if b"\t" in head else ","
    fields = _fields(head, delimiter, file, number)
    first = rest.partition(b"\n")[0] or next(blocks, (0, b""))[1].partition(b"\n")[0]
    if not first.strip():
        raise InputError("the matrix has no feature below its header; expected one line per feature", file, number + 1)
    samples = fields if len(_fields(first, delimiter, file, number + 1)) == len(fields) + 1 else fields[1:]
    if not samples:
        raise InputError("the header names no sample; expected a feature column, then one column per sample, tab or comma separated", file, 1)
    seen: set[str] = set()
    for sample in samples:
        if not sample:
            raise InputError("a sample without a name in the header; expected one name per column", file, 1)
        if sample in seen:
            raise InputError(f"sample {sample} stands twice in the header; expected each once, remove or rename one", file, 1)
        seen.add(sample)
    return Header(samples, delimiter)


def read_features(raw: BinaryIO, header: Header, file: str) -> Iterator[tuple[list[str], np.ndarray]]:
    """Blocks of (feature identifiers, values): float32 of shape (features, samples), NaN for a missing value.

    InputError, with the line, for a ragged line, a cell that is no number, an infinite value, a feature without a name or
    named twice.
    """
    lines_of: dict[str, int] = {}
    for number, block in line_blocks(raw, file):
        if number == 1:
            block, number = block.partition(b"\n")[2], 2
        if not block.strip():
            continue
        features, values = _parse(block, header, file, number)
        for offset, feature in enumerate(features):
            if not feature:
                raise InputError("a feature without a name; expected an identifier in the first column", file, number + offset)
            if feature in lines_of:
                raise InputError(
                    f"feature {feature} stands twice, first on line {lines_of[feature]}; expected each once, merge or rename them",
                    file,
                    number + offset,
                )
            lines_of[feature] = number + offset
        yield features, values


def _parse(block: bytes, header: Header, file: str, number: int) -> tuple[list[str], np.ndarray]:
    width = len(header.samples) + 1
    types = {f"f{i}": pa.float32() for i in range(1, width)}
    types["f0"] = pa.string()
    try:
        table = pacsv.read_csv(
            pa.py_buffer(block),
            pacsv.ReadOptions(use_threads=False, autogenerate_column_names=True, block_size=len(block) + 1),
            pacsv.ParseOptions(delimiter=header.delimiter, ignore_empty_lines=False),
            pacsv.ConvertOptions(column_types=types, null_values=MISSING, strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise _locate(block, header, file, number) from error
    if table.num_columns != width:
        raise _locate(block, header, file, number)
    values = np.empty((table.num_rows, width - 1), np.float32)
    for i in range(1, width):
        values[:, i - 1] = table.column(i).to_numpy()
    if np.isinf(values).any():
        raise _locate(block, header, file, number)
    return table.column(0).to_pylist(), values


def _locate(block: bytes, header: Header, file: str, number: int) -> InputError:
    """The error of the first bad line in a block that did not parse."""
    width = len(header.samples) + 1
    for offset, line in enumerate(block.rstrip(b"\r\n").split(b"\n")):
        cells = _fields(line, header.delimiter, file, number + offset)
        if len(cells) != width:
            return InputError(f"found {len(cells)} columns; expected {width}, as many as the header has", file, number + offset)
        for sample, cell in zip(header.samples, cells[1:], strict=True):
            try:
                fine = cell in MISSING or math.isfinite(float(cell))
            except ValueError:
                fine = False
            if not fine:
                return InputError(
                    f"found {cell[:40]!r} for feature {cells[0]}, sample {sample}; expected a finite number or NA", file, number + offset
                )
    return InputError("the lines from here on do not parse as a table; expected one line per feature", file, number)


def _fields(line: bytes, delimiter: str, file: str, number: int) -> list[str]:
    try:
        text = line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("bytes that are not UTF-8; expected UTF-8 text", file, number) from error
    return next(csv.reader([text], delimiter=delimiter), [""])


@dataclass(frozen=True)
class Piece:
    """Values of a run of samples for a block of features: packed float32, (samples, features) in C order."""

    chunk: int
    block: int
    n_features: int
    payload: bytes


def sample_major(blocks: Iterable[np.ndarray], chunk: int) -> Iterator[Piece]:
    """Transposes blocks of (features, samples) into pieces of at most `chunk` samples, numbered in order of both."""
    for number, values in enumerate(blocks):
        by_sample = np.ascontiguousarray(values.T)
        for index, start in enumerate(range(0, by_sample.shape[0], chunk)):
            yield Piece(index, number, values.shape[0], by_sample[start : start + chunk].tobytes())


def assemble(pieces: Iterable[tuple[int, int, bytes]], itemsize: int) -> np.ndarray:
    """Joins the pieces (block, n_features, payload) of one run of samples into uint8 rows of shape (samples, bytes)."""
    ordered = sorted(pieces)
    return np.concatenate([np.frombuffer(payload, np.uint8).reshape(-1, n * itemsize) for _, n, payload in ordered if n], axis=1)


def feature_set(features: Iterable[str]) -> str:
    """Identifier of an ordered list of feature identifiers."""
    return hashlib.sha256("\n".join(features).encode()).hexdigest()[:16]


def union(old: np.ndarray, old_features: list[str], new: np.ndarray, new_features: list[str]) -> tuple[np.ndarray, list[str]]:
    """Values of both sets, float32 (rows, features); where a feature is in both the new value stands unless it is missing."""
    position = {feature: i for i, feature in enumerate(old_features)}
    features = old_features + [f for f in new_features if f not in position]
    position = {feature: i for i, feature in enumerate(features)}
    values = np.full((old.shape[0], len(features)), np.nan, np.float32)
    values[:, : len(old_features)] = old
    columns = np.array([position[f] for f in new_features])
    values[:, columns] = np.where(np.isnan(new), values[:, columns], new)
    return values, features
