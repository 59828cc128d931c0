"""Data sets: examples of a task, packed, split and described by what they were made of;
made once for the same content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from inspect import signature
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genodl_spark import tasks
from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.own_code import Code
from genodl_spark.features.covariates import told
from genodl_spark.features.protocol import ROW_NAMES, blocks_among, entity_of
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.entities import tables_about
from genodl_spark.lake.tables.genomes import REFERENCE_BASES
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES, SPLITS
from genodl_spark.learning import encodings, feed, splits
from genodl_spark.learning.encodings.values import LINEAR_SCALE, on_linear_scale
from genodl_spark.learning.heads import Head, heads_of, labelled, shapes, targets
from genodl_spark.learning.preprocessing import Chain
from genodl_spark.learning.settings import BOOSTED, OF_VALUES, RIDGE, Quality
from genodl_spark.learning.training import plan
from genodl_spark.registry import clocks, negatives, pretrained
from genodl_spark.registry.gene_lengths import lengths_of
from genodl_spark.registry.labels import Labels, kept_together, label_of, labelled_cohorts, read_labels

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row


def dataset_of(run: Run, cohort: str | None, label: str | None) -> tuple[Row, bool]:
    """The row of `datasets` for a task, cohort and label, prepared when it is not there or its tables
    have moved; and whether it was.

    InputError for an unknown label, no labelled entity, one class only, or a split that leaks.
    """
    from pyspark.sql import Row
    from pyspark.sql import functions as F
    from pyspark.storagelevel import StorageLevel

    s = run.settings
    features = tasks.features(s)
    negatives.check(s, features)
    label = label_of(s, label)
    name = run.cohort(cohort, labelled_cohorts(run, features, label, cohort), f"data for {s.task}")
    shaped_by = {
        "settings": {
            key: getattr(s, key) if not hasattr(getattr(s, key), "model_dump") else getattr(s, key).model_dump()
            for key in _SHAPING
        },
        "code": code_of(__name__, s, network=False),
        "task": s.task,
        **({"validation": s.train.validation} if s.split.column is not None and s.train.validation else {}),
    }
    clock = clocks.of(s)
    if clock is not None:
        shaped_by["clock"] = clock.digest
    reference = negatives.reference_of(run, s.sequence.negatives)
    if reference is not None:
        shaped_by["reference"] = reference
    settings_hash = fingerprint(shaped_by, label)
    about = tables_about(run.sources, entity_of(features), name)
    read = (*features.tables, *about, *((REFERENCE_BASES,) if reference is not None else ()))
    versions = {table.name: v for table in read if (v := run.sources.version(table)) is not None}
    mine = {"task": s.task, "cohort": name, "label_column": label, "settings_hash": settings_hash}
    stored = run.lake.rows(DATASETS, mine).sort_by([("prepared_at", "descending")]).to_pylist()
    for row in map(DATASETS.row, stored):
        if dict(row.source_versions) == versions:
            for warning in row.warnings:
                run.report.warn(warning)
            return row, False
    labels = kept_together(run, features, name, read_labels(run, features, name, label))
    assignment = splits.assign(
        labels.entities,
        labels.strata,
        labels.groups,
        labels.published,
        s.split,
        s.seed,
    )
    entities = labels.entities
    brought = negatives.brought(run, features, name, labels, assignment.codes, assignment.folds)
    if brought is not None:
        labels, assignment = negatives.behind(labels, assignment, brought)
    for whole in filter(None, (labels.groups, labels.together)):
        splits.audit(assignment, labels.entities, whole)
    sets = plan.training_sets(assignment.codes.shape[1] if assignment.folds else 0, assignment.folds)
    learns = plan.learns(assignment.codes, sets, assignment.folds)
    if clock is None:
        _check_heads(labels, learns[-1])
        choice = features.choose(run.sources, name, entities, learns[:, : len(entities)])
    else:
        choice = clocks.choice(run, features, name, clock)
    chosen, allowed = choice.names, None if choice.allowed is None else np.packbits(choice.allowed).tobytes()
    if not chosen:
        raise InputError(
            f"no feature of cohort {name} passes; expected some, loosen quality.min_allele_frequency "
            "or quality.max_missing",
            "quality",
        )
    transform = features.encoding or s.quality.transform
    # Between the two that are chosen from the values nothing differs but the scale.
    encoding = encodings.encoding("none" if transform == "auto" else transform, s.code_files)
    packed_rows = features.rows(run.sources, name, chosen)
    if brought is not None:
        if not encoding.letters or features.dtype != "int8":
            text = f"found values of {features.dtype} for {transform}; expected base codes"
            raise InputError(f"{text}, or {negatives.GIVEN}", "sequence.negatives")
        packed_rows = packed_rows.select(*ROW_NAMES)
        made = negatives.rows(run, packed_rows, encoding.width(len(chosen)), entities, brought)
        packed_rows = packed_rows.unionByName(made)
    numbered = run.spark.createDataFrame(numbered_rows(labels, assignment.codes))
    rows = packed_rows.join(numbered, "entity_id").persist(StorageLevel.DISK_ONLY)
    try:
        expected = encoding.dtypes
        if s.quality.steps and not encoding.scaled:
            text = f"found steps for values that networks take as {transform} has it; expected none"
            raise InputError(text, "quality.steps")
        chain_of(s.quality, chosen)
        if features.dtype not in packing.TYPES or packing.values_of(features.dtype) not in expected:
            raise InputError(
                f"found values of {features.dtype} for {transform}; expected {' or '.join(expected)}",
                "quality.transform",
            )
        layout = feed.Layout(
            len(labels.entities),
            len(chosen),
            features.dtype,
            assignment.codes.shape[1],
            encoding.width(len(chosen)),
            targets=labels.target.shape[1],
        )
        largest, content, entries = _content(rows, layout, sets, assignment.folds)
        if transform == "auto":
            # what steps make of the values has a scale of its own
            transform = _transform(largest) if features.dtype != "int8" and not s.quality.steps else "none"
        digest = splits.split_hash(labels.entities, assignment.codes)
        of_heads = shapes(labels.heads)
        shaped = [s.task, name, label, chosen, of_heads["classes"], digest, transform, content]
        beside = [
            *([] if allowed is None else [allowed.hex()]),
            *([] if of_heads["heads"] is None else [of_heads["heads"]]),
        ]
        dataset = fingerprint(*shaped, *beside)[:16]
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
        **of_heads,
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
        "entries": entries if packing.is_sparse(features.dtype) else None,
        "negatives": None if brought is None else len(brought),
    }
    run.lake.merge(DATASETS, run.frame(DATASETS, [written]))
    return Row(**written), True


def allowed_of(dataset: Row) -> np.ndarray | None:
    """Which features each training set of a row of `datasets` may use, bool (sets, features);
    None where each may use all."""
    if dataset.allowed is None:
        return None
    shape = len(plan.training_sets(dataset.repeats if dataset.folds else 0, dataset.folds)), dataset.n_features
    return (
        np.unpackbits(np.frombuffer(dataset.allowed, np.uint8), count=shape[0] * shape[1]).astype(bool).reshape(shape)
    )


def _transform(largest: np.ndarray) -> str:
    """What suits values whose largest among the rows of each training set, float64 (S,), are these.
    InputError where the sets do not agree."""
    linear = [on_linear_scale(value) for value in largest.tolist()]
    if any(linear) and not all(linear):
        found = (
            f"the training rows of {sum(linear)} of {len(linear)} training sets have values above "
            f"{LINEAR_SCALE:g}, as on a linear scale"
        )
        raise InputError(f"found that {found}; expected all or none, set it to asinh or none", "quality.transform")
    return "asinh" if all(linear) else "none"


# The settings that shape a dataset; `quality` as a whole, though `select` acts in training only.
_SHAPING = (
    *("blocks", "covariates", "target", "factor", "split", "quality", "sequence", "variants"),
    *("seed", "implementation", "feed"),
)


def _check_heads(labels: Labels, training: np.ndarray) -> None:
    """InputError where the rows of `training` bool (rows,) lack what a head is to learn."""
    for head in labels.heads:
        if len(head.classes) == 1:
            text = (
                f"found one class, {head.classes[0]!r}, in {head.label}; expected at least two, "
                "name another label column"
            )
            raise InputError(text, "--label")
    if not training.any():
        raise InputError("found no row to train on; expected some, give the training part a larger share", "split")
    for head, own in zip(labels.heads, targets(labels.heads), strict=True):
        learnt = labels.target[training & labelled(labels.target[:, own]), own]
        if not len(learnt):
            raise InputError(f"found no training row with a {head.label}; expected some", "split")
        if head.kind == "time" and not learnt[:, 1].any():
            raise InputError(f"found no training row whose event has come in {head.label}; expected some", "split")
        present = {int(index) for index in learnt[:, 0]} if head.classes else set()
        lacking = [name for i, name in enumerate(head.classes) if i not in present]
        if lacking:
            text = f"found no training row of class {lacking[0]!r} in {head.label}; expected some of each"
            raise InputError(f"{text}, name the classes with target.classes", "split")


def _content(
    rows: DataFrame, layout: feed.Layout, sets: list[plan.TrainingSet], folds: int
) -> tuple[np.ndarray, str, int]:
    """Largest value, 0 at least, among the rows of each training set, float64 (S,),
    a hash of what all rows hold, whatever their order, and how many entries they have, where they are sparse.
    InputError for rows that are not packed as `layout` says."""
    numbers = feed.target_column(layout.targets)

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        most, total, entries = np.zeros(len(sets)), 0, 0
        for batch in batches:
            packed = batch.column("x").to_pylist()
            try:
                x = packing.packed(batch.column("x"), layout.dtype, layout.values)
            except ValueError as error:
                text = (
                    f"{error} in rows of {layout.features} features; expected what the encoding takes, "
                    "mend the features or it"
                )
                raise InputError(text, "quality.transform") from error
            of_row = packing.largest(x)
            codes = np.frombuffer(b"".join(batch.column("folds").to_pylist()), np.int8).reshape(len(packed), -1)
            most = np.fmax(most, np.where(plan.learns(codes, sets, folds), of_row, 0).max(1, initial=0))
            others = zip(
                *(batch.column(name).to_pylist() for name in ("row_id", "entity_id", numbers, "folds")), strict=True
            )
            # one step per entity; a sum, as rows come in any order
            for values, rest in zip(packed, others, strict=True):
                total += int.from_bytes(
                    hashlib.blake2b(repr(rest).encode() + values, digest_size=16).digest(), "little"
                )
            entries += len(x.entries) if isinstance(x, packing.SparseRows) else 0
        columns = [pa.array([most.tolist()]), pa.array([str(total % _HASHES)]), pa.array([entries], pa.int64())]
        yield pa.RecordBatch.from_arrays(columns, ["largest", "digest", "entries"])

    columns = rows.select("row_id", "entity_id", numbers, "folds", "x")
    # numbers and a hash of each task: no row comes here, nor a hash of one
    found = columns.mapInArrow(kernel, "largest array<double>, digest string, entries bigint").collect()
    largest = np.max([row.largest for row in found] or [[0.0] * len(sets)], axis=0)
    return largest, str(sum(int(row.digest) for row in found) % _HASHES), sum(row.entries for row in found)


_HASHES = 1 << 128


def numbered_rows(labels: Labels, codes: np.ndarray) -> pa.Table:
    """The columns of `examples` that do not come from features; `codes` int8 (entities, repeats): their split."""
    n, repeats = codes.shape
    folds = packing.binary_array(
        np.ascontiguousarray(codes).view(np.uint8).ravel(), np.arange(n + 1, dtype=np.int32) * repeats
    )
    groups = pa.array(labels.groups if labels.groups is not None else [None] * n, pa.string())
    single = labels.target.shape[1] == 1
    target = pa.array(labels.target[:, 0] if single else np.full(n, np.nan), pa.float64())
    several = pa.nulls(n, pa.binary()) if single else packing.column(labels.target)
    columns = {"entity_id": pa.array(labels.entities), "row_id": pa.array(np.arange(n)), "group": groups}
    return pa.table({**columns, "target": target, feed.TARGETS: several, "folds": folds})


def _write_split(run: Run, cohort: str, label: str, digest: str, labels: Labels, assignment: splits.Assignment) -> None:
    """Rows of `splits`, those of entities that are refused among them."""
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
    columns["reason"] = pa.nulls(len(codes), pa.string())
    rows = pa.table([columns[name] for name in SPLITS.column_names], schema=SPLITS.arrow_schema())
    beside = [
        {**where, "repeat": repeat, "entity_id": entity, "role": "unused", "reason": reason}
        for repeat in range(repeats)
        for entity, reason in labels.refused
    ]
    rows = pa.concat_tables([rows, pa.Table.from_pylist(beside, SPLITS.arrow_schema())])
    run.lake.replace(SPLITS, run.spark.createDataFrame(rows, SPLITS.spark_schema()), where)


def layout_of(dataset: Row, code: Code) -> feed.Layout:
    """Shape of a prepared dataset; `code`: of an encoding of the user's own."""
    width = encodings.encoding(dataset.transform, code).width(dataset.n_features)
    numbers = sum(head.numbers for head in heads_of_row(dataset))
    entries = dataset.entries or 0
    return feed.Layout(dataset.rows, dataset.n_features, dataset.dtype, dataset.repeats, width, entries, numbers)


