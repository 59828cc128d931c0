"""How entities of a cohort become rows of `attributions`: a model is explained in tasks, batch by batch."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing, session
from genodl_spark.genome import bases
from genodl_spark.job.run import Run, code_of, now
from genodl_spark.lake.delta import condition
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.tables.learning import ATTRIBUTIONS, DATASETS, EXAMPLES
from genodl_spark.learning import predictor as kernel
from genodl_spark.learning.encodings.onehot import spans
from genodl_spark.learning.explain.explainer import Asked, Explainer, OfHead, explainer_of
from genodl_spark.learning.model_files import SMOOTH, ModelFiles
from genodl_spark.learning.settings import FOREST
from genodl_spark.learning.splits import TRAIN, UNUSED
from genodl_spark.registry.datasets import part_of_split
from genodl_spark.registry.incremental import Marks
from genodl_spark.registry.models import Chosen
from genodl_spark.registry.predictions import check_overlap

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger("genodl")

TOP = 20  # features of an entity that are named with their contributions
_BATCH = 64  # rows that are explained together
_PART = 32  # rows that a part has at least, on average
_PARTS_PER_SLOT = 8  # rows take unequal times, and a part that is done is progress
_SAID = (
    "part string, rows bigint, missing int, label string, target string, explained bigint, learnt bigint, "
    "worst double, sums binary"
)
_REPORT = pa.schema(
    [
        *(("part", pa.string()), ("rows", pa.int64()), ("missing", pa.int32()), ("label", pa.string())),
        *(("target", pa.string()), ("explained", pa.int64()), ("learnt", pa.int64())),
        *(("worst", pa.float64()), ("sums", pa.binary())),
    ]
)
_EVERY = 30.0  # seconds between two lines of progress
LEARNT = "learnt"  # column of rows: whether the model learnt from the entity


@dataclass(frozen=True)
class Explaining:
    """What a task needs to make rows of `attributions`; it goes to the tasks as it is.

    `wanted`: a broadcast of the entities that are to be explained, or of None for all.
    """

    files: ModelFiles
    asked: Asked
    constants: dict[str, Any]
    wanted: Any
    table_uri: str
    name: str

    def write(self, batches: Iterable[pa.RecordBatch], number: int) -> Iterator[pa.RecordBatch]:
        """Explains batches of packed rows and writes a file or more; reports each file, and of measured values what
        there is to say of each head and class."""
        predictor = kernel.cached(self.files)
        explainer = explainer_of(predictor, self.asked)
        writer = PartWriter(ATTRIBUTIONS, self.table_uri, f"{self.name}-{number:05d}")
        seen: dict[tuple[str, str], Sums] = defaultdict(Sums)
        missing: int | None = None
        letters = predictor.encoding.letters
        for rows in kernel.whole(self._chosen(batches), _BATCH):
            for start in range(0, rows.num_rows, _BATCH):
                batch = rows.slice(start, _BATCH)
                least = pc.min(batch.column("missing")).as_py()
                missing = least if missing is None else min(missing, least)
                x = packing.packed(batch.column("x"), predictor.card.dtype, predictor.width)[:]
                learnt = np.zeros(len(x), bool) if letters else batch.column(LEARNT).to_numpy(zero_copy_only=False)
                for found in explainer(x, batch.column("entity_id").to_pylist()):
                    writer.write(self.rows(explainer, batch, x, found))
                    for target in () if letters else np.unique(found.target):
                        name = found.head.classes[target] if found.head.classes else ""
                        seen[found.head.label, name].add(found, found.target == target, learnt)
        for part in writer.close():
            yield _said(part=part.as_json(), rows=part.rows, missing=missing)
        for (label, target), of in sorted(seen.items()):
            assert of.sums is not None
            said = {"explained": of.explained, "learnt": of.learnt, "worst": of.worst, "sums": of.sums.tobytes()}
            yield _said(label=label, target=target, **said)

    def _chosen(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if self.wanted.value is not None:
                batch = batch.filter(pc.is_in(batch.column("entity_id"), self.wanted.value))
            if batch.num_rows:
                yield batch

    def rows(self, explainer: Explainer, batch: pa.RecordBatch, x: np.ndarray, found: OfHead) -> pa.RecordBatch:
        """Rows of `attributions` of the entities of a batch, for one head."""
        count, complete = len(x), found.complete
        made = found.found
        names = pa.array(found.head.classes or ("",), pa.string())
        columns: dict[str, pa.Array] = {
            **{name: pa.repeat(value, count) for name, value in self.constants.items()},
            "label_column": pa.repeat(found.head.label, count),
            "target": names.take(pa.array(found.target)),
            "entity_id": batch.column("entity_id"),
            "output": pa.array(made.output),
            "reference_output": pa.array(made.reference),
            "completeness_error": pa.array(made.error, mask=np.isnan(made.error)),
            "steps": pa.array(made.steps.astype(np.int32)),
            "reason": pa.array(_reasons(found)),
        }
        if explainer.predictor.encoding.letters:
            lengths = batch.column("length").to_numpy() if "length" in batch.schema.names else None
            columns |= _of_sequences(x, lengths, found, complete)
        else:
            columns["top"] = _top(explainer.predictor.card.features, made.contributions, complete)
        return _as_rows(columns, count)


@dataclass
class Sums:
    """What a task has to say of one head and class: how many entities are explained, of how many the model learnt, the
    largest error of theirs, and for each feature the sums of contributions, of their sizes, and of those of entities
    that the model learnt from, float64 (3, F)."""

    explained: int = 0
    learnt: int = 0
    worst: float = float("nan")
    sums: np.ndarray | None = None

    def add(self, found: OfHead, mine: np.ndarray, learnt: np.ndarray) -> None:
        """Adds the entities that are `mine`, bool (B,); `learnt` bool (B,): those that the model learnt from."""
        good = mine & found.complete
        own = found.found.contributions[good]
        size = np.abs(own)
        self.merge(
            int(good.sum()),
            int((good & learnt).sum()),
            float(np.fmax.reduce(np.abs(found.found.error[good]), initial=np.nan)),
            np.stack([own.sum(0), size.sum(0), size[learnt[good]].sum(0)]),
        )

    def merge(self, explained: int, learnt: int, worst: float, sums: np.ndarray) -> None:
        self.explained += explained
        self.learnt += learnt
        self.worst = float(np.fmax(self.worst, worst))
        self.sums = sums if self.sums is None else self.sums + sums


def _said(**columns: Any) -> pa.RecordBatch:
    """A row of what tasks report."""
    arrays = [pa.array([columns.get(field.name)], field.type) for field in _REPORT]
    return pa.RecordBatch.from_arrays(arrays, schema=_REPORT)


def _as_rows(columns: Mapping[str, pa.Array], count: int) -> pa.RecordBatch:
    schema = ATTRIBUTIONS.arrow_schema()
    return pa.RecordBatch.from_arrays([columns.get(f.name, pa.nulls(count, f.type)) for f in schema], schema=schema)


def _reasons(found: OfHead) -> list[str | None]:
    """Why rows have no contributions, None of those that have."""
    made, reasons = found.found, list[str | None]()
    for i, complete in enumerate(found.complete.tolist()):
        if complete:
            reasons.append(None)
        elif not np.isfinite(made.output[i]):
            reasons.append("found an output that is not finite; expected a number")
        else:
            reasons.append(
                f"contributions are off by {abs(made.error[i]):.3g} after {made.steps[i]} steps for each reference; "
                f"expected {found.allowed[i]:.3g} at most of a difference of {made.output[i] - made.reference[i]:.3g}"
            )
    return reasons


def _of_sequences(
    codes: np.ndarray, lengths: np.ndarray | None, found: OfHead, complete: np.ndarray
) -> dict[str, pa.Array]:
    """Columns of sequences, packed codes int8 (B, L), over the bases of their own: not over padding.
    `lengths` int (B,): of whole sequences, of which a row holds the middle."""
    width, place = codes.shape[1], np.arange(codes.shape[1])
    if lengths is None:
        first = np.where((codes >= 0).any(1), (codes >= 0).argmax(1), 0)
        last, before = first + spans(codes), np.zeros(len(codes), np.int64)
    else:
        shift = width // 2 - lengths // 2  # as `bases.centred` lays them
        first, last = np.maximum(shift, 0), np.minimum(shift + lengths, width)
        before = np.maximum(-shift, 0)
    own = (place >= first[:, None]) & (place < last[:, None])
    letters = bases.LETTERS[np.where(codes < 0, 4, codes)]
    ends = np.concatenate([[0], np.cumsum(last - first)]).astype(np.int32)
    text = pa.StringArray.from_buffers(len(codes), pa.py_buffer(ends), pa.py_buffer(letters[own]))
    made = found.found
    assert made.hypothetical is not None
    kept = own & complete[:, None]
    ends = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    each = pa.array(made.contributions.sum(1)[kept].astype(np.float32))
    four = pa.array(made.hypothetical.transpose(0, 2, 1)[kept].astype(np.float32).ravel())
    return {
        "sequence": text,
        "first_position": pa.array((before + 1).astype(np.int32)),
        "contributions": _lists(ends, each, complete),
        "hypothetical": _lists(4 * ends, four, complete),
    }


def _lists(ends: np.ndarray, values: pa.Array, valid: np.ndarray) -> pa.Array:
    """Lists that end at `ends` int32 (B + 1,) of values, NULL where not valid, bool (B,)."""
    mask = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(
        pa.list_(pa.float32()), len(valid), [mask, pa.py_buffer(ends)], int((~valid).sum()), 0, [values]
    )


def _top(features: list[str], contributions: np.ndarray, complete: np.ndarray) -> pa.Array:
    """The features of each row that contribute most, with their contributions; NULL of rows without any."""
    best = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :TOP]
    values = np.take_along_axis(contributions, best, 1)
    kept = (values != 0) & complete[:, None]
    ends = pa.array(np.concatenate([[0], np.cumsum(kept.sum(1))]), pa.int32(), mask=np.append(~complete, False))
    keys = pa.array(features, pa.string()).take(pa.array(best[kept]))
    return pa.MapArray.from_arrays(ends, keys, pa.array(values[kept]))


def explain(
    run: Run, model: Chosen, cohort: str, asked: Asked, versions: Mapping[str, int], wanted: pa.Array | None, name: str
) -> tuple[list[Part], int, int]:
    """Explains the entities of a cohort, or those `wanted`; returns the files written, of which `name` is the start,
    their rows, and features that the cohort lacks."""
    run.lake.create(ATTRIBUTIONS)  # says what is wrong with the table before tasks write
    asked = asked.of(model.encoding, len(model.card.features), model.card.predicted)
    constants = {
        "task": model.row.task,
        "cohort": cohort,
        "model_id": model.row.model_id,
        "model_version": pa.scalar(model.row.model_version, pa.int32()),
        "method": asked.method,
        "reference": asked.reference,
        "source_versions": pa.scalar(sorted(versions.items()), pa.map_(pa.string(), pa.int64())),
        "run_id": run.run_id,
        "code": code_of(__name__, model.settings, own=model.files.code_hashes()),
        "explained_at": pa.scalar(now(), pa.timestamp("us", tz="UTC")),
    }
    explaining = Explaining(
        files=model.files,
        asked=asked,
        constants=constants,
        wanted=run.spark.sparkContext.broadcast(wanted),
        table_uri=run.lake.path(ATTRIBUTIONS),
        name=name,
    )
    rows = _dealt(run, model, cohort, None if wanted is None else len(wanted))
    with _told(run):
        found = rows.mapInArrow(partial(_write, explaining=explaining), _SAID).toArrow().to_pylist()
    missing = min((row["missing"] for row in found if row["missing"] is not None), default=0)
    check_overlap(cohort, missing, model)
    parts = [Part.from_json(row["part"]) for row in found if row["part"] is not None]
    if not model.encoding.letters:
        parts += _of_features(explaining, model.card.features, found)
    return parts, sum(part.rows for part in parts), missing


@contextlib.contextmanager
def _told(run: Run) -> Iterator[None]:
    """Says how far the tasks are while they are under way."""
    over, tracker = threading.Event(), run.spark.sparkContext.statusTracker()

    def tell() -> None:
        while not over.wait(_EVERY):
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            for stage in (one for one in stages if one is not None and one.numTasks > 1):
                log.info("explained: %d of %d parts", stage.numCompletedTasks, stage.numTasks)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _dealt(run: Run, model: Chosen, cohort: str, count: int | None) -> DataFrame:
    """Rows in parts by the entity's name: to explain one takes so long that it does not matter where it lay.
    `count`: of entities that are explained, where that is known; else the rows of a table say how many there may be."""
    from pyspark.sql import functions as F

    if count is None:
        first = next((table for table in model.features.tables if "cohort" in table.column_names), None)
        count = run.lake.count(first, {"cohort": cohort}) if first is not None else _PART * _PARTS_PER_SLOT
    parts = min(-(-count // _PART), _PARTS_PER_SLOT * session.task_slots(run.spark))
    rows = model.features.rows(run.sources, cohort, model.card.features)
    if not model.encoding.letters:
        rows = rows.join(_learnt(run, model, cohort), "entity_id", "left")
        rows = rows.withColumn(LEARNT, F.coalesce(LEARNT, F.lit(False)))
    return rows.repartition(max(parts, 1), F.xxhash64("entity_id")).sortWithinPartitions("entity_id")


def _learnt(run: Run, model: Chosen, cohort: str) -> DataFrame:
    """Entities of a cohort that the registered model learnt from: of folds all, of a fixed split those that train."""
    from pyspark.sql import functions as F

    found = run.lake.rows(DATASETS, {"dataset": model.row.dataset}).to_pylist()
    rows = run.lake.read(EXAMPLES).where(F.col("dataset") == model.row.dataset)
    part = part_of_split(0)
    learns = part != UNUSED % 256 if found and found[0]["folds"] else part == TRAIN
    mine = F.lit(bool(found) and cohort == model.row.cohort)
    return rows.where(mine & learns).select("entity_id", F.lit(True).alias(LEARNT))


def _write(batches: Iterable[pa.RecordBatch], explaining: Explaining) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over packed rows."""
    from pyspark import TaskContext

    task = TaskContext.get()
    yield from explaining.write(batches, task.partitionId() if task is not None else 0)


