"""From a command line to a run report: what all jobs share. Each verb is a file in jobs/."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from genodl_spark.core import redaction, session, storage
from genodl_spark.core.errors import Conflict, InputError, input_error_within
from genodl_spark.core.output import LogFormatter, as_json, printable
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake import locks
from genodl_spark.lake.tables.operations import RUNS

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
    made.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="one setting, such as train.epochs=20; repeatable")
    made.add_argument("--master", metavar="URL", help="Spark master; default: that of spark-submit, else all cores of this machine")
    return made


def lake_option(made: argparse.ArgumentParser) -> None:
    made.add_argument("--lake", metavar="URI", required=True, help="where the tables are: a path or any Hadoop URI")


def task_options(made: argparse.ArgumentParser) -> None:
    """TASK and what goes with it."""
    made.add_argument("task", metavar="TASK", help=f"{', '.join(config.task_names())}, or the path of a TOML")
    lake_option(made)
    made.add_argument("--cohort", metavar="NAME", help="default: the only cohort that fits")
    made.add_argument("--label", metavar="COLUMN", help="column of the sample table; default: the task's own")


def model_option(made: argparse.ArgumentParser) -> None:
    made.add_argument("--model", metavar="ID", help="model of genodl list models; default: the newest of the task and label")


def pipeline(name: str) -> Callable[..., None]:
    """The function `module:function` of genodl_spark.pipelines, imported when it is called: help asks for no library of analysis."""

    def call(*arguments: Any) -> None:
        module, _, function = name.partition(":")
        getattr(importlib.import_module(f"genodl_spark.pipelines.{module}"), function)(*arguments)

    return call


def run_job(verb: str, made: argparse.ArgumentParser, work: Callable[[Run, Arguments], None], argv: list[str] | None = None) -> int:
    """Runs one job and prints its report as the last line on stdout; returns the exit code.

    0 done, 2 the user's input is at fault, 3 a threshold is breached, 4 another run is in the way (each a line on stderr), 1 anything else.
    """
    session.separate_stderr()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    log.setLevel(logging.INFO)
    argv = sys.argv[1:] if argv is None else argv
    redaction.arguments(argv)  # so that what is wrong with them is told without their secrets
    report = Report(verb)
    failure: InputError | Conflict | None = None
    crash: BaseException | None = None
    run: Run | None = None
    code = 0
    with contextlib.ExitStack() as leases:
        try:
            arguments = made.parse_args(argv)
            # An option of its own is one more assignment, so that settings hold the whole truth.
            options = {"seed": "seed", "train.procs": "procs", "tune.trials": "trials"}
            given = {key: getattr(arguments, name, None) for key, name in options.items() if verb != "simulate"}
            assigned = [f"{key}={value}" for key, value in given.items() if value is not None]
            place = session.place(arguments.master)
            settings = config.load(getattr(arguments, "task", None), arguments.config, [*arguments.set, *assigned], place)
            run = Run(report, settings, getattr(arguments, "lake", ""), arguments.master, argv, tuple(text.split("=")[0] for text in arguments.set))
            _lease(run, verb, leases)
            leases.callback(run.let_go)
            work(run, arguments)
        except SystemExit as stop:  # --help
            return int(stop.code or 0)
        except Exception as error:
            failure = error if isinstance(error, Conflict) else input_error_within(error)
            crash = None if failure else error
        if failure is not None or crash is not None:
            report.status, report.error = "failed", redaction.text(str(failure or crash)).strip().split("\n")[0]
            code = 4 if isinstance(failure, Conflict) else 2 if failure else 1
        elif report.breached:
            code = 3
        if run is not None and verb in RECORDED:
            _record(run, code)
    session.stop()
    if crash is not None:
        logging.getLogger().error("job failed", exc_info=crash)
    _print(as_json(report.as_dict()))
    if failure is not None:
        print(printable(redaction.text(f"genodl: error: {failure}")), file=sys.stderr, flush=True)
    elif code == 3:
        for line in report.breached:
            print(printable(redaction.text(f"genodl: breach: {line}")), file=sys.stderr, flush=True)
    return code


# Verbs that write to a lake: they share a lease on it, and leave a row in `runs`. `forget` holds the lease alone, and names nobody in a row.
WRITES = {"ingest", "qc", "prepare", "train", "tune", "evaluate", "predict", "monitor", "maintain"}
RECORDED = WRITES | {"query"}  # what was asked of people's data is kept too; a query waits for no lease
_MAKES_A_LAKE = {"ingest"}


def _lease(run: Run, verb: str, leases: contextlib.ExitStack) -> None:
    """Takes the lease that a verb needs, where there is a lake or one is going to be made. Conflict."""
    exclusive = verb == "forget"
    if (exclusive or verb in WRITES) and (verb in _MAKES_A_LAKE or storage.kind(storage.absolute(run.lake_uri)) == "directory"):
        held = locks.held(run.lake_uri, verb, run.run_id, exclusive, run.settings.lock.wait_seconds)
        run.lease = leases.enter_context(held)
        if run.lease.unwritable is not None:
            run.report.warn(f"the lake cannot be written ({run.lease.unwritable}): no lease was left in it")


def _record(run: Run, code: int) -> None:
    """Adds the run to `runs`, where it has come as far as its lake; that it could not be added is told, and changes nothing of its result."""
    if "lake" not in run.__dict__:
        return
    try:
        makes = code in (0, 3) and run.report.job in WRITES  # a run that failed, or that reads, makes no lake of its own
        if makes or run.lake.exists(RUNS):
            run.record()
    except Exception as error:  # whatever Spark raises: what the run did is done
        run.report.warn(f"this run is missing from table runs, its row could not be written: {str(error).strip().splitlines()[0]}")


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:  # the reader closed early, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
