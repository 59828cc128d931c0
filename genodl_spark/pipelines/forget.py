"""A person who withdraws consent is taken out of every table, its files and its log; the models that saw them are listed.

Rows of the person go; in packed genotypes the sample's column does, and in prepared datasets, whose rows are numbered, what they held. What
others' rows say of the person is taken out of parsed values (`consent`). Counts over all samples stay: a cohort's allele frequencies, a
model's weights, a metric. Then older versions of the tables are removed, with their files, and every file that is left is searched.

First of all stands in `forgotten` who it is: a run that was cut off is taken up by the same command, and ends in the same lake.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import session, storage
from genodl_spark.core.errors import MEND, Damaged, InputError
from genodl_spark.core.text_values import order_hash
from genodl_spark.genetics import genotypes
from genodl_spark.job.run import Run, now
from genodl_spark.lake.files import opened
from genodl_spark.lake.locks import FOLDER
from genodl_spark.lake.tables import (
    DATASETS,
    EVALUATIONS,
    EXAMPLES,
    EXPRESSION,
    FINDINGS,
    FORGOTTEN,
    HELD_OUT,
    METHYLATION,
    MODELS,
    QUARANTINE,
    RUNS,
    SAMPLE_SETS,
    SAMPLES,
    SEQUENCES,
    SOURCES,
    SPLITS,
    TABLES,
    VARIANTS,
    Table,
    identifier,
)
from genodl_spark.sources.consent import WITHDRAWN, Person, edited_json, names_people

if TYPE_CHECKING:
    from pyspark.sql import Row

log = logging.getLogger("genodl")

# Columns that name a person: rows with the identifier there go. `group` may, where the split's column names people.
_IDENTIFIERS = ("entity_id", "sample_id", "sequence_id", "sample_1", "sample_2")
_CALLS = 1 << 22  # genotypes taken apart at once


def forget(run: Run, cohort: str, sample: str) -> None:
    """Removes one sample of a cohort. InputError where the cohort has no such sample, and was not told to forget it before."""
    run.require_lake()
    person = Person(cohort, sample)
    known = run.lake.rows(FORGOTTEN, {"cohort": cohort, "person": person.hash}).num_rows > 0
    if not known and not _present(run, person):
        raise InputError("found no such sample in the cohort; expected one of table samples, check --cohort and --sample", "--sample")
    models = _models(run, person)
    changed, gone, left = remove(run, person, known)
    hits, words, searched = search(run, person)
    # Of a table in which nothing was changed an older version may name the person.
    older = {uri.split("/")[0] for uri in hits} & (TABLES.keys() - {table.name for table in changed})
    for name in sorted(older) if not known else ():
        gone += run.lake.purge(TABLES[name], _since(run))[0]
    hits = [uri for uri in hits if storage.kind(storage.join(run.lake.uri, uri)) == "file"]
    run.report.metrics.update(
        {
            "tables": [table.name for table in changed],
            "files_removed": gone,
            "models_that_saw_the_sample": models,
            "files_searched": searched,
            "files_with_the_identifier": hits,
            "files_with_the_word": len(words),
        }
    )
    for table in changed:
        run.wrote(table, 0)
    if hits:
        elsewhere = "the same name stands in other cohorts, or is a word of another meaning"
        run.report.warn(f"the identifier is still in {len(hits)} files, where {elsewhere}: {', '.join(hits[:5])}")
    if words:
        found = f"{len(words)} files have a word or number like the identifier where no sample is named, such as {', '.join(words[:3])}"
        run.report.warn(f"{found}: whether the person is meant cannot be told")
    if left:
        run.report.warn(f"{len(left)} files that another run has written meanwhile are left, {left[0]} the first: forget the sample again")
    if models:
        named = ", ".join(model["model_id"] for model in models)
        run.report.warn(f"{len(models)} models saw the sample in training: {named}; train them again with --force if consent covers models")
    if not changed:
        run.report.status = "unchanged"


def remove(run: Run, person: Person, everywhere: bool = True) -> tuple[list[Table], int, list[str]]:
    """Takes a person out of all tables, and removes files of tables that changed, or `everywhere`, that the newest versions do not need.

    Returns the tables that changed, the number of files removed, and those left as a run that holds no lease may be writing them.
    """
    lake, where = run.lake, {"cohort": person.cohort, "person": person.hash}
    # Before anything is changed: from here on files that hold the person are refused, and a run that is cut off can be taken up.
    if not lake.rows(FORGOTTEN, where).num_rows:
        lake.merge(FORGOTTEN, run.frame(FORGOTTEN, [{**where, "forgotten_at": now()}]))
    changed: list[Table] = []
    sets = _sample_sets(run, person)
    _add_orders(run, sets)
    grouped = _grouped_by_people(run, person.cohort)
    # Of splits last: they tell which models saw the person. Before them the manifest, as it looks for rows that are left of a file.
    late = [SOURCES, SPLITS]
    for table in sorted(lake.existing(), key=lambda table: late.index(table) if table in late else -1):
        if table in (SAMPLE_SETS, FORGOTTEN):
            continue
        if _removed(run, table, person, sets, grouped):
            changed.append(table)
            log.info("%s: changed", table.name)
    if _drop_orders(run, person.name) or sets:
        changed.append(SAMPLE_SETS)
    gone, left = 0, _remove_staging(run)
    for table in lake.existing() if everywhere else changed:
        if table is not FORGOTTEN:
            files, unknown = lake.purge(table, _since(run))
            gone += files
            left += unknown
    return changed, gone, left


def _since(run: Run) -> float | None:
    """When this run had the lake for itself: what is younger and in no log is of a run without a lease."""
    return None if run.lease is None or not run.lease.exclusive else run.lease.since


def _remove_staging(run: Run) -> list[str]:
    """Removes what runs that were given up had under way; returns files that are being written all the same."""
    root, since = storage.join(run.lake.uri, "_staging"), _since(run)
    young = [uri for uri, modified, _ in storage.listing(root) if since is not None and modified >= since]
    if not young:
        storage.remove_directory(root)
        return []
    for uri, modified, _ in storage.listing(root):
        if since is not None and modified < since:
            storage.remove_file(uri)
    return young


def _present(run: Run, person: Person) -> bool:
    """Whether any row names the person."""
    if _sample_sets(run, person):
        return True
    named = [(table, name) for table in (SAMPLES, *run.lake.existing()) for name in _IDENTIFIERS if name in table.column_names]
    named = [(table, name) for table, name in named if "cohort" in table.column_names and run.lake.exists(table)]
    return any(run.lake.count(table, {"cohort": person.cohort, name: person.name}) for table, name in named)


def withdrawn_people(run: Run, cohort: str) -> list[str]:
    """Hashes of the cohort's people who were forgotten."""
    return sorted(run.lake.rows(FORGOTTEN, {"cohort": cohort}).column("person").to_pylist()) if run.lake.exists(FORGOTTEN) else []


