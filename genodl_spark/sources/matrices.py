"""Matrices into the lake: one packed row per sample, whatever files it is in;
one transaction per table for all files of a run.

Tasks read the files and write the table's files themselves. Samples that stand in one file alone are done with that.
Rows of a sample that several files have, or that the lake has from others, are written aside and made one,
file after file, by a second round of tasks. What both rounds do is in `matrix_rows.py`.
"""

from __future__ import annotations

import itertools
import json
import logging
import posixpath
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from genodl_spark.core import session, storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.core.text_values import order_hash
from genodl_spark.formats import barcodes, gdc_sheet, matrix_files
from genodl_spark.formats.gdc_counts import GdcCounts, named_after
from genodl_spark.formats.gdc_sheet import Change, Sheet
from genodl_spark.formats.matrix import MatrixFile
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.ingested import FEATURES, SOURCES
from genodl_spark.lake.tables.portals import HARMONISATION, PROBES, UNITS
from genodl_spark.sources import aliquots
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.engine import Counts, SourceFile, tell
from genodl_spark.sources.manifest import concurrently
from genodl_spark.sources.matrix_rows import REPORT, SAID, STAGED, Matrix, Target, join, of_block, read
from genodl_spark.sources.protocol import BLOCK, SourceKind

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts

log = logging.getLogger("genodl")

_PIECES_PER_SLOT = 4  # so that the last task to end is not long alone
_UNKNOWN = ""  # the file of values that an older version put together
_TRIES = 5
_SHAPING = {"lines", "gdc_column", "gdc_name", "aliquots", "ensembl_versions", "methylation"}


