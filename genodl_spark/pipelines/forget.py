"""A person who withdraws consent is taken out of every table, its files and its log; the models that saw them are listed.

Rows of the person go; in packed genotypes the sample's column does, and in prepared datasets, whose rows are numbered, what they held. Counts
over all samples stay: a cohort's allele frequencies, a model's weights, a metric. Then older versions of the tables are removed, with their
files, and every file that is left is searched for the identifier.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark import genotypes, session, storage
from genodl_spark.errors import MEND, InputError
from genodl_spark.pipelines.run import Run, now
from genodl_spark.stored_files import opened
from genodl_spark.tables import (
    DATASETS,
    EXAMPLES,
    FORGOTTEN,
    MODELS,
    QUARANTINE,
    RUNS,
    SAMPLE_SETS,
    SOURCES,
    SPLITS,
    VARIANTS,
    Table,
)
from genodl_spark.text_values import order_hash

if TYPE_CHECKING:
    from pyspark.sql import Row

log = logging.getLogger("genodl")

_IDENTIFIERS = ("entity_id", "sample_id", "sequence_id", "sample_1", "sample_2")  # columns that name a person
_WITHDRAWN = "withdrawn"
_CALLS = 1 << 22  # genotypes taken apart at once
_BLOCK = 16 << 20


def forget(run: Run, cohort: str, sample: str) -> None:
    """Removes one sample of a cohort. InputError where the cohort has no such sample, and was not told to forget it before."""
    run.require_lake()
    lake, tables = run.lake, run.lake.existing()
    told = {"cohort": cohort, "person": withdrawn(cohort, sample)}
    known = lake.rows(FORGOTTEN, told).num_rows > 0
    models = _models(run, cohort, sample)
    changed: list[Table] = []
    sets = _sample_sets(run, cohort, sample)
    # Quarantine last: its texts go where the person is in the cohort at all.
    for table in sorted(tables, key=lambda table: table is QUARANTINE):
        if table in (SAMPLE_SETS, FORGOTTEN) or (table is QUARANTINE and not changed and not known):
            continue
        if _removed(run, table, cohort, sample, sets):
            changed.append(table)
            log.info("%s: changed", table.name)
    if _settle_sample_sets(run, cohort, sample, sets):
        changed.append(SAMPLE_SETS)
    if not changed and not known:
        raise InputError("found no such sample in the cohort; expected one of table samples, check --cohort and --sample", "--sample")
    if changed:
        # Before anything is called done: from here on files that still hold the person are refused.
        lake.merge(FORGOTTEN, run.frame(FORGOTTEN, [{**told, "forgotten_at": now()}]))
    redacted = _redact_runs(run, sample)
    storage.remove_directory(storage.join(lake.uri, "_staging"))
    # Of a run that was cut off tables have changed whose files are not gone: then all are purged.
    purged = lake.existing() if known else [*changed, *([RUNS] if redacted else [])]
    gone = sum(lake.purge(table) for table in purged if table is not FORGOTTEN)
    hits, searched = search(run, sample)
    run.report.metrics.update(
        {
            "tables": [table.name for table in changed],
            "files_removed": gone,
            "models_that_saw_the_sample": models,
            "files_searched": searched,
            "files_with_the_identifier": hits,
        }
    )
    for table in changed:
        run.wrote(table, 0)
    if hits:
        elsewhere = "the same name stands in other cohorts, or is a word of another meaning"
        run.report.warn(f"the identifier is still in {len(hits)} files, where {elsewhere}: {', '.join(hits[:5])}")
    if models:
        named = ", ".join(model["model_id"] for model in models)
        run.report.warn(f"{len(models)} models saw the sample in training: {named}; train them again with --force if consent covers models")
    if not changed:
        run.report.status = "unchanged"


def withdrawn(cohort: str, sample: str) -> str:
    """What is kept of a person who was forgotten: SHA-256 of cohort and identifier, so that data sent again is noticed."""
    return hashlib.sha256(f"{cohort}\0{sample}".encode()).hexdigest()


def withdrawn_people(run: Run, cohort: str) -> list[str]:
    """Hashes of the cohort's people who were forgotten."""
    return sorted(run.lake.rows(FORGOTTEN, {"cohort": cohort}).column("person").to_pylist()) if run.lake.exists(FORGOTTEN) else []


