"""Examples and splits of a task, out of the lake's tables and into tables of their own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from genodl_spark import tasks
from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import known, number
from genodl_spark.features.protocol import Features, told
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.tables import DATASETS, EXAMPLES, SAMPLES, SPLITS, identifier
from genodl_spark.learning import scaling, splits
from genodl_spark.learning.training import launch as training

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

_NAMED = 5  # classes that a warning names
TCGA_PATIENT = "tcga_patient"  # the first 12 characters of a TCGA barcode


@dataclass(frozen=True)
class Labels:
    """Labelled entities in the order of their identifiers; `target` is the class index, or the value for regression."""

    entities: list[str]
    target: np.ndarray
    classes: list[str]
    groups: list[str] | None
    published: list[str | None] | None
    warnings: list[str]


def prepare(run: Run, cohort: str | None, label: str | None) -> None:
    dataset, fresh = dataset_of(run, cohort, label)
    run.report.status = "done" if fresh else "unchanged"
    run.report.metrics.update({"dataset": dataset.dataset, "rows": dataset.rows, "features": dataset.n_features, "split_hash": dataset.split_hash})
    written = dataset.rows if fresh else 0
    run.wrote(EXAMPLES, written)
    run.wrote(SPLITS, written * dataset.repeats)
    run.wrote(DATASETS, int(fresh))


def dataset_of(run: Run, cohort: str | None, label: str | None) -> tuple[Row, bool]:
    """The row of `datasets` for a task, cohort and label, prepared when it is not there or its tables have moved; and whether it was.

    InputError for an unknown label, no labelled entity, one class only, or a split that leaks.
    """
    from pyspark.sql import Row
    from pyspark.sql import functions as F
    from pyspark.storagelevel import StorageLevel

    s = run.settings
    features = tasks.features(s)
    label = label or s.label
    name = run.cohort(cohort, labelled_cohorts(run, features, label, cohort), f"data for {s.task}")
    shaped_by = {
        "settings": {key: getattr(s, key) if not hasattr(getattr(s, key), "model_dump") else getattr(s, key).model_dump() for key in _SHAPING},
        "code": code_of(__name__, s, network=False),
        "task": s.task,
    }
    settings_hash = fingerprint(shaped_by, label)
    versions = {table.name: v for table in (*features.tables, SAMPLES) if (v := run.sources.version(table)) is not None}
    mine = (F.col("task") == s.task) & (F.col("cohort") == name) & (F.col("label_column") == label)
    stored = run.lake.read(DATASETS).where(mine & (F.col("settings_hash") == settings_hash)).orderBy(F.col("prepared_at").desc()).collect()
    for row in stored:
        if dict(row.source_versions) == versions:
            for warning in row.warnings:
                run.report.warn(warning)
            return row, False
    labels = read_labels(run, features, name, label)
    assignment = splits.assign(
        labels.entities,
        [labels.classes[int(t)] for t in labels.target] if labels.classes else None,
        labels.groups,
        labels.published,
        s.split,
        s.seed,
    )
    splits.audit(assignment, labels.entities, labels.groups)
    sets = training.training_sets(assignment.codes.shape[1] if assignment.folds else 0, assignment.folds)
    learns = training.learns(assignment.codes, sets, assignment.folds)
    _check_classes(labels, learns[-1])
    choice = features.choose(run.sources, name, labels.entities, learns)
    chosen, allowed = choice.names, None if choice.allowed is None else np.packbits(choice.allowed).tobytes()
    if not chosen:
        raise InputError(f"no feature of cohort {name} passes; expected some, loosen quality.min_allele_frequency or quality.max_missing", "quality")
    numbered = run.spark.createDataFrame(_numbered(labels, assignment))
    rows = features.rows(run.sources, name, chosen).join(numbered, "entity_id").persist(StorageLevel.DISK_ONLY)
    try:
        largest, content = _content(rows, features.dtype, sets, assignment.folds)
        transform = features.encoding or s.quality.transform
        if transform == "auto":
            transform = _transform(largest) if features.dtype == "float32" else "none"
        digest = splits.split_hash(labels.entities, assignment.codes)
        shaped = [s.task, name, label, chosen, labels.classes, digest, transform, content]
        dataset = fingerprint(*shaped, *([] if allowed is None else [allowed.hex()]))[:16]
        warnings = [*labels.warnings, *assignment.warnings, *told(features, run.sources, name, chosen)]
        for warning in warnings:
            run.report.warn(warning)
        files = max(1, -(-len(labels.entities) // s.feed.rows_per_file))
        packed = rows.withColumn("dataset", F.lit(dataset)).select(*EXAMPLES.column_names)
        packed = packed.repartitionByRange(files, "row_id").sortWithinPartitions("row_id")
        run.lake.replace(EXAMPLES, packed, {"dataset": dataset})
    finally:
        rows.unpersist()
    _write_split(run, name, label, digest, labels, assignment)
    written: dict[str, Any] = {
        "dataset": dataset,
        "task": s.task,
        "cohort": name,
        "label_column": label,
        "rows": len(labels.entities),
        "n_features": len(chosen),
        "dtype": features.dtype,
        "classes": labels.classes,
        "features": chosen,
        "allowed": allowed,
        "transform": transform,
        "split": s.split.model_dump_json(exclude_none=True),
        "split_hash": digest,
        "folds": assignment.folds,
        "repeats": assignment.codes.shape[1],
        "settings_hash": settings_hash,
        "source_versions": versions,
        "warnings": warnings,
        "prepared_at": now(),
    }
    run.lake.merge(DATASETS, run.frame(DATASETS, [written]))
    return Row(**written), True


def allowed_of(dataset: Row) -> np.ndarray | None:
    """Which features each training set of a row of `datasets` may use, bool (sets, features); None where each may use all."""
    if dataset.allowed is None:
        return None
    shape = len(training.training_sets(dataset.repeats if dataset.folds else 0, dataset.folds)), dataset.n_features
    return np.unpackbits(np.frombuffer(dataset.allowed, np.uint8), count=shape[0] * shape[1]).astype(bool).reshape(shape)


def _transform(largest: np.ndarray) -> str:
    """What suits values whose largest among the rows of each training set, float64 (S,), are these. InputError where the sets do not agree."""
    linear = [scaling.on_linear_scale(value) for value in largest.tolist()]
    if any(linear) and not all(linear):
        found = f"the training rows of {sum(linear)} of {len(linear)} training sets have values above {scaling.LINEAR_SCALE:g}, as on a linear scale"
        raise InputError(f"found that {found}; expected all or none, set it to asinh or none", "quality.transform")
    return "asinh" if all(linear) else "none"


# The settings that shape a dataset; `quality` as a whole, though `select` acts in training only.
_SHAPING = ("blocks", "covariates", "target", "split", "quality", "sequence", "seed", "implementation", "feed")


def labelled_cohorts(run: Run, features: Features, label: str, named: str | None) -> list[str]:
    """Cohorts with features, less those without any label where that leaves a choice; the one `named` stays in any case."""
    from pyspark.sql import functions as F

    found = features.cohorts(run.sources)
    samples = run.sources.read(SAMPLES)
    if len(found) < 2 or named is not None or label not in samples.columns:
        return found
    column = F.col(identifier(label))
    labelled = {row.cohort for row in samples.where(column.isNotNull()).select("cohort").distinct().collect()}
    return [name for name in found if name in labelled] or found


def read_labels(run: Run, features: Features, cohort: str, label: str, classes: list[str] | None = None) -> Labels:
    """Labels of a cohort's entities that have features; those without a label are left out and counted.

    `classes`: those of a model, in its order; rows of other classes are left out. None: the task's own.
    """
    from pyspark.sql import functions as F

    s = run.settings
    samples = run.sources.read(SAMPLES).where(F.col("cohort") == cohort)
    group, published = (s.split.group, s.split.column) if classes is None else (s.split.group, None)
    wanted = {"label": label, "group": group if group != TCGA_PATIENT else None, "published": published}
    for key, column in wanted.items():
        if column is not None and column not in samples.columns:
            place = {"label": "--label", "group": "split.group", "published": "split.column"}[key]
            raise InputError(f"found no column {column!r} in samples; expected one of {', '.join(samples.columns[1:])}", place)
    columns = [F.col(identifier(column)).alias(key) if column else F.lit(None).cast("string").alias(key) for key, column in wanted.items()]
    with_data = set(features.entities(run.sources, cohort))
    found = samples.select("sample_id", *columns).toArrow().columns  # there may be millions of sequences, which are long as rows of Spark's
    values = zip(*(column.to_pylist() for column in found), strict=True)
    rows = [_Labelled(sample, *(None if text is None else known(text) for text in texts)) for sample, *texts in values if sample in with_data]
    rows.sort(key=lambda row: row.sample_id)
    labelled = [row for row in rows if row.label is not None]
    warnings = [f"{len(rows) - len(labelled)} of {len(rows)} samples have no {label}"] if len(labelled) < len(rows) else []
    regression = s.target.kind == "regression" or (s.target.kind == "auto" and label == "value")
    if classes is not None:
        regression = not classes
    if regression:
        target = _values(labelled, label)
        names: list[str] = []
    else:
        names = classes or s.target.classes or sorted({row.label for row in labelled})
        absent = set(s.target.classes) - {row.label for row in labelled} if classes is None else set()
        if absent:
            raise InputError(f"found no sample of class {sorted(absent)[0]!r} in {label}; expected some", "target.classes")
        index = {name: i for i, name in enumerate(names)}
        others = Counter(row.label for row in labelled if row.label not in index)
        if others:
            named = ", ".join(repr(name) for name in sorted(others)[:_NAMED]) + (" ..." if len(others) > _NAMED else "")
            warnings.append(f"{others.total()} samples of other classes ({named}) than {', '.join(names)} are left out")
        labelled = [row for row in labelled if row.label in index]
        target = np.array([index[row.label] for row in labelled], float)
    if not labelled:
        raise InputError(f"found no sample of cohort {cohort} with data and a {label}; expected some, ingest a sample table with it", "--label")
    entities = [row.sample_id for row in labelled]
    groups = None
    if group == TCGA_PATIENT:
        groups = [entity[:12] for entity in entities]
    elif group is not None:
        groups = [row.group if row.group is not None else f"\0{row.sample_id}" for row in labelled]
    return Labels(entities, target, names, groups, [row.published for row in labelled] if published else None, warnings)


class _Labelled(NamedTuple):
    sample_id: str
    label: Any
    group: str | None
    published: str | None


def _values(rows: list[_Labelled], label: str) -> np.ndarray:
    values = [number(row.label or "") for row in rows]
    for row, value in zip(rows, values, strict=True):
        if value is None:
            found = f"found {row.label!r} in {label} of sample {row.sample_id}"
            raise InputError(f"{found}; expected a finite number, as {label} is to be regressed", label)
    return np.array(values, float)


def _check_classes(labels: Labels, training: np.ndarray) -> None:
    if labels.classes and len(labels.classes) < 2:
        raise InputError(f"found one class, {labels.classes[0]!r}; expected at least two, name another label column", "--label")
    if not training.any():
        raise InputError("found no row to train on; expected some, give the training part a larger share", "split")
    if labels.classes:
        present = {int(t) for t in labels.target[training]}
        lacking = [name for i, name in enumerate(labels.classes) if i not in present]
        if lacking:
            raise InputError(f"found no training row of class {lacking[0]!r}; expected some of each, name the classes with target.classes", "split")


def _content(rows: DataFrame, dtype: str, sets: list[training.TrainingSet], folds: int) -> tuple[np.ndarray, str]:
    """Largest value, 0 at least, among the rows of each training set, float64 (S,), and a hash of what all rows hold, whatever their order."""

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            packed = batch.column("x").to_pylist()
            x = np.frombuffer(b"".join(packed), dtype).reshape(len(packed), -1)
            of_row = np.fmax.reduce(x, 1, initial=0).astype(float)
            codes = np.frombuffer(b"".join(batch.column("folds").to_pylist()), np.int8).reshape(len(packed), -1)
            largest = np.where(training.learns(codes, sets, folds), of_row, 0).max(1, initial=0)
            total = 0
            others = zip(*(batch.column(name).to_pylist() for name in ("row_id", "entity_id", "target", "folds")), strict=True)
            for values, rest in zip(packed, others, strict=True):  # one step per entity; a sum, as rows come in any order
                total += int.from_bytes(hashlib.blake2b(repr(rest).encode() + values, digest_size=16).digest(), "little")
            digest = str(total % _HASHES)
            yield pa.RecordBatch.from_arrays([pa.array([largest.tolist()]), pa.array([digest])], ["largest", "digest"])

    columns = rows.select("row_id", "entity_id", "target", "folds", "x")
    found = columns.mapInArrow(kernel, "largest array<double>, digest string").collect()  # some numbers and a hash per batch
    largest = np.max([row.largest for row in found] or [[0.0] * len(sets)], axis=0)
    return largest, str(sum(int(row.digest) for row in found) % _HASHES)


_HASHES = 1 << 128


def _numbered(labels: Labels, assignment: splits.Assignment) -> pa.Table:
    """The columns of `examples` that do not come from features."""
    n, repeats = assignment.codes.shape
    folds = packing.binary_array(np.ascontiguousarray(assignment.codes).view(np.uint8).ravel(), np.arange(n + 1, dtype=np.int32) * repeats)
    groups = pa.array(labels.groups if labels.groups is not None else [None] * n, pa.string())
    columns = {"entity_id": pa.array(labels.entities), "row_id": pa.array(np.arange(n)), "group": groups}
    return pa.table({**columns, "target": pa.array(labels.target, pa.float64()), "folds": folds})


def _write_split(run: Run, cohort: str, label: str, digest: str, labels: Labels, assignment: splits.Assignment) -> None:
    n, repeats = assignment.codes.shape
    codes = assignment.codes.T.ravel()
    roles = np.full(len(codes), "fold", object)
    for role, code in splits.ROLES.items() if not assignment.folds else ():
        roles[codes == code] = role
    roles[codes == splits.UNUSED] = "unused"
    where = {"task": run.settings.task, "cohort": cohort, "label_column": label, "split_hash": digest}
    columns: dict[str, Any] = {name: pa.repeat(pa.scalar(value), len(codes)) for name, value in where.items()}
    columns |= {
        "repeat": np.repeat(np.arange(repeats, dtype=np.int32), n),
        "entity_id": labels.entities * repeats,
        "group": (labels.groups if labels.groups is not None else [None] * n) * repeats,
        "role": roles,
        "fold": pa.array(codes.astype(np.int32), mask=roles != "fold"),
    }
    rows = pa.table([columns[name] for name in SPLITS.column_names], schema=SPLITS.arrow_schema())
    run.lake.replace(SPLITS, run.spark.createDataFrame(rows, SPLITS.spark_schema()), where)
