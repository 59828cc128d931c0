"""Scores of a registered model for the entities of a cohort, kept up to date in `predictions`."""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genodl_spark import tasks
from genodl_spark.core import session, storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.features.protocol import Features, Kernel, stored_rows, told
from genodl_spark.job.config import Settings, from_stored
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.delta import Snapshot
from genodl_spark.lake.files import StoredFile, opened
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.tables import MODELS, PREDICTIONS, SPLITS
from genodl_spark.learning import model_files
from genodl_spark.learning import predictor as kernel
from genodl_spark.learning.model_files import CARD, Card, ModelFiles
from genodl_spark.learning.predictor import Batch, Predictor

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

log = logging.getLogger("genodl")

_ATTEMPTS = 3
_SETTINGS = "settings"
_PIECE = 64 << 20  # stored bytes that a task reads, at most
_READ = 2 << 20  # bytes of packed features that are read at once: more of them leave the processor's cache before they are scored
_REPORT = "part string, rows bigint, missing int"


@dataclass(frozen=True)
class Chosen:
    """A registered model: its row, card, files, and the settings that it was trained with."""

    row: Row
    card: Card
    files: ModelFiles
    settings: Settings

    @property
    def uri(self) -> str:
        return self.files.uri

    @cached_property
    def features(self) -> Features:
        return tasks.features(self.settings.with_code(self.files.code()))


def chosen_model(run: Run, label: str | None, model_id: str | None) -> Chosen:
    """The model named, else the newest of the task and label. InputError when there is none."""
    s = run.settings
    models = run.lake.rows(MODELS, {"task": s.task})
    if model_id is not None:
        models = models.filter(pc.equal(models.column("model_id"), model_id))
    if model_id is None or label is not None:
        models = models.filter(pc.equal(models.column("label_column"), label or s.label))
    if not models.num_rows:
        wanted = f"model {model_id} of task {s.task}" if model_id is not None else f"model of task {s.task} for label {label or s.label}"
        raise InputError(f"found no {wanted}; expected one, run train first, or see genodl list models", "--model")
    return model_of(run, as_row(newest(models)))


def newest(models: pa.Table) -> dict[str, Any]:
    """The newest of the rows of `models` that are of one task and label."""
    found: dict[str, Any] = models.sort_by([("model_version", "descending")]).slice(0, 1).to_pylist()[0]
    return found


def as_row(found: dict[str, Any]) -> Row:
    """A row of `models`, read without Spark, as Spark has it: maps are dictionaries."""
    from pyspark.sql import Row

    types = {field.name: field.type for field in MODELS.arrow_schema()}
    return Row(**{name: dict(value) if value is not None and pa.types.is_map(types[name]) else value for name, value in found.items()})


def model_of(run: Run, row: Row) -> Chosen:
    """The model of a row of `models`. What it was trained on stays; how it is run, measured and reported is today's.

    InputError where its card or its settings cannot be read, or are not those that were registered.
    """
    files = model_files.files_of(row, run.lake.model_uri(row.model_id), run.settings.code.trusted, run.settings.code_files)
    if not files.hashes:
        run.report.warn(f"model {row.model_id} was registered without hashes of its files: whether they have changed is not known, train it again")
    today = {key: getattr(run.settings, key) for key in ("spark", "tracking", "feed", "predict", "evaluate", "report", "min_feature_overlap")}
    settings, passed = from_stored(row.settings, f"model {row.model_id}")
    if passed:
        run.report.warn(f"settings of model {row.model_id} that are not known here are passed over, they shape no answer of it: {', '.join(passed)}")
    card = files.card()
    if card.model_id != row.model_id:
        raise InputError(f"found the card of model {card.model_id}; expected that of {row.model_id}, restore the file", files.place(CARD))
    return Chosen(row, card, files, settings.model_copy(update=today))


