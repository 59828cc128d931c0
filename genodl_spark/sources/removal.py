"""A person taken out of every table of a lake: rows, calls in packed columns, and identifiers
in headers, reports and settings."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import storage
from genodl_spark.core.errors import MEND
from genodl_spark.core.text_values import order_hash
from genodl_spark.genetics import genotypes
from genodl_spark.job.run import Run, now
from genodl_spark.lake import vacuum
from genodl_spark.lake.delta import condition
from genodl_spark.lake.entities import kind_of
from genodl_spark.lake.files import Without
from genodl_spark.lake.schema import OF_TASK, PERSON, SEQUENCE, Table, identifier
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.calls import PILEUPS
from genodl_spark.lake.tables.genomes import ALIGNMENTS
from genodl_spark.lake.tables.ingested import LABELS, QUARANTINE, SAMPLE_SETS, SAMPLES, SOURCES
from genodl_spark.lake.tables.learning import (
    DATASETS,
    EVALUATIONS,
    EXAMPLES,
    HELD_OUT,
    MODELS,
    PREDICTIONS,
    SPLITS,
)
from genodl_spark.lake.tables.operations import FINDINGS, FORGOTTEN, RUNS
from genodl_spark.lake.tables.portals import HARMONISATION, PORTAL_FILES, PROBES, UNITS
from genodl_spark.sources.person import WITHDRAWN, Person, edited_json, names_people

log = logging.getLogger("genodl")

STREAMS = "_streams"  # folder of the lake: how far each stream has come
_CALLS = 1 << 22  # genotypes taken apart at once


def remove(run: Run, person: Person, everywhere: bool = True) -> tuple[list[Table], int, list[str]]:
    """Takes a person out of all tables, and removes files of tables that changed, or `everywhere`,
    that the newest versions do not need.

    Returns the tables that changed, the number of files removed, and those left as a run that holds
    no lease may be writing them.
    """
    lake, where = run.lake, {"cohort": person.cohort, "person": person.hash}
    # Before anything is changed: from here on files that hold the person are refused,
    # and a run that is cut off can be taken up.
    if not lake.rows(FORGOTTEN, where).num_rows:
        lake.merge(FORGOTTEN, run.frame(FORGOTTEN, [{**where, "forgotten_at": now()}]))
    changed: list[Table] = []
    sets, others, brought = sample_sets(run, person), of_other_kinds(run, person), _brought(run, person)
    alleles = _alleles(run, person)
    _add_orders(run, sets)
    grouped = _grouped_by_people(run, person.cohort)
    # Of splits last: they tell which models saw the person. Before them what tells of files,
    # as it is asked of which of these no row is left.
    late = [*_OF_FILES, SPLITS]
    nobody: list[dict[str, str]] | None = None
    for table in sorted(lake.existing(), key=lambda table: late.index(table) if table in late else -1):
        if table in (SAMPLE_SETS, FORGOTTEN):
            continue
        if table in _OF_FILES and nobody is None:
            nobody = _files_of_nobody(run, person)
        if _removed(run, table, person, brought, sets, grouped, others, nobody or []):
            changed.append(table)
            log.info("%s: changed", table.name)
    changed += [table for table in _without_alleles(run, person, alleles) if table not in changed]
    if _drop_orders(run, person.name) or sets:
        changed.append(SAMPLE_SETS)
    gone, left = 0, _remove_staging(run)
    edit_streams(storage.join(lake.uri, STREAMS), person)
    for table in lake.existing() if everywhere else changed:
        if table is not FORGOTTEN:
            files, unknown = vacuum.purge(lake, table, alone_since(run))
            gone += files
            left += unknown
    return changed, gone, left


def alone_since(run: Run) -> float | None:
    """When this run had the lake for itself: what is younger and in no log is of a run without a lease."""
    return None if run.lease is None or not run.lease.exclusive else run.lease.since


def _remove_staging(run: Run) -> list[str]:
    """Removes what runs that were given up had under way; returns files that are being written all the same."""
    root, since = storage.join(run.lake.uri, "_staging"), alone_since(run)
    young = [uri for uri, modified, _ in storage.listing(root) if since is not None and modified >= since]
    if not young:
        storage.remove_directory(root)
        return []
    for uri, modified, _ in storage.listing(root):
        if since is not None and modified < since:
            storage.remove_file(uri)
    return young


def edit_streams(root: str, person: Person) -> None:
    """Takes the identifier out of the paths by which streams below `root` know what they have taken.

    A file of that name which is still in a stream's folder is new to it then, and refused by ingest.
    """
    for uri in storage.files_under(root):
        content = storage.read_bytes(uri)
        text = content.decode("utf-8", "surrogateescape")
        edited = person.words(text)
        if edited != text:
            storage.write_bytes(uri, edited.encode("utf-8", "surrogateescape"))
            folder, _, name = uri.rpartition("/")
            with contextlib.suppress(FileNotFoundError):  # the checksum that Hadoop keeps beside a file on a local disk
                storage.remove_file(f"{folder}/.{name}.crc")


def sample_sets(run: Run, person: Person) -> list[SampleOrder]:
    """The orders of samples of the cohort's genotypes in which the person has a place."""
    if person.kind != PERSON or not any(run.lake.exists(table) for table in _packed()):
        return []
    places = {
        row["sample_set"]: row["position"] for row in run.lake.rows(SAMPLE_SETS, {"sample_id": person.name}).to_pylist()
    }
    used = _sets_of(run, person.cohort) if places else set()
    found = []
    for name in sorted(places.keys() & used):
        rows = sorted(
            (row["position"], row["sample_id"]) for row in run.lake.rows(SAMPLE_SETS, {"sample_set": name}).to_pylist()
        )
        rest = [one for position, one in rows if position != places[name]]
        found.append(SampleOrder(name, order_hash(rest), places[name], rest))
    return found