def refuse_withdrawn(run: Run, cohort: str, samples: Iterable[str], file: str) -> None:
    """InputError where one of `samples`, in the order of the file, has withdrawn consent; no name is in the message."""
    people = set(withdrawn_people(run, cohort))
    places = [number for number, sample in enumerate(samples, 1) if Person(cohort, sample).hash in people] if people else []
    if places:
        found = f"found {len(places)} samples that have withdrawn consent, the first of them at place {places[0]} of the file"
        raise InputError(f"{found}; expected none, leave them out of it", file)


def take_back_withdrawn(run: Run, cohort: str, samples: Iterable[str] = ()) -> None:
    """InputError where one of `samples`, or of the cohort's people in the lake, has withdrawn consent: they did while this run brought them,
    and are removed again."""
    from pyspark.sql import functions as F

    people = withdrawn_people(run, cohort)
    if not people:
        return
    mine = run.lake.read(SAMPLES).where(F.col("cohort") == cohort)
    stored = mine.where(F.sha2(F.concat(F.lit(f"{cohort}\0"), "sample_id"), 256).isin(people)).select("sample_id").collect()
    back = {row.sample_id for row in stored} | {sample for sample in samples if Person(cohort, sample).hash in people}
    for sample in sorted(back):
        remove(run, Person(cohort, sample))
    if back:
        raise InputError(f"found {len(back)} samples that have withdrawn consent while they were ingested; expected none, leave them out", cohort)


