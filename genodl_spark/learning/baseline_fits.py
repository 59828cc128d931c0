"""Baselines on the examples of a data set, fitted on the rows of one training set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from genodl_spark.core.own_code import Code
from genodl_spark.learning import baselines, encodings, feed, metrics
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.learning.splits import VALIDATION
from genodl_spark.learning.training import plan


@dataclass(frozen=True)
class Fits:
    """All that a task needs to fit a baseline: the dataset's files, and those of another cohort to score
    where `external` is given."""

    files: list[str]
    layout: feed.Layout
    external: tuple[list[str], feed.Layout] | None
    transform: str
    classes: int
    folds: int
    seed: int
    max_rows: int
    options: dict[str, dict[str, Any]]
    allowed: np.ndarray | None
    code: Code


@lru_cache(maxsize=2)
def examples(files: tuple[str, ...], layout: feed.Layout) -> feed.Examples:
    return feed.read(list(files), layout, "pyarrow")


def fit(fits: Fits, name: str, repeat: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Fits one baseline on one training set; returns row numbers and scores of the rows that it is tested on."""
    data = examples(tuple(fits.files), fits.layout)
    sets = [plan.TrainingSet(repeat, fold)]
    rows = np.flatnonzero(plan.learns(data.folds, sets, fits.folds)[0])
    if len(rows) > fits.max_rows:
        rows = np.sort(np.random.default_rng([fits.seed, repeat, fold + 1]).choice(rows, fits.max_rows, replace=False))
    # Of a fixed split the one set that is described is the registered model's.
    used = (
        slice(None)
        if fits.allowed is None
        else fits.allowed[repeat * fits.folds + fold if fold != plan.REGISTERED else -1]
    )
    encoding = encodings.encoding(fits.transform, fits.code)
    x = encoding.baseline(data.x[rows][:, used])
    if fits.external is not None:
        others = examples(tuple(fits.external[0]), fits.external[1])
        test_rows = np.arange(len(others))
        tested = others.x[test_rows]
    else:
        test_rows = np.flatnonzero(plan.held_out(data.folds, sets, fits.folds)[0])
        tested = data.x[test_rows]
    others_x = encoding.baseline(tested[:, used])
    scores = baselines.fit_predict(
        name, x, data.target[rows], others_x, fits.classes, fits.seed, fits.options.get(name)
    )
    return test_rows, scores


def inner_metric(fits: Fits, name: str, metric: str, classes: list[str]) -> float:
    """A baseline's metric over the inner folds, pooled, or on the validation rows; no test row counts."""
    data = examples(tuple(fits.files), fits.layout)
    folds = range(fits.folds) if fits.folds else [plan.REGISTERED]
    parts = [fit(fits, name, 0, fold) for fold in folds]
    rows, scores = np.concatenate([ids for ids, _ in parts]), np.concatenate([values for _, values in parts])
    if not fits.folds:
        inside = data.folds[rows, 0] == VALIDATION
        rows, scores = rows[inside], scores[inside]
    ids = rows.astype(str)
    return metrics.metrics(HeldOut(ids, ids, data.target[rows], scores[None], classes))[metric]