def _sets_of(run: Run, cohort: str | None) -> set[str]:
    from pyspark.sql import functions as F

    found: set[str] = set()
    for table in _packed():
        rows = run.lake.read(table)
        rows = rows if cohort is None else rows.where(F.col("cohort") == cohort)
        found |= {row[0] for row in rows.select(table.packed_by).distinct().collect()}
    return found


def _packed() -> list[Table]:
    """Tables whose rows hold a value of each of several people."""
    return [table for table in TABLES.values() if table.packed_by]


@dataclass(frozen=True)
class SampleOrder:
    """An order of samples, that without the person, the person's place in it from 0, and the others."""

    name: str
    without: str
    position: int
    others: list[str]


def _removed(
    run: Run,
    table: Table,
    person: Person,
    brought: list[str],
    sets: list[SampleOrder],
    grouped: dict[str, dict[str, list[str]]],
    others: dict[str, set[str]],
    nobody: list[dict[str, str]],
) -> bool:
    """Takes the person out of one table; whether there was anything to take out. `nobody`: files with no row left."""
    lake, mine = run.lake, {"cohort": person.cohort}
    before = lake.version(table)
    if table.packed_by and sets:
        lake.rewrite(table, {**mine, table.packed_by: [order.name for order in sets]}, _Genotypes(person.cohort, sets))
    if table is EXAMPLES:
        datasets = sorted(set(lake.rows(DATASETS, mine).column("dataset").to_pylist()) - others["dataset"])
        for name in (person.name, *brought) if datasets else ():
            lake.rewrite(EXAMPLES, {"dataset": datasets, "entity_id": name}, _Blank(pa.array([name]), datasets))
    elif "cohort" in table.column_names:
        more = brought if table.kind == OF_TASK else []
        for named in (one for name in (person.name, *more) for one in naming(run, table, replace(person, name=name))):
            if (rows := _of_this_kind(run, table, {**mine, **named}, others)) is not None:
                lake.commit(table, [], rows, exclusive=mine)
    if table in _OF_FILES:
        for file in nobody:
            where = {name: value for name, value in file.items() if name in table.column_names}
            if table in _OF_FEATURES:  # what the file was the first to say of features that others have too
                lake.rewrite(table, where, _Aliased(replace(person, name=file["file"]), where, ["file"]))
            else:  # the log says `exclusive`, which names no file
                lake.commit(table, [], where, exclusive=mine)
    if table is PORTAL_FILES and person.kind == PERSON:
        lake.rewrite(table, mine, _Listed(person))
    if table.name in EDITS:
        lake.rewrite(table, mine if "cohort" in table.column_names else {}, Edited(person, table.name))
    if columns := naming_columns(run, table, person):
        lake.rewrite(table, mine, _Aliased(person, mine, columns))
    if (among := grouped.get(table.name)) is not None:
        lake.rewrite(table, {**among, "group": person.name}, _Aliased(person, among, ["group"]))
    return lake.version(table) != before


