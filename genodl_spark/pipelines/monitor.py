"""Checks of what was ingested and predicted, held against the limits of `[monitor]`;
every check is a row of `findings`.

Of a cohort's files: `quarantined`, the greatest share of records set aside; `records`, the fewest records beside
the median of the kind; `ingest_age`, hours since the newest file.

Of the predictions of a task, cohort and label by the newest model: `unscored`, share of the cohort's entities
without one; `stale`, share whose entity has other features since; `prediction_age`, hours since the newest;
`readable`, where the model is not. `missing`, share of missing values; `drifted`, share of features that have
drifted from the training data, and `feature`, one of them (see drift.py); `score` and `class_shares`,
drift of scores and predicted classes from those of rows that no training saw, of entities that did not train the model.

Of effects of variants through a model of sequences the first three of these are checked.

Tasks turn batches of features into histograms, and only their sum leaves them.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import ks_2samp

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.features.variant_windows import VariantWindows
from genodl_spark.job.run import Run, now
from genodl_spark.lake.tables.ingested import SOURCES
from genodl_spark.lake.tables.learning import EXAMPLES, HELD_OUT, MODELS, PREDICTIONS
from genodl_spark.lake.tables.operations import FINDINGS
from genodl_spark.learning import calibration, drift
from genodl_spark.registry.models import Chosen, model_of

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

log = logging.getLogger("genodl")

# reference rows that set the bins, in the memory of one task; all rows are counted
_SAMPLE, _SAMPLE_BYTES = 2000, 128 << 20
_FEWEST = 200  # of them, however wide
_SCORES = 100_000  # of each of the two samples of scores, chosen by hash: their distance is known to .005
_FEWEST_FILES = 3  # of a kind, for a median
_RUNS = 20  # the last that scored entities of a cohort: of predictions made before the features are not compared


@dataclass(frozen=True)
class Finding:
    """A check and what it found: a row of `findings`."""

    check: str
    cohort: str
    value: float | None
    threshold: float | None
    breached: bool
    message: str
    subject: str = ""
    task: str = ""
    label_column: str = ""
    model_id: str = ""

    def __str__(self) -> str:
        where = f"{self.task} ({self.label_column}) on {self.cohort}" if self.task else f"cohort {self.cohort}"
        return f"{where}: {self.check}{f' {self.subject}' if self.subject else ''}: {self.message}"


@dataclass
class Scored:
    """Predictions of one task, cohort, label and model. `made`: versions of the tables read, rows, and when,
    of each run that scored some."""

    task: str
    cohort: str
    label_column: str
    model_id: str
    model_version: int
    made: list[tuple[dict[str, int], int, float]] = field(default_factory=list)

    @property
    def newest(self) -> float:
        return max(at for _, _, at in self.made)

    def __str__(self) -> str:
        return f"{self.task} ({self.label_column}) on {self.cohort}"


def monitor(run: Run) -> None:
    """Makes every check that there is something for. A breach is no failure: the report is `done`,
    and says what was found."""
    run.require_lake()
    found = _check_files(run)
    newest = _newest_predictions(run)
    if not newest:
        run.report.warn(
            f"found no predictions: {'only what was ingested is checked' if found else 'there is nothing to check'}"
        )
    for scored in newest:
        log.info("checking %s", scored)
        try:
            found += _check_predictions(run, scored)
        except InputError as error:  # of one model: the others are checked all the same
            found.append(_of(scored, "readable", None, None, True, str(error)))
    breached = [finding for finding in found if finding.breached]
    if found:
        run.lake.append(
            FINDINGS, run.frame(FINDINGS, [{**asdict(finding), "found_at": at} for at in [now()] for finding in found])
        )
        run.wrote(FINDINGS, len(found))
    run.report.breached = [str(finding) for finding in breached]
    checks, alarms = Counter(f.check for f in found), Counter(f.check for f in breached)
    run.report.metrics |= {
        "checks": len(found),
        "breaches": len(breached),
        "by_check": {name: {"checks": checks[name], "breaches": alarms[name]} for name in sorted(checks)},
        "findings": [asdict(finding) for finding in breached],
    }


def _check_files(run: Run) -> list[Finding]:
    options = run.settings.monitor
    rows = run.sources.rows(SOURCES, {})
    files = rows.select(["cohort", "source", "block", "file", "records", "quarantined"]).to_pandas()
    files["at"] = rows.column("ingested_at").cast(pa.int64()).to_numpy() / 1e6  # seconds
    files = files[files["source"] != ""]
    files["subject"] = files["source"] + np.where(files["block"] == "", "", "/" + files["block"]) + "/" + files["file"]
    files["refused"] = files["quarantined"] / np.maximum(files["records"] + files["quarantined"], 1)
    kind = files.groupby(["cohort", "source", "block"])["records"]
    median, number = kind.transform("median"), kind.transform("size")
    files["of_median"] = np.where(
        (number >= _FEWEST_FILES) & (median > 0), files["records"] / np.maximum(median, 1), 1.0
    )
    found: list[Finding] = []
    for cohort, mine in files.groupby("cohort"):
        measured = [("quarantined", "refused", options.quarantined, "of records in quarantine", 1)]
        if options.records:
            measured.append(("records", "of_median", options.records, "of the median records of its kind", -1))
        for check, column, limit, text, sign in measured:
            worst = mine.assign(order=-sign * mine[column]).sort_values(["order", "subject"])
            over = int((sign * mine[column] > sign * limit).sum())
            value = float(worst[column].iloc[0])
            found.append(
                Finding(
                    check,
                    str(cohort),
                    value,
                    limit,
                    over > 0,
                    f"{over} of {len(mine)} files over the limit, the worst at {value:.1%} {text}",
                )
            )
            for row in worst.head(min(over, options.worst)).itertuples():
                value = float(getattr(row, column))
                found.append(
                    Finding(
                        check, str(cohort), value, limit, True, f"{value:.1%} {text}, limit {limit:.1%}", row.subject
                    )
                )
        if options.ingest_hours:
            found.append(
                _age(Finding("ingest_age", str(cohort), None, options.ingest_hours, False, ""), float(mine["at"].max()))
            )
    return found


def _age(check: Finding, since: float) -> Finding:
    hours = (time.time() - since) / 3600
    limit = check.threshold or 0.0
    return replace(
        check, value=hours, breached=hours > limit, message=f"{hours:.1f} hours since the newest, limit {limit:g}"
    )


def _of(
    scored: Scored,
    check: str,
    value: float | None,
    threshold: float | None,
    breached: bool,
    message: str,
    subject: str = "",
) -> Finding:
    return Finding(
        check,
        scored.cohort,
        value,
        threshold,
        breached,
        message,
        subject,
        scored.task,
        scored.label_column,
        scored.model_id,
    )


def _newest_predictions(run: Run) -> list[Scored]:
    """Of every task, cohort and label the newest model's, sorted."""
    from pyspark.sql import functions as F

    key = ["task", "cohort", "label_column", "model_id", "model_version"]
    versions = F.array_sort(F.map_entries("source_versions")).alias("versions")
    made = F.max(F.col("scored_at").cast("double")).alias("at")  # seconds, whatever the time zone of this process
    grouped = run.sources.read(PREDICTIONS).groupBy(*key, versions).agg(F.count("*").alias("rows"), made)
    found: dict[tuple[Any, ...], Scored] = {}
    for row in grouped.collect():  # a row for each run that predicted
        scored = found.setdefault(tuple(row[name] for name in key), Scored(*(row[name] for name in key)))
        scored.made.append(({entry.key: entry.value for entry in row.versions}, row.rows, row["at"]))
    newest: dict[tuple[str, str, str], Scored] = {}
    for scored in sorted(
        found.values(), key=lambda s: (s.task, s.cohort, s.label_column, s.model_version, s.newest, s.model_id)
    ):
        newest[scored.task, scored.cohort, scored.label_column] = scored
    return list(newest.values())