def predict(run: Run, cohort: str | None, label: str | None, model_id: str | None, force: bool = False) -> None:
    """Scores the entities of the cohort, labelled or not, that the model has not scored as they are now; all of them with `force`."""
    model = chosen_model(run, label, model_id)
    name = run.cohort(cohort, model.features.cohorts(run.sources), f"data for {run.settings.task}")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _bring_up_to_date(run, model, name, force)
            break
        except Conflict:
            if attempt == _ATTEMPTS:
                text = f"found another run that keeps changing the predictions of model {model.row.model_id}; expected one at a time, run it again"
                raise Conflict(text) from None
            log.info("another run has committed predictions of this model first: looking again")
    run.report.metrics.update({"model_id": model.row.model_id, "model_version": model.row.model_version})


def _bring_up_to_date(run: Run, model: Chosen, cohort: str, force: bool) -> None:
    s = model.settings.predict
    versions = {table.name: v for table in model.features.tables if (v := run.sources.version(table)) is not None}
    where = {"task": model.row.task, "cohort": cohort, "model_id": model.row.model_id}
    # How far the model has scored the cohort, table by table, stands with the commit that did it.
    # With it stands what else shaped the rows, as a number: rows of other settings are scored again, in whatever order settings change.
    shaped_by = int(fingerprint(s.precision, s.passes, s.least_probability)[:15], 16)
    expected = {**versions, _SETTINGS: shaped_by}
    names = {f"scored {fingerprint(where)} {name}": name for name in expected}
    marks = {names[mark]: number for mark, number in run.lake.marked(PREDICTIONS, names).items()}
    within = bool(s.first or s.last)
    if marks == expected and not force and not within:
        _unchanged(run)
        return
    wanted, files = None, None
    if within:
        entities = [e for e in model.features.entities(run.sources, cohort) if s.first <= e and (not s.last or e <= s.last)]
        if not entities:
            raise InputError(f"found no entity of cohort {cohort} from {s.first!r} to {s.last!r}; expected some", "predict.first")
        wanted = pa.array(entities, pa.string())
    elif marks.keys() == expected.keys() and marks[_SETTINGS] == shaped_by and not force:
        changed = model.features.changed(run.sources, cohort, marks)
        if changed is not None:
            wanted, files = _identifiers(changed.entities), changed.files
            if not len(wanted):
                _unchanged(run)
                return
            log.info("%d entities have come, changed or gone since the last run", len(wanted))
    scoring = _scoring(run, model, cohort, versions, wanted)
    try:
        parts, rows, missing = _score(run, model, cohort, scoring, files)
    except BaseException:
        _discard(run, scoring.name)
        raise
    try:
        scoped = {**where, "entity_id": wanted.to_pylist()} if wanted is not None else where
        reached = {mark: expected[name] for mark, name in names.items()} if not within else {}
        run.lake.commit(PREDICTIONS, parts, scoped, reached, where)
    except Conflict:  # after any other error a version may know of the files
        _discard(run, scoring.name)
        raise
    _tell(run, model, cohort, missing)
    run.wrote(PREDICTIONS, rows)
    run.report.metrics["missing_features"] = missing


def _unchanged(run: Run) -> None:
    run.report.status = "unchanged"
    run.wrote(PREDICTIONS, 0)


def _identifiers(entities: DataFrame) -> pa.Array:
    return entities.toArrow().column(0).cast(pa.string()).unique()


def _tell(run: Run, model: Chosen, cohort: str, missing: int) -> None:
    """Warns of what a cohort lacks of a model's features, `missing` of them, and of values that cannot be read as the model's."""
    if missing:
        run.report.warn(f"cohort {cohort} lacks {missing} of the model's {len(model.card.features)} features: they count as missing")
    for text in told(model.features, run.sources, cohort, model.card.features):
        run.report.warn(text)