class MatrixKind(SourceKind):
    """Matrices of any format (`formats/matrix_files.py`) into a table of packed rows. `changes`, `columns`: files that
    come under other names or not at all, and what sheets say of samples, once `together` has seen all."""

    changes: Sequence[Change] = ()
    columns: SampleTable | None = None
    takes = frozenset({BLOCK})
    joins = True
    # The GDC's client leaves its protocol beside what it fetched.
    files = re.compile(r"(?<!\.parcel)$")

    def header(self, uri: str, settings: Settings) -> MatrixFile:
        return matrix_files.read_header(uri, settings.ingest.lines, settings.ingest.gdc_column)

    def together(self, run: Run, headers: dict[str, MatrixFile], table: SampleTable | None) -> dict[str, MatrixFile]:
        """Files under the names that sheets among them give, one of each sample of the GDC; plain tables as the sample
        table shows them."""
        settings = run.settings.ingest
        barcodes.check_order(settings.aliquots, "ingest.aliquots")
        sheets = [header for header in headers.values() if isinstance(header, Sheet)]
        data = {uri: header for uri, header in headers.items() if not isinstance(header, Sheet)}
        if sheets and not any(isinstance(header, GdcCounts) for header in data.values()):
            uris = [uri for sheet in sheets for uri in gdc_sheet.beside(sheet) if uri not in data]
            data |= dict(zip(uris, concurrently(partial(self.header, settings=run.settings), uris), strict=True))
        counts = {uri: header for uri, header in data.items() if isinstance(header, GdcCounts)}
        named = gdc_sheet.named(counts, sheets, settings.gdc_name, settings.aliquots)
        self.changes, self.columns = named.changes, named.columns
        for note in named.notes:
            run.report.warn(note)
        if table is not None:
            known = set(table.rows)
            data = {uri: matrix_files.fitted(uri, one, known, settings.lines != "auto") for uri, one in data.items()}
        return {
            uri: named.headers.get(uri, header)
            for uri, header in data.items()
            if uri not in counts or uri in named.headers
        }

    def options(self, settings: Settings, reference: str | None) -> str:
        own = settings.ingest.model_dump(include=_SHAPING)
        usual = type(settings.ingest)().model_dump(include=_SHAPING)
        said = [f"{name}={value}" for name, value in sorted(own.items()) if value != usual[name]]
        # Another sheet may give the same files to other samples.
        names = sorted(f"{change.name}>{change.became}" for change in self.changes if change.action == "renamed")
        return " ".join([*said, f"names={order_hash(names)}"] if names else said)

    def samples(self, header: MatrixFile) -> list[str]:
        return header.samples

    def tables(self, headers: Mapping[str, MatrixFile]) -> list[SampleTable]:
        """What the files themselves say of their samples."""
        found = [header.columns for header in headers.values() if header.columns is not None]
        return [*found, self.columns] if self.columns is not None else found

    def unit(self, said: str | None, lowest: float | None, highest: float | None, settings: Settings) -> str | None:
        """The unit of a file's values, by what the file says and by their range."""
        return said

    def tell(self, run: Run, headers: Mapping[str, MatrixFile]) -> None:
        """How the files are read: a metric, and a warning for what is not the usual way."""
        files: dict[str, list[str]] = {}
        for uri, header in headers.items():
            files.setdefault(header.described(), []).append(posixpath.basename(uri))
        run.report.metrics["read_as"] = {described: len(names) for described, names in files.items()}
        for described in {header.described(): None for header in headers.values() if header.odd}:
            first, *more = files[described]
            run.report.warn(f"{first}{f' and {len(more)} more files' if more else ''}: read with {described}")
        tell(run, [f"{posixpath.basename(uri)}: {note}" for uri, header in headers.items() for note in header.notes])
        gdc = [uri for uri, header in headers.items() if isinstance(header, GdcCounts)]
        renamed = {change.uri for change in self.changes if change.action == "renamed"}
        if unnamed := [uri for uri in gdc if uri not in renamed and headers[uri].samples == [named_after(uri)]]:
            run.report.warn(
                f"{len(unnamed)} samples are called after their files, {headers[unnamed[0]].samples[0]} the first: "
                "no sheet of the GDC names them"
            )

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        from genodl_spark.sources.matrix_facts import facts_of  # loads what draws pages

        return facts_of(lake, self.table, cohort)

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

    def bring(self, arrival: Arrival, files: dict[SourceFile, MatrixFile]) -> dict[str, Counts]:
        arrival.settle()
        run, cohort, block = arrival.run, arrival.cohort, arrival.data.block
        replaced = self._settle_aliquots(arrival, files)
        rows = ingest_matrices(run, self.table, cohort, block, files, arrival.refuse, self.unit, self.changes, replaced)
        if replaced:  # given again, their files are asked once more whether they stand
            run.lake.delete(SOURCES, {**of_block(cohort, self.table, block), "file": replaced})
        return {file: Counts(count) for file, count in rows.items()}

    def _settle_aliquots(self, arrival: Arrival, files: dict[SourceFile, MatrixFile]) -> list[str]:
        """Takes out of `files`, and of those that the manifest will have, what a stored aliquot stands for; returns the
        stored files that others stand for now."""
        run, whose = arrival.run, of_block(arrival.cohort, self.table, arrival.data.block)
        coming = aliquots.coming(files, self.changes)
        if not coming or not run.lake.exists(self.table) or not run.lake.exists(UNITS):
            return []
        held = _stored(run, self.table, arrival.cohort, arrival.data.block)
        stored = aliquots.stored(run, whose, held, coming.keys(), {file.name for file in files})
        found = aliquots.settled(coming, stored, run.settings.ingest.gdc_name, run.settings.ingest.aliquots)
        again = {("dropped", name) for name in found.replaced}  # those given again were dropped in this command too
        kept = [one for one in self.changes if (one.action, posixpath.basename(one.uri)) not in again]
        self.changes = [*kept, *found.changes]
        left = {coming[sample].uri for sample in found.left}
        for file in [file for file in files if file.uri in left]:
            del files[file]
        arrival.data.fresh = [file for file in arrival.data.fresh if file.uri not in left]
        if self.columns is not None:
            rows = {sample: cells for sample, cells in self.columns.rows.items() if sample not in found.left}
            self.columns = replace(self.columns, rows=rows)
        return found.replaced


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
    files: dict[SourceFile, MatrixFile],
    check: Callable[[], None] = lambda: None,
    unit: _Unit = lambda said, lowest, highest, settings: said,
    changes: Sequence[Change] = (),
    replaced: Sequence[str] = (),
) -> dict[str, int]:
    """Puts the values of matrices into `table`, each file in place of what it brought before;
    returns the samples of each, by name.

    The outcome is that of the files one after another, in this order. InputError for a file that cannot be read:
    then nothing has changed. `check` is called before anything is committed.
    `unit` says what values are, by what a file says and their range; `changes` go to `harmonisation`; `replaced`: names
    of stored files whose data these take the place of.
    """
    for attempt in itertools.count(1):
        try:
            _ingest(run, table, cohort, block, files, check, unit, changes, replaced)
            break
        except Conflict:
            if attempt == _TRIES:
                raise
            log.info("another run has changed %s meanwhile: once more", table.name)
    run.wrote(table, sum(len(header.samples) for header in files.values()))
    return {file.name: len(header.samples) for file, header in files.items()}