def _check_predictions(run: Run, scored: Scored) -> list[Finding]:
    registered = run.sources.rows(MODELS, {"model_id": scored.model_id}).to_pylist()
    if not registered:
        raise InputError(
            "found predictions of a model that is not registered; expected one of genodl list models", scored.model_id
        )
    model = model_of(run, MODELS.row(registered[0]))
    model.files.weights()  # InputError where they are not those that were registered
    if scored.task != model.row.task:  # what they were trained on is no such thing as what they scored
        model = replace(model, through=(scored.task, VariantWindows(run.settings.reference)))
        entities = model.features.entities(run.sources, scored.cohort)
        return [_unscored(run, scored, entities), _stale(run, scored, model), *_aged(run, scored)]
    entities = model.features.entities(run.sources, scored.cohort)
    found = [_unscored(run, scored, entities), _stale(run, scored, model)]
    found += _aged(run, scored)
    if entities:
        found += _check_features(run, scored, model, len(entities))
    else:
        run.report.warn(f"{scored}: the cohort has no data any more, drift of features is not checked")
    return found + _check_scores(run, scored, model)


def _aged(run: Run, scored: Scored) -> list[Finding]:
    hours = run.settings.monitor.prediction_hours
    return [_age(_of(scored, "prediction_age", None, hours, False, ""), scored.newest)] if hours else []


