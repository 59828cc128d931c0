"""`spark.read.format("vcf").load(PATH)`: VCF and BCF as a DataFrame, with INFO and FORMAT typed
by the header, without a lake.

    from genodl_spark.formats.vcf import datasource
    datasource.register(spark)
    spark.read.format("vcf").option("format", "GT,DP").load("calls/*.vcf.gz").select(
        "chrom", "pos", "INFO_AF", "FORMAT_DP")

PATH is a file, a directory, a pattern, or several of them: a list, or commas between. Options:

    info       INFO keys to type, commas between; * (all that the headers declare) unless given, empty for none
    format     FORMAT keys to type; none unless given, * for all; GT is the call as text
    mode       permissive (unless given): a record that breaks the specification is a row of NULLs
               but for `file`, `_corrupt_record` (its first 4,096 characters) and `_reason`;
               in one that holds, a value that its key's type does not fit is NULL, and `_reason` tells. failfast:
               either is an error, and so is a header line that breaks the specification
    splitSize  stored bytes that one task reads, 8 MiB unless given; gzip that is not bgzip, and BCF, are read whole

Columns: those of the lake's table `variants` that need no lake (`gt` is packed:
see sql_functions.py), INFO_KEY and FORMAT_KEY as in sources/vcf_fields.py, `_corrupt_record`, `_reason`.
`line` is NULL in all splits of a file but its first: how many lines lie before them is not known without reading these.
"""

from __future__ import annotations

import glob
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats.streams import Split
from genodl_spark.formats.vcf import fields
from genodl_spark.formats.vcf import reader as vcf
from genodl_spark.formats.vcf.fields import Column
from genodl_spark.formats.vcf.header import Header
from genodl_spark.lake.tables.ingested import VARIANTS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType

_NAMES = [
    "contig",
    "chrom",
    "pos",
    "end",
    "id",
    "ref",
    "alts",
    "qual",
    "filters",
    "info",
    "format",
    "gt",
    "fields",
    "n_samples",
    "file",
    "line",
]
_CORRUPT, _REASON = "_corrupt_record", "_reason"
_FIXED = [pa.field(name, VARIANTS.arrow_schema().field(name).type) for name in _NAMES]
_LAST = [pa.field(_CORRUPT, pa.string()), pa.field(_REASON, pa.string())]
_MODES = ("permissive", "failfast")
_SPLIT_SIZE = 8 << 20
_RECORDS = 2000  # of one batch
_MAGIC = re.compile(r"[*?\[]")


def register(spark: SparkSession) -> None:
    """Makes the format `vcf` known to a session."""
    spark.dataSource.register(VcfDataSource)


def samples(path: str) -> list[str]:
    """The samples of the files at `path`, in the order of `gt`, `fields` and the FORMAT columns.
    InputError where files differ in them."""
    uris = _uris(path)
    first = vcf.header_of(uris[0]).samples
    for uri in uris[1:]:
        if vcf.header_of(uri).samples != first:
            raise InputError(f"found other samples than in {uris[0]}; expected the same in the same order", uri)
    return first


class VcfDataSource(DataSource):
    """The format `vcf`."""

    @classmethod
    def name(cls) -> str:
        return "vcf"

    def schema(self) -> StructType:
        from pyspark.sql.pandas.types import from_arrow_schema

        return from_arrow_schema(
            pa.schema([*_FIXED, *(pa.field(c.name, c.arrow) for c in _columns(self._uris(), *self._keys())), *_LAST])
        )

    def reader(self, schema: StructType) -> DataSourceReader:
        mode = self.options.get("mode", _MODES[0]).lower()
        if mode not in _MODES:
            raise InputError(f"found mode {mode}; expected {' or '.join(_MODES)}")
        size = self.options.get("splitSize", str(_SPLIT_SIZE))
        if not (size.isdigit() and int(size)):
            raise InputError(f"found splitSize {size}; expected a number of bytes")
        uris = self._uris()
        return VcfReader(uris, _columns(uris, *self._keys()), mode == "failfast", int(size))

    def _uris(self) -> list[str]:
        several = self.options.get("paths")  # of load(LIST)
        paths = json.loads(several) if several else [self.options.get("path", "")]
        if not all(paths):
            raise InputError("found no path; expected load(PATH), a file, directory or pattern")
        return list(dict.fromkeys(uri for path in paths for uri in _uris(path)))

    def _keys(self) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        """Keys chosen of INFO and of FORMAT; None for all."""

        def chosen(option: str, default: str) -> tuple[str, ...] | None:
            given = [key.strip() for key in self.options.get(option, default).split(",")]
            return None if "*" in given else tuple(dict.fromkeys(filter(None, given)))

        return chosen("info", "*"), chosen("format", "")


@dataclass
class _Piece(InputPartition):
    """What one task reads."""

    uri: str
    split: Split