def _alleles(run: Run, person: Person) -> pa.Array:
    """Candidate alleles of the person's reads: what was learnt of each goes by its own name, not the person's."""
    if person.kind != PERSON or not run.lake.exists(PILEUPS):
        return pa.array([], pa.string())
    where = {"cohort": person.cohort, "sample_id": person.name}
    return run.lake.rows(PILEUPS, where, columns=["variant_id"]).column(0).combine_chunks()


def _without_alleles(run: Run, person: Person, alleles: pa.Array) -> list[Table]:
    """Takes the labels, scores and examples of candidate alleles out; tables that changed."""
    lake, mine = run.lake, {"cohort": person.cohort}
    if not len(alleles):
        return []
    gone = Without({"cohort": pa.array([person.cohort]), "entity_id": alleles})
    of_them = [table for table in (LABELS, PREDICTIONS, HELD_OUT, SPLITS) if lake.exists(table)]
    changed = [table for table in of_them if lake.rewrite(table, mine, gone)]
    if datasets := lake.rows(DATASETS, mine).column("dataset").to_pylist():
        changed += [EXAMPLES] * lake.rewrite(EXAMPLES, {"dataset": datasets}, _Blank(alleles, datasets))
    return changed


def _brought(run: Run, person: Person) -> list[str]:
    """Negatives that a sequence has brought (`sequence.negatives`), in whatever split of its cohort."""
    from pyspark.sql import functions as F

    if person.kind != SEQUENCE:
        return []
    rows = run.lake.read(SPLITS).where(F.col("cohort") == person.cohort)
    mine = rows.where(F.startswith("entity_id", F.lit(f"{person.name}~")))
    return sorted(row.entity_id for row in mine.select("entity_id").distinct().collect())


def in_results(run: Run, person: Person) -> bool:
    """Whether a data set, a split, a score or a prediction is of the person."""
    others = of_other_kinds(run, person)
    tables = [
        table
        for table in run.lake.existing()
        if table.kind == OF_TASK and not table.kind_in and "cohort" in table.column_names
    ]
    asked = [
        (table, {"cohort": person.cohort, **named})
        for table in tables
        for named in table.naming(person.kind, person.name)
    ]
    rows = ((table, _of_this_kind(run, table, where, others)) for table, where in asked)
    return any(where is not None and run.lake.count(table, where) for table, where in rows)


def naming(run: Run, table: Table, person: Person) -> list[dict[str, str]]:
    """As `Table.naming`. Of what is no person older versions have a row in `samples`, where it has none in `labels`."""
    if (
        table is SAMPLES
        and person.kind != PERSON
        and not run.lake.count(LABELS, {"cohort": person.cohort, LABELS.entity: person.name})
    ):
        return table.naming(PERSON, person.name)
    return table.naming(person.kind, person.name)


