"""How entities of a cohort become rows of `predictions`, by tasks that read packed features where they are stored."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genodl_spark.core import packing, session
from genodl_spark.core.errors import InputError
from genodl_spark.features.covariates import told
from genodl_spark.features.protocol import Kernel, blocks_among, some_rows, stored_rows
from genodl_spark.job.run import Run, code_of, now
from genodl_spark.lake.files import StoredFile, opened
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.learning import PREDICTIONS, SPLITS
from genodl_spark.learning import conformal
from genodl_spark.learning import predictor as kernel
from genodl_spark.learning.heads import Head, answers
from genodl_spark.learning.lacking import interval
from genodl_spark.learning.model_files import Card, ModelFiles
from genodl_spark.learning.predictor import Batch, Blocks, Predictor
from genodl_spark.registry.models import Chosen

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

_PIECE = 64 << 20  # stored bytes that a task reads, at most
# bytes of packed features that are read at once: more of them leave the processor's cache before they are scored
_READ = 2 << 20
NOTHING_KNOWN = "nothing is known of it that could be told"
_REPORT = "part string, rows bigint, missing int"


def check_overlap(cohort: str, missing: int, model: Chosen) -> None:
    """InputError where a cohort lacks more than 1 - `min_feature_overlap` of a model's features."""
    width, least = len(model.card.features), model.settings.min_feature_overlap
    if 1 - missing / width < least:
        text = f"cohort {cohort} lacks {missing} of the model's {width} features"
        raise InputError(
            f"{text}; expected {least:.0%} of them at least, harmonise the identifiers or lower it",
            "min_feature_overlap",
        )


def scored_rows(run: Run, model: Chosen, cohort: str, calibrated: bool = True) -> DataFrame:
    """Scores of a cohort's entities (entity_id, scores, missing), kept on disk.
    InputError when it has too few of the model's features."""
    from pyspark.sql import functions as F
    from pyspark.storagelevel import StorageLevel

    rows = model.features.rows(run.sources, cohort, model.card.features)
    scored = kernel.score(rows, model.files, calibrated).persist(StorageLevel.DISK_ONLY)
    fewest = scored.agg(F.min("missing").alias("m")).collect()[0].m or 0
    try:
        check_overlap(cohort, fewest, model)
    except InputError:
        scored.unpersist()
        raise
    tell_missing(run, model, cohort, fewest)
    return scored


