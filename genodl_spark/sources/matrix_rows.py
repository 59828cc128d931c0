"""Rows of matrices, as tasks make them: of each sample in a file one, and of several rows of a sample one.

What a task has written it reports, a row for each file: of which table it is, and of `features` and what stands beside
the rows, of which features.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from genodl_spark.core.errors import InputError
from genodl_spark.formats import ensembl, matrix
from genodl_spark.formats.matrix import MatrixFile, Row, Samples
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.ingested import FEATURES
from genodl_spark.lake.tables.portals import HARMONISATION, PROBES, UNITS

REPORT = "table string, feature_set string, part string"
STAGED = "staged"  # what a report calls files of rows that are to be put together
SAID = (HARMONISATION, PROBES)  # what tasks write beside rows and orders
_REPORTED = pa.schema([(name, pa.string()) for name in ("table", "feature_set", "part")])
_BATCH = 16 << 20  # bytes of values in a batch of rows


def of_block(cohort: str, table: Table, block: str) -> dict[str, str]:
    """What rows of `features` and of the tables beside it that are of one block have in common."""
    return {"cohort": cohort, "source": table.name, "block": block}


@dataclass(frozen=True)
class Target:
    """Where rows go; it goes to the tasks. `run`: samples that are transposed at once;
    `name`: what the files are named after."""

    table: Table
    cohort: str
    block: str
    uri: str
    features: str
    staging: str
    run: int
    name: str
    versions: bool = True  # whether those of Ensembl identifiers stay
    beside: tuple[tuple[str, str], ...] = ()  # where rows of `harmonisation` and `probes` go, by the table's name

    def rows(self, rows: list[tuple[str, str, Row]]) -> pa.RecordBatch:
        """Samples, feature sets and what is known of them, as rows of the table."""
        columns = [
            [self.cohort] * len(rows),
            [self.block] * len(rows),
            [sample for sample, _, _ in rows],
            [feature_set for _, feature_set, _ in rows],
            [row.values.astype("<f4", copy=False).tobytes() for _, _, row in rows],
            [len(row.values) for _, _, row in rows],
            [row.files[-1] for _, _, row in rows],
            [row.files for _, _, row in rows],
            [None if len(row.files) == 1 else row.origin.astype("<u2").tobytes() for _, _, row in rows],
        ]
        schema = self.table.arrow_schema()
        return pa.RecordBatch.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
        )

    def order(self, feature_set: str, names: list[str], task: str) -> list[Part]:
        """A file of `features` for one order."""
        writer = PartWriter(FEATURES, self.features, f"{self.name}-{task}")
        n = len(names)
        constants = [
            pa.repeat(pa.scalar(value), n) for value in (self.cohort, self.table.name, self.block, feature_set)
        ]
        columns = [*constants, pa.array(np.arange(n, dtype=np.int32)), pa.array(names, pa.string())]
        writer.write(pa.RecordBatch.from_arrays(columns, schema=FEATURES.arrow_schema()))
        return writer.close()

    def said(self, table: Table, rows: list[dict[str, Any]], task: str) -> list[Part]:
        """A file of `harmonisation` or `probes`, where there are rows for one."""
        if not rows:
            return []
        writer = PartWriter(table, dict(self.beside)[table.name], f"{self.name}-{task}")
        whose = of_block(self.cohort, self.table, self.block)
        writer.write(pa.RecordBatch.from_pylist([whose | row for row in rows], table.arrow_schema()))
        return writer.close()


@dataclass(frozen=True)
class Matrix:
    """One file for a task to read. `shared`: its samples that other rows have to be put together with."""

    uri: str
    name: str
    header: MatrixFile
    shared: frozenset[str]


@dataclass(frozen=True)
class _Order:
    """Features of a file as they are stored: their set, its names, an origin of zeros, and what was made of names
    (old to new)."""

    feature_set: str
    names: list[str]
    origin: np.ndarray
    changed: dict[str, str]


def _report(rows: list[tuple[str | None, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(column, pa.string()) for column in zip(*rows, strict=True)], schema=_REPORTED
    )


def read(
    batches: Iterable[pa.RecordBatch], groups: list[list[Matrix]], target: Target, known: frozenset[str]
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `groups`: writes the rows of their samples,
    and the orders that are not `known`."""
    for index in (index for batch in batches for index in batch.column(0).to_pylist()):
        task = f"{index:05d}"
        writers = {
            name: PartWriter(target.table, uri, f"{target.name}-{task}") for name, uri in _places(target).items()
        }
        reports: list[tuple[str | None, ...]] = []
        written, told = set(known), set[str]()
        for one in groups[index]:
            reports += _of_file(one, target, writers, written, told, task)
        reports += [(name, None, part.as_json()) for name, writer in writers.items() for part in writer.close()]
        if reports:
            yield _report(reports)