def naming_columns(run: Run, table: Table, person: Person) -> list[str]:
    """Columns of the user's own, such as father or donor, that name the person in rows of others,
    or of what is no person."""
    from pyspark.sql import functions as F

    if not table.open or person.kind != PERSON:
        return []
    rows = run.lake.read(table)
    columns = [name for name in rows.columns if names_people(name) and name not in table.column_names]
    if not columns:
        return []
    found = rows.where(F.col("cohort") == person.cohort).agg(
        *[F.max(F.col(identifier(name)) == person.name).alias(name) for name in columns]
    )
    return [name for name, there in found.collect()[0].asDict().items() if there]


def _grouped_by_people(run: Run, cohort: str) -> dict[str, dict[str, list[str]]]:
    """Rows of each table whose column `group` names people, as the split was told to keep together what has
    one value of such a column."""
    datasets = [
        row
        for row in run.lake.rows(DATASETS, {"cohort": cohort}).to_pylist()
        if names_people(str(_split(row["split"]).get("group")))
    ]
    if not datasets:
        return {}
    models = run.lake.rows(MODELS, {"dataset": [row["dataset"] for row in datasets]}).column("model_id").to_pylist()
    return {
        EXAMPLES.name: {"dataset": [row["dataset"] for row in datasets]},
        SPLITS.name: {"cohort": [cohort], "split_hash": [row["split_hash"] for row in datasets]},
        **({HELD_OUT.name: {"cohort": [cohort], "model_id": models}} if models else {}),
    }


def of_other_kinds(run: Run, person: Person) -> dict[str, set[str]]:
    """Data sets, models and tasks, by the column that names them, whose entities are of another kind than the person:
    a sequence of the same name is someone else."""
    found: dict[str, set[str]] = {"dataset": set(), "model_id": set(), "task": set()}
    same: set[str] = set()
    for table in (DATASETS, MODELS):
        for row in run.lake.rows(table, {}).to_pylist():
            other = kind_of(dict(row["source_versions"])) != person.kind
            if other:
                found[table.entity].add(row[table.entity])
            (found["task"] if other else same).add(row["task"])
    return {**found, "task": found["task"] - same}


def _of_this_kind(
    run: Run, table: Table, where: dict[str, str], others: dict[str, set[str]]
) -> dict[str, str | list[str]] | None:
    """`where` for the rows alone whose task is not about entities of another kind;
    None where there are none of these."""
    from pyspark.sql import functions as F

    by = (
        next((name for name in others if name in table.column_names), None)
        if table.kind == OF_TASK and not table.kind_in
        else None
    )
    if by is None or not others[by]:
        return dict(where)
    named = {row[0] for row in run.lake.read(table).where(condition(where)).select(F.col(by)).distinct().collect()}
    return {**where, by: sorted(named - others[by])} if named - others[by] else None