_Unit = Callable[[str | None, float | None, float | None, Settings], str | None]
_BESIDE = (*SAID, UNITS)


def _ingest(
    run: Run,
    table: Table,
    cohort: str,
    block: str,
    files: dict[SourceFile, MatrixFile],
    check: Callable[[], None],
    unit: _Unit,
    changes: Sequence[Change],
    replaced: Sequence[str],
) -> None:
    lake = run.lake
    every = (table, FEATURES, *_BESIDE)
    new = [one for one in every if not lake.exists(one)]
    name = uuid.uuid4().hex[:12]
    staging = storage.join(lake.uri, "_staging", f"ingest-{name}")
    target = Target(
        table,
        cohort,
        block,
        lake.path(table),
        lake.path(FEATURES),
        staging,
        run.settings.ingest.sample_chunk,
        name,
        run.settings.ingest.ensembl_versions == "keep",
        tuple((one.name, lake.path(one)) for one in SAID),
    )
    over = True  # no task is under way
    try:
        version = lake.seen(table)
        plan = _plan(run, target, files, replaced)
        known = _orders(run, target)
        matrices = [
            Matrix(file.uri, file.name, header, plan.shared.intersection(header.samples))
            for file, header in files.items()
        ]
        groups = _dealt(matrices, [file.size for file in files], session.task_slots(run.spark) * _PIECES_PER_SLOT)
        log.info("reading %d matrices in %d tasks", len(files), len(groups))
        work = partial(read, groups=groups, target=target, known=frozenset(known))
        tasks = run.spark.range(0, len(groups), 1, max(len(groups), 1))
        over = False
        found = tasks.mapInArrow(work, REPORT).collect() if groups else []
        parts, orders = _sorted(found)
        beside = _beside(run, target, found, files, unit, changes, replaced)
        if plan.shared:
            orders_of = {key: _names_of(run, part) for key, part in orders.items()} | known
            rows = _rows_to_join(run, target, plan, parts[STAGED])
            numbers = {name: i for i, name in enumerate([*(file.name for file in files), *replaced])}
            joining = partial(join, target=target, orders=orders_of, numbers=numbers)
            more, joint = _sorted(rows.mapInArrow(joining, REPORT).collect())
            parts[table.name] += more[table.name]
            parts[_UNUSED] += more[_UNUSED]
            orders |= joint
        over = True
        for part in parts[_UNUSED]:  # several tasks have met the same order
            storage.remove_file(storage.join(lake.path(FEATURES), unquote(part.path)))
        check()
        if orders:  # before the rows, which are read by them
            of = {**of_block(cohort, table, block), "feature_set": sorted(orders)}
            lake.commit(FEATURES, list(orders.values()), of)
        where = {"cohort": cohort, "block": block}
        if files:
            lake.commit(table, parts[table.name], {**where, **plan.replaced}, exclusive=where, since=version)
        brought = sorted({file.name for file in files} | {posixpath.basename(change.uri) for change in changes})
        for one in _BESIDE:
            if beside[one.name] or lake.exists(one):
                whose = of_block(cohort, table, block)
                if replaced and one is not PROBES:  # what is known of their features is so of others' too
                    of_samples = {"what": "sample"} if one is HARMONISATION else {}
                    lake.commit(one, [], {**whose, **of_samples, "file": list(replaced)})
                lake.commit(one, beside[one.name], {**whose, "file": brought})
                run.wrote(one, sum(part.rows for part in beside[one.name]))
    except BaseException:
        discard(lake, run.run_id, list(every), name, new, over)
        raise
    finally:
        storage.remove_directory(staging)
    run.wrote(FEATURES, sum(part.rows for part in orders.values()))