def refuse_withdrawn(run: Run, cohort: str, samples: Iterable[str], file: str) -> None:
    """InputError where one of `samples`, in the order of the file, has withdrawn consent; no name is in the message."""
    people = set(withdrawn_people(run, cohort))
    places = [number for number, sample in enumerate(samples, 1) if withdrawn(cohort, sample) in people] if people else []
    if places:
        found = f"found {len(places)} samples that have withdrawn consent, the first of them sample {places[0]} of the file"
        raise InputError(f"{found}; expected none, leave them out of it", file)


def _models(run: Run, cohort: str, sample: str) -> list[dict[str, Any]]:
    """Models that had the sample in their training data."""
    from pyspark.sql import functions as F

    if not run.lake.exists(SPLITS) or not run.lake.exists(MODELS):
        return []
    mine = run.lake.read(SPLITS).where(
        (F.col("cohort") == cohort) & (F.col("entity_id") == sample) & F.col("role").isin("fold", "train", "validation")
    )
    rows = (
        run.lake.read(MODELS).where(F.col("cohort") == cohort).join(mine.select("task", "split_hash").distinct(), ["task", "split_hash"], "left_semi")
    )
    found = rows.select("model_id", "task", "label_column", "model_version").orderBy("trained_at").collect()
    return [row.asDict() for row in found]


def _sample_sets(run: Run, cohort: str, sample: str) -> list[_Order]:
    """The orders of samples of the cohort's genotypes in which the person has a place."""
    if not run.lake.exists(VARIANTS):
        return []
    places = {row["sample_set"]: row["position"] for row in run.lake.rows(SAMPLE_SETS, {"sample_id": sample}).to_pylist()}
    used = _sets_of(run, cohort)
    found = []
    for name in sorted(places.keys() & used):
        rows = sorted((row["position"], row["sample_id"]) for row in run.lake.rows(SAMPLE_SETS, {"sample_set": name}).to_pylist())
        rest = [one for position, one in rows if position != places[name]]
        found.append(_Order(name, order_hash(rest), places[name], rest))
    return found


def _sets_of(run: Run, cohort: str | None) -> set[str]:
    from pyspark.sql import functions as F

    rows = run.lake.read(VARIANTS)
    rows = rows if cohort is None else rows.where(F.col("cohort") == cohort)
    return {row.sample_set for row in rows.select("sample_set").distinct().collect()}


@dataclass(frozen=True)
class _Order:
    """An order of samples, that without the person, the person's place in it from 0, and the others."""

    name: str
    without: str
    position: int
    others: list[str]


def _removed(run: Run, table: Table, cohort: str, sample: str, sets: list[_Order]) -> bool:
    """Takes the person out of one table; whether there was anything to take out."""
    lake, mine = run.lake, {"cohort": cohort}
    if table is VARIANTS:
        return bool(sets) and lake.rewrite(VARIANTS, {**mine, "sample_set": [order.name for order in sets]}, _Genotypes(cohort, sets))
    if table is EXAMPLES:
        datasets = sorted(set(lake.rows(DATASETS, mine).column("dataset").to_pylist()))
        return bool(datasets) and lake.rewrite(EXAMPLES, {"dataset": datasets, "entity_id": sample}, _Blank(sample, datasets))
    if table is SOURCES:
        return lake.rewrite(SOURCES, mine, _Headers(cohort, sample))
    if table is QUARANTINE:
        return lake.rewrite(QUARANTINE, mine, _Texts(cohort, sample))
    before = lake.version(table)
    for name in _IDENTIFIERS:
        if name in table.column_names:
            scope = mine if "cohort" in table.column_names else {}
            lake.commit(table, [], {**scope, name: sample}, exclusive=scope or {"forget": table.name})
    return lake.version(table) != before


def _settle_sample_sets(run: Run, cohort: str, sample: str, sets: list[_Order]) -> bool:
    """Puts the orders without the person in place of those with, which stay only where another cohort uses them."""
    if not run.lake.exists(SAMPLE_SETS):
        return False
    used = _sets_of(run, None)
    stale = [name for name in {row["sample_set"] for row in run.lake.rows(SAMPLE_SETS, {"sample_id": sample}).to_pylist()} if name not in used]
    rows = [
        {"sample_set": order.without, "position": i, "sample_id": one}
        for order in sets
        for i, one in enumerate(order.others)
        if order.without in used
    ]
    if rows:
        run.lake.merge(SAMPLE_SETS, run.frame(SAMPLE_SETS, list({(r["sample_set"], r["position"]): r for r in rows}.values())))
    if stale:
        run.lake.commit(SAMPLE_SETS, [], {"sample_set": stale})
    return bool(rows or stale)


