"""Cells and what was counted in them: h5ad, HDF5 of 10x, and folders with MatrixMarket, into `cells`, `features` and
`labels`."""

from __future__ import annotations

import posixpath
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.formats import cells_hdf5, matrix_market
from genodl_spark.formats.counted_cells import Header
from genodl_spark.formats.streams import Note, Split
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.parts import PartWriter
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.ingested import CELLS, FEATURES, QUARANTINE
from genodl_spark.lake.tables.portals import PROBES
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.engine import Counts, Piece, Reader, SourceFile, counts, ingest_files, tell
from genodl_spark.sources.labelled import check_entities, merge_labels
from genodl_spark.sources.protocol import BLOCK, SourceKind

if TYPE_CHECKING:
    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts

_HDF5 = b"\x89HDF"


class Source(SourceKind):
    """Cells. What a file is shows in its first bytes."""

    files = re.compile(f"{matrix_market.FILE_NAME.pattern}|{cells_hdf5.FILE_NAME.pattern}", re.IGNORECASE)
    table = CELLS
    by_folder = True
    takes = frozenset({BLOCK})

    def beside(self, uri: str) -> list[str]:
        return [] if _is_hdf5(uri) else matrix_market.beside(uri)

    def header(self, uri: str, settings: Settings) -> Header:
        s = settings.ingest
        if _is_hdf5(uri):
            return cells_hdf5.header_of(uri, s.layer, s.feature_type)
        return matrix_market.header_of(uri, s.feature_type)

    def options(self, settings: Settings, reference: str | None) -> str:
        s, usual = settings.ingest, type(settings.ingest)()
        return " ".join(f"{name}={getattr(s, name)}" for name in _SHAPING if getattr(s, name) != getattr(usual, name))

    def tell(self, run: Run, headers: Mapping[str, Header]) -> None:
        described: dict[str, int] = {}
        for header in headers.values():
            described[header.described] = described.get(header.described, 0) + 1
        run.report.metrics["read_as"] = described
        tell(run, [f"{posixpath.basename(uri)}: {note}" for uri, header in headers.items() for note in header.notes])

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        from genodl_spark.sources.cell_facts import facts_of  # loads what draws pages

        return facts_of(lake, cohort)

    def bring(self, arrival: Arrival, files: dict[SourceFile, Header]) -> dict[str, Counts]:
        """InputError for a cell that stands twice in a block of the cohort."""
        run, cohort, block, lake = arrival.run, arrival.cohort, arrival.data.block, arrival.run.lake
        staging = storage.join(lake.uri, "_staging", f"ingest-{uuid.uuid4().hex[:12]}")
        headers = {file.uri: header for file, header in files.items()}
        reader = _CellReader(cohort, block, headers, lake.path(CELLS), staging, lake.path(QUARANTINE), self.name)

        def settle() -> None:
            arrival.settle()
            _write_genes(run, cohort, block, files)

        check = partial(check_entities, run, CELLS, {"cohort": cohort, "block": block}, files, staging)
        try:
            brought = ingest_files(run, cohort, CELLS, reader, list(files), settle, check)
            merge_labels(run, cohort, self, self.table, files, brought, staging)
        finally:
            storage.remove_directory(staging)
        return counts(brought)


_SHAPING = ("layer", "feature_type")


def _is_hdf5(uri: str) -> bool:
    with storage.open_input(uri) as raw:
        return raw.read(len(_HDF5)) == _HDF5


@dataclass(frozen=True)
class _CellReader(Reader):
    """Reads files of cells; `headers` by URI. `cells`, `labels`, `quarantine`: where rows of each go.
    See `engine.Reader`."""

    cohort: str
    block: str
    headers: dict[str, Header]
    cells: str
    labels: str
    quarantine: str
    source: str
    unit: str = "record"

    def splits(self, uri: str, target: int) -> list[Split]:
        """Numbers of bytes that stand for as large a part of the cells."""
        size = storage.size(uri)
        parts = max(1, min(round(size / target), self.headers[uri].cells)) if self.headers[uri].ranges else 1
        return [Split(size * i // parts, size * (i + 1) // parts) for i in range(parts)]

    def _range(self, piece: Piece) -> tuple[int, int]:
        size, cells = storage.size(piece.uri), self.headers[piece.uri].cells
        return cells * piece.split.start // size, cells * piece.split.end // size

    def length(self, piece: Piece) -> int:
        first, end = self._range(piece)
        return end - first

    def targets(self, piece: Piece) -> list[tuple[Table, str]]:
        return [(CELLS, self.cells), (self.headers[piece.uri].labels, self.labels), (QUARANTINE, self.quarantine)]

    def batches(self, piece: Piece, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        header, rest = self.headers[piece.uri], (self.cohort, self.block, piece.name)
        none = pa.RecordBatch.from_pylist([], schema=QUARANTINE.arrow_schema())
        if _is_hdf5(piece.uri):
            found = cells_hdf5.read(piece.uri, header, *rest, *self._range(piece))
        else:
            found = matrix_market.read(piece.uri, header, *rest)
        for rows, labels in found:
            yield rows, labels, none


def _write_genes(run: Run, cohort: str, block: str, files: Mapping[SourceFile, Header]) -> None:
    """The orders of features that `features` does not have, and the symbols that files give them; before the rows,
    which are read by the former. Of files with the same features the first tells the symbols."""
    lake, of = run.lake, {"cohort": cohort, "source": CELLS.name, "block": block}
    known = set(lake.rows(FEATURES, of).column("feature_set").to_pylist()) if lake.exists(FEATURES) else set()
    firsts = {header.feature_set: (file, header) for file, header in reversed(list(files.items()))}
    fresh = sorted(firsts.keys() - known)
    orders, symbols = (PartWriter(table, lake.path(table), uuid.uuid4().hex[:12]) for table in (FEATURES, PROBES))
    for feature_set, (file, header) in firsts.items():
        genes = cells_hdf5.genes(file.uri, header) if _is_hdf5(file.uri) else matrix_market.genes(header)
        size = len(genes.names)
        names = pa.array(genes.names, pa.string())
        if feature_set in fresh:
            columns: list[Any] = [pa.repeat(pa.scalar(value), size) for value in (*of.values(), feature_set)]
            columns += [pa.array(np.arange(size, dtype=np.int32)), names]
            orders.write(pa.RecordBatch.from_arrays(columns, schema=FEATURES.arrow_schema()))
        if genes.symbols is not None:
            columns = [pa.repeat(pa.scalar(value), size) for value in of.values()]
            columns += [names, pa.array(genes.symbols, pa.string()), pa.repeat(pa.scalar(file.name), size)]
            columns.append(pa.nulls(size, pa.string()) if genes.ids is None else pa.array(genes.ids, pa.string()))
            named = pa.Table.from_arrays(columns, schema=PROBES.arrow_schema()).filter(columns[4].is_valid())
            for batch in named.to_batches():
                symbols.write(batch)
    parts = orders.close()
    if parts:
        lake.commit(FEATURES, parts, {**of, "feature_set": fresh})
    run.wrote(FEATURES, sum(part.rows for part in parts))
    parts = symbols.close()
    if parts or lake.exists(PROBES):
        lake.commit(PROBES, parts, {**of, "file": sorted(file.name for file in files)})
        run.wrote(PROBES, sum(part.rows for part in parts))