def _of_features(explaining: Explaining, features: list[str], found: list[dict[str, Any]]) -> list[Part]:
    """Writes the rows of features: means over all entities that are explained, in the order of their sizes."""
    together: dict[tuple[str, str], Sums] = defaultdict(Sums)
    for row in found:
        if row["label"] is not None:
            sums = np.frombuffer(row["sums"]).reshape(3, -1)
            together[row["label"], row["target"]].merge(row["explained"], row["learnt"], row["worst"], sums)
    writer = PartWriter(ATTRIBUTIONS, explaining.table_uri, f"{explaining.name}-features")
    names = pa.array(features, pa.string())
    for (label, target), of in sorted(together.items()):
        if not of.explained or of.sums is None:
            continue
        signed, size = of.sums[:2] / of.explained
        learnt = of.sums[2] / of.learnt if of.learnt else None
        order = np.lexsort([np.array(features), -size])
        rank = np.empty(len(features), np.int32)
        rank[order] = np.arange(1, len(features) + 1)
        count = len(features)
        same = {**explaining.constants, "label_column": label, "target": target}
        columns = {name: pa.repeat(value, count) for name, value in same.items()} | {
            "feature": names,
            "completeness_error": pa.repeat(pa.scalar(None if np.isnan(of.worst) else of.worst, pa.float64()), count),
            "mean_contribution": pa.array(signed),
            "mean_absolute": pa.array(size),
            "rank": pa.array(rank),
            "entities": pa.repeat(pa.scalar(of.explained, pa.int64()), count),
            "learnt": pa.repeat(pa.scalar(of.learnt, pa.int64()), count),
            "learnt_absolute": pa.nulls(count, pa.float64()) if learnt is None else pa.array(learnt),
        }
        writer.write(_as_rows(columns, count))
    return writer.close()