def _of_file(
    one: Matrix, target: Target, writers: dict[str, PartWriter], written: set[str], told: set[str], task: str
) -> Iterator[tuple[str | None, ...]]:
    """Writes the rows of a file's samples; reports of the orders that are not `written`, of what was made of their
    names, and of the file."""
    lowest = highest = None
    missing = count = 0
    for run in one.header.runs(one.uri, target.run):
        order = _order_of(run, target, one.uri)
        if order.feature_set not in written:
            for part in target.order(order.feature_set, order.names, task):
                yield FEATURES.name, order.feature_set, part.as_json()
            written.add(order.feature_set)
        key = f"{order.feature_set} {len(order.changed)} {len(run.left)} {run.symbols is not None}"
        if key not in told:
            told.add(key)
            for table, rows in _said(run, order, one.name):
                for part in target.said(table, rows, task):
                    yield table.name, key, part.as_json()
        known = run.values[~np.isnan(run.values)]
        missing += run.values.size - known.size
        if known.size:
            low, high = float(known.min()), float(known.max())
            lowest, highest = (
                min(low, low if lowest is None else lowest),
                max(high, high if highest is None else highest),
            )
        made = [
            (sample, order.feature_set, Row(order.names, x, [one.name], order.origin))
            for sample, x in zip(run.samples, run.values, strict=True)
        ]
        count += len(made)
        writers[STAGED].write(target.rows([row for row in made if row[0] in one.shared]))
        writers[target.table.name].write(target.rows([row for row in made if row[0] not in one.shared]))
    if count != len(one.header.samples):
        found = f"found {count} samples, where the head of the file has {len(one.header.samples)}"
        raise InputError(f"{found}; expected as many: it has changed while it was read, run this again", one.uri)
    yield UNITS.name, one.name, json.dumps([lowest, highest, missing])


_orders_made: list[tuple[list[str], bool, _Order]] = []  # files of one release have the same features


def _order_of(run: Samples, target: Target, uri: str) -> _Order:
    if _orders_made and _orders_made[0][0] is run.features and _orders_made[0][1] == target.versions:
        return _orders_made[0][2]
    names, changed = (run.features, {}) if target.versions else ensembl.without_versions(run.features, uri)
    made = _Order(matrix.feature_set(names), names, np.zeros(len(names), np.int64), changed)
    _orders_made[:] = [(run.features, target.versions, made)]
    return made


def _said(run: Samples, order: _Order, file: str) -> list[tuple[Table, list[dict[str, Any]]]]:
    """Rows of `harmonisation` and `probes` for the features of a file."""
    changed: list[dict[str, Any]] = [
        {"what": "feature", "name": old, "action": "renamed", "became": new, "reason": "without the version of Ensembl"}
        for old, new in order.changed.items()
    ]
    changed += [
        {"what": "feature", "name": name, "action": "dropped", "became": None, "reason": "a total of reads, no feature"}
        for name in run.left
    ]
    symbols = [
        {"feature_id": name, "symbol": symbol}
        for name, symbol in zip(order.names, run.symbols or [None] * len(order.names), strict=True)
        if symbol
    ]
    return [
        (table, [row | {"file": file} for row in rows]) for table, rows in zip(SAID, (changed, symbols), strict=True)
    ]


def _places(target: Target) -> dict[str, str]:
    return {target.table.name: target.uri, STAGED: target.staging}


def join(
    batches: Iterable[pa.RecordBatch], target: Target, orders: dict[str, list[str]], numbers: dict[str, int]
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over rows by sample: one row of each, made of the stored one without `numbers`,
    then of the files in their order."""
    task = uuid.uuid4().hex[:12]
    writer = PartWriter(target.table, target.uri, f"{target.name}-{task}")
    reports: list[tuple[str | None, ...]] = []
    held: list[tuple[str, str, Row]] = []
    written = set(orders)
    every = (row for batch in batches for row in batch.to_pylist())
    for sample, rows in itertools.groupby(every, key=lambda row: row["sample_id"]):
        made: Row | None = None
        for row in sorted(rows, key=lambda row: -1 if row["stored"] else numbers[row["file"]]):
            values, names = np.frombuffer(row["x"], "<f4"), orders.get(row["feature_set"], [])
            if row["stored"]:
                made = _stored_row(row, values, names, sample, numbers)
            elif made is None:
                made = Row(names, values, [row["file"]], np.zeros(len(names), np.int64))
            else:
                made = made.with_file(names, values, row["file"])
        if made is None:
            continue
        feature_set = matrix.feature_set(made.features)
        if feature_set not in written:
            reports += [
                (FEATURES.name, feature_set, part.as_json()) for part in target.order(feature_set, made.features, task)
            ]
            written.add(feature_set)
        held.append((sample, feature_set, made))
        if len(held) * made.values.nbytes >= _BATCH:
            writer.write(target.rows(held))
            held = []
    writer.write(target.rows(held))
    reports += [(target.table.name, None, part.as_json()) for part in writer.close()]
    if reports:
        yield _report(reports)


def _stored_row(
    row: dict[str, Any], values: np.ndarray, names: list[str], sample: str, replaced: dict[str, int]
) -> Row | None:
    """A stored row without what the files of this run brought; None where nothing is left."""
    if set(row["files"]) <= set(replaced):
        return None
    if len(names) != len(values):
        found = (
            f"found {len(values)} stored values of sample {sample} for {len(names)} features "
            f"of set {row['feature_set']}"
        )
        raise InputError(f"{found}; expected one for each: take its file {row['file']} into a new cohort", row["file"])
    origin = (
        np.zeros(len(values), np.int64)
        if row["origin"] is None
        else np.frombuffer(row["origin"], "<u2").astype(np.int64)
    )
    return Row(names, values, list(row["files"]), origin).without(replaced)