@dataclass(frozen=True)
class _Genotypes:
    """Records of `variants` without one sample of theirs; those of no other sample go."""

    cohort: str
    sets: list[_Order]

    @property
    def columns(self) -> list[str]:
        return ["cohort", "sample_set"]

    def _mine(self, rows: pa.Table) -> pa.ChunkedArray:
        named = pc.is_in(rows.column("sample_set"), pa.array([order.name for order in self.sets]))
        return pc.and_(named, pc.equal(rows.column("cohort"), self.cohort))

    def concerns(self, rows: pa.Table) -> bool:
        return bool(pc.any(self._mine(rows)).as_py())

    def apply(self, rows: pa.Table) -> pa.Table:
        orders = {order.name: order for order in self.sets}
        mine = self._mine(rows)
        parts = [rows.filter(pc.invert(mine))]
        for batch in rows.filter(mine).combine_chunks().to_batches():
            for _, records, samples, name in genotypes.alike(batch, _CALLS):
                order = orders[name]
                if samples != len(order.others) + 1:
                    raise genotypes.Damaged(f"found records of {samples} samples, whose order has {len(order.others) + 1}; {MEND}")
                if order.others:
                    parts.append(pa.Table.from_batches([_without(records, samples, order)]))
        return pa.concat_tables([part.cast(rows.schema) for part in parts])


def _without(records: pa.RecordBatch, samples: int, order: _Order) -> pa.RecordBatch:
    columns = {name: records.column(name) for name in records.schema.names}
    gt = columns["gt"]
    there = gt.is_valid()
    packed = genotypes.without(gt.filter(there), samples, order.position)
    if gt.null_count:
        packed = pc.replace_with_mask(gt, there, packed)
    count = records.num_rows
    columns.update(
        gt=packed,
        fields=genotypes.fields_without(columns["fields"], samples, order.position),
        n_samples=pa.array(np.full(count, samples - 1, np.int32)),
        sample_set=pa.repeat(pa.scalar(order.without), count),
    )
    return pa.RecordBatch.from_arrays([columns[name] for name in records.schema.names], records.schema.names)


@dataclass(frozen=True)
class _Blank:
    """Rows of prepared datasets emptied: their numbers stay, so that no other row is another one, and no training takes them."""

    sample: str
    datasets: list[str]

    @property
    def columns(self) -> list[str]:
        return ["dataset", "entity_id"]

    def _mine(self, rows: pa.Table) -> np.ndarray:
        found = pc.and_(pc.equal(rows.column("entity_id"), self.sample), pc.is_in(rows.column("dataset"), pa.array(self.datasets)))
        return np.asarray(found.combine_chunks().to_numpy(zero_copy_only=False), bool)

    def concerns(self, rows: pa.Table) -> bool:
        return bool(self._mine(rows).any())

    def apply(self, rows: pa.Table) -> pa.Table:
        mine = self._mine(rows)
        changed = []
        for place in np.flatnonzero(mine):
            row = rows.slice(int(place), 1).to_pylist()[0]
            row.update(
                entity_id=f"{_WITHDRAWN} {row['row_id']}", group=None, x=b"\xff" * len(row["x"]), target=0.0, folds=b"\xff" * len(row["folds"])
            )
            changed.append(row)
        kept = rows.filter(pa.array(~mine))
        return pa.concat_tables([kept, pa.Table.from_pylist(changed, rows.schema)]).sort_by("row_id")


@dataclass(frozen=True)
class _Headers:
    """VCF headers without a sample: its name in the #CHROM line, and meta lines that name it."""

    cohort: str
    sample: str

    @property
    def columns(self) -> list[str]:
        return ["cohort", "header"]

    def concerns(self, rows: pa.Table) -> bool:
        return any(
            c == self.cohort and h is not None and _names(h, self.sample)
            for c, h in zip(*(rows.column(n).to_pylist() for n in self.columns), strict=True)
        )

    def apply(self, rows: pa.Table) -> pa.Table:
        headers = [
            self._header(h) if c == self.cohort and h is not None else h
            for c, h in zip(*(rows.column(n).to_pylist() for n in self.columns), strict=True)
        ]
        return rows.set_column(rows.schema.get_field_index("header"), rows.schema.field("header"), pa.array(headers, pa.string()))

    def _header(self, text: str) -> str:
        kept = []
        for line in text.split("\n"):
            if line.startswith("#CHROM"):
                kept.append("\t".join(cell for i, cell in enumerate(line.split("\t")) if i < 9 or cell != self.sample))
            elif not _names(line, self.sample):
                kept.append(line)
        return "\n".join(kept)


