"""Held-out scores of a model and of the baselines beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark import tasks
from genodl_spark.core import packing
from genodl_spark.features.protocol import blocks_among
from genodl_spark.job.run import Run
from genodl_spark.lake.schema import identifier
from genodl_spark.lake.tables.learning import EXAMPLES, HELD_OUT
from genodl_spark.learning import feed, model_files
from genodl_spark.learning.baseline_fits import Fits, of_head
from genodl_spark.learning.calibration import calibrated
from genodl_spark.learning.heads import Head, answers, labelled, stored, targets
from genodl_spark.learning.metrics import HeldOut, headline_metric
from genodl_spark.learning.settings import BALANCED, Evaluation
from genodl_spark.registry.datasets import allowed_of, chain_of, heads_of_row, layout_of
from genodl_spark.registry.gene_lengths import lengths_of
from genodl_spark.registry.models import Chosen

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

MODEL = "model"
NETWORK = "network"
PARTS = (NETWORK, *model_files.BESIDE)  # of a model that is blended of a network and what stands beside it
WITHOUT = "model without "  # what predictors begin with that are the model where rows lack a block of features
BESIDE = "~"  # what `by` begins with in rows of what no column says; no column is called so
HEAD = "="  # what `by` begins with in rows of `evaluations` of one of several heads; no column is called nothing


def fits_of(
    run: Run, dataset: Row, external: tuple[list[str], feed.Layout] | None, seed: int, settings: Evaluation
) -> Fits:
    version = run.lake.version(EXAMPLES)
    assert version is not None
    chain = chain_of(run.settings.quality, list(dataset.features))
    blocks = blocks_among(tasks.features(run.settings), list(dataset.features))
    if run.settings.feed.shard:
        run.report.warn(
            "feed.shard is for networks: machines that fit baselines decode all rows, beyond 2 GiB to a local file"
        )
    return Fits(
        files=run.lake.live_files(EXAMPLES, version, {"dataset": dataset.dataset}),
        layout=layout_of(dataset, run.settings.code_files),
        external=external,
        transform=dataset.transform,
        heads=heads_of_row(dataset),
        folds=dataset.folds,
        seed=seed,
        max_rows=settings.max_rows,
        options=settings.options,
        allowed=allowed_of(dataset),
        code=run.settings.code_files,
        chain=chain,
        lengths=lengths_of(run, chain, list(dataset.features)),
        blocks=blocks,
        loss=run.settings.train.loss,
        balanced=run.settings.train.class_weights == BALANCED,
        # only where a baseline asks which they are: there may be many thousands, and tasks are sent them
        features=tuple(dataset.features) if "cox_covariates" in settings.baselines else (),
    )


def with_targets(run: Run, dataset: Row, scored: DataFrame) -> DataFrame:
    """Rows of scores by row_id, as ranks and baselines leave them, with what `examples` says of the rows
    and as `of_heads` has them."""
    from pyspark.sql import functions as F

    examples = run.lake.read(EXAMPLES).where(F.col("dataset") == dataset.dataset)
    rows = scored.join(examples.select("row_id", "entity_id", "group", "target", feed.TARGETS, "folds"), "row_id").drop(
        "row_id"
    )
    return of_heads(rows, heads_of_row(dataset))


def of_heads(rows: DataFrame, heads: list[Head]) -> DataFrame:
    """One row for each head of which a row has a label, with head, target and event as in `held_out`, and its scores.

    `rows`: target and targets as in `examples`, and scores of all heads side by side, or, where there is a column `of`
    and it is not NULL, of the head of that number; their other columns go along.
    """
    from pyspark.sql import functions as F

    rows = rows if "of" in rows.columns else rows.withColumn("of", F.lit(None).cast("int"))
    if stored(heads) is None:
        missing = {"head": F.lit(None).cast("string"), "event": F.lit(None).cast("boolean")}
        return rows.drop(feed.TARGETS, "of").withColumns(missing)
    others = [field for field in rows.schema.fields if field.name not in ("target", feed.TARGETS, "scores", "of")]
    numbers, single = sum(head.numbers for head in heads), len(heads) == 1

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            several = numbers != 1
            column = batch.column(feed.TARGETS if several else "target")
            target = packing.rows(column, "float64", numbers) if several else column.to_numpy()[:, None]
            of = batch.column("of").fill_null(-1).to_numpy()
            for number, (head, own, answer) in enumerate(zip(heads, targets(heads), answers(heads), strict=True)):
                known = labelled(target[:, own])
                for whole, chosen in ((True, known & (of < 0)), (False, known & (of == number))):
                    part = batch.filter(pa.array(chosen))
                    count = part.num_rows
                    if not count:
                        continue
                    # pandas hands what a baseline does not say, NaN, on as null
                    scores = part.column("scores").flatten().to_numpy(zero_copy_only=False).reshape(count, -1)
                    scores = np.ascontiguousarray(scores[:, answer] if whole else scores)
                    mine = target[chosen, own]
                    ends = np.arange(count + 1, dtype=np.int32) * scores.shape[1]
                    yield pa.RecordBatch.from_arrays(
                        [
                            *(part.column(field.name) for field in others),
                            pa.nulls(count, pa.string()) if single else pa.repeat(head.label, count),
                            pa.array(mine[:, 0] if head.numbers else np.full(count, np.nan)),
                            pa.array(mine[:, 1] > 0) if head.kind == "time" else pa.nulls(count, pa.bool_()),
                            pa.ListArray.from_arrays(pa.array(ends), pa.array(scores.ravel())),
                        ],
                        [*(field.name for field in others), *_OF_HEAD],
                    )

    schema = ", ".join(
        [
            *(f"{identifier(field.name)} {field.dataType.simpleString()}" for field in others),
            *(f"{n} {t}" for n, t in _OF_HEAD.items()),
        ]
    )
    return rows.mapInArrow(kernel, schema)


_OF_HEAD = {"head": "string", "target": "double", "event": "boolean", "scores": "array<double>"}


def held_out(run: Run, model: Chosen, cohort: str) -> dict[str, list[HeldOut]]:
    """Scores on held-out rows (test, out-of-fold or external) of the model, calibrated,
    and of each baseline; of each head. Rows are ranked by what the model said before.

    The temperature of out-of-fold scores comes from the other folds of the repeat, so that no row calibrates itself.
    """
    found: dict[str, list[HeldOut]] = {}
    table = _stored(run, model, cohort)
    for head, temperature in zip(model.card.predicted, model.card.temperatures, strict=True):
        mine = table.filter(pc.equal(table.column("head"), head.label))
        for predictor, held in _of_head(mine, head, temperature).items():
            found.setdefault(predictor, []).append(held)
    return found


def _stored(run: Run, model: Chosen, cohort: str) -> pa.Table:
    """Rows of `held_out` that are measured, each with its head."""
    from pyspark.sql import functions as F

    rows = run.lake.read(HELD_OUT).where(
        (F.col("model_id") == model.row.model_id) & (F.col("cohort") == cohort) & (F.col("role") != "validation")
    )
    head = F.coalesce("head", F.lit(model.card.predicted[0].label)).alias("head")
    return rows.select(head, "predictor", "repeat", "entity_id", "group", "target", "event", "fold", "scores").toArrow()


def _of_head(table: pa.Table, head: Head, temperature: float) -> dict[str, HeldOut]:
    """Held-out scores of one head by predictor, out of its rows."""
    predictors = np.array(table.column("predictor").to_pylist(), object)
    entity = np.array(table.column("entity_id").to_pylist(), object).astype(str)
    names, index = np.unique(entity, return_inverse=True)
    repeat = table.column("repeat").to_numpy()
    values = table.column("scores").combine_chunks().flatten().to_numpy().reshape(-1, head.scores)
    target = np.zeros((len(names), head.numbers))
    parts = (table.column("target").to_numpy(), table.column("event").fill_null(False).to_numpy())
    target[index] = np.column_stack(parts)[:, : head.numbers]
    groups = names.copy().astype(object)
    for i, group in zip(index, table.column("group").to_pylist(), strict=True):
        if group is not None:
            groups[i] = group
    fold = table.column("fold").fill_null(-1).to_numpy()
    found = {}
    for predictor in sorted(set(predictors)):
        mine = predictors == predictor
        scores = np.full((int(repeat.max(initial=0)) + 1, len(names), head.scores), np.nan)
        scores[repeat[mine], index[mine]] = values[mine]
        ranked = None
        if (predictor == MODEL or predictor.startswith(WITHOUT)) and head.classes:
            ranked = scores
            folds = np.full(scores.shape[:2], -1)
            folds[repeat[mine], index[mine]] = fold[mine]
            scores = calibrated(scores, target[:, 0], folds, temperature)
        found[str(predictor)] = replace(of_head(head, names, groups.astype(str), target, scores), ranked=ranked)
    return found


def headline(model: Chosen) -> str:
    return headline_metric(model.settings.metric, model.card.predicted)
