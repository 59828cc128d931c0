"""Spark ML's random forest as a baseline, for training rows beyond one machine: rows stay in tasks from the files of
`examples` to the scores, and what comes to the driver are means of features, counts of classes and the trees."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.learning import encodings, feed
from genodl_spark.learning.baseline_fits import Fits, scale_of
from genodl_spark.learning.baselines import SPARK_FOREST
from genodl_spark.learning.heads import labelled, targets
from genodl_spark.learning.training import plan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TREES, DEPTH, BINS = 100, 16, 64
ROWS = 50_000  # of a partition: how many there are is to depend on the rows alone
_SPLITS = 4  # partitions at least
_SCHEMA = "row_id bigint, y double, learns boolean, held boolean, x array<double>"
SCORES = "predictor string, repeat int, row_id bigint, of int, scores array<double>"


def check(fits: Fits) -> None:
    """InputError where what rows become first needs all of them in one memory."""
    if fits.chain is not None:
        text = f"found {SPARK_FOREST} with quality.steps; expected none, as they are fitted in one memory"
        raise InputError(f"{text}: leave out one of them", "evaluate.baselines")


def scored(fits: Fits, learnt: DataFrame, tested: DataFrame, sets: list[tuple[int, int]]) -> DataFrame:
    """Scores of the rows held out from each training set, (repeat, fold), under each head: rows of SCORES.

    `learnt`: the rows of the data set as `examples` has them; `tested`: the same, or those of another cohort.
    """
    found = [
        _scored(fits, learnt, tested, head, *which)
        for head, one in enumerate(fits.heads)
        if one.kind in ("classes", "value")
        for which in sets
    ]
    whole = found[0]
    for part in found[1:]:
        whole = whole.unionByName(part)
    return whole


def _scored(fits: Fits, learnt: DataFrame, tested: DataFrame, head: int, repeat: int, fold: int) -> DataFrame:
    """100 trees of depth 16 at most, splits at 64 quantiles of a feature, for classes the square root of all features
    at each node, for values a third; missing values are the feature's mean in training."""
    from pyspark.ml.classification import RandomForestClassifier
    from pyspark.ml.functions import array_to_vector, vector_to_array
    from pyspark.ml.regression import RandomForestRegressor
    from pyspark.sql import functions as F

    wanted = fits.heads[head]
    sums = learnt.mapInArrow(_kernel(fits, fits.layout, head, repeat, fold, None), "total binary, known binary")
    # one row of sums for a task
    collected = sums.collect()
    totals, known = (np.sum([np.frombuffer(row[i]) for row in collected], 0) for i in (0, 1))
    means = totals / np.maximum(known, 1)

    def rows(frame: DataFrame, layout: feed.Layout) -> DataFrame:
        made = frame.mapInArrow(_kernel(fits, layout, head, repeat, fold, means), _SCHEMA)
        return made.withColumn("features", array_to_vector(F.col("x"))).drop("x")

    parts = max(_SPLITS, math.ceil(fits.layout.rows / ROWS))
    # by hash and in order: trees draw their rows by partition and place
    training = rows(learnt, fits.layout).where("learns").repartition(parts, "row_id").sortWithinPartitions("row_id")
    options: dict[str, Any] = {"numTrees": TREES, "maxDepth": DEPTH, "maxBins": BINS, "seed": fits.seed}
    options |= {"labelCol": "y", "cacheNodeIds": True}
    external = fits.external is not None
    held = rows(tested, fits.external[1]) if fits.external is not None else rows(tested, fits.layout).where("held")
    names: list[Any] = [F.lit(SPARK_FOREST).alias("predictor"), F.lit(repeat).alias("repeat"), "row_id"]
    names.append(F.lit(head).alias("of"))
    if external:
        held = held.where("NOT isnan(y)")
    if wanted.classes:
        counts = {int(row["y"]): row["count"] for row in training.groupBy("y").count().collect()}
        if len(counts) < 2:
            sure = [float(k in counts) for k in range(len(wanted.classes))]
            return held.select(*names, F.array(*map(F.lit, sure)).alias("scores"))
        if fits.balanced:
            weights = {k: sum(counts.values()) / len(counts) / count for k, count in counts.items()}
            told = F.create_map(*(F.lit(v) for k, w in weights.items() for v in (float(k), w)))
            training, options["weightCol"] = training.withColumn("weight", told[F.col("y")]), "weight"
        model = RandomForestClassifier(featureSubsetStrategy="sqrt", **options).fit(training)
        rest = len(wanted.classes) - model.numClasses
        probability = vector_to_array(F.col("probability"))
        scores = F.concat(probability, F.array(*[F.lit(0.0)] * rest)) if rest else probability
        return model.transform(held).select(*names, scores.alias("scores"))
    model = RandomForestRegressor(featureSubsetStrategy="onethird", **options).fit(training)
    backward = scale_of(fits, wanted)[1]
    found = model.transform(held).select(*names, F.col("prediction").alias("scores"))

    def as_values(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            values = backward(batch.column("scores").to_numpy())
            ends = pa.array(np.arange(len(values) + 1, dtype=np.int32))
            columns = [*batch.columns[:-1], pa.ListArray.from_arrays(ends, pa.array(values))]
            yield pa.RecordBatch.from_arrays(columns, batch.schema.names)

    return found.mapInArrow(as_values, SCORES)


def _kernel(
    fits: Fits, layout: feed.Layout, head: int, repeat: int, fold: int, means: np.ndarray | None
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Batches of `examples` as rows of _SCHEMA, of those that have a label, missing values at `means` (F,); without
    these the sums over training rows, and how many values they are of, float64 (F,), one row a task."""
    wanted, own = fits.heads[head], targets(fits.heads)[head]
    forward = scale_of(fits, wanted)[0]
    sets = [plan.TrainingSet(repeat, fold)]
    of_set = repeat * fits.folds + fold if fold != plan.REGISTERED else -1
    used = slice(None) if fits.allowed is None else fits.allowed[of_set]

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoding = encodings.encoding(fits.transform, fits.code)
        sums: tuple[np.ndarray, np.ndarray] | None = None
        for batch in batches:
            numbers = layout.targets
            column = batch.column(feed.target_column(numbers))
            target = packing.rows(column, "float64", numbers) if numbers != 1 else column.to_numpy()[:, None]
            codes = packing.rows(batch.column("folds"), "int8", layout.repeats)
            there = labelled(target[:, own])
            learns = plan.learns(codes, sets, fits.folds)[0] & there
            held = plan.held_out(codes, sets, fits.folds)[0] & there if means is not None else learns
            x = encoding.baseline(packing.packed(batch.column("x"), layout.dtype, layout.values)[:][:, used])
            x = x.astype(np.float64)
            if means is None:
                some, there = np.nansum(x[learns], 0), (~np.isnan(x[learns])).sum(0).astype(np.float64)
                sums = (some, there) if sums is None else (sums[0] + some, sums[1] + there)
                continue
            x = np.where(np.isnan(x), means, x)
            y = forward(target[:, own][:, 0])
            ends = np.arange(len(x) + 1, dtype=np.int32) * x.shape[1]
            columns = [batch.column("row_id"), y, learns, held, pa.ListArray.from_arrays(ends, pa.array(x.ravel()))]
            names = ["row_id", "y", "learns", "held", "x"]
            yield pa.RecordBatch.from_arrays([c if isinstance(c, pa.Array) else pa.array(c) for c in columns], names)
        if sums is not None:
            yield pa.RecordBatch.from_arrays([pa.array([v.tobytes()]) for v in sums], ["total", "known"])

    return kernel
