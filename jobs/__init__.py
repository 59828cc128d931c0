"""One file per verb: parse, load settings, call one pipeline, print the report."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pkgutil
from typing import Any


def verbs() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def report_of(verb: str, argv: list[str]) -> dict[str, Any]:
    """Runs a verb in this process and returns its run report, with its exit code as `code`;
    progress goes to stderr as ever."""
    with contextlib.redirect_stdout(io.StringIO()) as captured:
        code = importlib.import_module(f"jobs.{verb}").main(argv)
    return {**json.loads(captured.getvalue().strip().split("\n")[-1]), "code": code}