def _mine(scored: Scored) -> Column:
    from pyspark.sql import functions as F

    terms = [F.col(name) == getattr(scored, name) for name in ("task", "cohort", "label_column", "model_id")]
    return terms[0] & terms[1] & terms[2] & terms[3]


def _unscored(run: Run, scored: Scored, entities: list[str]) -> Finding:
    limit = run.settings.monitor.unscored
    known = run.spark.createDataFrame(pa.table({"entity_id": pa.array(entities, pa.string())}))
    lacking = known.join(
        run.sources.read(PREDICTIONS).where(_mine(scored)).select("entity_id"), "entity_id", "left_anti"
    ).count()
    share = lacking / max(len(entities), 1)
    return _of(
        scored, "unscored", share, limit, share > limit, f"{lacking} of {len(entities)} entities have no prediction"
    )


def _stale(run: Run, scored: Scored, model: Chosen) -> Finding:
    """A prediction is stale where the features of its entity have changed since; other cohorts move the tables too."""
    from pyspark.sql import functions as F

    limit = run.settings.monitor.stale
    newest = {table.name: run.sources.version(table) for table in model.features.tables}
    old = 0
    for read, _, _ in sorted(scored.made, key=lambda made: made[2])[-_RUNS:]:
        if all(read.get(name) == version for name, version in newest.items()):
            continue
        changed = model.features.changed(run.sources, scored.cohort, read)
        if changed is None:
            run.report.warn(f"{scored}: versions of its tables are gone, which predictions are stale is not known")
            continue
        made = run.sources.read(PREDICTIONS).where(_mine(scored))
        for name, version in read.items():
            made = made.where(F.element_at("source_versions", F.lit(name)) == version)
        old += made.join(changed.entities, "entity_id", "left_semi").count()
    total = sum(rows for _, rows, _ in scored.made)
    return _of(
        scored,
        "stale",
        old / total,
        limit,
        old > limit * total,
        f"{old} of {total} predictions are of features that have changed since",
    )


