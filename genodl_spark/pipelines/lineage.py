"""Where a row of the lake came from: from a prediction to its model, training run, split, table versions,
and source files and lines."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from genodl_spark.core.errors import InputError
from genodl_spark.core.output import printable
from genodl_spark.job.run import Run
from genodl_spark.lake.delta import condition
from genodl_spark.lake.entities import kind_of
from genodl_spark.lake.schema import OF_TASK, PERSON, SITE, VARIANT, Table
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.ingested import SAMPLE_SETS, SOURCES
from genodl_spark.lake.tables.learning import DATASETS, MODELS, PREDICTIONS, SPLITS
from genodl_spark.lake.tables.operations import RUNS
from genodl_spark.registry import effects
from genodl_spark.registry.models import model_of
from genodl_spark.registry.predictions import RESCORED, rescored

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row

MOST = 20  # rows that are traced
_SITE = "chrom:pos:ref:alt"


def lineage(run: Run, name: str, key: str | None) -> None:
    """Traces the rows of a table that VALUE names, or the table as a whole; prints a tree,
    and puts it into the report as `result`."""
    run.require_lake()
    tables = run.lake.tables()
    table = tables.get(name)
    if table is None:
        raise InputError(f"found no table {name!r}; expected one of {', '.join(sorted(tables))}", "TABLE")
    if not run.lake.exists(table):
        raise InputError(f"table {name} has no rows yet; expected some, see genodl list tables", "TABLE")
    if key is None:
        found = [_table(run, table)]
    else:
        rows = _named(run, table, key).orderBy(*_ordering(table)).limit(MOST + 1).collect()
        if not rows:
            raise InputError(
                f"found no row of {name} whose {_identifier(table)} is the one given; expected one", "--key"
            )
        if len(rows) > MOST:
            run.report.warn(f"more than {MOST} rows of {name} have that key: the first {MOST} are traced")
        found = [_row(run, table, row) for row in rows[:MOST]]
    for one in found:
        print("\n".join(map(printable, _tree(one))))
    run.report.result = found


def _identifier(table: Table) -> str:
    if table.entity or table.kind == SITE:
        return table.entity or _SITE
    if table.person:
        return " or ".join(table.person)
    types = {column.name: column.type for column in table.columns}
    return next((name for name in reversed(table.key) if types[name] == "string" and name != "cohort"), table.key[0])


def _named(run: Run, table: Table, key: str) -> DataFrame:
    from pyspark.sql import functions as F

    rows = run.sources.read(table)
    if _identifier(table) != _SITE:
        return rows.where(reduce(or_, (F.col(name) == key for name in _identifier(table).split(" or "))))
    return _at_site(rows, table, key, "--key")


def _at_site(rows: DataFrame, table: Table, key: str, place: str) -> DataFrame:
    from pyspark.sql import functions as F

    parts = key.rsplit(":", 3)
    if len(parts) != 4 or not parts[1].isdigit():
        raise InputError(f"found {key!r}; expected chrom:pos:ref:alt, as in 20:14370:G:A", place)
    chrom, pos, ref, alt = parts
    contig: Column = F.col("contig") == chrom
    if "chrom" in table.column_names:
        contig = contig | (F.col("chrom") == chrom)
    allele = F.array_contains("alts", alt) if "alts" in table.column_names else F.col("alt") == alt
    return rows.where(contig & (F.col("pos") == int(pos)) & (F.col("ref") == ref) & allele)


def _ordering(table: Table) -> list[Any]:
    from pyspark.sql import functions as F

    return [F.col("scored_at").desc(), *table.key] if table is PREDICTIONS else list(table.key)


def _table(run: Run, table: Table) -> dict[str, Any]:
    """A table as a whole: its version, its rows and the runs that wrote it last."""
    from pyspark.sql import functions as F

    runs = (
        run.lake.read(RUNS)
        .where(F.col("status") == "done")
        .where(F.get_json_object("report", f"$.tables.written.{table.name}").isNotNull())
    )
    last = runs.orderBy(F.col("started_at").desc()).limit(MOST).collect()
    return {
        "table": table.name,
        "is": table.doc,
        "version": run.sources.version(table),
        "rows": run.lake.count(table),
        "written_by": [
            {
                "run": row.run_id,
                "job": row.job,
                "at": row.started_at.isoformat(),
                "read": json.loads(row.report)["tables"]["read"],
            }
            for row in last
        ],
    }


def _row(run: Run, table: Table, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "table": table.name,
        "version": run.sources.version(table),
        "key": {name: row[name] for name in table.key},
    }
    if table is PREDICTIONS:
        return {**found, **_prediction(run, row)}
    if table is MODELS:
        return {**found, **_model(run, row)}
    if table is DATASETS:
        return {**found, **_dataset(run, row)}
    names = row.asDict()
    if "model_id" in names:
        if table.entity and table.kind == OF_TASK and names.get("source_versions") and names[table.entity] is not None:
            of = row.source_versions
            found["made_from"] = _sources_of(run, row.cohort, names[table.entity], of, kind_of(of))
        return {**found, "model": _model_by_id(run, row.model_id)}
    if "dataset" in names:
        return {**found, "dataset": _dataset_by_id(run, row.dataset)}
    if table.file and names[table.file] is not None:
        place = {k: names[k] for k in ("line",) if k in names}
        files = names.get("files") or [names[table.file]]  # a row of a matrix may be of several
        return {**found, "sources": _files(run, row.cohort, dict.fromkeys(files, place))}
    if table.entity and table.kind == PERSON and "cohort" in names:
        told = [one for one in _manifest(run, row.cohort) if one["source"] in ("samples", "phenotypes")]
        held = [one.name for one in run.lake.existing() if one.file and (one.packed_by or _of_person(one))]
        places = _places(Snapshot(run.lake), row.cohort, names[table.entity], held, PERSON)
        return {**found, "sources": [*told, *_files(run, row.cohort, places)]}
    return found


def _of_person(table: Table) -> bool:
    return table.kind == PERSON and table.entity in table.person


def _prediction(run: Run, row: Row) -> dict[str, Any]:
    model = _registered(run, row.model_id)
    if model is None:
        raise InputError(
            f"found no model {row.model_id}, which made the prediction; expected it in table models", "--key"
        )
    stored = {
        name: row[name]
        for name in (
            "label_column",
            "predicted",
            "value",
            "uncertainty",
            "out_of_distribution",
            "abstained",
            "in_training",
            "computed_on",
        )
    }
    found: dict[str, Any] = {
        "prediction": {**stored, "scored_at": row.scored_at.isoformat(), "code": row.code},
        "scored_by": _run_of(run, "predict", row.model_id, row.scored_at),
        "made_from": _sources_of(
            run,
            row.cohort,
            row.entity_id,
            row.source_versions,
            VARIANT if effects.is_effect(row) else kind_of(row.source_versions),
        ),
        "model": _model(run, model),
    }
    if row.computed_on is not None:
        try:
            chosen, scoring = model_of(run, model), None
            if effects.is_effect(row):
                chosen, scoring = effects.as_it_was(chosen, row)
            again = rescored(run, chosen, row, scoring)
        except InputError as error:
            found["scored_again"] = {"not_possible": error.message}
            return found
        differs = [name for name in RESCORED if not _equal(again[name], row[name])]
        same_machine = again["computed_on"] == row.computed_on
        found["scored_again"] = {
            "identical": not differs,
            "same_hardware": same_machine,
            **({"differs": differs} if differs else {}),
        }
        if differs and same_machine:
            run.report.warn(f"scored again from the same versions, {', '.join(differs)} differ")
    return found


def _equal(a: Any, b: Any) -> bool:
    """To the last bit; of maps in any order."""
    if isinstance(a, list):
        a = dict(a)
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b)


def _begun_from(row: Row) -> str:
    """Id of the model that the networks of a model started from; empty for none."""
    try:
        return str(json.loads(row.settings)["train"]["pretrained"])
    except (ValueError, KeyError, TypeError):  # of an older version, or unreadable: `monitor` says so
        return ""


def _model_by_id(run: Run, model_id: str) -> dict[str, Any] | None:
    model = _registered(run, model_id)
    return None if model is None else _model(run, model)


def _registered(run: Run, model_id: str) -> Row | None:
    rows = run.lake.rows(MODELS, {"model_id": model_id}).to_pylist()
    return MODELS.row(rows[0]) if rows else None


def _model(run: Run, row: Row) -> dict[str, Any]:
    begun = _begun_from(row)
    return {
        "model_id": row.model_id,
        "task": row.task,
        "label_column": row.label_column,
        "version": row.model_version,
        "files": run.lake.model_uri(row.model_id),
        "seed": row.seed,
        "ranks": row.ranks,
        "code": row.code,
        "trained_at": row.trained_at.isoformat(),
        "trained_by": _run_of(run, "train", row.model_id) or _run_of(run, "tune", row.model_id),
        "dataset": _dataset_by_id(run, row.dataset),
        **({"pretrained": _model_by_id(run, begun) or {"model_id": begun}} if begun else {}),
    }


def _dataset_by_id(run: Run, dataset: str) -> dict[str, Any] | None:
    rows = run.lake.rows(DATASETS, {"dataset": dataset}).to_pylist()
    return _dataset(run, DATASETS.row(rows[0])) if rows else None


def _dataset(run: Run, row: Row) -> dict[str, Any]:
    from pyspark.sql import functions as F

    splits = run.lake.read(SPLITS).where(
        (F.col("split_hash") == row.split_hash) & (F.col("task") == row.task) & (F.col("repeat") == 0)
    )
    roles = {r.role: r["count"] for r in splits.groupBy("role").count().collect()}
    return {
        "dataset": row.dataset,
        "cohort": row.cohort,
        "rows": row.rows,
        "features": row.n_features,
        "split_hash": row.split_hash,
        "split": json.loads(row.split),
        "roles": roles,
        "table_versions": dict(row.source_versions),
        "sources": _manifest(run, row.cohort),
    }


def _run_of(run: Run, job: str, model_id: str, at: Any = None) -> dict[str, Any] | None:
    """The first run of a job that reported the model, or the one under way at a moment."""
    from pyspark.sql import functions as F

    rows = run.lake.read(RUNS).where((F.col("job") == job) & (F.col("status") == "done"))
    rows = rows.where(F.get_json_object("report", "$.metrics.model_id") == model_id)
    rows = rows if at is None else rows.where(F.col("started_at") <= F.lit(at))
    found = rows.orderBy("started_at" if at is None else F.col("started_at").desc()).limit(1).collect()
    return (
        {
            "run": found[0].run_id,
            "at": found[0].started_at.isoformat(),
            "seconds": found[0].seconds,
            "code": found[0].code,
        }
        if found
        else None
    )


def _sources_of(run: Run, cohort: str, entity: str, versions: Mapping[str, int], kind: str) -> dict[str, Any]:
    """The table versions that a prediction was made of, and the files (and lines, where rows have them)
    that the entity's rows came from."""
    from pyspark.errors import AnalysisException

    snapshot = Snapshot(run.lake)
    snapshot.versions.update(versions)
    try:
        files = _places(snapshot, cohort, entity, versions, kind)
    except (AnalysisException, InputError) as error:
        return {"table_versions": dict(versions), "files": [], "not_possible": str(error).splitlines()[0]}
    return {"table_versions": dict(versions), "files": _files(run, cohort, files)}