def part_of_split(repeat: Column | int) -> Column:
    """What the split of a repeat says of a row of EXAMPLES: its fold or role, int, 0 to 254, or 255 for UNUSED."""
    from pyspark.sql import functions as F

    one = F.substring("folds", repeat + 1, 1)
    return F.conv(F.hex(one), 16, 10).cast("int")


def heads_of_row(dataset: Row) -> list[Head]:
    """What a prepared dataset is to teach."""
    return heads_of(dataset.label_column, dataset.classes, dataset.heads)


def job_of(run: Run, dataset: Row, staging: str) -> plan.Job:
    """What ranks are told of a training on a prepared dataset, with checkpoints below `staging`."""
    s, heads = run.settings, heads_of_row(dataset)
    if s.quality.select and [head.kind for head in heads] != ["classes"]:
        text = f"found {s.quality.select} for the label {dataset.label_column}; expected 0"
        raise InputError(f"{text}: the F statistic is of one column of classes", "quality.select")
    version = run.lake.version(EXAMPLES)
    assert version is not None
    run.sources.versions[EXAMPLES.name] = version
    chain = chain_of(s.quality, list(dataset.features))
    encoding = encodings.encoding(dataset.transform, s.code_files)
    if s.feed.shard:
        _check_shards(chain, encoding)
    if any(head.kind == "bases" for head in heads) and not s.model.get("masked"):
        raise InputError("found no share of the bases to hide; expected one, such as 0.15, of a cnn", "model.masked")
    model = with_blocks(s.model, dataset.features)
    blocks = blocks_among(tasks.features(s), list(dataset.features))
    begun, matched = pretrained.checked(run, heads, encoding, model, list(dataset.features))
    return plan.Job(
        files=run.lake.live_files(EXAMPLES, version, {"dataset": dataset.dataset}),
        layout=layout_of(dataset, s.code_files),
        backend=s.feed.backend,
        resident_bytes=s.feed.resident_bytes,
        heads=heads,
        loss=s.train.loss,
        folds=dataset.folds,
        transform=dataset.transform,
        # of blocks that some lack, features were judged when they were chosen, over those who have them
        max_missing=1.0 if blocks else s.quality.max_missing,
        select=s.quality.select,
        model=model,
        options=s.train.model_copy(update={"blend": _blend(run, heads, encoding)}),
        seed=s.seed,
        staging=staging,
        checkpoint=storage.join(staging, "checkpoint"),
        readers=s.feed.readers,
        prefetch=s.feed.prefetch,
        device_bytes=s.feed.device_bytes,
        allowed=allowed_of(dataset),
        cut=s.sequence.length > 0,
        chain=chain,
        lengths=lengths_of(run, chain, list(dataset.features)),
        shard=s.feed.shard,
        redrawn=(dataset.negatives or 0) if s.sequence.negatives == negatives.SHUFFLED else 0,
        blocks=blocks,
        code=s.code_files,
        pretrained=begun,
        matched=matched,
        coefficients=clocks.weights_of(run, list(dataset.features)),
    )


