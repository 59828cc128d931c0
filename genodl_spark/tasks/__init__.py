"""Tasks: what is predicted from what. A task is one file here, with a function `features`,
and one TOML under conf/tasks. A function `through` beside it says that models of sequences may answer for the task.

A user's own task needs no change here: a TOML anywhere whose `implementation` names a task of this
package or a Python file beside it.
"""

from __future__ import annotations

import importlib
from typing import Any

from genodl_spark.core import own_code, packing
from genodl_spark.core.errors import InputError
from genodl_spark.features.covariates import WithCovariates
from genodl_spark.features.protocol import Features
from genodl_spark.job.config import Settings


def features(settings: Settings) -> Features:
    """The features of the task that `settings` are for, with its covariates."""
    base: Features = _implementation(settings).features(settings)
    taken = base.encoding or (base.dtype if packing.is_sparse(base.dtype) else None)
    quality = settings.quality
    # indicators of batches are for steps, which leave none of them to networks
    batch = quality.batch if quality.steps else ""
    columns = [*settings.covariates, *([batch] if batch else [])]
    for key, what, found in (
        ("covariates", "covariates", settings.covariates),
        ("quality.batch", "batches", batch),
        ("quality.steps", "steps", quality.steps),
    ):
        if found and taken:
            raise InputError(f"found {what} for features that networks take as {taken}; expected none", key)
    if batch and batch in settings.covariates:
        text = f"found {batch!r} among the covariates; expected another column"
        raise InputError(f"{text}: networks do not see what batches are told by", "quality.batch")
    return WithCovariates(base, columns, batch) if columns else base


def through(settings: Settings) -> Features | None:
    """What a model of sequences reads where it answers for the task that `settings` are for: the function `through` of
    the task's file. None where it has none."""
    made = getattr(_implementation(settings), "through", None)
    return None if made is None else made(settings)


def _implementation(settings: Settings) -> Any:
    name = settings.implementation
    if own_code.is_own(name):
        from pyspark.cloudpickle import register_pickle_by_value

        module: Any = own_code.module(name, settings.code_files, "implementation")
        register_pickle_by_value(module)  # executors do not have the file: they get what the driver read
    else:
        try:
            if not name.isidentifier():
                raise ModuleNotFoundError(name)
            module = importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            raise InputError(
                f"found {name!r}; expected a task of genodl_spark/tasks, or the path of a .py", "implementation"
            ) from error
    if not hasattr(module, "features"):
        raise InputError(
            f"{name} has no function features(settings); expected one that returns the task's features",
            "implementation",
        )
    return module
