"""Metrics of a registered model on rows that no training saw, beside baselines fitted on the same rows."""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.core.session import task_slots
from genodl_spark.features.protocol import ROW_NAMES, blocks_among, entity_of
from genodl_spark.genome.loci import NOWHERE
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.entities import all_rows_about, check_column, tables_about
from genodl_spark.lake.schema import identifier
from genodl_spark.lake.tables.genomes import REFERENCE_BASES
from genodl_spark.lake.tables.learning import DATASETS, EVALUATIONS, EXAMPLES, HELD_OUT, SPLITS
from genodl_spark.learning import feed, metrics, predictor, splits
from genodl_spark.learning.baseline_fits import Fits, fit
from genodl_spark.learning.baselines import SPARK_FOREST, baseline_names, of_features
from genodl_spark.learning.heads import labelled, targets
from genodl_spark.learning.metrics import HeldOut, Interval, best_baseline
from genodl_spark.learning.splits import TEST
from genodl_spark.learning.training import launch as training
from genodl_spark.learning.training import plan
from genodl_spark.registry import contrasts, negatives, spark_forest
from genodl_spark.registry.datasets import job_of, numbered_rows
from genodl_spark.registry.labels import labelled_cohorts, read_labels
from genodl_spark.registry.models import Chosen, chosen_model
from genodl_spark.registry.predictions import scored_rows
from genodl_spark.registry.scores import (
    BESIDE,
    HEAD,
    MODEL,
    PARTS,
    WITHOUT,
    fits_of,
    headline,
    held_out,
    of_heads,
    with_targets,
)
from genodl_spark.registry.similar import by_similarity

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, Row

log = logging.getLogger("genodl")
NULL = "shuffled_labels"
_NEGATIVES, _SIMILARITY = f"{BESIDE}negatives=", f"{BESIDE}similarity to training="
_DROP = f"{BESIDE}drop from="
_ATTEMPTS = 3


def evaluate_model(run: Run, cohort: str | None, label: str | None, model_id: str | None) -> None:
    """Evaluates on the split stored with the model, or, for another cohort than the one that trained it,
    on all its labelled rows."""
    from pyspark.sql import functions as F

    model = chosen_model(run, label, model_id)
    for key in run.assigned:
        if key.split(".")[0] in ("split", "seed"):
            raise InputError(
                "found another split; expected none, evaluate uses the one stored with the model: "
                "train again to change it",
                f"--set {key}",
            )
    name = run.cohort(
        cohort, labelled_cohorts(run, model.features, model.row.label_column, cohort), f"data for {run.settings.task}"
    )
    _names(run, model)  # refuses before anything is read
    external = name != model.row.cohort
    contrasts.check(run, model, external)
    others = model.settings.evaluate.negatives
    genome = negatives.GENOME in (*others, *([model.settings.sequence.negatives] if external else []))
    asked = external or model.settings.report.by is not None or others
    read = (*model.features.tables, *tables_about(run.sources, entity_of(model.features), name)) if asked else ()
    read = (*read, *((REFERENCE_BASES,) if genome else ()))
    versions = {table.name: run.sources.version(table) for table in read}
    code = code_of(__name__, model.settings, own=model.files.code_hashes())
    shaped_by = [
        model.row.model_id,
        name,
        model.settings.evaluate.model_dump(),
        model.settings.report.by,
        versions,
        code,
        *([run.settings.reference] if genome else []),
    ]
    digest = fingerprint(shaped_by)
    mine = (F.col("model_id") == model.row.model_id) & (F.col("cohort") == name)
    stored = run.lake.read(EVALUATIONS).where(mine).collect()
    if stored and all(row.fingerprint == digest for row in stored):
        run.report.status = "unchanged"
        run.report.metrics.update(as_metrics(stored, model, external))
        run.wrote(HELD_OUT, 0)
        run.wrote(EVALUATIONS, 0)
        return
    tests = (F.col("model_id") == model.row.model_id) & (F.col("role") != "validation")
    if not external and run.lake.read(HELD_OUT).where(tests).isEmpty():
        text = f"found that no row was held out from model {model.row.model_id}; expected test rows or folds"
        raise InputError(f"{text}: train it with others, or name another cohort that is labelled", "split")
    mark = f"evaluated {fingerprint(model.row.model_id, name)}"
    for _ in range(_ATTEMPTS):
        ours = int(uuid.uuid4().hex[:15], 16)
        run.lake.commit(HELD_OUT, [], {"model_id": ""}, {mark: ours})
        written = _score_external(run, model, name) if external else _score_folds(run, model)
        asked = {MODEL, *PARTS, *_names(run, model), *([NULL] if model.settings.evaluate.null else [])}
        found = held_out(run, model, name).items()
        held = {predictor: scores for predictor, scores in found if predictor in asked or predictor.startswith(WITHOUT)}
        rows = _measure(run, model, name, held, digest)
        run.lake.replace(EVALUATIONS, run.frame(EVALUATIONS, rows), {"model_id": model.row.model_id, "cohort": name})
        # Of two runs that evaluate the same at once the one that began first may have measured scores
        # of the other: it does all again.
        if run.lake.marked(HELD_OUT, [mark]) == {mark: ours}:
            break
        log.info("another run has begun to evaluate this model: measuring again")
    else:
        raise Conflict(
            f"found another run that keeps evaluating model {model.row.model_id} on {name}; "
            "expected one at a time, run it again"
        )
    run.wrote(HELD_OUT, written)
    run.wrote(EVALUATIONS, len(rows))
    stored = run.lake.read(EVALUATIONS).where(mine).collect()
    run.report.metrics.update(as_metrics(stored, model, external))