def _blend(run: Run, heads: list[Head], encoding: encodings.Encoding) -> list[str]:
    """What stands beside a network, where anything can: linear models of which one does, trees. InputError for rows
    of another kind."""
    s = run.settings
    if not s.train.blend:
        return []
    of_values = bool(set(OF_VALUES) & set(s.train.blend))
    what = "forest or ridge regression" if of_values else "linear model or tree"
    if not (encoding.scaled if of_values else encoding.letters):
        kind = "measured values; expected others or none" if of_values else "sequences; expected a forest or none"
        raise InputError(f"found {', '.join(s.train.blend)} for rows that are no {kind}", "train.blend")
    if s.feed.shard:
        run.report.warn(f"feed.shard: no {what} is blended with the network, as it needs all rows in one memory")
        return []
    usual = s.train.loss in ("auto", "cross_entropy", "squared_error", "huber")
    if not usual or any(head.kind not in ("classes", "value") for head in heads):
        run.report.warn(
            f"no {what} is blended with the network: it learns classes, or values by squared error or Huber's loss"
        )
        return []
    from genodl_spark.learning.beside.linear import strands

    # where strands are one, what stands at a position tells nothing
    none = {BOOSTED} if strands(s.model) else set()
    if any(head.kind != "value" for head in heads):
        none.add(RIDGE)
    return [part for part in s.train.blend if part not in none]