@dataclass(frozen=True)
class _Texts:
    """Records in quarantine without their text, which holds values of all samples; of sequences those of the sample go."""

    cohort: str
    sample: str

    @property
    def columns(self) -> list[str]:
        return ["cohort", "source", "text", "reason"]

    def concerns(self, rows: pa.Table) -> bool:
        mine = pc.equal(rows.column("cohort"), self.cohort)
        return bool(pc.any(pc.and_(mine, pc.greater(pc.utf8_length(rows.column("text")), 0))).as_py())

    def apply(self, rows: pa.Table) -> pa.Table:
        mine = pc.equal(rows.column("cohort"), self.cohort)
        for name, empty in (("text", ""), ("reason", "withheld: a sample of the cohort has withdrawn consent")):
            of_sample = pa.array([name == "text" or _names(value, self.sample) for value in rows.column(name).to_pylist()], pa.bool_())
            blank = pc.if_else(pc.and_(mine, of_sample), pa.scalar(empty), rows.column(name))
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), blank)
        return rows


def _names(text: str, sample: str) -> bool:
    return _word(sample).search(text) is not None


def _word(sample: str) -> re.Pattern[str]:
    """An identifier that stands alone in a text."""
    return re.compile(rf"(?<![\w.-]){re.escape(sample)}(?![\w.-])")


def _redact_runs(run: Run, sample: str) -> bool:
    """Takes the identifier out of command lines and reports; whether it was in any."""
    changed = []
    for row in run.lake.rows(RUNS, {}).to_pylist() if run.lake.exists(RUNS) else []:
        clean = {name: _word(sample).sub(_WITHDRAWN, row[name]) for name in ("arguments", "report")}
        if any(clean[name] != row[name] for name in clean):
            changed.append({**row, **clean})
    if changed:
        run.lake.merge(RUNS, run.frame(RUNS, changed))
    return bool(changed)


def search(run: Run, sample: str) -> tuple[list[str], int]:
    """Files of the lake whose bytes hold an identifier, as they are or within a column of a Parquet file; and how many were searched."""
    files = storage.files_under(run.lake.uri)
    if not files:
        return [], 0
    tasks = min(len(files), 8 * session.task_slots(run.spark))
    work = partial(_search, files=files, tasks=tasks, sample=sample)
    found: list[Row] = run.spark.range(0, tasks, 1, tasks).mapInArrow(work, "file int").collect()
    prefix = len(run.lake.uri) + 1
    return sorted(files[row.file][prefix:] for row in found), len(files)


def _search(batches: Iterable[pa.RecordBatch], files: list[str], tasks: int, sample: str) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for task in batch.column(0).to_pylist():
            hits = [number for number in range(task, len(files), tasks) if _holds(files[number], sample)]
            yield pa.RecordBatch.from_arrays([pa.array(hits, pa.int32())], ["file"])


def _holds(uri: str, sample: str) -> bool:
    if uri.endswith(".parquet"):
        return _parquet_holds(uri, sample)
    # In JSON, in text, and in JSON within JSON: a quote, or the end of a line or a cell, on either side.
    text = json.dumps(sample)[1:-1].encode()
    around = rb"[\"'\\\t\n\r,:;=]"
    return re.search(rb"(?:^|%s)%s(?:$|%s)" % (around, re.escape(text), around), storage.read_bytes(uri)) is not None


def _parquet_holds(uri: str, sample: str) -> bool:
    """Whether a text of a Parquet file is the identifier, or holds it as a word; binary columns are searched as the bytes that they are."""
    word, raw = _word(sample), re.compile(rb"(?<![\w.-])%s(?![\w.-])" % re.escape(sample.encode()))
    with opened(uri, None) as file:
        for batch in file.iter_batches(4096):
            for column in _leaves(batch):
                values = column.drop_null()
                if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                    some = values.filter(pc.match_substring(values, sample)).to_pylist()
                    if any(word.search(value) for value in some):
                        return True
                elif pa.types.is_binary(column.type) and len(sample) > 3:  # fewer bytes turn up among packed numbers by chance
                    some = values.filter(pc.match_substring(values, sample.encode())).to_pylist()
                    if any(raw.search(value) for value in some):
                        return True
    return False


def _leaves(batch: pa.RecordBatch) -> Iterator[pa.Array]:
    """Columns of a batch, those within structs, lists and maps too."""
    pending = list(batch.columns)
    while pending:
        column = pending.pop()
        if pa.types.is_struct(column.type):
            pending += column.flatten()
        elif pa.types.is_map(column.type):
            pending += [column.keys, column.items]
        elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            pending.append(column.flatten())
        else:
            yield column
