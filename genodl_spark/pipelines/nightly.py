"""A chain of verbs, one after another for the files of a day, each a run of its own that claims its own work.

The chain is a TOML, which Airflow makes a DAG of as well (conf/airflow/genodl_dags.py).
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from genodl_spark.core import redaction
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.core.toml import Section, read
from genodl_spark.job.run import Run

log = logging.getLogger("genodl")

_DATE = "{date}"
_BREACH = 3
Verb = Callable[[str, list[str]], dict[str, Any]]  # runs one in this session; its run report, with `code`


class Step(Section):
    """A verb and its arguments; in these {date} is the day."""

    verb: str
    arguments: list[str] = Field(default_factory=list)


class Chain(Section):
    """What a night does, on one lake."""

    lake: str = Field(min_length=1)
    steps: list[Step] = Field(min_length=1)
    airflow: dict[str, Any] = Field(default_factory=dict)  # of the DAG alone

    def commands(self, day: str) -> list[tuple[str, list[str]]]:
        """Each step's verb and arguments for a day."""
        return [
            (step.verb, [*(word.replace(_DATE, day) for word in step.arguments), "--lake", self.lake])
            for step in self.steps
        ]


def chain_of(path: str, verbs: list[str]) -> Chain:
    """The chain of a file. InputError where it is none, has a step that is none of `verbs`, or a password."""
    if not Path(path).is_file():
        raise InputError("no such file; expected a TOML as conf/airflow/nightly.toml is one", path)
    try:
        chain = Chain.model_validate(read(Path(path)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{place}: {first['msg']}; expected it as in conf/airflow/nightly.toml", path) from None
    for step in chain.steps:
        if step.verb not in verbs:
            raise InputError(f"steps: found verb {step.verb!r}; expected one of {', '.join(verbs)}", path)
        if redaction.arguments(step.arguments) != step.arguments:
            raise InputError(
                f"steps: found a password among the arguments of {step.verb}; expected it in the environment", path
            )
    return chain


def nightly(run: Run, path: str, day: str, verbs: list[str], verb: Verb) -> None:
    """Runs the steps of a chain for a day until one fails, and ends as that does.

    A breach that `monitor` finds is no failure: what follows runs, and the exit code is 3 in the end. `metrics.steps`
    of the report says of each step that has run its status, exit code, seconds and rows.
    """
    try:
        day = date.fromisoformat(day).isoformat()
    except ValueError:
        raise InputError(f"found {day!r}; expected a day as YYYY-MM-DD", "--date") from None
    chain = chain_of(path, verbs)
    steps: list[dict[str, Any]] = []
    run.report.metrics |= {"date": day, "steps": steps}
    for name, arguments in chain.commands(day):
        log.info("$ genodl %s", shlex.join([name, *arguments]))
        report = verb(name, arguments)
        log.info("%s: %s in %.1f s", name, report["status"], report["seconds"])
        steps.append({"verb": name, **{key: report[key] for key in ("status", "code", "seconds", "rows")}})
        if report["code"] == _BREACH:
            run.report.breached.append(f"{name}: {report['metrics']['breaches']} limits; table findings says which")
        elif report["code"]:
            raise _failure(name, report)
    if all(step["status"] == "unchanged" for step in steps):
        run.report.status = "unchanged"


def _failure(verb: str, report: dict[str, Any]) -> Exception:
    """What a verb that failed has said, as the chain's own, with the same exit code."""
    kinds: dict[int, type[Exception]] = {2: InputError, 4: Conflict}
    return kinds.get(report["code"], RuntimeError)(f"{verb}: {report['error']}")