def where(model: Chosen, cohort: str, asked: Asked) -> dict[str, str]:
    """What rows of `attributions` of a model, a cohort and a method have in common."""
    return {
        "task": model.row.task,
        "cohort": cohort,
        "model_id": model.row.model_id,
        "method": asked.method,
    }


def marks(model: Chosen, cohort: str, asked: Asked) -> Marks:
    """The numbers that say how far a cohort is explained."""
    return Marks.of(ATTRIBUTIONS, "explained", where(model, cohort, asked), model)


def figures(run: Run, model: Chosen, cohort: str, asked: Asked) -> dict[str, Any]:
    """What the run report says of the rows of a model, a cohort and a method: entities explained and not, and errors as
    a share of the difference that contributions add up to, or of the least difference that counts. Warns of rows that
    are not explained."""
    from pyspark.sql import functions as F

    limits = asked.limits
    rows = run.lake.read(ATTRIBUTIONS, cohort=cohort).where(condition(where(model, cohort, asked)))
    difference = F.abs(F.col("output") - F.col("reference_output"))
    least = F.lit(limits.floor / limits.tolerance)
    share = F.abs(F.col("completeness_error")) / F.greatest(difference, least)
    of = rows.where("entity_id IS NOT NULL").select("entity_id", "reason", share.alias("share"))
    found = of.agg(
        F.countDistinct("entity_id").alias("entities"),
        F.count("reason").alias("incomplete"),
        F.max("share").alias("max"),
        F.percentile("share", F.lit(0.5)).alias("median"),
        F.min("reason").alias("reason"),
    ).collect()[0]
    if found.incomplete:
        run.report.warn(
            f"{found.incomplete} rows have a reason in place of contributions, such as: {found.reason}; "
            "more steps (explain.steps) or another method may explain them"
        )
    trees = [sum(share for name, share in one.items() if name not in SMOOTH) for one in model.card.shares]
    if model.settings.train.blend == [FOREST]:  # of models of before, the share of a forest was called linear, too
        trees = [sum(one.values()) for one in model.card.shares]
    if any(trees):
        shares = ", ".join(f"{share:g}" for share in trees)
        run.report.warn(f"contributions are those of the rest alone: of the model trees are {shares}, all steps")
    errors = {"max": found["max"], "median": found["median"]}
    return {
        "entities": found.entities,
        "incomplete": found.incomplete,
        "completeness": None if found["max"] is None else errors,
    }