def check_overlap(cohort: str, missing: int, model: Chosen) -> None:
    """InputError where a cohort lacks more than 1 - `min_feature_overlap` of a model's features."""
    width, least = len(model.card.features), model.settings.min_feature_overlap
    if 1 - missing / width < least:
        text = f"cohort {cohort} lacks {missing} of the model's {width} features"
        raise InputError(f"{text}; expected {least:.0%} of them at least, harmonise the identifiers or lower it", "min_feature_overlap")


def scored_rows(run: Run, model: Chosen, cohort: str, calibrated: bool = True) -> DataFrame:
    """Scores of a cohort's entities (entity_id, scores, missing), kept on disk. InputError when it has too few of the model's features."""
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
    _tell(run, model, cohort, fewest)
    return scored


@dataclass(frozen=True)
class Scoring:
    """What a task needs to make rows of `predictions`; it goes to the tasks as it is.

    `trained`: a broadcast of the entities that the model saw in training. `wanted`: of those to be scored, or of None for all.
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

    def same(self, predictor: Predictor, count: int) -> dict[str, pa.Array]:
        """The columns of `count` rows that hold one value."""
        return {name: pa.repeat(value, count) for name, value in {**self.constants, "computed_on": predictor.computed_on}.items()}

    def rows(self, predictor: Predictor, batch: Batch, same: Mapping[str, pa.Array]) -> pa.RecordBatch:
        """Rows of `predictions` of one batch; `same`: columns of one value, of as many rows at least."""
        classes, scores = predictor.card.classes, batch.scores
        calibrated = predictor.calibrated(scores.raw)
        count = len(calibrated)
        unusual = scores.unusual
        best = calibrated.argmax(1) if classes else np.zeros(count, np.int64)
        value = calibrated[np.arange(count), best]
        columns: dict[str, pa.Array] = {
            **{name: column.slice(0, count) for name, column in same.items()},
            "entity_id": batch.entities,
            "value": pa.array(value),
            "raw_value": pa.array(scores.raw[np.arange(count), best]),
            "uncertainty": _known(scores.uncertainty),
            "distance": _known(scores.distance),
            "out_of_distribution": pa.array(unusual),
            "abstained": pa.array(unusual | (value < self.least_probability) if classes else unusual),
            "in_training": pc.is_in(batch.entities, self.trained.value),
        }
        schema = PREDICTIONS.arrow_schema()
        if classes:
            names = pa.array(classes, pa.string())
            ends = pa.array(np.arange(count + 1, dtype=np.int32) * len(classes))
            columns["predicted"] = names.take(pa.array(best))
            keys = names.take(pa.array(np.tile(np.arange(len(classes)), count)))
            columns["probabilities"] = pa.MapArray.from_arrays(ends, keys, pa.array(calibrated.ravel()))
        return pa.RecordBatch.from_arrays([columns.get(f.name, pa.nulls(count, f.type)) for f in schema], schema=schema)

    def write(self, batches: Iterable[pa.RecordBatch], number: int) -> Iterator[pa.RecordBatch]:
        """Scores batches of packed rows and writes a file or more; reports each file, and how many features the rows lack at least."""
        predictor = kernel.cached(self.files, self.precision, self.passes)
        writer = PartWriter(PREDICTIONS, self.table_uri, f"{self.name}-{number:05d}")
        missing: int | None = None
        most, same = 0, dict[str, pa.Array]()
        for batch in kernel.scored(predictor, self._chosen(batches)):
            least = int(batch.missing.min())
            missing = least if missing is None else min(missing, least)
            if len(batch.entities) > most:
                most = len(batch.entities)
                same = self.same(predictor, most)
            writer.write(self.rows(predictor, batch, same))
        for part in writer.close():
            columns = [pa.array([part.as_json()]), pa.array([part.rows]), pa.array([missing], pa.int32())]
            yield pa.RecordBatch.from_arrays(columns, ["part", "rows", "missing"])

    def _chosen(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if self.wanted.value is None:
            yield from batches
            return
        for batch in batches:
            kept = batch.filter(pc.is_in(batch.column("entity_id"), self.wanted.value))
            if kept.num_rows:
                yield kept


def _known(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def _scoring(run: Run, model: Chosen, cohort: str, versions: Mapping[str, int], wanted: pa.Array | None) -> Scoring:
    run.lake.create(PREDICTIONS)  # before the tasks write: Delta makes no table where files are
    constants = {
        "task": model.row.task,
        "cohort": cohort,
        "label_column": model.row.label_column,
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
    )


def _trained_on(run: Run, model: Chosen) -> pa.Array:
    """Entities that the registered model saw in training; those of another cohort with the same name count as the same."""
    where = {"split_hash": model.row.split_hash, "task": model.row.task, "role": ["fold", "train", "validation"]}
    rows = run.lake.rows(SPLITS, where)
    return pc.unique(rows.column("entity_id").filter(pc.equal(rows.column("repeat"), 0)))


def _score(run: Run, model: Chosen, cohort: str, scoring: Scoring, files: list[StoredFile] | None) -> tuple[list[Part], int, int]:
    """Scores a cohort, or those of its rows that stand in `files`; returns the files written, rows, and features that the cohort lacks."""
    whole = stored_rows(model.features, run.sources, cohort, model.card.features)
    if whole is not None:
        width = len(model.card.features) * np.dtype(model.card.dtype).itemsize
        pieces = _pieces(whole.files if files is None else files, session.task_slots(run.spark))
        reading = _Reading(whole.columns, whole.pack, max(_READ // width, 1))
        work: Kernel = partial(_write_pieces, pieces=pieces, reading=reading, scoring=scoring)
        found = run.spark.range(0, len(pieces), 1, max(len(pieces), 1)).mapInArrow(work, _REPORT).collect()
    else:
        rows = model.features.rows(run.sources, cohort, model.card.features)
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
    batches: Iterable[pa.RecordBatch], pieces: list[tuple[str, str | None, int, int]], reading: _Reading, scoring: Scoring
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


def _discard(run: Run, name: str) -> None:
    """Removes what the tasks of a run that failed wrote, as far as it can be reached."""
    with contextlib.suppress(Exception):
        for uri in storage.files_under(run.lake.path(PREDICTIONS)):
            if f"/part-{name}-" in uri:
                storage.remove_file(uri)


def rescored(run: Run, model: Chosen, row: Row) -> dict[str, Any]:
    """A row of `predictions` again, out of the tables as they were when it was scored: value, raw_value, probabilities, uncertainty, distance.

    On the same device, with the same torch and threads, they are the same to the last bit. InputError where the tables no longer have
    the entity at those versions.
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
            rows = model.features.rows(snapshot, row.cohort, names).where(F.col("entity_id") == row.entity_id).toArrow()
    except (AnalysisException, FileNotFoundError) as error:
        text = f"a version of {row.source_versions} is gone: {str(error).splitlines()[0]}"
        raise InputError(f"{text}; expected all, as maintain keeps them", "lineage") from error
    if not rows.num_rows:
        raise InputError(f"found no such entity in {row.source_versions}; expected one row", "lineage")
    threads = was["threads"] or None
    code = model.files.code()
    predictor = kernel.Predictor(model.card, model.files.weights(), model.uri, was["precision"], was["passes"], None, threads, code)
    scoring = Scoring(model.files, was["precision"], was["passes"], 0.0, {}, Local(pa.array([], pa.string())), Local(None), "", "")
    (batch,) = kernel.scored(predictor, rows.to_batches())
    again = scoring.rows(predictor, batch, scoring.same(predictor, 1)).to_pylist()[0]
    return {name: again[name] for name in (*RESCORED, "computed_on")}


RESCORED = ("predicted", "probabilities", "value", "raw_value", "uncertainty", "distance", "out_of_distribution")


@dataclass(frozen=True)
class Local:
    """A broadcast within one process."""

    value: Any
