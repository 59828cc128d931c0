"""A published linear model, such as an epigenetic clock, in place of networks (`clock.file`): its coefficients are the
weights, and what is learnt of a cohort is how its features hang together, so that missing ones can be filled.

It becomes a registered model as any other: a perceptron without hidden layers over the features that the file names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import shown
from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.features.protocol import Choice, Features
from genodl_spark.formats import coefficients
from genodl_spark.formats.coefficients import Coefficients
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.ingested import METHYLATION
from genodl_spark.lake.tables.portals import BEYOND, UNITS

PLACE = "clock.file"
NETWORK = {"kind": "mlp", "hidden": []}
_FILLS = "impute_"  # how names of steps begin that leave no value missing
_TO_SHARES = "m_to_beta"
_NAMED = 3  # features that a warning names


def of(settings: Settings) -> Coefficients | None:
    """The model that is named; None where none is. InputError for a file that holds none."""
    return coefficients.read(settings.clock.file, settings.clock.column) if settings.clock.file else None


def shaping(run: Run) -> dict[str, Any]:
    """What shapes a data set and a training where such a model is named: all that its file says."""
    found = of(run.settings)
    return {} if found is None else {"clock": found.digest}


def decided(run: Run) -> Run:
    """The same run, with a network that has the weights of the model named. InputError for settings that do not go
    with one."""
    s = run.settings
    if not s.clock.file:
        return run
    beside = {"covariates": s.covariates, "quality.select": s.quality.select, "quality.batch": s.quality.batch}
    beside |= {"train.pretrained": s.train.pretrained, "factor.column": s.factor.column, "target.event": s.target.event}
    for key, value in beside.items():
        if value:
            raise InputError(f"found {value!r} beside a clock, which is as it was published; expected none", key)
    if s.target.kind not in ("auto", "regression"):
        text = f"found {s.target.kind} for a clock; expected auto or regression, as it answers by a value"
        raise InputError(text, "target.kind")
    if s.quality.transform not in ("auto", "none"):
        raise InputError(f"found {s.quality.transform} for a clock; expected none", "quality.transform")
    if not any(step.startswith(_FILLS) for step in s.quality.steps):
        found = ", ".join(s.quality.steps) or "no step"
        text = f"found {found} for a clock; expected one that fills missing values, as impute_gaussian"
        raise InputError(text, "quality.steps")
    train = s.train.model_copy(update={"ensemble": 1, "blend": [], "mixup": 0.0, "patience": 0, "ema": 0.0})
    return run.under(s.model_copy(update={"model": dict(NETWORK), "train": train}))


def choice(run: Run, features: Features, cohort: str, clock: Coefficients) -> Choice:
    """All features of a model, whether or not the cohort has them: those that it lacks are told. InputError where it
    lacks too many, or has values on another scale."""
    if not isinstance(features, MatrixFeatures):
        raise InputError("found a clock for features that are no matrix; expected task methylation", PLACE)
    check_scale(run, run.settings, cohort)
    nobody = np.zeros((1, 0), bool)
    there = set(replace(features, max_missing=1.0).choose(run.sources, cohort, [], nobody).names)
    lacking = [name for name in clock.names if name not in there]
    least = run.settings.min_feature_overlap
    if 1 - len(lacking) / len(clock.names) < least:
        text = (
            f"cohort {cohort} lacks {len(lacking)} of the clock's {len(clock.names)} features, as {shown(lacking[0])}"
        )
        several = len(features.blocks_of(run.sources, cohort)) > 1
        advice = "name its one block with blocks" if several else "harmonise the identifiers, or lower it"
        raise InputError(f"{text}; expected {least:.0%} of them at least: {advice}", "min_feature_overlap")
    if lacking:
        named = ", ".join(map(shown, lacking[:_NAMED])) + (" ..." if len(lacking) > _NAMED else "")
        run.report.warn(
            f"cohort {cohort} lacks {len(lacking)} of the clock's {len(clock.names)} features ({named}): they are "
            "filled by what all features are like, which low and high of predictions show"
        )
    return Choice(clock.names)


def check_scale(run: Run, settings: Settings, cohort: str) -> None:
    """InputError where a model named by `clock.file` would read values of methylation that are no shares."""
    if not settings.clock.file or settings.quality.steps[:1] == [_TO_SHARES]:
        return
    rows = run.lake.rows(UNITS, {"cohort": cohort, "source": METHYLATION.name}).to_pylist()
    for row in rows:
        if settings.blocks and row["block"] not in settings.blocks:
            continue
        low, high = row["lowest"], row["highest"]
        if low is not None and (low < -BEYOND or high > 1 + BEYOND):
            advice = "put m_to_beta first among quality.steps" if low < -BEYOND else "ingest shares, not percent"
            text = f"found values from {low:g} to {high:g} in {row['file']} of cohort {cohort}"
            raise InputError(f"{text}; a clock expects shares from 0 to 1: {advice}", "quality.steps")


def weights_of(run: Run, features: list[str]) -> np.ndarray | None:
    """Coefficients of the features of a data set, then the intercept, float64 (F + 1,); None where no model is named.
    InputError where the file has changed since the data set was made."""
    clock = of(run.settings)
    if clock is None:
        return None
    if clock.names != features:
        raise InputError("found other features than those of the data set; expected the same file", PLACE)
    return np.append(clock.values, clock.intercept)
