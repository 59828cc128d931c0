"""Matrices into the lake: one packed row per sample, whatever files it is in;
one transaction per table for all files of a run.

Tasks read the files and write the table's files themselves. Samples that stand in one file alone are done with that.
Rows of a sample that several files have, or that the lake has from others, are written aside and made one,
file after file, by a second round of tasks.
"""

from __future__ import annotations

import itertools
import logging
import posixpath
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from genodl_spark.core import session, storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.formats import matrix
from genodl_spark.formats.matrix import Header, Row
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.ingested import FEATURES, SOURCES
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.engine import Counts, SourceFile, discard
from genodl_spark.sources.protocol import BLOCK, SourceKind

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger("genodl")

_PIECES_PER_SLOT = 4  # so that the last task to end is not long alone
_BATCH = 16 << 20  # bytes of values in a batch of rows
_UNKNOWN = ""  # the file of values that an older version put together
_TRIES = 5
_REPORT = "table string, feature_set string, part string"
_REPORTED = pa.schema([(name, pa.string()) for name in ("table", "feature_set", "part")])


class MatrixKind(SourceKind):
    """Matrices, features x samples, into a table of packed rows."""

    takes = frozenset({BLOCK})
    joins = True

    def header(self, uri: str, settings: Settings) -> Header:
        with storage.open_input(uri) as raw:
            return matrix.read_header(raw, uri)

    def samples(self, header: Header) -> list[str]:
        return header.samples

    def tell(self, run: Run, headers: Mapping[str, Header]) -> None:
        """How the files are cut into cells: a metric, and a warning for what is not the usual way."""
        files: dict[str, list[str]] = {}
        for uri, header in headers.items():
            files.setdefault(header.described(), []).append(posixpath.basename(uri))
        run.report.metrics["read_as"] = {described: len(names) for described, names in files.items()}
        for described in {
            header.described(): None for header in headers.values() if header.bare or header.decimal == ","
        }:
            first, *more = files[described]
            run.report.warn(f"{first}{f' and {len(more)} more files' if more else ''}: read with {described}")

    def stored_samples(self, run: Run, cohort: str, block: str, files: list[str]) -> dict[str, set[str]]:
        from pyspark.sql import functions as F

        if not run.lake.exists(self.table):
            return {}
        rows = run.lake.read(self.table).where((F.col("cohort") == cohort) & (F.col("block") == block))
        held = F.coalesce("files", F.array("file"))  # a row may hold values of several
        rows = rows.select("sample_id", F.explode(held).alias("file")).where(F.col("file").isin(files))
        return {
            row.file: set(row.people)
            for row in rows.groupBy("file").agg(F.collect_set("sample_id").alias("people")).collect()
        }

    def bring(self, arrival: Arrival, files: dict[SourceFile, Header]) -> dict[str, Counts]:
        arrival.settle()
        rows = ingest_matrices(arrival.run, self.table, arrival.cohort, arrival.data.block, files, arrival.refuse)
        return {file: Counts(count) for file, count in rows.items()}


@dataclass(frozen=True)
class _Target:
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


@dataclass(frozen=True)
class _Matrix:
    """One file for a task to read. `shared`: its samples that other rows have to be put together with."""

    uri: str
    name: str
    header: Header
    shared: frozenset[str]


@dataclass(frozen=True)
class _Plan:
    """What becomes of the stored rows. `shared`: samples put together of several rows; `replaced`: which rows go,
    by column; `stored`: whether there may be any."""

    shared: frozenset[str]
    replaced: dict[str, list[str]]
    stored: bool


