"""Tasks: what is predicted from what. A task is one file here, with a function `features`, and one TOML under conf/tasks.

A user's own task needs no change here: a TOML anywhere whose `implementation` names a task of this package or a Python file
beside it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from genodl_spark.config import Settings
from genodl_spark.errors import InputError
from genodl_spark.features import Features, WithCovariates


def features(settings: Settings) -> Features:
    """The features of the task that `settings` are for, with its covariates."""
    base: Features = _implementation(settings.implementation).features(settings)
    if settings.covariates and base.encoding is not None:
        raise InputError(f"found covariates for features that networks take as {base.encoding}; expected none", "covariates")
    return WithCovariates(base, settings.covariates) if settings.covariates else base


def _implementation(name: str) -> Any:
    if name.endswith(".py"):
        from pyspark.cloudpickle import register_pickle_by_value

        spec = importlib.util.spec_from_file_location(f"genodl_task_{Path(name).stem}", name)
        if spec is None or spec.loader is None or not Path(name).is_file():
            raise InputError(f"found no file {name}; expected a Python file with a function features(settings)", "implementation")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        register_pickle_by_value(module)  # executors do not have the file: they get what the driver read
    else:
        try:
            module = importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            raise InputError(f"found {name!r}; expected a task of genodl_spark/tasks, or the path of a .py", "implementation") from error
    if not hasattr(module, "features"):
        raise InputError(f"{name} has no function features(settings); expected one that returns the task's features", "implementation")
    return module
