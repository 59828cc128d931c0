"""What a training is: its job, its training sets, and the rows that each of them learns from and is tested on."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genodl_spark.core.errors import InputError, Outage
from genodl_spark.core.own_code import Code
from genodl_spark.learning import feed
from genodl_spark.learning.heads import Head, labelled
from genodl_spark.learning.model_files import ModelFiles
from genodl_spark.learning.preprocessing import Chain
from genodl_spark.learning.settings import Train
from genodl_spark.learning.splits import TRAIN, UNUSED, VALIDATION

log = logging.getLogger("genodl")
REGISTERED = -1  # fold of the training set behind the registered model
REDRAWN_STEPS = 2400  # as many as suit peaks of one factor: with twice as many, networks say too much of what they saw
FAILURE = "failure.json"


@dataclass(frozen=True)
class Job:
    """All that a rank needs. `heads`: what is predicted; `loss` is that of `train.loss`; `folds` is 0 for a fixed
    split; `options` is the section `train` of the settings; `staging` is the URI of a folder for what the ranks write.

    `checkpoint`: URI of a folder for checkpoints, from which the same job goes on; empty for none.
    `stop_epoch`: end after so many epochs of the schedule, 0 for all. `validate_folds`: with folds,
    what is held out from a training set validates it. `threads`: of a rank; 0 for its share of the machine's.
    `allowed` bool (sets, features): what each training set may use, in the order of `training_sets`; None for all.
    `null`: labels are shuffled among the training rows first, to see what the same network makes of nothing.
    `chain`: what is done to measured values first; None for nothing. `lengths` float64 (F,): of features, for it.
    `shard`: each rank decodes a part of the rows (shards.py), not each machine all of them.
    `cut`: sequences longer than a row have been cut to it. `code`: the file of a network of the user's own.
    `pretrained`: the model that networks start from; None for none. `matched` int64 (F,): which of its features each
    feature is, -1 for none; None where features have no names.
    `blocks`: where features of each block stand that rows may lack: held-out rows are scored without each, too.
    `coefficients` float64 (F + 1,): of features, and the intercept, of a linear model that is given and not trained;
    None to train.
    `redrawn`: so many rows, the last ones, are dinucleotide shuffles: training sees another one in every epoch.
    """

    files: list[str]
    layout: feed.Layout
    backend: str
    resident_bytes: int
    heads: list[Head]
    folds: int
    transform: str
    max_missing: float
    select: int
    model: dict[str, Any]
    options: Train
    seed: int
    staging: str
    checkpoint: str = ""
    stop_epoch: int = 0
    validate_folds: bool = False
    readers: int = 1
    prefetch: int = 2
    device_bytes: int = 1 << 30
    threads: int = 0
    allowed: np.ndarray | None = None
    null: bool = False
    cut: bool = False
    chain: Chain | None = None
    lengths: np.ndarray | None = None
    loss: str = "auto"
    shard: bool = False
    redrawn: int = 0
    pretrained: ModelFiles | None = None
    matched: np.ndarray | None = None
    blocks: dict[str, np.ndarray] = field(default_factory=dict)
    coefficients: np.ndarray | None = None
    code: Code = field(default_factory=dict)


def as_told(error: InputError | Outage) -> bytes:
    """What a rank leaves in the file FAILURE of why no rank can go on."""
    if isinstance(error, Outage):
        return json.dumps({"outage": str(error)}).encode()
    return json.dumps({"file": error.file, "message": error.message}).encode()


def told(content: bytes) -> InputError | Outage:
    """The error that `as_told` was given."""
    found = json.loads(content)
    return Outage(found["outage"]) if "outage" in found else InputError(found["message"], found["file"])


@dataclass(frozen=True)
class TrainingSet:
    """Rows that one ensemble learns from: all but one fold of one repeat,
    or those of the registered model (fold -1)."""

    repeat: int
    fold: int


def training_sets(repeats: int, folds: int) -> list[TrainingSet]:
    return [TrainingSet(r, k) for r in range(repeats) for k in range(folds)] + [TrainingSet(0, REGISTERED)]


def learns(codes: np.ndarray, sets: list[TrainingSet], folds: int) -> np.ndarray:
    """Which rows each set learns from, bool (S, rows). `codes` int8 (rows, repeats) as in the table `examples`."""
    if folds == 0:
        return np.stack([codes[:, 0] == TRAIN for _ in sets])
    used = codes[:, 0] != UNUSED
    return np.stack([used & (codes[:, s.repeat] != s.fold) if s.fold != REGISTERED else used for s in sets])


def held_out(codes: np.ndarray, sets: list[TrainingSet], folds: int) -> np.ndarray:
    """Which rows each set is tested on, bool (S, rows): its fold; of a fixed split the rows for validation and test."""
    if folds == 0:
        return np.stack([codes[:, 0] > TRAIN for _ in sets])
    return np.stack(
        [codes[:, s.repeat] == s.fold if s.fold != REGISTERED else np.zeros(len(codes), bool) for s in sets]
    )


def shuffled_labels(target: np.ndarray, heads: list[slice], codes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Targets (rows, numbers), dealt anew among the rows that train and, of a fixed split,
    apart from them among those that validate.

    Each head's, whose numbers stand at `heads`, go among the rows that have a label of it.
    `codes` int8 (rows, repeats) as in the table `examples`. Test rows of a fixed split keep theirs.
    """
    found = target.copy()
    generator = np.random.default_rng([seed, len(target)])
    for own in heads:
        known = labelled(target[:, own])
        for rows in [codes[:, 0] != UNUSED] if folds else [codes[:, 0] == TRAIN, codes[:, 0] == VALIDATION]:
            found[rows & known, own] = generator.permutation(target[rows & known, own])
    return found


def discriminates(job: Job) -> bool:
    """Whether networks start at linear discriminants of the rows that they learn from."""
    return job.model.get("start") == "lda" and len(job.heads) == 1 and len(job.heads[0].classes) > 1


def epochs(options: Train, rows: int, redrawn: bool = False, started: bool = False) -> int:
    """Epochs of a training on so many rows: raised where they are few, until `min_steps` are done, and where negatives
    are `redrawn` in each. Networks that are `started` at discriminants have no way to go, and are left at `epochs`."""
    if started:
        return options.epochs
    steps = feed.steps(rows, options.batch)
    fresh = min(options.redrawn_epochs, REDRAWN_STEPS // steps) if redrawn else 0
    return max(options.epochs, math.ceil(options.min_steps / steps), fresh)