def _names(run: Run, model: Chosen) -> list[str]:
    """The baselines of all features, and those of each block alone, where there are blocks."""
    names = baseline_names(model.settings.evaluate, model.card.predicted, model.encoding.letters)
    s = model.settings
    if "random_forest" in names and SPARK_FOREST not in names and 0 < s.evaluate.spark_rows < _dataset(run, model).rows:
        if s.quality.steps:
            run.report.warn(f"no {SPARK_FOREST} stands beside the model: quality.steps are fitted in one memory")
        else:
            names.append(SPARK_FOREST)
    names = [name for name in names if (of := of_features(name, model.card.features)) is None or len(of)]
    blocks = blocks_among(model.features, model.card.features)
    whole = ("majority", "cox_covariates", SPARK_FOREST)
    alone = [f"{name}[{block}]" for name in names if name not in whole for block in blocks if len(blocks) > 1]
    return [*names, *alone]


def _fits(run: Run, model: Chosen, external: tuple[list[str], feed.Layout] | None) -> Fits:
    return fits_of(run.under(model.as_trained), _dataset(run, model), external, model.row.seed, model.settings.evaluate)


def _dataset(run: Run, model: Chosen) -> Row:
    return DATASETS.row(run.lake.rows(DATASETS, {"dataset": model.row.dataset}).to_pylist()[0])