class VcfReader(DataSourceReader):
    """Splits the files among tasks, and reads one split as Arrow batches."""

    def __init__(self, uris: list[str], columns: list[Column], failfast: bool, split_size: int) -> None:
        self._uris, self._columns, self._failfast, self._split_size = uris, columns, failfast, split_size

    def partitions(self) -> Sequence[InputPartition]:
        return [_Piece(uri, split) for uri in self._uris for split in vcf.splits(uri, self._split_size)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, _Piece)
        uri, header = partition.uri, vcf.header_of(partition.uri, strict=self._failfast)
        reader = vcf.Reader(header, "", posixpath.basename(uri))
        counted = partition.split.start == 0
        # In a split behind the first, the numbers of its lines are not known: as if the header ended just before it.
        try:
            for number, block in vcf.split_lines(uri, partition.split, 1 if counted else header.lines + 1, header):
                for rows, refused in reader.batches(number, block, _RECORDS):
                    if rows.num_rows + refused.num_rows:
                        yield self._batch(uri, header, rows, refused, counted)
        except InputError as error:
            raise InputError(error.message, uri, error.line if counted else None) from error

    def _batch(
        self, uri: str, header: Header, rows: pa.RecordBatch, refused: pa.RecordBatch, counted: bool
    ) -> pa.RecordBatch:
        typed, reasons = fields.typed(rows, self._columns, header)
        if self._failfast:
            bad = [
                (line, reason)
                for line, reason in zip(rows.column("line").to_pylist(), reasons, strict=True)
                if reason is not None
            ]
            bad += zip(refused.column("line").to_pylist(), refused.column("reason").to_pylist(), strict=True)
            if bad:
                line, reason = min(bad)
                raise InputError(reason, uri, line if counted else None)
        names = [field.name for field in _FIXED] + [column.name for column in self._columns]
        arrays = dict(zip(names, [*(rows.column(field.name) for field in _FIXED), *typed], strict=True))
        arrays[_CORRUPT], arrays[_REASON] = pa.nulls(rows.num_rows, pa.string()), pa.array(reasons, pa.string())
        if refused.num_rows:
            beside = {name: refused.column(name) for name in ("file", "line")} | {
                _CORRUPT: refused.column("text"),
                _REASON: refused.column("reason"),
            }
            arrays = {
                name: pa.concat_arrays(
                    [array, beside[name].cast(array.type) if name in beside else pa.nulls(refused.num_rows, array.type)]
                )
                for name, array in arrays.items()
            }
        if not counted:
            arrays["line"] = pa.nulls(len(arrays["line"]), pa.int64())
        return pa.RecordBatch.from_arrays(list(arrays.values()), list(arrays))


def _columns(uris: list[str], info: tuple[str, ...] | None, format_: tuple[str, ...] | None) -> list[Column]:
    return list(_made_columns(tuple(uris), info, format_))


@lru_cache(8)
def _made_columns(
    uris: tuple[str, ...], info: tuple[str, ...] | None, format_: tuple[str, ...] | None
) -> tuple[Column, ...]:
    return tuple(fields.columns_of((vcf.header_of(uri) for uri in uris), info, format_))


def _uris(path: str) -> list[str]:
    """The files that `path` names, each once. InputError where there are none."""
    # A name may have a comma, or a character of patterns, in it.
    parts = (
        [path]
        if storage.kind(storage.absolute(path)) != "absent"
        else [part.strip() for part in path.split(",") if part.strip()]
    )
    found: list[str] = []
    for part in parts:
        uri = storage.absolute(part)
        kind = storage.kind(uri)
        if kind == "file":
            found.append(uri)
            continue
        listed = _below(uri) if kind == "directory" else _matching(uri)
        if not listed:
            raise InputError(
                "no such file, or none with a name of VCF or BCF; expected a file, a directory or a pattern", part
            )
        found += listed
    return list(dict.fromkeys(found))


def _below(folder: str) -> list[str]:
    return [
        uri for uri in storage.files_under(folder) if vcf.FILE_NAME.search(uri) and not storage.is_hidden(uri, folder)
    ]


def _matching(pattern: str) -> list[str]:
    if _MAGIC.search(pattern) is None:
        return []
    if storage.is_local(pattern):
        paths = glob.glob(storage.local_path(pattern), recursive=True)
        return sorted(uri for uri in map(storage.absolute, paths) if storage.is_file(uri) and vcf.FILE_NAME.search(uri))
    head, rest = pattern.split("://", 1)
    before = rest.split("/")
    fixed = next(i for i, part in enumerate(before) if _MAGIC.search(part))
    folder = f"{head}://{'/'.join(before[:fixed])}"
    # A pattern's star does not go into folders.
    expression = (
        re.escape(pattern).replace(r"\*", "[^/]*").replace(r"\?", "[^/]").replace(r"\[", "[").replace(r"\]", "]")
    )
    return [uri for uri in storage.files_under(folder) if re.fullmatch(expression, uri) and vcf.FILE_NAME.search(uri)]