def _check_shards(chain: Chain | None, encoding: encodings.Encoding) -> None:
    """InputError for what is learnt of all training rows in one memory."""
    if chain is not None:
        text = "found steps; expected none, as they are fitted on all training rows in one memory"
        raise InputError(f"{text}: leave them out, or feed.shard", "quality.steps")
    if "pooled" not in signature(encoding.learnt).parameters:
        text = "found an encoding whose learnt() takes all training rows; expected an argument `pooled`"
        raise InputError(f"{text} (genodl_spark/learning/encodings/__init__.py), or no feed.shard", "quality.transform")


def chain_of(quality: Quality, features: list[str]) -> Chain | None:
    """What is done to the values of some features first. InputError where steps do not fit them."""
    return Chain(quality.steps, quality.options, features, quality.batch) if quality.steps else None


def with_blocks(model: dict[str, Any], features: list[str]) -> dict[str, Any]:
    """Options of a network of blocks (fusion, late), with the number of features of every block;
    `block:identifier` names them where there are several."""
    if model.get("kind") not in ("fusion", "late") or "sizes" in model:
        return model
    return {
        **model,
        "sizes": [len(list(names)) for _, names in groupby(features, key=lambda name: name.partition(":")[0])],
    }


def roles(run: Run, dataset: Row) -> dict[str, int]:
    """Rows of each role in a dataset's split."""
    from pyspark.sql import functions as F

    mine = (
        (F.col("task") == dataset.task)
        & (F.col("cohort") == dataset.cohort)
        & (F.col("label_column") == dataset.label_column)
    )
    rows = run.lake.read(SPLITS).where(mine & (F.col("split_hash") == dataset.split_hash) & (F.col("repeat") == 0))
    return {row["role"]: row["count"] for row in rows.groupBy("role").count().collect()}
