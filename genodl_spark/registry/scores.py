"""Held-out scores of a model and of the baselines beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.job.run import Run
from genodl_spark.lake.tables.learning import EXAMPLES, HELD_OUT
from genodl_spark.learning import feed
from genodl_spark.learning.baseline_fits import Fits
from genodl_spark.learning.metrics import HeldOut, calibrated, headline_metric
from genodl_spark.learning.settings import Evaluation
from genodl_spark.registry.datasets import allowed_of, layout_of
from genodl_spark.registry.models import Chosen

if TYPE_CHECKING:
    from pyspark.sql import Row

MODEL = "model"


def fits_of(
    run: Run, dataset: Row, external: tuple[list[str], feed.Layout] | None, seed: int, settings: Evaluation
) -> Fits:
    version = run.lake.version(EXAMPLES)
    assert version is not None
    return Fits(
        files=run.lake.live_files(EXAMPLES, version, {"dataset": dataset.dataset}),
        layout=layout_of(dataset, run.settings.code_files),
        external=external,
        transform=dataset.transform,
        classes=len(dataset.classes),
        folds=dataset.folds,
        seed=seed,
        max_rows=settings.max_rows,
        options=settings.options,
        allowed=allowed_of(dataset),
        code=run.settings.code_files,
    )


def held_out(run: Run, model: Chosen, cohort: str) -> dict[str, HeldOut]:
    """Scores on held-out rows (test, out-of-fold or external) of the model, calibrated, and of each baseline.

    The temperature of out-of-fold scores comes from the other folds of the repeat, so that no row calibrates itself.
    """
    from pyspark.sql import functions as F

    rows = run.lake.read(HELD_OUT).where(
        (F.col("model_id") == model.row.model_id) & (F.col("cohort") == cohort) & (F.col("role") != "validation")
    )
    table = rows.select("predictor", "repeat", "entity_id", "group", "target", "fold", "role", "scores").toArrow()
    predictors = np.array(table.column("predictor").to_pylist(), object)
    entity = np.array(table.column("entity_id").to_pylist(), object).astype(str)
    names, index = np.unique(entity, return_inverse=True)
    repeat = table.column("repeat").to_numpy()
    classes = list(model.card.classes)
    width = max(len(classes), 1)
    values = table.column("scores").combine_chunks().flatten().to_numpy().reshape(-1, width)
    target = np.zeros(len(names))
    target[index] = table.column("target").to_numpy()
    groups = names.copy().astype(object)
    for i, group in zip(index, table.column("group").to_pylist(), strict=True):
        if group is not None:
            groups[i] = group
    fold = table.column("fold").fill_null(-1).to_numpy()
    found = {}
    for predictor in sorted(set(predictors)):
        mine = predictors == predictor
        scores = np.full((int(repeat.max()) + 1, len(names), width), np.nan)
        scores[repeat[mine], index[mine]] = values[mine]
        if predictor == MODEL and classes:
            folds = np.full(scores.shape[:2], -1)
            folds[repeat[mine], index[mine]] = fold[mine]
            scores = calibrated(scores, target, folds, model.card.temperature)
        found[str(predictor)] = HeldOut(
            names, groups.astype(str), target, scores if classes else scores[..., 0], classes
        )
    return found


def headline(model: Chosen) -> str:
    return headline_metric(model.settings.metric, len(model.card.classes))
