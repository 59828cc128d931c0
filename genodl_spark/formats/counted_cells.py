"""Cells and what was counted in each of them, as rows of `cells` and `labels` in Arrow batches, whatever the file.

Counts are sparse from the file to the table: no part of a matrix cells x genes is ever made. Where a file has them gene
by gene they wait in files without names, a range of cells in each, and come back cell by cell: memory holds one range.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, cast

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import fault_of_name, order_hash
from genodl_spark.formats.sample_table import column_name
from genodl_spark.lake.schema import CELL, COHORT, Column, Table
from genodl_spark.lake.tables.ingested import CELLS, LABELS

AT_ONCE = 1 << 21  # entries that are worked on at once
_WAITING = np.dtype([("cell", "<u4"), ("place", "<u4"), ("value", "<f4")])
_FILES = 256  # of entries that wait, at most

# Number of the first cell, from 0; entries of each cell, int64; their places, ascending in a cell; values, float32.
Run = tuple[int, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Header:
    """What a file says before its counts. `layout`: how its reader finds them. `cells`: how many; `features`: how many,
    and `feature_set`, the hash of their order. `columns`: further columns of cells, as named in the file.
    `notes`: what is odd and read all the same. `ranges`: whether cells can be read from anywhere on."""

    layout: Any
    described: str
    cells: int
    features: int
    feature_set: str
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    ranges: bool = False

    @property
    def others(self) -> dict[str, str]:
        """The columns with the names under which `labels` has them."""
        return {name: LABELS.beside(column_name(name)) for name in self.columns}

    @property
    def labels(self) -> Table:
        """The table `labels` as far as the file fills it."""
        more = (Column(stored, "string", f"Column {name} of the file") for name, stored in self.others.items())
        return Table(LABELS.name, LABELS.doc, (*LABELS.columns, *more), LABELS.key, checks=LABELS.checks)


SYMBOLS = (  # columns of a table of genes, in lower case
    *("gene_symbols", "gene_symbol", "symbol", "symbols", "gene_name", "gene_names", "gene_short_name"),
    *("feature_name", "hgnc_symbol", "name"),
)
IDENTIFIERS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl_gene_id", "ensembl", "feature_id")


@dataclass(frozen=True)
class Genes:
    """Features in order: `names`, as `features` has them, and the symbols and identifiers that a file has beside these,
    None for a missing one; both None where it has neither. Where they are called by symbols these are `symbols`."""

    names: list[str]
    symbols: list[str | None] | None = None
    ids: list[str | None] | None = None

    @classmethod
    def of(cls, names: list[str], column: Callable[[str], list[str | None]], columns: Iterable[str]) -> Genes:
        """Of the `columns` of a table of genes beside their names; `column` reads one."""
        at = {name.lower(): name for name in columns}
        read = [next((column(at[name]) for name in wanted if name in at), None) for wanted in (SYMBOLS, IDENTIFIERS)]
        symbols, ids = (None if values == names else values for values in read)
        return cls(names, [*names] if symbols is None and ids is not None else symbols, ids)

    def of_type(self, types: Sequence[str | None], wanted: str) -> Genes:
        """Those of one type."""
        kept = [type_ == wanted for type_ in types]
        names, symbols, ids = (
            None if values is None else list(compress(values, kept)) for values in (self.names, self.symbols, self.ids)
        )
        return Genes(cast(list[str], names), symbols, ids)


def checked_columns(names: Sequence[str], uri: str, line: int | None = None) -> tuple[str, ...]:
    """InputError for columns that cannot be told apart once they are stored, or have no name that can be."""
    seen = {COHORT.name}
    for name in names:
        stored = column_name(name).lower()
        stored = stored if stored == COHORT.name else LABELS.beside(stored)
        if not stored or stored in seen or fault_of_name(name) is not None:
            raise InputError(
                f"column {name!r} of cells stands twice, is empty or reserved; expected distinct names, rename it",
                uri,
                line,
            )
        seen.add(stored)
    return tuple(names)


def checked_features(names: Sequence[str], uri: str, first_line: int | None = None) -> str:
    """`feature_set` of features. InputError for one without a name, or named as one before it."""
    if not names:
        raise InputError("found no feature; expected genes that were counted", uri)
    places: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        line = None if first_line is None else first_line + number - 1
        if (fault := fault_of_name(name)) is not None:
            raise InputError(f"found {fault} as feature {number}; expected an identifier, mend it", uri, line)
        if places.setdefault(name, number) != number:
            found = f"feature {name} stands twice, first as number {places[name]}"
            raise InputError(f"{found}; expected each once, use identifiers or make the names unique", uri, line)
    return order_hash(list(names))


def batch(
    run: Run, ids: pa.Array, columns: Sequence[pa.Array], header: Header, cohort: str, block: str, file: str, uri: str
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Rows of `cells` and `labels` of a run: `ids` and `columns` are its cells'. Zeros are left out.

    InputError for an identifier that is none, a feature that stands twice in a cell, and a value that is no number.
    """
    first, counts, places, values = run
    n = len(counts)
    for number, name in enumerate(ids.to_pylist(), first + 1):
        if name is None or (fault := fault_of_name(name)) is not None:
            found = "no name" if name is None else fault
            raise InputError(f"found {found} as identifier of cell {number}; expected one for each, mend it", uri)
    cell = np.repeat(np.arange(n), counts)
    if not np.isfinite(values).all():
        at = int(np.argmin(np.isfinite(values)))
        found = f"{values[at]} for feature {places[at] + 1} of cell {ids[cell[at]].as_py()}"
        raise InputError(f"found {found}; expected a number within float32, leave what is missing out", uri)
    twice = np.flatnonzero((places[1:] == places[:-1]) & (cell[1:] == cell[:-1]))
    if len(twice):
        found = f"feature {places[twice[0]] + 1} of cell {ids[cell[twice[0]]].as_py()} stands twice"
        raise InputError(f"{found}; expected one value of each, add them up", uri)
    if not values.all():
        kept = values != 0
        cell, places, values = cell[kept], places[kept], values[kept]
        counts = np.bincount(cell, minlength=n)
    totals = np.bincount(cell, values, n)
    numbers = pa.array(np.arange(first + 1, first + n + 1))
    cohorts, files = (pa.repeat(pa.scalar(text, pa.string()), n) for text in (cohort, file))
    found_rows = [
        cohorts,
        pa.repeat(pa.scalar(block, pa.string()), n),
        ids,
        pa.repeat(pa.scalar(header.feature_set), n),
        packing.sparse_column(counts, places, values.astype(np.float32, copy=False)),
        pa.array(counts.astype(np.int32)),
        pa.repeat(pa.scalar(header.features, pa.int32()), n),
        pa.array(totals),
        files,
        numbers,
    ]
    named = [cohorts, pa.repeat(pa.scalar(CELL), n), ids, files, numbers, *columns]
    return (
        pa.RecordBatch.from_arrays(found_rows, schema=CELLS.arrow_schema()),
        pa.RecordBatch.from_arrays(named, schema=header.labels.arrow_schema()),
    )


