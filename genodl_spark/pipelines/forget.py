"""A person who withdraws consent is taken out of every table, its files and its log;
the models that saw them are listed.

Rows of the person go; in packed genotypes the sample's column does, and in prepared datasets,
whose rows are numbered, what they held. What others' rows say of the person is taken out of parsed values (`consent`).
Counts over all samples stay: a cohort's allele frequencies, a model's weights, a metric.
Then older versions of the tables are removed, with their files, and every file that is left is searched.

First of all stands in `forgotten` who it is: a run that was cut off is taken up by the same command,
and ends in the same lake.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import session, storage
from genodl_spark.core.errors import Damaged, InputError
from genodl_spark.job.run import Run
from genodl_spark.lake import vacuum
from genodl_spark.lake.files import opened
from genodl_spark.lake.locks import FOLDER
from genodl_spark.lake.schema import ENTITIES, OF_TASK, PERSON, Table
from genodl_spark.lake.tables.ingested import LABELS, SAMPLES
from genodl_spark.lake.tables.learning import MODELS, SPLITS
from genodl_spark.lake.tables.operations import FORGOTTEN
from genodl_spark.sources.person import Person, names_people
from genodl_spark.sources.removal import (
    EDITS,
    Edited,
    alone_since,
    in_results,
    naming_columns,
    of_other_kinds,
    remove,
    sample_sets,
)

if TYPE_CHECKING:
    from pyspark.sql import Row

log = logging.getLogger("genodl")


def forget(run: Run, cohort: str, sample: str, kind: str | None = None) -> None:
    """Removes one sample of a cohort; with `kind`, or where no person has the name, the sequence,
    variant, cell or site of that name.

    InputError where the cohort has none of that name, and was not told to forget it before.
    """
    run.require_lake()
    kinds = _kinds(run, cohort, sample)
    person = _meant(run, cohort, sample, kind, kinds)
    known = _known(run, person.hashes)
    if not known and person.kind not in kinds:
        where = "labels" if kind else "samples or labels"
        raise InputError(
            f"found no such {kind or 'sample'} in the cohort; expected one of table {where}, "
            "check --cohort and --sample",
            "--sample",
        )
    if others := [one for one in kinds if one != person.kind]:
        run.report.warn(
            f"a {person.kind} is forgotten; the cohort has a {' and a '.join(others)} of that name "
            "too, which --entity names"
        )
    models = _models(run, person)
    changed, gone, left = remove(run, person, known)
    hits, words, searched = search(run, person)
    # Of a table in which nothing was changed an older version may name the person.
    tables = run.lake.tables()
    older = {uri.split("/")[0] for uri in hits} & (tables.keys() - {table.name for table in changed})
    for name in sorted(older) if not known else ():
        gone += vacuum.purge(run.lake, tables[name], alone_since(run))[0]
    hits = [uri for uri in hits if storage.is_file(storage.join(run.lake.uri, uri))]
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
        found = (
            f"{len(words)} files have a word or number like the identifier where no sample is named, "
            f"such as {', '.join(words[:3])}"
        )
        run.report.warn(f"{found}: whether the person is meant cannot be told")
    if left:
        run.report.warn(
            f"{len(left)} files that another run has written meanwhile are left, {left[0]} the first: "
            "forget the sample again"
        )
    if models:
        named = ", ".join(model["model_id"] for model in models)
        run.report.warn(
            f"{len(models)} models saw the sample in training: {named}; train them again with --force "
            "if consent covers models"
        )
    if not changed:
        run.report.status = "unchanged"


def _known(run: Run, hashes: list[str]) -> bool:
    return run.lake.rows(FORGOTTEN, {"person": hashes}).num_rows > 0


def _meant(run: Run, cohort: str, name: str, kind: str | None, kinds: list[str]) -> Person:
    """Who is to be forgotten: a person, if there is or was one; else what was begun already, before what there is."""
    if kind is not None:
        return Person(cohort, name, kind)
    begun = [one for one in ENTITIES if _known(run, [Person(cohort, name, one).hash])]
    return Person(cohort, name, PERSON if PERSON in (*begun, *kinds) else (*begun, *kinds, PERSON)[0])


def _kinds(run: Run, cohort: str, name: str) -> list[str]:
    """What the cohort has of that name: person, sequence, ... in the order of ENTITIES."""

    def there(table: Table, kind: str) -> bool:
        return any(run.lake.count(table, {"cohort": cohort, **named}) for named in table.naming(kind, name))

    person = Person(cohort, name)
    own = [
        table
        for table in run.lake.existing()
        if "cohort" in table.column_names and (table.kind != OF_TASK or table.kind_in)
    ]
    found = [kind for kind in ENTITIES if kind != PERSON and any(there(table, kind) for table in own)]
    # A row that an older version made in `samples` for a sequence makes no person of it.
    older = bool(found) and not run.lake.count(LABELS, {"cohort": cohort, LABELS.entity: name})
    if (
        sample_sets(run, person)
        or any(there(table, PERSON) for table in own if not (older and table is SAMPLES))
        or any(naming_columns(run, table, person) for table in own)
    ):
        found.insert(0, PERSON)
    return found or [kind for kind in ENTITIES if in_results(run, Person(cohort, name, kind))][:1]


def _models(run: Run, person: Person) -> list[dict[str, Any]]:
    """Models that had the sample in their training data."""
    from pyspark.sql import functions as F

    if not run.lake.exists(SPLITS) or not run.lake.exists(MODELS):
        return []
    mine = (
        (F.col("cohort") == person.cohort)
        & (F.col("entity_id") == person.name)
        & F.col("role").isin("fold", "train", "validation")
    )
    splits = run.lake.read(SPLITS).where(mine).select("task", "split_hash").distinct()
    others = of_other_kinds(run, person)["model_id"]  # that saw a sequence, say, of the person's name
    rows = (
        run.lake.read(MODELS)
        .where((F.col("cohort") == person.cohort) & ~F.col("model_id").isin(others))
        .join(splits, ["task", "split_hash"], "left_semi")
    )
    found = rows.select("model_id", "task", "label_column", "model_version").orderBy("trained_at").collect()
    return [row.asDict() for row in found]


def search(run: Run, person: Person) -> tuple[list[str], list[str], int]:
    """Files of the lake in which the identifier stands, as paths within it, and how many were searched.

    The first are those where it names the person: in a column or a parsed value that says so, or,
    where it is distinctive, as a word anywhere. The second have a word like it whose meaning cannot be told.
    """
    lake = f"{run.lake.uri}/"
    files = [uri for uri in storage.files_under(run.lake.uri) if not uri.startswith(f"{lake}{FOLDER}/")]
    if not files:
        return [], [], 0
    tasks = min(len(files), 8 * session.task_slots(run.spark))
    work = partial(_search, files=files, tasks=tasks, person=person, lake=lake, declared=run.lake.tables())
    found: list[Row] = run.spark.range(0, tasks, 1, tasks).mapInArrow(work, "file int, named boolean").collect()
    named, words = (
        sorted(files[row.file].removeprefix(lake) for row in found if row.named is kind) for kind in (True, False)
    )
    return named, words, len(files)


def _search(
    batches: Iterable[pa.RecordBatch],
    files: list[str],
    tasks: int,
    person: Person,
    lake: str,
    declared: Mapping[str, Table],
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for task in batch.column(0).to_pylist():
            numbers = range(task, len(files), tasks)
            kinds = [_holds(files[number], files[number].removeprefix(lake), person, declared) for number in numbers]
            hits = [(number, kind) for number, kind in zip(numbers, kinds, strict=True) if kind is not None]
            columns = [
                pa.array([number for number, _ in hits], pa.int32()),
                pa.array([kind for _, kind in hits], pa.bool_()),
            ]
            yield pa.RecordBatch.from_arrays(columns, ["file", "named"])


def _holds(uri: str, path: str, person: Person, declared: Mapping[str, Table]) -> bool | None:
    """Whether a file names the person; False where it has a word like the identifier, None where it has none."""
    if uri.endswith(".parquet"):
        with contextlib.suppress(Damaged):  # of a run that was cut off: searched as bytes
            return _parquet_holds(uri, path, person, declared.get(path.split("/")[0]))
    # In JSON, in text, and in JSON within JSON: a quote, or the end of a line or a cell, on either side.
    text = json.dumps(person.name)[1:-1].encode()
    around = rb"[\"'\\\t\n\r,:;=]"
    pattern = rb"(?:^|%s)(?:%s|%s)(?:$|%s)" % (around, re.escape(text), re.escape(person.name.encode()), around)
    content = storage.read_bytes(uri)
    # Names of files stand in what the log says of a commit.
    within = person.distinctive and person.word_in(content.decode("utf-8", "replace"))
    return person.distinctive if within or re.search(pattern, content) else None


def _parquet_holds(uri: str, path: str, person: Person, table: Table | None) -> bool | None:
    """As `_holds`, by the columns of the table; binary columns are searched as the bytes that they are."""
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
    if any(_match(rows, named) for named in table.naming(person.kind, person.name)):
        return True
    others = [name for name in rows.column_names if names_people(name) and name not in table.column_names]
    if table.open and person.kind == PERSON and any(_match(rows, {name: person.name}) for name in others):
        return True
    if table.name not in EDITS:
        return False
    change = Edited(person, table.name)
    if not set(change.columns) - {"cohort"} <= set(rows.column_names):
        return False
    return any(any(name != "text" for name in changed) for changed in change.changes(rows))


def _match(rows: pa.Table, named: Mapping[str, str]) -> bool:
    """Whether some row has these values; a partition column, which files lack, is not asked."""
    there = [pc.equal(rows.column(name), value) for name, value in named.items() if name in rows.column_names]
    return bool(there) and bool(pc.any(functools.reduce(pc.and_, there)).as_py())


def _has_word(column: pa.Array, person: Person, raw: re.Pattern[bytes]) -> bool:
    values = column.drop_null()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # Arrow goes through all values, and Python through those that are left;
        # there may be a value for each record of a genome.
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