def _models(run: Run, person: Person) -> list[dict[str, Any]]:
    """Models that had the sample in their training data."""
    from pyspark.sql import functions as F

    if not run.lake.exists(SPLITS) or not run.lake.exists(MODELS):
        return []
    mine = (F.col("cohort") == person.cohort) & (F.col("entity_id") == person.name) & F.col("role").isin("fold", "train", "validation")
    splits = run.lake.read(SPLITS).where(mine).select("task", "split_hash").distinct()
    rows = run.lake.read(MODELS).where(F.col("cohort") == person.cohort).join(splits, ["task", "split_hash"], "left_semi")
    found = rows.select("model_id", "task", "label_column", "model_version").orderBy("trained_at").collect()
    return [row.asDict() for row in found]


def _sample_sets(run: Run, person: Person) -> list[_Order]:
    """The orders of samples of the cohort's genotypes in which the person has a place."""
    if not run.lake.exists(VARIANTS):
        return []
    places = {row["sample_set"]: row["position"] for row in run.lake.rows(SAMPLE_SETS, {"sample_id": person.name}).to_pylist()}
    used = _sets_of(run, person.cohort) if places else set()
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


def _removed(run: Run, table: Table, person: Person, sets: list[_Order], grouped: dict[str, dict[str, list[str]]]) -> bool:
    """Takes the person out of one table; whether there was anything to take out."""
    lake, mine = run.lake, {"cohort": person.cohort}
    before = lake.version(table)
    if table is VARIANTS:
        if sets:
            lake.rewrite(VARIANTS, {**mine, "sample_set": [order.name for order in sets]}, _Genotypes(person.cohort, sets))
        return lake.version(table) != before
    if table is EXAMPLES:
        datasets = sorted(set(lake.rows(DATASETS, mine).column("dataset").to_pylist()))
        if datasets:
            lake.rewrite(EXAMPLES, {"dataset": datasets, "entity_id": person.name}, _Blank(person.name, datasets))
    else:
        for name in _IDENTIFIERS:
            if name in table.column_names and "cohort" in table.column_names:
                lake.commit(table, [], {**mine, name: person.name}, exclusive=mine)
    if table is SOURCES:
        for where in _files_of_nobody(run, person):
            lake.delete(SOURCES, where)
    if table.name in _EDITS:
        lake.rewrite(table, mine if "cohort" in table.column_names else {}, _Edited(person, table.name))
    if table is SAMPLES and (columns := _naming_columns(run, person)):
        lake.rewrite(SAMPLES, mine, _Aliased(person, mine, columns))
    if (among := grouped.get(table.name)) is not None:
        lake.rewrite(table, {**among, "group": person.name}, _Aliased(person, among, ["group"]))
    return lake.version(table) != before


def _naming_columns(run: Run, person: Person) -> list[str]:
    """Columns of the cohort's sample table that name the person in others' rows."""
    from pyspark.sql import functions as F

    rows = run.lake.read(SAMPLES)
    columns = [name for name in rows.columns if names_people(name) and name not in SAMPLES.column_names]
    if not columns:
        return []
    found = rows.where(F.col("cohort") == person.cohort).agg(*[F.max(F.col(identifier(name)) == person.name).alias(name) for name in columns])
    return [name for name, there in found.collect()[0].asDict().items() if there]