def _fitted(run: Run, fits: Fits, names: list[str], dataset: Row) -> DataFrame:
    """Scores of the baselines on the rows held out: predictor, repeat, row_id, of (number of the head), scores;
    each Spark task does a share of the fits, but for those that Spark itself fits to the rows of `dataset`."""
    from pyspark.sql import functions as F
    from pyspark.storagelevel import StorageLevel

    if fits.external is not None or not fits.folds:
        sets = [(0, plan.REGISTERED)]
    else:
        sets = [(r, k) for r in range(fits.layout.repeats) for k in range(fits.folds)]
    forest = SPARK_FOREST in names
    if forest:
        spark_forest.check(fits)
    work = [
        (name, head, *which)
        for name in names
        if name != SPARK_FOREST
        for head in range(len(fits.heads))
        for which in sets
    ]
    # A task costs a fraction of a second: several to a core, for balance, but not one per fit.
    # Every task gets some of each kind.
    tasks = min(len(work), 8 * task_slots(run.spark))

    def kernel(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        for frame in frames:
            for task in frame["id"]:
                for name, head, repeat, fold in work[task::tasks]:
                    ids, scores = fit(fits, name, head, repeat, fold)
                    yield pd.DataFrame(
                        {"predictor": name, "repeat": repeat, "row_id": ids, "of": head, "scores": list(scores)}
                    )

    found = run.spark.range(0, tasks, 1, tasks).mapInPandas(kernel, spark_forest.SCORES) if work else None
    if forest:
        learnt = run.lake.read(EXAMPLES).where(F.col("dataset") == dataset.dataset)
        tested = learnt if fits.external is None else run.spark.read.parquet(*fits.external[0])
        made = spark_forest.scored(fits, learnt, tested, sets)
        found = made if found is None else found.unionByName(made)
    assert found is not None
    return found.persist(StorageLevel.DISK_ONLY)


def _score_folds(run: Run, model: Chosen) -> int:
    """Adds the baselines' scores to `held_out`, where training left the model's own."""
    from pyspark.sql import functions as F

    names = _names(run, model)
    scored = _fitted(run, _fits(run, model, None), names, _dataset(run, model)) if names else None
    if model.settings.evaluate.null:
        null = _null(run, model)
        names, scored = [*names, NULL], null if scored is None else scored.unionByName(null)
    if scored is None:
        return 0
    own = run.lake.read(HELD_OUT).where((F.col("model_id") == model.row.model_id) & (F.col("predictor") == MODEL))
    own = own.where(F.col("cohort") == model.row.cohort).drop("predictor", "scores")
    found = with_targets(run, _dataset(run, model), scored).select(
        "predictor", "repeat", "entity_id", F.col("head").alias("of"), "scores"
    )
    rows = (
        own.join(found, ["repeat", "entity_id"])
        .where(F.col("head").eqNullSafe(F.col("of")))
        .select(*HELD_OUT.column_names)
    )
    run.lake.replace(HELD_OUT, rows, {"model_id": model.row.model_id, "cohort": model.row.cohort, "predictor": names})
    return (
        run.lake.read(HELD_OUT)
        .where((F.col("model_id") == model.row.model_id) & F.col("predictor").isin(names))
        .count()
    )


def _null(run: Run, model: Chosen) -> DataFrame:
    """Scores of the model's network, trained again on shuffled labels, on the rows held out, as `_fitted` has them."""
    from pyspark.sql import functions as F
    from pyspark.storagelevel import StorageLevel

    staging = storage.join(run.lake.uri, "_staging", f"null-{model.row.model_id}-{uuid.uuid4().hex[:12]}")
    try:
        job = replace(job_of(run.under(model.as_trained), _dataset(run, model), staging), null=True, checkpoint="")
        log.info("training the network of model %s on shuffled labels", model.row.model_id)
        folders = training.launch(run.spark, job, model.settings.train.procs)["scored"]
        rows = run.spark.read.schema("repeat int, row_id bigint, scores array<double>").parquet(
            *(storage.join(staging, name) for name in folders)
        )
        rows = rows.select(
            F.lit(NULL).alias("predictor"), "repeat", "row_id", F.lit(None).cast("int").alias("of"), "scores"
        ).persist(StorageLevel.DISK_ONLY)
        rows.count()  # before the files go
        return rows
    finally:
        storage.remove_directory(staging)


def _score_external(run: Run, model: Chosen, cohort: str) -> int:
    """Scores of the model and of its baselines on the labelled rows of another cohort,
    less those of people who trained it."""
    from pyspark.sql import functions as F

    asked = run.under(run.settings.model_copy(update={"factor": model.settings.factor}))
    labels = read_labels(asked, model.features, cohort, model.row.label_column, model.card.predicted)
    for warning in labels.warnings:
        run.report.warn(warning)
    split = run.lake.read(SPLITS).where(
        (F.col("split_hash") == model.row.split_hash) & (F.col("task") == model.row.task)
    )
    seen = {
        row.entity_id
        for row in split.where(F.col("role").isin("fold", "train", "validation"))
        .select("entity_id")
        .distinct()
        .collect()
    }
    kept = [i for i, entity in enumerate(labels.entities) if entity not in seen]
    if len(kept) < len(labels.entities):
        run.report.warn(
            f"{len(labels.entities) - len(kept)} samples of {cohort} are left out: "
            "the model was trained on samples of that name"
        )
    if not kept:
        raise InputError(
            f"found no sample of cohort {cohort} that did not train the model; expected some, name another cohort",
            "--cohort",
        )
    labels, features = labels.of(kept), list(model.card.features)
    packed = model.features.rows(run.sources, cohort, features).select(*ROW_NAMES)
    scored = found = scored_rows(run, model, cohort, calibrated=False)
    roles = np.full((len(kept), 1), TEST, np.int8)
    under = run.under(model.as_trained.model_copy(update={"reference": run.settings.reference}))
    genome = model.settings.sequence.negatives == negatives.GENOME
    seen_windows = negatives.windows_of_split(run, model.row) if genome else NOWHERE
    brought = negatives.brought(under, model.features, cohort, labels, roles, 0, seen_windows)
    if brought is not None:
        made = negatives.rows(run, packed, model.encoding.width(len(features)), labels.entities, brought)
        packed, scored = packed.unionByName(made), found.unionByName(predictor.score(made, model.files, False))
        labels, _ = negatives.behind(labels, splits.Assignment(roles, 0, []), brought)
        for warning in labels.warnings:
            run.report.warn(warning)
    numbered = run.spark.createDataFrame(numbered_rows(labels, np.empty((len(labels.entities), 0), np.int8)))
    staging = storage.join(run.lake.uri, "_staging", f"evaluate-{model.row.model_id}-{uuid.uuid4().hex[:12]}")
    common = [F.lit(model.row.model_id).alias("model_id"), F.lit(cohort).alias("cohort")]
    rest = [F.lit("external").alias("role"), F.lit(None).cast("int").alias("fold"), F.col("scores")]
    columns: list[Any] = [*common, "predictor", "repeat", "entity_id", "group", "head", "target", "event", *rest]
    rows = of_heads(scored.join(numbered, "entity_id"), model.card.predicted)
    rows = rows.withColumn("predictor", F.lit(MODEL)).withColumn("repeat", F.lit(0)).select(*columns)
    names = _names(run, model)
    if names:
        packed = packed.join(numbered, "entity_id")
        packed.select(*feed.COLUMNS, feed.TARGETS).write.parquet(staging)
        width, dtype = model.encoding.width(len(model.card.features)), model.card.dtype
        entries = 0
        if packing.is_sparse(dtype):
            size = packing.entry(dtype).itemsize
            entries = run.spark.read.parquet(staging).agg(F.sum(F.octet_length("x"))).collect()[0][0] // size
        numbers = labels.target.shape[1]
        layout = feed.Layout(len(labels.entities), len(model.card.features), dtype, 0, width, entries, numbers)
        files = storage.files_under(staging, ".parquet")
        fitted = of_heads(
            _fitted(run, _fits(run, model, (files, layout)), names, _dataset(run, model)).join(numbered, "row_id"),
            model.card.predicted,
        )
        rows = rows.unionByName(fitted.select(*columns))
    run.lake.replace(HELD_OUT, rows.select(*HELD_OUT.column_names), {"model_id": model.row.model_id, "cohort": cohort})
    found.unpersist()
    storage.remove_directory(staging)
    known = sum(int(labelled(labels.target[:, own]).sum()) for own in targets(labels.heads))
    return known * (1 + len(names))


def _measure(run: Run, model: Chosen, cohort: str, held: dict[str, list[HeldOut]], digest: str) -> list[dict[str, Any]]:
    """Rows of `evaluations`: the model, its baselines, the paired difference to the best of them, how much better the
    model was on rows held out of the cohort that trained it, where this is another, and the model by report.by, by
    similarity to training rows, and against other negatives."""
    s, seed = model.settings, int(model.row.seed)
    common = {"model_id": model.row.model_id, "cohort": cohort, "fingerprint": digest, "evaluated_at": now()}
    rows: list[dict[str, Any]] = []

    def add(predictor: str, by: str, n_test: int, found: dict[str, Interval]) -> None:
        for metric, interval in found.items():
            numbers = {key: None if math.isnan(value) else value for key, value in interval._asdict().items()}
            rows.append({**common, "predictor": predictor, "by": by, "metric": metric, "n_test": n_test, **numbers})

    n_test = metrics.n_test(held[MODEL])
    for name, scores in held.items():
        add(name, "", n_test, metrics.intervals(scores, s.evaluate.resamples, seed))
        for one in scores if len(scores) > 1 else []:
            add(name, f"{HEAD}{one.label}", one.n_test, metrics.intervals(one, s.evaluate.resamples, seed))
    metric = headline(model)
    best = best_baseline(
        {
            name: metrics.metrics(scores)[metric]
            for name, scores in held.items()
            if name not in (MODEL, NULL, *PARTS) and not name.startswith(WITHOUT)
        },
        metric,
    )
    if best is not None:
        difference = metrics.paired(held[MODEL], held[best], metric, s.evaluate.resamples, seed)
        add(f"{MODEL} - {best}", "", n_test, {metric: difference})
    own = model.row.cohort
    if cohort != own and (home := held_out(run, model, own).get(MODEL)) is not None:
        add(MODEL, f"{_DROP}{own}", n_test, metrics.apart(home, held[MODEL], s.evaluate.resamples, seed))
    for name, rows_of in by_similarity(run, model, _dataset(run, model), cohort, held[MODEL]):
        intervals = metrics.intervals(rows_of, s.evaluate.resamples, seed)
        add(MODEL, f"{_SIMILARITY}{name}", metrics.n_test(rows_of), {metric: intervals[metric]})
    for scheme in s.evaluate.negatives:
        found = contrasts.against(run, model, cohort, scheme, held[MODEL])
        intervals = metrics.intervals(found, s.evaluate.resamples, seed)
        add(MODEL, f"{_NEGATIVES}{scheme}", metrics.n_test(found), intervals)
    if s.report.by is not None:
        from pyspark.sql import functions as F

        kind = entity_of(model.features)
        described = all_rows_about(run.sources, kind, cohort)
        check_column(described, kind, s.report.by, "report.by")
        values = {
            row.entity_id: row.value
            for row in described.select("entity_id", F.col(identifier(s.report.by)).alias("value")).collect()
        }
        for value in sorted({str(value) for value in values.values() if value is not None}):
            rows_of = [
                one.of(np.array([str(values.get(e)) == value for e in one.entities], bool)) for one in held[MODEL]
            ]
            if any(one.n_test for one in rows_of):
                add(
                    MODEL,
                    f"{s.report.by}={value}",
                    metrics.n_test(rows_of),
                    metrics.intervals(rows_of, s.evaluate.resamples, seed),
                )
    return rows


def as_metrics(rows: list[Row], model: Chosen, external: bool) -> dict[str, Any]:
    """The report's `metrics` out of rows of `evaluations`."""
    found: dict[str, Any] = {"model": {}, "baselines": {}}
    if any(row.predictor in PARTS for row in rows):
        found["parts"] = {}
    by: dict[str, Any] = {}
    for row in sorted(rows, key=lambda row: (row.predictor, row.by, row.metric)):
        value = {"value": row.value, "low": row.low, "high": row.high}
        if row.by.startswith(HEAD) and row.predictor.startswith(WITHOUT):
            continue  # of all heads together it stands in `without`
        if row.by.startswith(HEAD):
            heads = found.setdefault("heads", {}).setdefault(
                row.by.removeprefix(HEAD), {"model": {}, "baselines": {}, "n_test": row.n_test}
            )
            among = heads.setdefault("parts", {}) if row.predictor in PARTS else heads["baselines"]
            (heads["model"] if row.predictor == MODEL else among.setdefault(row.predictor, {}))[row.metric] = value
        elif row.by.startswith(_NEGATIVES):
            scheme = row.by.removeprefix(_NEGATIVES)
            found.setdefault("negatives", {}).setdefault(scheme, {"n_test": row.n_test})[row.metric] = value
        elif row.by.startswith(_DROP):
            found.setdefault("drop", {"from": row.by.removeprefix(_DROP)})[row.metric] = value
        elif row.by.startswith(_SIMILARITY):
            name = f"similarity {row.by.removeprefix(_SIMILARITY)}"
            by.setdefault(name, {"n_test": row.n_test})[row.metric] = value
        elif row.by:
            by.setdefault(row.by.partition("=")[2], {"n_test": row.n_test})[row.metric] = value
        elif row.predictor == MODEL:
            found["model"][row.metric] = value
            found["n_test"] = row.n_test
        elif row.predictor.startswith(WITHOUT):
            block = row.predictor.removeprefix(WITHOUT)
            found.setdefault("without", {}).setdefault(block, {})[row.metric] = value
        elif row.predictor.startswith(f"{MODEL} - "):
            found["difference"] = {"baseline": row.predictor.removeprefix(f"{MODEL} - "), row.metric: value}
        else:
            found["parts" if row.predictor in PARTS else "baselines"].setdefault(row.predictor, {})[row.metric] = value
    split = {"external": True} if external else json.loads(model.settings.split.model_dump_json(exclude_none=True))
    found |= {"split": {**split, "hash": model.row.split_hash}, "metric": headline(model)}
    found |= {"model_id": model.row.model_id, "model_version": model.row.model_version}
    return found | ({"by": by} if by else {})