def _split(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _files_of_nobody(run: Run, person: Person) -> list[dict[str, str]]:
    """Keys of the cohort's files, named after the person or with nobody else in their header,
    of which no row is left."""
    from pyspark.sql import functions as F

    columns = F.split(F.substring_index("header", "\n", -1), "\t")
    alone = F.coalesce((F.size(columns) == 10) & (columns[9] == person.name), F.lit(False))
    rows = run.lake.read(SOURCES).where(F.col("cohort") == person.cohort)
    named = (F.col("file") == person.name) | F.col("file").startswith(f"{person.name}.")
    rows = rows.select("cohort", "source", "block", "file", alone.alias("alone"), named.alias("named"))
    found, tables = [], run.lake.tables().values()
    for row in rows.collect():
        if not row.alone and not row.named and not (person.distinctive and person.word_in(row.file)):
            continue
        filled = [table for table in tables if table.file and table.made_by == f"ingest {row.source}"]
        if filled and not any(_has_rows(run, table, row.cohort, row.file) for table in filled):
            found.append({name: row[name] for name in ("cohort", "source", "block", "file")})
    return found


def _has_rows(run: Run, table: Table, cohort: str, file: str) -> bool:
    """Whether a table has rows with something of a file."""
    from pyspark.sql import functions as F

    if run.lake.count(table, {"cohort": cohort, table.file: file}):
        return True
    if "files" not in table.column_names or not run.lake.exists(table):  # rows of several files
        return False
    rows = run.lake.read(table).where(F.col("cohort") == cohort)
    return not rows.where(F.array_contains("files", file)).isEmpty()


_OF_FEATURES = (HARMONISATION, PROBES)
_OF_FILES = (QUARANTINE, UNITS, *_OF_FEATURES, SOURCES)  # tables with rows about a file that are no person's


def _add_orders(run: Run, sets: list[SampleOrder]) -> None:
    """Writes the orders without the person, before any record refers to them."""
    rows = [
        {"sample_set": order.without, "position": i, "sample_id": one}
        for order in sets
        for i, one in enumerate(order.others)
    ]
    if rows:
        run.lake.merge(
            SAMPLE_SETS, run.frame(SAMPLE_SETS, list({(r["sample_set"], r["position"]): r for r in rows}.values()))
        )


def _drop_orders(run: Run, sample: str) -> bool:
    """Removes orders with the sample that no record refers to any more; whether there were any.
    Those that another cohort uses stay."""
    if not run.lake.exists(SAMPLE_SETS):
        return False
    named = {row["sample_set"] for row in run.lake.rows(SAMPLE_SETS, {"sample_id": sample}).to_pylist()}
    stale = sorted(named - _sets_of(run, None)) if named else []
    if stale:
        run.lake.commit(SAMPLE_SETS, [], {"sample_set": stale})
    return bool(stale)


@dataclass(frozen=True)
class _Genotypes:
    """Records with packed genotypes without one sample of theirs; those of no other sample go."""

    cohort: str
    sets: list[SampleOrder]

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
                    raise genotypes.Damaged(
                        f"found records of {samples} samples, whose order has {len(order.others) + 1}; {MEND}"
                    )
                if order.others:
                    parts.append(pa.Table.from_batches([_without(records, samples, order)]))
        return pa.concat_tables([part.cast(rows.schema) for part in parts])


def _without(records: pa.RecordBatch, samples: int, order: SampleOrder) -> pa.RecordBatch:
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
    """Rows of prepared datasets emptied: their numbers stay, so that no other row is another one,
    and no training takes them."""

    entities: pa.Array
    datasets: list[str]

    @property
    def columns(self) -> list[str]:
        return ["dataset", "entity_id"]

    def _mine(self, rows: pa.Table) -> np.ndarray:
        found = pc.and_(
            pc.is_in(rows.column("entity_id"), self.entities), pc.is_in(rows.column("dataset"), pa.array(self.datasets))
        )
        return np.asarray(found.combine_chunks().to_numpy(zero_copy_only=False), bool)

    def concerns(self, rows: pa.Table) -> bool:
        return bool(self._mine(rows).any())

    def apply(self, rows: pa.Table) -> pa.Table:
        mine = self._mine(rows)
        changed = []
        for place in np.flatnonzero(mine):
            row = rows.slice(int(place), 1).to_pylist()[0]
            row.update(
                entity_id=f"{WITHDRAWN} {row['row_id']}",
                group=None,
                x=b"\xff" * len(row["x"]),
                target=0.0,
                folds=b"\xff" * len(row["folds"]),
            )
            changed.append(row)
        kept = rows.filter(pa.array(~mine))
        return pa.concat_tables([kept, pa.Table.from_pylist(changed, rows.schema)]).sort_by("row_id")


@dataclass(frozen=True)
class Edited:
    """Rows whose texts are without the person, as `EDITS` says for the table."""

    person: Person
    table: str

    @property
    def columns(self) -> list[str]:
        return list(EDITS[self.table][0])

    def changes(self, rows: pa.Table) -> list[dict[str, Any]]:
        """What is another value in each row, by column."""
        found = []
        for row in rows.select(self.columns).to_pylist():
            mine = row.get("cohort", self.person.cohort) == self.person.cohort
            edited = EDITS[self.table][1](self.person, row) if mine else {}
            found.append({name: value for name, value in edited.items() if value != row[name]})
        return found

    def concerns(self, rows: pa.Table) -> bool:
        return any(self.changes(rows))

    def apply(self, rows: pa.Table) -> pa.Table:
        changes = self.changes(rows)
        for name in {name for change in changes for name in change}:
            values = [
                change.get(name, value) for change, value in zip(changes, rows.column(name).to_pylist(), strict=True)
            ]
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
        "arguments": edited_json(
            row["arguments"], lambda found: person.arguments(words, row["job"]) if found == words else found
        ),
        "settings": edited_json(row["settings"], person.settings),
        "report": edited_json(row["report"], person.report),
    }