def _places(snapshot: Snapshot, cohort: str, entity: str, names: Iterable[str], kind: str) -> dict[str, dict[str, Any]]:
    """Files with rows of an entity in tables of these names, and the line, column or number of records there."""
    from pyspark.sql import functions as F

    files: dict[str, dict[str, Any]] = {}
    declared = snapshot.lake.tables()
    for table in (declared[name] for name in names):
        rows = snapshot.read(table)
        if table.file and table.packed_by:
            sets = (
                snapshot.lake.read(SAMPLE_SETS)
                .where(F.col("sample_id") == entity)
                .select(F.col("sample_set").alias(table.packed_by))
            )
            mine = rows.where(F.col("cohort") == cohort).join(sets, table.packed_by, "left_semi")
            files |= {
                row.file: {"records": row.records}
                for row in mine.groupBy(F.col(table.file).alias("file")).agg(F.count("*").alias("records")).collect()
            }
        if table.file and table.kind == SITE and kind == VARIANT and re.fullmatch(r".+:[0-9]+:[^:]+:.+", entity):
            mine = _at_site(rows, table, entity, "--key").where(F.col("cohort") == cohort)
            found = mine.groupBy("file").agg(F.min("line").alias("line"), F.count("*").alias("records")).collect()
            files |= {r.file: {"line": r.line} if r.records == 1 else {"records": r.records} for r in found}
        for named in table.naming(kind, entity) if table.file else ():
            file = F.explode(F.coalesce("files", F.array("file"))) if "files" in rows.columns else F.col(table.file)
            line = F.col("line") if "line" in table.column_names else F.lit(None)
            mine = rows.where(condition({"cohort": cohort, **named})).select(file.alias("file"), line.alias("line"))
            for row in mine.groupBy("file").agg(F.min("line").alias("line"), F.count("*").alias("records")).collect():
                is_column = row.line is None and "x" in table.column_names and table.kind == PERSON
                place = {"column": entity} if is_column else {}
                if row.line is not None:
                    place = {"line": row.line} if row.records == 1 else {"records": row.records}
                files[row.file] = place
    return files


def _files(run: Run, cohort: str, files: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    known = {entry["file"]: entry for entry in _manifest(run, cohort)}
    return [{**known.get(file, {"file": file}), **place} for file, place in sorted(files.items())]


def _manifest(run: Run, cohort: str) -> list[dict[str, Any]]:
    """The files that a cohort was ingested from."""
    columns = ["source", "block", "file", "uri", "sha256", "records", "ingested_at"]
    rows = run.lake.rows(SOURCES, {"cohort": cohort}, columns=columns)
    rows = rows.sort_by([(name, "ascending") for name in columns[:3]])
    chosen = [SOURCES.row(row).asDict() for row in rows.to_pylist()]
    return [{**row, "ingested_at": row["ingested_at"].isoformat()} for row in chosen]


def _tree(value: Any, name: str = "", depth: int = 0) -> list[str]:
    """A nested value, a line for each leaf."""
    lead = "  " * depth
    if isinstance(value, dict) and value:
        inner = [line for k, v in value.items() for line in _tree(v, str(k), depth + bool(name))]
        return [f"{lead}{name}", *inner] if name else inner
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [line for i, v in enumerate(value) for line in _tree(v, f"{name} {i + 1}", depth)]
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return [f"{lead}{name}: {text}"]
