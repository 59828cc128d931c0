"""Baselines on the examples of a data set, fitted on the rows of one training set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from genodl_spark.core.own_code import Code
from genodl_spark.learning import baselines, encodings, feed, losses, metrics
from genodl_spark.learning.encodings.values import Values
from genodl_spark.learning.heads import Head, classes_of, labelled, targets
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.learning.preprocessing import Chain, Fitted
from genodl_spark.learning.splits import VALIDATION
from genodl_spark.learning.training import plan


@dataclass(frozen=True)
class Fits:
    """All that a task needs to fit a baseline: the dataset's files, and those of another cohort to score
    where `external` is given. `loss`: that of `train.loss`, whose scale of values baselines learn, too."""

    files: list[str]
    layout: feed.Layout
    external: tuple[list[str], feed.Layout] | None
    transform: str
    heads: list[Head]
    folds: int
    seed: int
    max_rows: int
    options: dict[str, dict[str, Any]]
    allowed: np.ndarray | None
    code: Code
    chain: Chain | None = None
    lengths: np.ndarray | None = None
    blocks: dict[str, np.ndarray] = field(default_factory=dict)
    loss: str = "auto"
    balanced: bool = False
    features: tuple[str, ...] = ()


_STORED = Values()
_TREATMENTS: dict[tuple[object, ...], Fitted] = {}


@lru_cache(maxsize=2)
def examples(files: tuple[str, ...], layout: feed.Layout) -> feed.Examples:
    return feed.read(list(files), layout, "pyarrow")


def fit(fits: Fits, name: str, head: int, repeat: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Fits one baseline for one head on the rows of a training set that have a label of it; `NAME[BLOCK]` is baseline
    NAME of the features of one block.

    Returns row numbers and scores, float64 (rows, scores), of the rows that it is tested on and that have one.
    """
    wanted, own = fits.heads[head], targets(fits.heads)[head]
    name, _, block = name.removesuffix("]").partition("[")
    data = examples(tuple(fits.files), fits.layout)
    sets = [plan.TrainingSet(repeat, fold)]
    known = labelled(data.target[:, own])
    rows = np.flatnonzero(plan.learns(data.folds, sets, fits.folds)[0] & known)
    if len(rows) > fits.max_rows:
        rows = np.sort(np.random.default_rng([fits.seed, repeat, fold + 1]).choice(rows, fits.max_rows, replace=False))
    # Of a fixed split the one set that is described is the registered model's.
    used: slice | np.ndarray = (
        slice(None)
        if fits.allowed is None
        else fits.allowed[repeat * fits.folds + fold if fold != plan.REGISTERED else -1]
    )
    if block:
        places = fits.blocks[block]
        used = places if isinstance(used, slice) else places[used[places]]
    encoding = encodings.encoding(fits.transform, fits.code)
    learnt_from, treated = rows, lambda found: found
    if fits.chain is not None:
        learnt_from, treated = treatment(fits, data, rows)
    seen = _as_they_are if name in baselines.OF_SEQUENCES else encoding.baseline
    some = baselines.of_features(name, fits.features)
    if some is not None:
        used = some  # covariates are any training set's to use
    x = seen(treated(data.x[learnt_from])[:, used])
    if fits.external is not None:
        others = examples(tuple(fits.external[0]), fits.external[1])
        test_rows = np.flatnonzero(labelled(others.target[:, own]))
        tested = others.x[test_rows]
    else:
        test_rows = np.flatnonzero(plan.held_out(data.folds, sets, fits.folds)[0] & known)
        tested = data.x[test_rows]
    others_x = seen(treated(tested)[:, used])
    target = data.target[learnt_from, own]
    first, options = target[:, 0] if wanted.numbers else np.zeros(len(target)), fits.options.get(name)
    if wanted.kind == "time":
        of_times = (first, target[:, 1] > 0, others_x, wanted.times, fits.seed, options)
        return test_rows, baselines.fit_predict_times(name, x, *of_times)
    forward, backward = scale_of(fits, wanted)
    classes = len(wanted.classes)
    scores = baselines.fit_predict(name, x, forward(first), others_x, classes, fits.seed, options, fits.balanced)
    scores = backward(scores)
    return test_rows, scores if scores.ndim == 2 else scores[:, None]


def _as_they_are(x: np.ndarray) -> np.ndarray:
    return x


Mapped = Callable[[np.ndarray], np.ndarray]


def scale_of(fits: Fits, head: Head) -> tuple[Mapped, Mapped]:
    """To the scale that the network's loss learns a head's values on, and back."""
    if head.kind != "value":
        return _as_they_are, _as_they_are
    inputs = encodings.encoding(fits.transform, fits.code).shape(fits.layout.features)
    loss = losses.loss(losses.name_of(fits.loss, fits.heads), [head], inputs, fits.code)
    return getattr(loss, "forward", _as_they_are), getattr(loss, "backward", _as_they_are)


def treatment(
    fits: Fits, data: feed.Examples, rows: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Those of some training rows that are learnt from, and what they make of packed rows first. It is found once
    for baselines that follow each other on the same rows."""
    chain = fits.chain
    assert chain is not None
    lengths = None if fits.lengths is None else fits.lengths.tobytes()
    key = (tuple(fits.files), rows.tobytes(), repr((chain.entries, chain.steps)), lengths)
    if key not in _TREATMENTS:
        classes = classes_of(fits.heads, data.target[rows])
        _TREATMENTS.clear()
        _TREATMENTS[key] = chain.fit(_STORED.floats(data.x[rows]), classes, fits.lengths)
    found = _TREATMENTS[key]
    return rows[found.used], lambda x: chain.apply(_STORED.floats(x), found.tensors)


def inner_metric(fits: Fits, name: str, metric: str) -> float:
    """A baseline's metric over the inner folds, pooled, or on the validation rows, mean over heads;
    no test row counts."""
    data = examples(tuple(fits.files), fits.layout)
    folds = range(fits.folds) if fits.folds else [plan.REGISTERED]
    found = []
    for head, own in enumerate(targets(fits.heads)):
        parts = [fit(fits, name, head, 0, fold) for fold in folds]
        rows, scores = np.concatenate([ids for ids, _ in parts]), np.concatenate([values for _, values in parts])
        if not fits.folds:
            inside = data.folds[rows, 0] == VALIDATION
            rows, scores = rows[inside], scores[inside]
        found.append(
            of_head(fits.heads[head], rows.astype(str), rows.astype(str), data.target[rows, own], scores[None])
        )
    return metrics.metrics(found)[metric]


def of_head(head: Head, entities: np.ndarray, groups: np.ndarray, target: np.ndarray, scores: np.ndarray) -> HeldOut:
    """Held-out predictions of one head: target (N, numbers) and scores (R, N, scores) as the head has them."""
    event = target[:, 1] > 0 if head.kind == "time" else None
    first = target[:, 0] if head.numbers else np.zeros(len(target))
    classes = list(head.classes)
    survival = scores[..., 1:] if head.times else None
    scores = scores if classes else scores[..., 0]
    return HeldOut(entities, groups, first, scores, classes, event, head.label, head.kind, head.times, survival)