def ingest_matrices(
    run: Run,
    table: Table,
    cohort: str,
    block: str,
    files: dict[SourceFile, Header],
    check: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Puts the values of matrices into `table`, each file in place of what it brought before;
    returns the samples of each, by name.

    The outcome is that of the files one after another, in this order. InputError for a file that cannot be read:
    then nothing has changed. `check` is called before anything is committed.
    """
    for attempt in itertools.count(1):
        try:
            _ingest(run, table, cohort, block, files, check)
            break
        except Conflict:
            if attempt == _TRIES:
                raise
            log.info("another run has changed %s meanwhile: once more", table.name)
    run.wrote(table, sum(len(header.samples) for header in files.values()))
    return {file.name: len(header.samples) for file, header in files.items()}


def _ingest(
    run: Run, table: Table, cohort: str, block: str, files: dict[SourceFile, Header], check: Callable[[], None]
) -> None:
    lake = run.lake
    new = [one for one in (table, FEATURES) if not lake.exists(one)]
    name = uuid.uuid4().hex[:12]
    staging = storage.join(lake.uri, "_staging", f"ingest-{name}")
    target = _Target(
        table, cohort, block, lake.path(table), lake.path(FEATURES), staging, run.settings.ingest.sample_chunk, name
    )
    try:
        version = lake.seen(table)
        plan = _plan(run, target, files)
        known = _orders(run, target)
        matrices = [
            _Matrix(file.uri, file.name, header, plan.shared.intersection(header.samples))
            for file, header in files.items()
        ]
        groups = _dealt(matrices, [file.size for file in files], session.task_slots(run.spark) * _PIECES_PER_SLOT)
        log.info("reading %d matrices in %d tasks", len(files), len(groups))
        work = partial(_read, groups=groups, target=target, known=frozenset(known))
        found = run.spark.range(0, len(groups), 1, len(groups)).mapInArrow(work, _REPORT).collect()
        parts, orders = _sorted(found)
        if plan.shared:
            orders_of = {key: _names_of(run, part) for key, part in orders.items()} | known
            rows = _rows_to_join(run, target, plan, parts[_STAGED])
            joining = partial(
                _join, target=target, orders=orders_of, numbers={file.name: i for i, file in enumerate(files)}
            )
            more, joint = _sorted(rows.mapInArrow(joining, _REPORT).collect())
            parts[table.name] += more[table.name]
            parts[_UNUSED] += more[_UNUSED]
            orders |= joint
        for part in parts[_UNUSED]:  # several tasks have met the same order
            storage.remove_file(storage.join(lake.path(FEATURES), unquote(part.path)))
        check()
        if orders:  # before the rows, which are read by them
            whose = {"cohort": cohort, "source": table.name, "block": block}
            lake.commit(FEATURES, list(orders.values()), {**whose, "feature_set": sorted(orders)})
        where = {"cohort": cohort, "block": block}
        lake.commit(table, parts[table.name], {**where, **plan.replaced}, exclusive=where, since=version)
    except BaseException:
        discard(run, [table, FEATURES], name, new)
        raise
    finally:
        storage.remove_directory(staging)
    run.wrote(FEATURES, sum(part.rows for part in orders.values()))


_STAGED, _UNUSED = "staged", "unused"  # what _sorted calls files beside those of tables


def _sorted(reports: Iterable[Any]) -> tuple[defaultdict[str, list[Part]], dict[str, Part]]:
    """Files that tasks wrote, by table; and of `features` one for each order, the others as unused."""
    parts: defaultdict[str, list[Part]] = defaultdict(list)
    orders: dict[str, Part] = {}
    for report in reports:
        part = Part.from_json(report.part)
        if report.table != FEATURES.name:
            parts[report.table].append(part)
        elif report.feature_set in orders:
            parts[_UNUSED].append(part)
        else:
            orders[report.feature_set] = part
    return parts, orders


def _dealt(matrices: list[_Matrix], sizes: list[int], most: int) -> list[list[_Matrix]]:
    """The files in at most so many groups of about the same bytes."""
    groups: list[list[_Matrix]] = [[] for _ in range(min(most, len(matrices)))]
    filled = [0] * len(groups)
    for i in sorted(range(len(matrices)), key=lambda i: -sizes[i]):
        least = filled.index(min(filled))
        groups[least].append(matrices[i])
        filled[least] += sizes[i] + 1
    return groups


def _plan(run: Run, target: _Target, files: dict[SourceFile, Header]) -> _Plan:
    """Which samples stand in several files, or in rows of the lake that hold values of others than these."""
    from pyspark.sql import functions as F

    fresh = [file.name for file in files]
    times = Counter(sample for header in files.values() for sample in header.samples)
    shared = {sample for sample, count in times.items() if count > 1}
    if run.lake.count(target.table, {"cohort": target.cohort}) == 0:
        return _Plan(frozenset(shared), {"file": fresh}, False)
    ids = run.spark.createDataFrame(
        pa.table({"sample_id": pa.array(sorted(times)), "comes": pa.repeat(pa.scalar(True), len(times))})
    )
    stored = _stored(run, target).select("sample_id", "file", "files").join(F.broadcast(ids), "sample_id", "left")
    names = F.array(*map(F.lit, fresh))
    touched = F.col("comes") | F.col("file").isin(fresh) | F.arrays_overlap("files", names)
    rows = stored.where(touched).collect()
    old = {row.sample_id for row in rows if row.files is None}
    sole = bool(old) and _sole_file(run, target) is not None
    unsure = 0
    for row in rows:
        others = set(row.files or ([row.file] if sole else [_UNKNOWN])) - set(fresh)
        if others:
            shared.add(row.sample_id)
            unsure += others == {_UNKNOWN}
    if unsure:
        run.report.warn(
            f"{unsure} rows of {target.table.name} do not say which file their values are from: "
            "those that no file brings now stay"
        )
    # By file where that says it: then files of the table that hold nothing else are replaced without being read.
    by_file = all(row.file in fresh for row in rows)
    return _Plan(
        frozenset(shared),
        {"file": fresh} if by_file else {"sample_id": sorted({*times, *(row.sample_id for row in rows)})},
        True,
    )


def _sole_file(run: Run, target: _Target) -> str | None:
    """The only file of a cohort's block so far; None where there are several."""
    from pyspark.sql import functions as F

    mine = (
        (F.col("cohort") == target.cohort) & (F.col("source") == target.table.name) & (F.col("block") == target.block)
    )
    found = [row.file for row in run.lake.read(SOURCES).where(mine).select("file").collect()]
    return found[0] if len(found) == 1 else None


def _stored(run: Run, target: _Target) -> DataFrame:
    """Rows of the cohort's block, but for those of damaged files that this run brings again."""
    from pyspark.sql import functions as F

    lake, version = run.lake, run.lake.version(target.table)
    assert version is not None
    files = [
        file
        for file in lake.files(target.table, version)
        if file.partition["cohort"] == target.cohort and file.uri not in lake.given_up
    ]
    return lake.read_files(target.table, files).where(F.col("block") == target.block)


def _orders(run: Run, target: _Target) -> dict[str, list[str]]:
    """Feature identifiers of every stored order of a cohort's block."""
    rows = run.lake.rows(FEATURES, {"cohort": target.cohort, "source": target.table.name, "block": target.block})
    orders: dict[str, list[str]] = {}
    rows = rows.sort_by([("feature_set", "ascending"), ("position", "ascending")])
    for feature_set, name in zip(
        rows.column("feature_set").to_pylist(), rows.column("feature_id").to_pylist(), strict=True
    ):
        orders.setdefault(feature_set, []).append(name)
    return orders


def _names_of(run: Run, part: Part) -> list[str]:
    """Feature identifiers in a file of `features` that no transaction has yet."""
    import pyarrow.parquet as pq

    fs, path = storage.filesystem(storage.join(run.lake.path(FEATURES), unquote(part.path)))
    return pq.read_table(path, columns=["feature_id"], filesystem=fs).column(0).to_pylist()


def _rows_to_join(run: Run, target: _Target, plan: _Plan, staged: list[Part]) -> DataFrame:
    """Rows of the shared samples, stored and new, the rows of one sample in one partition and behind each other."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructType

    columns = ["sample_id", "feature_set", "x", "file", "files", "origin"]
    schema = StructType([field for field in target.table.spark_schema().fields if field.name in columns])
    paths = [storage.join(target.staging, unquote(part.path)) for part in staged]
    rows = (
        run.spark.read.schema(schema).option("__globPaths__", "false").parquet(*paths)
        if paths
        else run.spark.createDataFrame([], schema)
    )
    rows = rows.select(*columns).withColumn("stored", F.lit(False))
    if plan.stored:
        ids = F.broadcast(run.spark.createDataFrame(pa.table({"sample_id": pa.array(sorted(plan.shared))})))
        sole = _sole_file(run, target) is not None
        unknown = F.array(F.col("file") if sole else F.lit(_UNKNOWN))
        old = (
            _stored(run, target)
            .join(ids, "sample_id", "left_semi")
            .select(*columns)
            .withColumn("files", F.coalesce("files", unknown))
        )
        rows = rows.unionByName(old.withColumn("stored", F.lit(True)))
    count = min(session.task_slots(run.spark) * _PIECES_PER_SLOT, len(plan.shared))
    return rows.repartition(count, "sample_id").sortWithinPartitions("sample_id")


def _report(rows: list[tuple[str | None, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(column, pa.string()) for column in zip(*rows, strict=True)], schema=_REPORTED
    )


def _read(
    batches: Iterable[pa.RecordBatch], groups: list[list[_Matrix]], target: _Target, known: frozenset[str]
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `groups`: writes the rows of their samples,
    and the orders that are not `known`."""
    for index in (index for batch in batches for index in batch.column(0).to_pylist()):
        task = f"{index:05d}"
        writers = {
            name: PartWriter(target.table, uri, f"{target.name}-{task}") for name, uri in _places(target).items()
        }
        reports: list[tuple[str | None, ...]] = []
        written = set(known)
        for one in groups[index]:
            samples = iter(one.header.samples)
            with storage.open_input(one.uri) as raw:
                blocks = matrix.read_features(raw, one.header, one.uri)
                with matrix.transposed(blocks, len(one.header.samples), target.run) as (names, runs):
                    if not names:
                        raise InputError(
                            "the matrix has no feature below its header; expected one line per feature", one.uri
                        )
                    feature_set, origin = matrix.feature_set(names), np.zeros(len(names), np.int64)
                    if feature_set not in written:
                        reports += [
                            (FEATURES.name, feature_set, part.as_json())
                            for part in target.order(feature_set, names, task)
                        ]
                        written.add(feature_set)
                    for values in runs:
                        made = [
                            (sample, feature_set, Row(names, x, [one.name], origin))
                            for x, sample in zip(values, samples, strict=False)
                        ]
                        assert len(made) == len(values)
                        aside = [row for row in made if row[0] in one.shared]
                        writers[_STAGED].write(target.rows(aside))
                        writers[target.table.name].write(target.rows([row for row in made if row[0] not in one.shared]))
        reports += [(name, None, part.as_json()) for name, writer in writers.items() for part in writer.close()]
        if reports:
            yield _report(reports)


def _places(target: _Target) -> dict[str, str]:
    return {target.table.name: target.uri, _STAGED: target.staging}


def _join(
    batches: Iterable[pa.RecordBatch], target: _Target, orders: dict[str, list[str]], numbers: dict[str, int]
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