# Columns that hold texts in which a person may be named, and what else tells how; and the values without the person.
EDITS: dict[str, tuple[tuple[str, ...], Callable[[Person, Mapping[str, Any]], dict[str, Any]]]] = {
    SOURCES.name: (
        ("cohort", "header"),
        lambda person, row: {"header": None if row["header"] is None else person.header(row["header"])},
    ),
    # A record's text holds values of all samples of its file.
    QUARANTINE.name: (
        ("cohort", "text", "reason"),
        lambda person, row: {"text": "", "reason": person.message(row["reason"])},
    ),
    RUNS.name: (("job", "arguments", "settings", "report"), _run_without),
    MODELS.name: (
        ("cohort", "settings"),
        lambda person, row: {"settings": edited_json(row["settings"], person.settings)},
    ),
    DATASETS.name: (
        ("cohort", "warnings"),
        lambda person, row: {"warnings": [person.message(text) for text in row["warnings"]]},
    ),
    ALIGNMENTS.name: (
        ("cohort", "header"),
        lambda person, row: {"header": person.reads_header(row["header"])},
    ),
    EVALUATIONS.name: (("cohort", "by"), lambda person, row: {"by": person.assigned(row["by"])}),
    FINDINGS.name: (
        ("cohort", "subject", "message"),
        lambda person, row: {"subject": person.words(row["subject"]), "message": person.message(row["message"])},
    ),
}


@dataclass(frozen=True)
class _Listed:
    """Rows about files of several people, whose texts name them in lists."""

    person: Person

    @property
    def columns(self) -> list[str]:
        return ["cohort", *PORTAL_FILES.person]

    def _mine(self, rows: pa.Table) -> list[bool]:
        asked = [name for name in rows.column_names if pa.types.is_string(rows.schema.field(name).type)]
        return [
            row["cohort"] == self.person.cohort
            and any(row[name] and self.person.listed(row[name]) != row[name] for name in asked if name != "cohort")
            for row in rows.select(asked).to_pylist()
        ]

    def concerns(self, rows: pa.Table) -> bool:
        return any(self._mine(rows))

    def apply(self, rows: pa.Table) -> pa.Table:
        mine = self._mine(rows)
        for i, field in enumerate(rows.schema):
            if pa.types.is_string(field.type) and field.name != "cohort":
                texts = [
                    self.person.listed(text) if edited and text else text
                    for edited, text in zip(mine, rows.column(i).to_pylist(), strict=True)
                ]
                rows = rows.set_column(i, field, pa.array(texts, field.type))
        return rows


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
            found = pc.and_(
                found, pc.is_in(rows.column(name), pa.array([values] if isinstance(values, str) else values))
            )
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
                rows.schema.get_field_index(name),
                field,
                pc.if_else(refers, pa.scalar(self.person.alias), rows.column(name)).cast(field.type),
            )
        return rows
