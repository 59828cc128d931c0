"""Feature matrices (expression, methylation): what any file of one gives, and the plain table of text.

A plain table has a line per feature, or a line per sample: which of both its names show (`orientation`). Other formats
are files of this folder with a subclass of `MatrixFile`; `formats/matrix_files.py` finds the one that a file is in.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from genodl_spark.core import storage, text_values
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import MISSING, WORDS, fault_of_name, known, order_hash, shown, with_point
from genodl_spark.formats import delimited
from genodl_spark.formats.delimited import DELIMITERS, Unreadable
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.formats.streams import line_blocks

_HELD = 64 << 20  # bytes of values that wait in memory
_LARGEST = float(np.finfo(np.float32).max)


class Samples(NamedTuple):
    """Values of some samples of a file: float32 (samples, features), NaN where missing. `symbols`: of each feature,
    where the file has them; `left`: rows of the file that are no features, such as totals."""

    samples: list[str]
    features: list[str]
    values: np.ndarray
    symbols: list[str | None] | None = None
    left: tuple[str, ...] = ()


class MatrixFile(ABC):
    """What the head of a file says that holds values of samples.

    `samples`: whose, in the order of `runs`. `unit`: of the values, where the file says it. `odd`: whether it is to be
    told how the file is read. `columns`: what else the file says of its samples. `notes`: further things to be told.
    """

    samples: list[str]
    unit: str | None = None
    odd: bool = True
    columns: SampleTable | None = None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def described(self) -> str:
        """How the file is read, for the run report."""

    @abstractmethod
    def runs(self, uri: str, size: int) -> Iterator[Samples]:
        """The values, at most `size` samples at a time. InputError, with the line, for what cannot be read."""


@dataclass(frozen=True)
class Header(MatrixFile):
    """First line of a matrix: its sample identifiers in column order, and the delimiter (tab, comma or semicolon).

    `bare`: R's layout, without a cell above the features; `corner`: that cell. Between semicolons numbers have a
    decimal comma, as R's csv2 writes them. `down`, `across`: what lines and columns are, for messages.
    """

    samples: list[str]
    delimiter: str
    bare: bool = False
    corner: str = ""
    down: str = "feature"
    across: str = "sample"

    @property
    def odd(self) -> bool:  # type: ignore[override]
        return self.bare or self.decimal == ","

    def runs(self, uri: str, size: int) -> Iterator[Samples]:
        with storage.open_input(uri) as raw:
            yield from in_runs(read_features(raw, self, uri), self.samples, size, uri)

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
    return header_of(head, first, file, 1, number_of_first)


def header_of(head: bytes, first: bytes | None, file: str, number: int, number_of_first: int = 0) -> Header:
    """The same of a line, `number` of its file, and the first below it where there is one, between tabs
    where there is none."""
    line = number
    try:
        delimiter = (
            "\t"
            if first is None
            else delimited.delimiter_of(
                head,
                lambda names, cut: (width := len(delimited.cells(first, cut))) > 1 and width - len(names) in (0, 1),
            )
        )
        names = delimited.cells(head, delimiter)
        line = number_of_first or number + 1
        row = names if first is None else delimited.cells(first, delimiter)
    except Unreadable as error:
        raise InputError(str(error), file, line) from error
    bare = len(row) == len(names) + 1
    if bare and not row[-1].strip():
        raise InputError(
            f"found an empty cell behind the last column, {len(row)} cells below a header of {len(names)}; expected "
            "as many as the header has (take the delimiter at the end of lines away), or in R's layout a value or NA",
            file,
            line,
        )
    samples = names if bare else names[1:]
    if not samples:
        raise InputError(
            "the header names no sample; expected a feature column, then one column per sample, tab or comma separated",
            file,
            number,
        )
    seen: set[str] = set()
    for column, sample in enumerate(samples, 1 if bare else 2):
        fault = fault_of_name(sample) or (f"a word for a missing value, {shown(sample)}" if sample in MISSING else None)
        if fault is not None:
            raise InputError(
                f"found {fault} in column {column} of the header; expected a sample identifier, mend it", file, number
            )
        if sample in seen:
            raise InputError(
                f"sample {sample} stands twice in the header; expected each once, remove or rename one", file, number
            )
        seen.add(sample)
    return Header(samples, delimiter, bare, "" if bare else names[0])


@dataclass(frozen=True)
class BySample(MatrixFile):
    """A matrix of samples x features: its header names the features, the first cell of each line a sample."""

    header: Header
    samples: list[str]

    def described(self) -> str:
        return f"samples in lines, features in columns, {self.header.described()}"

    def runs(self, uri: str, size: int) -> Iterator[Samples]:
        with storage.open_input(uri) as raw:
            for names, values in read_features(raw, self.header, uri):
                for at in range(0, len(names), size):
                    yield Samples(names[at : at + size], self.header.samples, values[at : at + size])


# What identifiers of features and of samples look like, and what the cell above them is called.
_FEATURE = re.compile(
    r"(ENS[A-Z]*[GTP]\d{11}(\.\d+)?(_PAR_Y)?|cg\d{7,8}|ch\.\S+|\S+_at|ILMN_\d+|A_\d+_P\d+|(hsa|mmu)-\S+)", re.ASCII
)
_SAMPLE = re.compile(
    r"((TCGA|TARGET|CPTAC|GTEX)-\w+(-\w+)+|GSM\d+|[SED]RR\d+|SAM(N|EA|D)\d+|(HG|NA)\d{5}|"
    r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12})",
    re.ASCII,
)
_FEATURES_ARE = re.compile(
    r"(genes?|features?|probes?|cpgs?|symbols?|transcripts?|proteins?|ensembl|entrez|id_ref|composite element ref|"
    r"(gene|feature|probe|cpg|transcript|protein|ensembl|hugo|entrez)[ _.-]?\w*|name|hybridization ref)",
    re.IGNORECASE,
)
_SAMPLES_ARE = re.compile(
    r"(samples?|patients?|cases?|subjects?|individuals?|specimens?|aliquots?|barcodes?|donors?|"
    r"(sample|patient|case|subject|individual|specimen|aliquot|donor|bcr)[ _.-]?\w*)",
    re.IGNORECASE,
)
_LOOKED_AT = 1000  # names


def _all(names: Sequence[str], pattern: re.Pattern[str]) -> bool:
    return bool(names) and all(map(pattern.fullmatch, names[:_LOOKED_AT]))


def orientation(header: Header, first: Sequence[str], file: str) -> bool:
    """Whether lines are samples, by the cell above the first column, the columns' names and `first`, those of
    the first lines. Where none of them tells, lines are features. InputError where they contradict each other."""
    evidence = [
        (f"the first column is called {shown(header.corner)}", [header.corner], _SAMPLES_ARE, _FEATURES_ARE),
        (f"a line is called {shown(next(iter(first), ''))}", first, _SAMPLE, _FEATURE),
        (f"a column is called {shown(header.samples[0])}", header.samples, _FEATURE, _SAMPLE),
    ]
    by_sample = [what for what, names, yes, _ in evidence if _all(names, yes)]
    by_feature = [what for what, names, _, no in evidence if _all(names, no)]
    if by_sample and by_feature:
        raise InputError(
            f"found lines that are samples, as {by_sample[0]}, and features, as {by_feature[0]}; "
            "expected one of them, say which with --set ingest.lines=samples or --set ingest.lines=features",
            file,
            1,
        )
    return bool(by_sample)


def first_column(raw: BinaryIO, header: Header, file: str, most: int | None = None) -> list[str]:
    """The first cells of the lines below the header, of `most` lines. InputError for a line without cells."""
    found: list[str] = []
    for start, block in line_blocks(raw, file):
        for number, line in enumerate(block.split(b"\n")[:-1], start):
            if number == 1 or not line:
                continue
            if len(found) == most:
                return found
            text = line if b'"' in line else line.partition(header.delimiter.encode())[0]
            try:
                found.append(delimited.cells(text, header.delimiter)[0])
            except Unreadable as error:
                raise InputError(str(error), file, number) from error
    return found


def by_sample(raw: BinaryIO, header: Header, file: str) -> BySample:
    """The file of a header with samples in lines: reads their names. InputError for one that stands twice."""
    samples = first_column(raw, header, file)
    if not samples:
        raise InputError("the matrix has no sample below its header; expected one line per sample", file, 2)
    return BySample(replace(header, down="sample", across="feature"), samples)


def in_runs(
    blocks: Iterable[tuple[list[str], np.ndarray]],
    samples: list[str],
    size: int,
    file: str,
    symbols: list[str | None] | None = None,
) -> Iterator[Samples]:
    """Blocks of (features, values (features, samples)) by sample. `symbols` are complete once the blocks have come
    to their end. InputError where there is no feature."""
    with transposed(blocks, len(samples), size) as (names, runs):
        if not names:
            raise InputError("the matrix has no feature below its header; expected one line per feature", file)
        at = 0
        for values in runs:
            yield Samples(samples[at : at + len(values)], names, values, symbols)
            at += len(values)


def read_features(raw: BinaryIO, header: Header, file: str) -> Iterator[tuple[list[str], np.ndarray]]:
    """Blocks of (feature identifiers, values): float32 of shape (features, samples), NaN for a missing value.

    Blank lines are passed over. InputError, with the line, for a ragged line, a cell that is no number or beyond
    float32, a feature without a name, named twice, or with blanks around its name or a control character in it.
    """

    def below() -> Iterator[tuple[int, bytes]]:
        for start, block in line_blocks(raw, file):
            yield (2, block.partition(b"\n")[2]) if start == 1 else (start, block)

    return rows_of(below(), header, file)


def rows_of(blocks: Iterable[tuple[int, bytes]], header: Header, file: str) -> Iterator[tuple[list[str], np.ndarray]]:
    """The same for (number of the first line, block of whole lines) below a header, wherever that stood."""
    lines_of: dict[str, int] = {}
    for start, block in blocks:
        if not block.strip():
            continue
        features, values, lines = _fast(block, header, start) or _slow(block, header, file, start)
        for line, feature in zip(lines, features, strict=True):
            if feature in lines_of:
                raise InputError(
                    f"{header.down} {feature} stands twice, first on line {lines_of[feature]}; "
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
            fault = f"found {wrong}; expected a {header.down} identifier in the first column, mend it"
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
        f"found {shown(cell)} for {header.down} {feature}, {header.across} {sample}; expected a number {decimal}, "
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
