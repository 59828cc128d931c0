"""Command lines: the options that verbs share, and what runs once they are read. Each verb is a file in jobs/.

Help and faults of a command line come at once: only what runs a job (execution.py) loads settings,
the lake and libraries of data.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from genodl_spark.core import redaction, session
from genodl_spark.core.errors import InputError
from genodl_spark.core.output import LogFormatter
from genodl_spark.job import conf

if TYPE_CHECKING:
    from genodl_spark.job.run import Run

Arguments = argparse.Namespace
log = logging.getLogger("genodl")


class _Parser(argparse.ArgumentParser):
    """argparse, but what is wrong with the arguments becomes the one line that every input error is."""

    def error(self, message: str) -> NoReturn:
        option, separator, rest = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument ") and separator:
            raise InputError(f"{rest}; see {self.prog} --help", option)
        raise InputError(f"{message}; see {self.prog} --help", "arguments")


def parser(verb: str, doc: str) -> argparse.ArgumentParser:
    """A parser with the options that every verb takes."""
    made = _Parser(prog=f"genodl {verb}", description=doc, allow_abbrev=False)
    made.add_argument("--config", metavar="FILE", help="TOML of settings, over those of conf/ and the task's own")
    made.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="one setting, such as train.epochs=20; repeatable",
    )
    made.add_argument(
        "--master", metavar="URL", help="Spark master; default: that of spark-submit, else all cores of this machine"
    )
    return made


def lake_option(made: argparse.ArgumentParser) -> None:
    made.add_argument("--lake", metavar="URI", required=True, help="where the tables are: a path or any Hadoop URI")


def task_options(made: argparse.ArgumentParser) -> None:
    """TASK and what goes with it."""
    made.add_argument("task", metavar="TASK", help=f"{', '.join(conf.task_names())}, or the path of a TOML")
    lake_option(made)
    made.add_argument("--cohort", metavar="NAME", help="default: the only cohort that fits")
    made.add_argument(
        "--label", metavar="COLUMN", help="column of the sample table, or of labels; default: the task's own"
    )


def model_option(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--model", metavar="ID", help="model of genodl list models; default: the newest of the task and label"
    )


def pipeline(name: str) -> Callable[..., None]:
    """The function `module:function` of genodl_spark.pipelines, imported when it is called:
    help asks for no library of analysis."""

    def call(*arguments: Any) -> None:
        module, _, function = name.partition(":")
        getattr(importlib.import_module(f"genodl_spark.pipelines.{module}"), function)(*arguments)

    return call


def run_job(
    verb: str, made: argparse.ArgumentParser, work: Callable[[Run, Arguments], None], argv: list[str] | None = None
) -> int:
    """Runs one job and prints its report as the last line on stdout; returns the exit code.

    0 done, 2 the user's input is at fault, 3 a threshold is breached, 4 another run is in the way (each
    a line on stderr), 1 anything else.
    """
    started = time.time()
    session.separate_stderr()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    log.setLevel(logging.INFO)
    argv = sys.argv[1:] if argv is None else argv
    redaction.arguments(argv)  # so that what is wrong with them is told without their secrets
    arguments: Arguments | InputError
    try:
        arguments = made.parse_args(argv)
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    except InputError as error:
        arguments = error
    from genodl_spark.job import execution

    return execution.execute(verb, arguments, work, argv, started)