_APART = {one.name for one in _BESIDE}  # reports that _beside takes
_UNUSED = "unused"  # what _sorted calls files of orders that another task has written too


def _sorted(reports: Iterable[Any]) -> tuple[defaultdict[str, list[Part]], dict[str, Part]]:
    """Files that tasks wrote, by table; and of `features` one for each order, the others as unused."""
    parts: defaultdict[str, list[Part]] = defaultdict(list)
    orders: dict[str, Part] = {}
    for report in reports:
        if report.table in _APART:
            continue
        part = Part.from_json(report.part)
        if report.table != FEATURES.name:
            parts[report.table].append(part)
        elif report.feature_set in orders:
            parts[_UNUSED].append(part)
        else:
            orders[report.feature_set] = part
    return parts, orders


def _beside(
    run: Run,
    target: Target,
    reports: Iterable[Any],
    files: Mapping[SourceFile, MatrixFile],
    unit: _Unit,
    changes: Sequence[Change],
    replaced: Sequence[str],
) -> dict[str, list[Part]]:
    """Files of `harmonisation`, `probes` and `units` for a commit, and totals of the first for the report.
    Of tasks that met the same features one's are taken.

    InputError where files of a block have values of different units.
    """
    lake = run.lake
    found: dict[str, dict[str, Part]] = {one.name: {} for one in SAID}
    ranges: dict[str, list[Any]] = {}
    for report in reports:
        if report.table == UNITS.name:
            ranges[report.feature_set] = json.loads(report.part)
        for one in SAID:
            if report.table == one.name:
                part = Part.from_json(report.part)
                if found[one.name].setdefault(report.feature_set, part) is not part:
                    storage.remove_file(storage.join(lake.path(one), unquote(part.path)))
    parts = {one.name: list(found.get(one.name, {}).values()) for one in _BESIDE}
    whose = of_block(target.cohort, target.table, target.block)
    units = _units(run, target, ranges, files, unit)
    names = {file.uri: file.name for file in files} | {name: name for name in replaced}
    changed = [
        whose
        | {"what": "sample", "name": change.name, "action": change.action, "became": change.became}
        | {"reason": change.reason, "file": names.get(change.uri, posixpath.basename(change.uri))}
        for change in changes
        if change.action == "dropped" or change.uri in names
    ]
    for one, rows in ((HARMONISATION, changed), (UNITS, units)):
        if rows:
            writer = PartWriter(one, lake.path(one), f"{target.name}-beside")
            writer.write(pa.RecordBatch.from_pylist(rows, one.arrow_schema()))
            parts[one.name] += writer.close()
    totals: Counter[str] = Counter(f"samples {row['action']}" for row in changed)
    for part in found[HARMONISATION.name].values():
        totals["features renamed or dropped"] += part.rows
    if totals:
        run.report.metrics["harmonised"] = dict(totals)
    return parts