def _grouped_by_people(run: Run, cohort: str) -> dict[str, dict[str, list[str]]]:
    """Rows of each table whose column `group` names people, as the split was told to keep together what has one value of such a column."""
    datasets = [row for row in run.lake.rows(DATASETS, {"cohort": cohort}).to_pylist() if names_people(str(_split(row["split"]).get("group")))]
    if not datasets:
        return {}
    models = run.lake.rows(MODELS, {"dataset": [row["dataset"] for row in datasets]}).column("model_id").to_pylist()
    return {
        EXAMPLES.name: {"dataset": [row["dataset"] for row in datasets]},
        SPLITS.name: {"cohort": [cohort], "split_hash": [row["split_hash"] for row in datasets]},
        **({HELD_OUT.name: {"cohort": [cohort], "model_id": models}} if models else {}),
    }


def _split(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _files_of_nobody(run: Run, person: Person) -> list[dict[str, str]]:
    """Keys of the cohort's files, named after the person or with nobody else in their header, of which no row is left."""
    from pyspark.sql import functions as F

    columns = F.split(F.substring_index("header", "\n", -1), "\t")
    alone = F.coalesce((F.size(columns) == 10) & (columns[9] == person.name), F.lit(False))
    rows = run.lake.read(SOURCES).where(F.col("cohort") == person.cohort)
    rows = rows.where(alone | (F.col("file") == person.name) | F.col("file").startswith(f"{person.name}."))
    found = []
    for row in rows.select("cohort", "source", "block", "file").collect():
        table = _FILLED.get(row.source)
        if table is not None and not run.lake.count(table, {"cohort": row.cohort, "file": row.file}):
            run.lake.delete(QUARANTINE, {"cohort": row.cohort, "source": row.source, "file": row.file})
            found.append(row.asDict())
    return found


_FILLED = {"vcf": VARIANTS, "expression": EXPRESSION, "methylation": METHYLATION, "sequences": SEQUENCES}


def _add_orders(run: Run, sets: list[_Order]) -> None:
    """Writes the orders without the person, before any record refers to them."""
    rows = [{"sample_set": order.without, "position": i, "sample_id": one} for order in sets for i, one in enumerate(order.others)]
    if rows:
        run.lake.merge(SAMPLE_SETS, run.frame(SAMPLE_SETS, list({(r["sample_set"], r["position"]): r for r in rows}.values())))


def _drop_orders(run: Run, sample: str) -> bool:
    """Removes orders with the sample that no record refers to any more; whether there were any. Those that another cohort uses stay."""
    if not run.lake.exists(SAMPLE_SETS):
        return False
    named = {row["sample_set"] for row in run.lake.rows(SAMPLE_SETS, {"sample_id": sample}).to_pylist()}
    stale = sorted(named - _sets_of(run, None)) if named else []
    if stale:
        run.lake.commit(SAMPLE_SETS, [], {"sample_set": stale})
    return bool(stale)


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
            row.update(entity_id=f"{WITHDRAWN} {row['row_id']}", group=None, x=b"\xff" * len(row["x"]), target=0.0, folds=b"\xff" * len(row["folds"]))
            changed.append(row)
        kept = rows.filter(pa.array(~mine))
        return pa.concat_tables([kept, pa.Table.from_pylist(changed, rows.schema)]).sort_by("row_id")


@dataclass(frozen=True)
class _Edited:
    """Rows whose texts are without the person, as `_EDITS` says for the table."""

    person: Person
    table: str

    @property
    def columns(self) -> list[str]:
        return list(_EDITS[self.table][0])

    def changes(self, rows: pa.Table) -> list[dict[str, Any]]:
        """What is another value in each row, by column."""
        found = []
        for row in rows.select(self.columns).to_pylist():
            mine = row.get("cohort", self.person.cohort) == self.person.cohort
            edited = _EDITS[self.table][1](self.person, row) if mine else {}
            found.append({name: value for name, value in edited.items() if value != row[name]})
        return found

    def concerns(self, rows: pa.Table) -> bool:
        return any(self.changes(rows))

    def apply(self, rows: pa.Table) -> pa.Table:
        changes = self.changes(rows)
        for name in {name for change in changes for name in change}:
            values = [change.get(name, value) for change, value in zip(changes, rows.column(name).to_pylist(), strict=True)]
            field = rows.schema.field(name)
            rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))
        return rows