@dataclass(frozen=True)
class Scoring:
    """What a task needs to make rows of `predictions`; it goes to the tasks as it is.

    `trained`: a broadcast of the entities that the model saw in training.
    `wanted`: of those to be scored, or of None for all. `blocks`: those of the features that a row may lack.
    """

    files: ModelFiles
    precision: str
    passes: int
    least_probability: float
    constants: dict[str, Any]
    trained: Any
    wanted: Any
    table_uri: str
    name: str
    blocks: Blocks = ()

    def same(self, predictor: Predictor, count: int) -> dict[str, pa.Array]:
        """The columns of `count` rows that hold one value."""
        return {
            name: pa.repeat(value, count)
            for name, value in {**self.constants, "computed_on": predictor.computed_on}.items()
        }

    def rows(self, predictor: Predictor, batch: Batch, same: Mapping[str, pa.Array]) -> list[pa.RecordBatch]:
        """Rows of `predictions` of one batch, for each head; `same`: columns of one value, of as many rows at least."""
        heads = predictor.card.predicted
        calibrated = predictor.card.calibrated(batch.scores.raw)
        each = enumerate(zip(heads, answers(heads), strict=True))
        return [self._of_head(predictor, head, number, batch, calibrated, own, same) for number, (head, own) in each]

    def _interval(
        self, card: Card, head: Head, number: int, batch: Batch, value: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the answers `value` (B,) of a head would lie with the blocks that the rows lack, float64 (B,) each; NaN
        where they lack none, or it is not known."""
        if batch.absent is None:
            nothing = np.full(len(value), np.nan)
            return nothing, nothing
        of_block = np.array([card.reaches[name][number] if name in card.reaches else np.nan for name, _ in self.blocks])
        return interval(value, np.where(batch.absent, of_block, 0).sum(1), bool(head.classes))

    def _of_head(
        self,
        predictor: Predictor,
        head: Head,
        number: int,
        batch: Batch,
        calibrated: np.ndarray,
        own: slice,
        same: Mapping[str, pa.Array],
    ) -> pa.RecordBatch:
        classes, scores = head.classes, batch.scores
        calibrated = calibrated[:, own]
        count = len(calibrated)
        unusual = scores.unusual
        best = calibrated.argmax(1) if classes else np.zeros(count, np.int64)
        place = (np.arange(count), best)
        value = calibrated[place]
        low, high = self._interval(predictor.card, head, number, batch, value)
        drawn = np.isnan(low) & ~np.isnan(value)
        low = np.where(drawn, scores.low[:, own][place], low)
        high = np.where(drawn, scores.high[:, own][place], high)
        columns: dict[str, pa.Array] = {
            **{name: column.slice(0, count) for name, column in same.items()},
            "label_column": pa.repeat(head.label, count),
            "entity_id": batch.entities,
            "value": _known(value),
            "raw_value": _known(scores.raw[:, own][place]),
            "low": _known(low),
            "high": _known(high),
            "filled": pa.array(scores.filled, mask=scores.filled == 0),
            "uncertainty": _known(scores.uncertainty[:, number]),
            "distance": _known(scores.distance),
            "out_of_distribution": pa.array(unusual),
            "abstained": pa.array(unusual | (value < self.least_probability) if classes else unusual),
            "in_training": pc.is_in(batch.entities, self.trained.value),
        }
        columns |= _conformal(head, predictor.card.cuts[number] if predictor.card.cuts else None, calibrated)
        schema = PREDICTIONS.arrow_schema()
        # of a person without any block, or a sequence of which no base is known, to a model that tells bases
        nothing = np.isnan(value)
        if batch.absent is not None:
            columns["note"] = lacking(batch.absent, [name for name, _ in self.blocks])
        elif nothing.any():
            columns["note"] = pa.array([NOTHING_KNOWN if lacks else None for lacks in nothing], pa.string())
        if classes:
            names = pa.array(classes, pa.string())
            columns["predicted"] = names.take(pa.array(best, mask=nothing))
            keys = names.take(pa.array(np.tile(np.arange(len(classes)), count)))
            ends = pa.array(np.arange(count + 1, dtype=np.int32) * len(classes))
            found = pa.MapArray.from_arrays(ends, keys, pa.array(calibrated.ravel()))
            columns["probabilities"] = found.take(pa.array(np.arange(count), mask=nothing)) if nothing.any() else found
        if head.times:
            names = pa.array([f"{time:g}" for time in head.times], pa.string())
            keys = names.take(pa.array(np.tile(np.arange(len(names)), count)))
            ends = pa.array(np.arange(count + 1, dtype=np.int32) * len(names))
            found = pa.MapArray.from_arrays(ends, keys, pa.array(calibrated[:, 1:].ravel()))
            columns["probabilities"] = found.take(pa.array(np.arange(count), mask=nothing)) if nothing.any() else found
        return pa.RecordBatch.from_arrays([columns.get(f.name, pa.nulls(count, f.type)) for f in schema], schema=schema)

    def write(self, batches: Iterable[pa.RecordBatch], number: int) -> Iterator[pa.RecordBatch]:
        """Scores batches of packed rows and writes a file or more; reports each file, and how many
        features the rows lack at least."""
        predictor = kernel.cached(self.files, self.precision, self.passes)
        writer = PartWriter(PREDICTIONS, self.table_uri, f"{self.name}-{number:05d}")
        missing: int | None = None
        for least, of_heads in self.scored(predictor, self._chosen(batches)):
            missing = least if missing is None else min(missing, least)
            for rows in of_heads:
                writer.write(rows)
        for part in writer.close():
            columns = [pa.array([part.as_json()]), pa.array([part.rows]), pa.array([missing], pa.int32())]
            yield pa.RecordBatch.from_arrays(columns, ["part", "rows", "missing"])

    def scored(
        self, predictor: Predictor, batches: Iterable[pa.RecordBatch]
    ) -> Iterator[tuple[int, list[pa.RecordBatch]]]:
        """Rows of `predictions` of batches of packed rows, for each head, some thousands at once; and how many features
        these rows lack at least."""
        most, same = 0, dict[str, pa.Array]()
        for batch in kernel.scored(predictor, batches, self.blocks, draw=True):
            if len(batch.entities) > most:
                most = len(batch.entities)
                same = self.same(predictor, most)
            yield int(batch.missing.min()), self.rows(predictor, batch, same)

    def _chosen(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if self.wanted.value is None:
            yield from batches
            return
        for batch in batches:
            kept = batch.filter(pc.is_in(batch.column("entity_id"), self.wanted.value))
            if kept.num_rows:
                yield kept


def _conformal(head: Head, cut: float | None, calibrated: np.ndarray) -> dict[str, pa.Array]:
    """The set or the interval that holds the truth of a head, as columns of `predictions`; none where no cut is known.
    `calibrated`: float64 (B, scores)."""
    if cut is None:
        return {}
    if not head.classes:
        value = calibrated[:, 0]
        return {"prediction_low": _known(value - cut), "prediction_high": _known(value + cut)}
    inside = conformal.sets(calibrated, cut)
    ends = np.concatenate([[0], inside.sum(1).cumsum()]).astype(np.int32)
    found = pa.ListArray.from_arrays(ends, pa.array(head.classes, pa.string()).take(pa.array(np.nonzero(inside)[1])))
    nothing = ~inside.any(1)
    return {"prediction_set": found.take(pa.array(np.arange(len(inside)), mask=nothing)) if nothing.any() else found}


def lacking(absent: np.ndarray, blocks: list[str]) -> pa.Array:
    """What is said of rows that lack blocks, bool (rows, blocks): NULL of those that lack none."""
    kinds, of_row = np.unique(absent, axis=0, return_inverse=True)
    said: list[str | None] = []
    for kind in kinds:
        names = [name for name, is_absent in zip(blocks, kind, strict=True) if is_absent]
        without = f"without {', '.join(names)}" if names else None
        said.append(f"no score: it has none of the blocks {', '.join(names)}" if kind.all() else without)
    return pa.array(said, pa.string()).take(pa.array(of_row.ravel()))


def _known(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def scoring_of(run: Run, model: Chosen, cohort: str, versions: Mapping[str, int], wanted: pa.Array | None) -> Scoring:
    run.lake.create(PREDICTIONS)  # says what is wrong with the table before tasks write
    constants = {
        "task": model.task,
        "cohort": cohort,
        "model_id": model.row.model_id,
        "model_version": pa.scalar(model.row.model_version, pa.int32()),
        "source_versions": pa.scalar(sorted(versions.items()), pa.map_(pa.string(), pa.int64())),
        "split_hash": model.row.split_hash,
        "code": code_of(__name__, model.settings, own=model.files.code_hashes()),
        "scored_at": pa.scalar(now(), pa.timestamp("us", tz="UTC")),
    }
    s, context = model.settings.predict, run.spark.sparkContext
    return Scoring(
        files=model.files,
        precision=s.precision,
        passes=s.passes,
        least_probability=s.least_probability,
        constants=constants,
        trained=context.broadcast(_trained_on(run, model)),
        wanted=context.broadcast(wanted),
        table_uri=run.lake.path(PREDICTIONS),
        name=uuid.uuid4().hex[:12],
        blocks=tuple(blocks_among(model.features, model.card.features).items()),
    )


def _trained_on(run: Run, model: Chosen) -> pa.Array:
    """Entities that the registered model saw in training; those of another cohort with the same
    name count as the same."""
    where = {"split_hash": model.row.split_hash, "task": model.row.task, "role": ["fold", "train", "validation"]}
    rows = run.lake.rows(SPLITS, where)
    return pc.unique(rows.column("entity_id").filter(pc.equal(rows.column("repeat"), 0)))


def score(
    run: Run, model: Chosen, cohort: str, scoring: Scoring, files: list[StoredFile] | None
) -> tuple[list[Part], int, int]:
    """Scores a cohort, or those of its rows that stand in `files`; returns the files written, rows,
    and features that the cohort lacks."""
    whole = stored_rows(model.features, run.sources, cohort, model.card.features)
    if whole is not None:
        width = model.encoding.width(len(model.card.features)) * np.dtype(packing.values_of(model.card.dtype)).itemsize
        pieces = _pieces(whole.files if files is None else files, session.task_slots(run.spark))
        reading = _Reading(whole.columns, whole.pack, max(_READ // width, 1))
        work: Kernel = partial(_write_pieces, pieces=pieces, reading=reading, scoring=scoring)
        found = run.spark.range(0, len(pieces), 1, max(len(pieces), 1)).mapInArrow(work, _REPORT).collect()
    else:
        rows = some_rows(model.features, run.sources, cohort, model.card.features, scoring.wanted)
        found = rows.mapInArrow(partial(_write_rows, scoring=scoring), _REPORT).collect()
    missing = min((row.missing for row in found), default=0)
    check_overlap(cohort, missing, model)
    return [Part.from_json(row.part) for row in found], sum(row.rows for row in found), missing


@dataclass(frozen=True)
class _Reading:
    columns: list[str]
    pack: Kernel
    rows_at_once: int


def _pieces(files: list[StoredFile], slots: int) -> list[tuple[str, str | None, int, int]]:
    """What tasks read: (URI, checksum, which of so many shares of the file's row groups)."""
    target = min(max(sum(file.size for file in files) // (2 * slots), 1), _PIECE)
    shares = [(file, max(1, round(file.size / target))) for file in files]
    return [(file.uri, file.checksum, i, count) for file, count in shares for i in range(count)]


def _write_pieces(
    batches: Iterable[pa.RecordBatch],
    pieces: list[tuple[str, str | None, int, int]],
    reading: _Reading,
    scoring: Scoring,
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `pieces`."""
    for batch in batches:
        for number in batch.column(0).to_pylist():
            uri, checksum, share, shares = pieces[number]
            yield from scoring.write(reading.pack(_read(uri, checksum, share, shares, reading)), number)


def _read(uri: str, checksum: str | None, share: int, shares: int, reading: _Reading) -> Iterator[pa.RecordBatch]:
    def mine(footer: pq.FileMetaData) -> list[int]:
        return [g for g in range(footer.num_row_groups) if g * shares // footer.num_row_groups == share]

    with opened(uri, checksum, mine) as file:
        if chosen := mine(file.metadata):
            yield from file.iter_batches(reading.rows_at_once, chosen, reading.columns, use_threads=False)


def _write_rows(batches: Iterable[pa.RecordBatch], scoring: Scoring) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over packed rows."""
    from pyspark import TaskContext

    task = TaskContext.get()
    yield from scoring.write(batches, task.partitionId() if task is not None else 0)


def rescored(run: Run, model: Chosen, row: Row, scoring: Scoring | None = None) -> dict[str, Any]:
    """A row of `predictions` again, out of the tables as they were when it was scored:
    value, raw_value, probabilities, uncertainty, distance. `scoring`: by which, where it is no plain prediction.

    On the same device, with the same torch and threads, they are the same to the last bit.
    InputError where the tables no longer have the entity at those versions.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    was = json.loads(row.computed_on)
    snapshot = Snapshot(run.lake)
    snapshot.versions.update(row.source_versions)
    names = model.card.features
    try:
        whole = stored_rows(model.features, snapshot, row.cohort, names)
        if whole is not None:
            rows = whole.of(row.entity_id)
        else:
            some = some_rows(model.features, snapshot, row.cohort, names, Local(pa.array([row.entity_id])))
            rows = some.where(F.col("entity_id") == row.entity_id).toArrow()
    except (AnalysisException, FileNotFoundError) as error:
        text = f"a version of {row.source_versions} is gone: {str(error).splitlines()[0]}"
        raise InputError(f"{text}; expected all, as maintain keeps them", "lineage") from error
    if not rows.num_rows:
        raise InputError(f"found no such entity in {row.source_versions}; expected one row", "lineage")
    threads = was["threads"] or None
    code = model.files.code()
    predictor = kernel.Predictor(
        model.card, model.files.weights(), model.uri, was["precision"], was["passes"], None, threads, code
    )
    if scoring is None:
        scoring = replace(plain(model.files, was), blocks=tuple(blocks_among(model.features, names).items()))
    ((_, of_heads),) = scoring.scored(predictor, rows.to_batches())
    found = (one for batch in of_heads for one in batch.to_pylist() if one["label_column"] == row.label_column)
    again = next(found)
    return {name: again[name] for name in (*RESCORED, "computed_on")}


def plain(files: ModelFiles, was: Mapping[str, Any]) -> Scoring:
    """What makes rows in this process, of no table: precision and passes as `was` has them."""
    nobody, everybody = Local(pa.array([], pa.string())), Local(None)
    return Scoring(files, was["precision"], was["passes"], 0.0, {}, nobody, everybody, "", "")


RESCORED = (
    "predicted",
    "probabilities",
    "value",
    "raw_value",
    "uncertainty",
    "distance",
    "out_of_distribution",
    "low",
    "high",
)


@dataclass(frozen=True)
class Local:
    """A broadcast within one process."""

    value: Any


def tell_missing(run: Run, model: Chosen, cohort: str, missing: int) -> None:
    """Warns of what a cohort lacks of a model's features, `missing` of them, and of values
    that cannot be read as the model's."""
    if missing:
        run.report.warn(
            f"cohort {cohort} lacks {missing} of the model's {len(model.card.features)} features: they count as missing"
        )
    for text in told(model.features, run.sources, cohort, model.card.features):
        run.report.warn(text)