def by_cell(entries: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]], cells: int, count: int) -> Iterator[Run]:
    """Runs of all cells from entries in any order: (cells from 0, places, values), of which there are about `count`."""
    files = max(1, min(_FILES, -(-count // AT_ONCE), cells))
    width = max(1, -(-cells // files))
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(0, cells, width)]
        for cell, place, value in entries:
            order = np.argsort(cell // width, kind="stable")
            rows = np.empty(len(cell), _WAITING)
            rows["cell"], rows["place"], rows["value"] = cell[order], place[order], value[order]
            ends = np.cumsum(np.bincount(cell // width, minlength=len(waiting)))
            for file, start, end in zip(waiting, [0, *ends[:-1]], ends, strict=True):
                if end > start:
                    file.write(rows[start:end].tobytes())
        for number, file in enumerate(waiting):
            file.seek(0)
            rows = np.frombuffer(file.read(), _WAITING)
            rows = rows[np.lexsort((rows["place"], rows["cell"]))]
            first = number * width
            n = min(width, cells - first)
            counts = np.bincount(rows["cell"].astype(np.int64) - first, minlength=n)
            yield first, counts, rows["place"], rows["value"]


def sorted_places(counts: np.ndarray, places: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and values with the places of every cell ascending."""
    cell = np.repeat(np.arange(len(counts)), counts)
    if ((places[1:] >= places[:-1]) | (cell[1:] > cell[:-1])).all():
        return places, values
    order = np.lexsort((places, cell))
    return places[order], values[order]