def _units(
    run: Run, target: Target, ranges: Mapping[str, list[Any]], files: Mapping[SourceFile, MatrixFile], unit: _Unit
) -> list[dict[str, Any]]:
    """Rows of `units` for the files of this run. InputError where one differs from others of the block."""
    whose = of_block(target.cohort, target.table, target.block)
    fresh = {file.name for file in files}
    others = {
        row["unit"]: row["file"]
        for row in run.lake.rows(UNITS, whose).to_pylist()
        if row["file"] not in fresh and row["unit"]
    }
    rows = []
    for file, header in files.items():
        lowest, highest, missing = ranges[file.name]
        said = unit(header.unit, lowest, highest, run.settings)
        other, stored = next(((name, of) for of, name in others.items() if said not in (None, of)), (None, None))
        if other is not None:
            found = f"found values in {said}, where those of {other} are in {stored}"
            raise InputError(f"{found}; expected one unit in a block: name another with --block", file.uri)
        if said is not None:
            others[said] = file.name
        row = {"unit": said, "lowest": lowest, "highest": highest, "missing": missing, "file": file.name}
        rows.append(whose | row)
    return rows


def _dealt(matrices: list[Matrix], sizes: list[int], most: int) -> list[list[Matrix]]:
    """The files in at most so many groups of about the same bytes."""
    groups: list[list[Matrix]] = [[] for _ in range(min(most, len(matrices)))]
    filled = [0] * len(groups)
    for i in sorted(range(len(matrices)), key=lambda i: -sizes[i]):
        least = filled.index(min(filled))
        groups[least].append(matrices[i])
        filled[least] += sizes[i] + 1
    return groups


def _plan(run: Run, target: Target, files: dict[SourceFile, MatrixFile], replaced: Sequence[str]) -> _Plan:
    """Which samples stand in several files, or in rows of the lake that hold values of others than these and those
    `replaced`."""
    from pyspark.sql import functions as F

    fresh = [*(file.name for file in files), *replaced]
    times = Counter(sample for header in files.values() for sample in header.samples)
    shared = {sample for sample, count in times.items() if count > 1}
    if not files or run.lake.count(target.table, {"cohort": target.cohort}) == 0:
        return _Plan(frozenset(shared), {"file": fresh}, False)
    ids = run.spark.createDataFrame(
        pa.table({"sample_id": pa.array(sorted(times)), "comes": pa.repeat(pa.scalar(True), len(times))})
    )
    stored = _stored_of(run, target).select("sample_id", "file", "files").join(F.broadcast(ids), "sample_id", "left")
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


def _sole_file(run: Run, target: Target) -> str | None:
    """The only file of a cohort's block so far; None where there are several."""
    mine = {"cohort": target.cohort, "source": target.table.name, "block": target.block}
    found: list[str] = run.lake.rows(SOURCES, mine, columns=["file"]).column("file").to_pylist()
    return found[0] if len(found) == 1 else None


def _stored_of(run: Run, target: Target) -> DataFrame:
    return _stored(run, target.table, target.cohort, target.block)


def _stored(run: Run, table: Table, cohort: str, block: str) -> DataFrame:
    """Rows of the cohort's block, but for those of damaged files that this run brings again."""
    from pyspark.sql import functions as F

    lake, version = run.lake, run.lake.version(table)
    assert version is not None
    files = [
        file
        for file in lake.files(table, version)
        if file.partition["cohort"] == cohort and file.uri not in lake.given_up
    ]
    return lake.read_files(table, files).where(F.col("block") == block)


def _orders(run: Run, target: Target) -> dict[str, list[str]]:
    """Feature identifiers of every stored order of a cohort's block."""
    rows = run.lake.rows(FEATURES, of_block(target.cohort, target.table, target.block))
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


def _rows_to_join(run: Run, target: Target, plan: _Plan, staged: list[Part]) -> DataFrame:
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
            _stored_of(run, target)
            .join(ids, "sample_id", "left_semi")
            .select(*columns)
            .withColumn("files", F.coalesce("files", unknown))
        )
        rows = rows.unionByName(old.withColumn("stored", F.lit(True)))
    count = min(session.task_slots(run.spark) * _PIECES_PER_SLOT, len(plan.shared))
    return rows.repartition(count, "sample_id").sortWithinPartitions("sample_id")