def _run_without(person: Person, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `runs`; a run on another cohort names others."""
    try:
        words = [word for word in json.loads(row["arguments"]) if isinstance(word, str)]
    except (ValueError, TypeError):
        words = []
    if any(option == "--cohort" and name != person.cohort for option, name in itertools.pairwise(words)):
        return {}
    return {
        "arguments": edited_json(row["arguments"], lambda found: person.arguments(words, row["job"]) if found == words else found),
        "settings": edited_json(row["settings"], person.settings),
        "report": edited_json(row["report"], person.report),
    }


# Columns that hold texts in which a person may be named, and what else tells how; and the values without the person.
_EDITS: dict[str, tuple[tuple[str, ...], Callable[[Person, Mapping[str, Any]], dict[str, Any]]]] = {
    SOURCES.name: (("cohort", "header"), lambda person, row: {"header": None if row["header"] is None else person.header(row["header"])}),
    # A record's text holds values of all samples of its file.
    QUARANTINE.name: (("cohort", "text", "reason"), lambda person, row: {"text": "", "reason": person.message(row["reason"])}),
    RUNS.name: (("job", "arguments", "settings", "report"), _run_without),
    MODELS.name: (("cohort", "settings"), lambda person, row: {"settings": edited_json(row["settings"], person.settings)}),
    DATASETS.name: (("cohort", "warnings"), lambda person, row: {"warnings": [person.message(text) for text in row["warnings"]]}),
    EVALUATIONS.name: (("cohort", "by"), lambda person, row: {"by": person.assigned(row["by"])}),
    FINDINGS.name: (
        ("cohort", "subject", "message"),
        lambda person, row: {"subject": person.words(row["subject"]), "message": person.message(row["message"])},
    ),
}


@dataclass(frozen=True)
class _Aliased:
    """Rows with an alias where `names` refer to the person; `where`: only those with such values."""

    person: Person
    where: Mapping[str, str | list[str]]
    names: list[str]

    @property
    def columns(self) -> list[str]:
        return [*self.where, *(name for name in self.names if name == "group")]

    def _mine(self, rows: pa.Table) -> pa.ChunkedArray:
        found = pa.chunked_array([pa.repeat(pa.scalar(True), rows.num_rows)])
        for name, values in self.where.items():
            found = pc.and_(found, pc.is_in(rows.column(name), pa.array([values] if isinstance(values, str) else values)))
        return found

    def concerns(self, rows: pa.Table) -> bool:
        mine = self._mine(rows)
        if "group" in rows.column_names:
            mine = pc.and_(mine, pc.fill_null(pc.equal(rows.column("group"), self.person.name), False))
        return bool(pc.any(mine).as_py())

    def apply(self, rows: pa.Table) -> pa.Table:
        for name in (name for name in self.names if name in rows.column_names):
            refers = pc.and_(self._mine(rows), pc.fill_null(pc.equal(rows.column(name), self.person.name), False))
            field = rows.schema.field(name)
            rows = rows.set_column(
                rows.schema.get_field_index(name), field, pc.if_else(refers, pa.scalar(self.person.alias), rows.column(name)).cast(field.type)
            )
        return rows


def search(run: Run, person: Person) -> tuple[list[str], list[str], int]:
    """Files of the lake in which the identifier stands, as paths within it, and how many were searched.

    The first are those where it names the person: in a column or a parsed value that says so, or, where it is distinctive, as a word anywhere.
    The second have a word like it whose meaning cannot be told.
    """
    lake = f"{run.lake.uri}/"
    files = [uri for uri in storage.files_under(run.lake.uri) if not uri.startswith(f"{lake}{FOLDER}/")]
    if not files:
        return [], [], 0
    tasks = min(len(files), 8 * session.task_slots(run.spark))
    work = partial(_search, files=files, tasks=tasks, person=person, lake=lake)
    found: list[Row] = run.spark.range(0, tasks, 1, tasks).mapInArrow(work, "file int, named boolean").collect()
    named, words = (sorted(files[row.file].removeprefix(lake) for row in found if row.named is kind) for kind in (True, False))
    return named, words, len(files)


def _search(batches: Iterable[pa.RecordBatch], files: list[str], tasks: int, person: Person, lake: str) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for task in batch.column(0).to_pylist():
            numbers = range(task, len(files), tasks)
            kinds = [_holds(files[number], files[number].removeprefix(lake), person) for number in numbers]
            hits = [(number, kind) for number, kind in zip(numbers, kinds, strict=True) if kind is not None]
            columns = [pa.array([number for number, _ in hits], pa.int32()), pa.array([kind for _, kind in hits], pa.bool_())]
            yield pa.RecordBatch.from_arrays(columns, ["file", "named"])


def _holds(uri: str, path: str, person: Person) -> bool | None:
    """Whether a file names the person; False where it has a word like the identifier, None where it has none."""
    if uri.endswith(".parquet"):
        with contextlib.suppress(Damaged):  # of a run that was cut off: searched as bytes
            return _parquet_holds(uri, path, person)
    # In JSON, in text, and in JSON within JSON: a quote, or the end of a line or a cell, on either side.
    text = json.dumps(person.name)[1:-1].encode()
    around = rb"[\"'\\\t\n\r,:;=]"
    pattern = rb"(?:^|%s)(?:%s|%s)(?:$|%s)" % (around, re.escape(text), re.escape(person.name.encode()), around)
    return person.distinctive if re.search(pattern, storage.read_bytes(uri)) else None


def _parquet_holds(uri: str, path: str, person: Person) -> bool | None:
    """As `_holds`, by the columns of the table; binary columns are searched as the bytes that they are."""
    table = TABLES.get(path.split("/")[0])
    partition = dict(part.split("=", 1) for part in map(unquote, path.split("/")[1:-1]) if "=" in part)
    mine = partition.get("cohort", person.cohort) == person.cohort
    word = False
    raw = re.compile(rb"(?<![\w.-])%s(?![\w.-])" % re.escape(person.name.encode()))
    with opened(uri, None) as file:
        for batch in file.iter_batches(4096):
            rows = pa.Table.from_batches([batch])
            if mine and table is not None and _names(rows, table, person):
                return True
            word = word or any(_has_word(column, person, raw) for column in _leaves(batch))
    return person.distinctive if word else None


def _names(rows: pa.Table, table: Table, person: Person) -> bool:
    """Whether a value of some rows of a table names the person."""
    if "cohort" in rows.column_names:
        rows = rows.filter(pc.equal(rows.column("cohort"), person.cohort))
    naming = [name for name in rows.column_names if name in _IDENTIFIERS or (table is SAMPLES and names_people(name))]
    if any(pc.any(pc.equal(rows.column(name), person.name)).as_py() for name in naming):
        return True
    if table.name not in _EDITS:
        return False
    change = _Edited(person, table.name)
    if not set(change.columns) - {"cohort"} <= set(rows.column_names):
        return False
    return any(any(name != "text" for name in changed) for changed in change.changes(rows))


def _has_word(column: pa.Array, person: Person, raw: re.Pattern[bytes]) -> bool:
    values = column.drop_null()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # Arrow goes through all values, and Python through those that are left; there may be a value for each record of a genome.
        found = values.filter(pc.match_substring(values, person.name))
        found = found.filter(pc.match_substring_regex(found, person.around))
        return any(map(person.word_in, found.to_pylist()))
    if pa.types.is_binary(column.type) and len(person.name) > 3:  # fewer bytes turn up among packed numbers by chance
        return any(map(raw.search, values.filter(pc.match_substring(values, person.name.encode())).to_pylist()))
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