def _check_features(run: Run, scored: Scored, model: Chosen, entities: int) -> list[Finding]:
    from pyspark.sql import functions as F

    options, card, dataset = run.settings.monitor, model.card, model.row.dataset
    rows = run.lake.count(EXAMPLES, {"dataset": dataset})
    if not rows:
        run.report.warn(f"{scored}: the training data is not in the lake any more, drift of features is not checked")
        return []
    width = model.encoding.width(len(card.features))
    names = _names(card.features, width)
    bins = drift.bins_for(rows, entities, options.bins)

    def count_reference() -> tuple[np.ndarray, np.ndarray]:
        examples = run.sources.read(EXAMPLES).where(F.col("dataset") == dataset)
        most = int(
            np.clip(_SAMPLE_BYTES // (width * np.dtype(packing.values_of(card.dtype)).itemsize), _FEWEST, _SAMPLE)
        )
        # evenly spaced, as rows lie in the order of identifiers
        some = examples.where(F.col("row_id") % -(-rows // most) == 0)
        cuts = _cut_points(some, card.dtype, width, bins)
        return cuts, _histogram(examples, card.dtype, cuts)

    cuts, reference = run.sources.once(("histogram", dataset, bins), count_reference)
    current = _histogram(model.features.rows(run.sources, scored.cohort, card.features), card.dtype, cuts)
    found = drift.psi(reference, current)
    # The chance of a false alarm is that of the model, not of each of its features.
    limits = drift.limits(reference, current, options.psi, options.alpha / len(found))
    distance, lacked, lacks = drift.ks(reference, current), drift.missing(reference), drift.missing(current)
    drifted = found > limits
    share, lack, usual = float(drifted.mean()), float(lacks.mean()), float(lacked.mean())
    alarm = share > options.drifted
    text = (
        f"{int(drifted.sum())} of {len(found)} features have drifted, {int(current[:, 0].sum())} rows against "
        f"{int(reference[:, 0].sum())}"
    )
    most = usual + options.missing
    checks = [
        _of(
            scored,
            "missing",
            lack,
            most,
            lack > most,
            f"{lack:.1%} of values are missing, {usual:.1%} of the training data",
        ),
        _of(scored, "drifted", share, options.drifted, alarm, text),
    ]
    worst = np.argsort(limits - found, kind="stable")[: options.worst].tolist()
    run.report.metrics.setdefault("worst_features", {})[str(scored)] = {
        names[i]: round(float(found[i]), 4) for i in worst
    }
    for i in worst:
        if drifted[i]:
            text = (
                f"PSI {found[i]:.2f}, limit {limits[i]:.2f}; KS {distance[i]:.2f}; missing {lacks[i]:.1%}, "
                f"of the training data {lacked[i]:.1%}"
            )
            checks.append(_of(scored, "feature", float(found[i]), float(limits[i]), alarm, text, names[i]))
    return checks


def _names(features: list[str], width: int) -> list[str]:
    """What the values of a packed row are called: features, or, where each of them has several in turn,
    `feature[number]`, from 1."""
    of_each, rest = divmod(width, len(features))
    if rest or not of_each:
        return [f"value {i + 1}" for i in range(width)]
    return features if of_each == 1 else [f"{name}[{i + 1}]" for name in features for i in range(of_each)]


def _cut_points(rows: DataFrame, dtype: str, width: int, bins: int) -> np.ndarray:
    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [packing.rows(batch.column("x"), dtype, width) for batch in batches]
        whole = np.concatenate([np.empty((0, width), packing.values_of(dtype)), *parts])
        yield _packed(drift.cut_points(_comparable(whole), bins))

    row = rows.select("x").repartition(1).mapInArrow(kernel, "x binary").collect()[0]
    return np.frombuffer(bytes(row.x), _comparable(np.empty(0, packing.values_of(dtype))).dtype).reshape(-1, width)


def _comparable(x: np.ndarray) -> np.ndarray:
    """Packed values as `drift` takes them: categories int8, or numbers float32."""
    return x if x.dtype == np.int8 else x.astype(np.float32, copy=False)


def _histogram(rows: DataFrame, dtype: str, cuts: np.ndarray) -> np.ndarray:
    """Counts int64 (bins, features) of packed rows: summed within tasks, and once more by a task of its own."""
    shape = (len(cuts) + 2, cuts.shape[1])

    def summed(
        one: Callable[[pa.RecordBatch], np.ndarray],
    ) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            total = np.zeros(shape, np.int64)
            for batch in batches:
                total += one(batch)
            yield _packed(total)

        return kernel

    def count(batch: pa.RecordBatch) -> np.ndarray:
        x = packing.packed(batch.column("x"), dtype, shape[1])
        return sum(
            (drift.histogram(_comparable(x[part]), cuts) for part in packing.parts(x)), np.zeros(shape, np.int64)
        )

    counted = rows.select("x").mapInArrow(summed(count), "x binary")
    added = counted.repartition(1).mapInArrow(
        summed(lambda batch: packing.rows(batch.column("x"), "int64", shape[0] * shape[1]).reshape(-1, *shape).sum(0)),
        "x binary",
    )
    found = added.collect()
    return np.frombuffer(bytes(found[0].x), np.int64).reshape(shape) if found else np.zeros(shape, np.int64)


def _packed(values: np.ndarray) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([values.tobytes()], pa.binary())], ["x"])


def _check_scores(run: Run, scored: Scored, model: Chosen) -> list[Finding]:
    """Scores of entities that did not train the model, beside its held-out ones, at the model's
    temperature and each row once."""
    from pyspark.sql import functions as F

    options = run.settings.monitor
    of_label = dict(
        zip(
            [head.label for head in model.card.predicted],
            zip(model.card.predicted, model.card.temperatures, strict=True),
            strict=True,
        )
    )
    head, temperature = of_label[scored.label_column]
    classes = list(head.classes)
    held = run.sources.read(HELD_OUT).where(
        (F.col("model_id") == scored.model_id) & (F.col("cohort") == model.row.cohort)
    )
    held = held.where((F.col("predictor") == "model") & F.col("role").isin("fold", "test") & (F.col("repeat") == 0))
    held = held.where(F.col("head").isNull() | (F.col("head") == head.label))
    highest = partial(_highest, classes=classes, temperature=temperature)
    usual, usual_classes = _few(held.mapInArrow(highest, "entity_id string, value double, predicted string"), classes)
    found, found_classes = _few(run.sources.read(PREDICTIONS).where(_mine(scored) & ~F.col("in_training")), classes)
    if not len(usual) or not len(found):
        lacking = "the model has no held-out scores" if not len(usual) else "all of them trained the model"
        run.report.warn(f"{scored}: {lacking}, drift of scores is not checked")
        return []
    distance = float(ks_2samp(usual, found, method="asymp").statistic)
    limit = drift.ks_limit(len(usual), len(found), options.score, options.alpha)
    text = f"Kolmogorov-Smirnov distance {distance:.2f} from held-out scores, {len(found)} against {len(usual)}"
    checks = [_of(scored, "score", distance, limit, distance > limit, text)]
    if classes:
        moved = float(drift.psi(usual_classes, found_classes)[0])
        limit = float(drift.limits(usual_classes, found_classes, options.psi, options.alpha)[0])
        text = (
            f"PSI {moved:.2f} of the predicted classes: {_shares(found_classes, classes)}; "
            f"held out {_shares(usual_classes, classes)}"
        )
        checks.append(_of(scored, "class_shares", moved, limit, moved > limit, text))
    return checks


def _highest(batches: Iterable[pa.RecordBatch], classes: list[str], temperature: float) -> Iterator[pa.RecordBatch]:
    """Of rows with `scores` the highest probability, at a temperature, and its class; or the one value."""
    for batch in batches:
        if batch.num_rows:
            scores = batch.column("scores").flatten().to_numpy().reshape(batch.num_rows, -1)
            value = calibration.sharpen(scores, temperature).max(1) if classes else scores[:, 0]
            names = (
                pa.array(classes, pa.string()).take(pa.array(scores.argmax(1)))
                if classes
                else pa.nulls(len(value), pa.string())
            )
            yield pa.RecordBatch.from_arrays(
                [batch.column("entity_id"), pa.array(value), names], ["entity_id", "value", "predicted"]
            )


def _few(rows: DataFrame, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """`value` float64 of at most `_SCORES` entities, a number for each, and how many of them are predicted
    to be of each class (classes, 1)."""
    from pyspark.sql import functions as F

    chosen = (
        rows.where(F.col("value").isNotNull())
        .orderBy(F.xxhash64("entity_id"))
        .limit(_SCORES)
        .select("value", "predicted")
        .toArrow()
    )
    number = {row["values"]: row["counts"] for row in pc.value_counts(chosen.column("predicted")).to_pylist()}
    return chosen.column("value").to_numpy().astype(np.float64), np.array(
        [[number.get(name, 0)] for name in classes], np.int64
    )


def _shares(counts: np.ndarray, classes: list[str]) -> str:
    return ", ".join(
        f"{name} {share:.0%}" for name, share in zip(classes, counts[:, 0] / max(counts.sum(), 1), strict=True)
    )
