"""One job, from its arguments to its report: settings, lease, work, a row in `runs`, exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from genodl_spark.core import redaction, session, storage
from genodl_spark.core.errors import Conflict, InputError, Outage, input_error_within, outage_within
from genodl_spark.core.output import JsonFormatter, LogFormatter, as_json, printable, reader_left
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run, fingerprint
from genodl_spark.lake import locks
from genodl_spark.lake.tables.operations import RUNS


def execute(
    verb: str,
    arguments: Namespace | InputError,
    work: Callable[[Run, Namespace], None],
    argv: list[str],
    started: float,
) -> int:
    """Runs a job of some arguments, or tells what is wrong with them, and prints its report;
    `started`: seconds of the epoch. As `cli.run_job`."""
    with contextlib.ExitStack() as logs:
        return _execute(verb, arguments, work, argv, started, logs)


def _execute(
    verb: str,
    arguments: Namespace | InputError,
    work: Callable[[Run, Namespace], None],
    argv: list[str],
    started: float,
    logs: contextlib.ExitStack,
) -> int:
    report = Report(verb, started=started)
    failure: InputError | Conflict | Outage | None = None
    crash: BaseException | None = None
    run: Run | None = None
    code = 0
    with contextlib.ExitStack() as leases:
        try:
            if isinstance(arguments, InputError):
                raise arguments
            # An option of its own is one more assignment, so that settings hold the whole truth.
            options = {"seed": "seed", "train.procs": "procs", "tune.trials": "trials"}
            given = {key: getattr(arguments, name, None) for key, name in options.items() if verb != "simulate"}
            assigned = [f"{key}={value}" for key, value in given.items() if value is not None]
            place = session.place(arguments.master)
            for name in storage.S3_SECRETS:
                redaction.learn(os.environ.get(name), name)
            settings = config.load(
                getattr(arguments, "task", None), arguments.config, [*arguments.set, *assigned], place
            )
            run = Run(
                report,
                settings,
                getattr(arguments, "lake", ""),
                arguments.master,
                argv,
                tuple(text.split("=")[0] for text in arguments.set),
            )
            if settings.log.format == "json":
                logs.enter_context(_as_json(run))
            _lease(run, verb, leases, getattr(arguments, "dry_run", False))
            leases.callback(run.let_go)
            work(run, arguments)
        except Exception as error:
            failure = error if isinstance(error, Conflict) else input_error_within(error) or outage_within(error)
            crash = None if failure else error
        if failure is not None or crash is not None:
            report.status, report.error = "failed", redaction.text(str(failure or crash)).strip().split("\n")[0]
            code = 4 if isinstance(failure, Conflict) else 2 if isinstance(failure, InputError) else 1
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


# Verbs that write to a lake: they share a lease on it, and leave a row in `runs`.
# `forget` holds the lease alone, and names nobody in a row.
WRITES = {
    "ingest",
    "qc",
    "annotate",
    "call",
    "cluster",
    "prepare",
    "train",
    "tune",
    "evaluate",
    "predict",
    "explain",
    "monitor",
    "maintain",
}
RECORDED = WRITES | {"query", "stream"}  # what was asked of people's data is kept too; these wait for no lease
_MAKES_A_LAKE = {"ingest"}


def _lease(run: Run, verb: str, leases: contextlib.ExitStack, dry_run: bool) -> None:
    """Takes the lease that a verb needs, where there is a lake or one is going to be made. Conflict;
    InputError where this user may not write there, before anything is computed that could not be kept."""
    exclusive = verb == "forget"
    if (exclusive or verb in WRITES) and (
        verb in _MAKES_A_LAKE or storage.kind(storage.absolute(run.lake_uri)) == "directory"
    ):
        held = locks.held(run.lake_uri, verb, run.run_id, exclusive, run.settings.lock.wait_seconds)
        run.lease = leases.enter_context(held)
        if run.lease.unwritable is not None:
            if not dry_run:
                raise InputError(
                    f"found a lake that cannot be written ({run.lease.unwritable}); expected rights to write there",
                    run.lake_uri,
                )
            run.report.warn(f"the lake cannot be written ({run.lease.unwritable}): no lease was left in it")
        elif verb in WRITES:
            # A scheduler that has lost sight of a run starts it again: the second waits for the first, or says so.
            leases.enter_context(run.holding(claim_of(run)))


def claim_of(run: Run) -> str:
    """What a run has for itself while it goes on: its command line under its settings."""
    settings = run.settings.model_dump(mode="json", exclude={"spark", "lock", "log"})
    return fingerprint(run.report.job, run.arguments, settings)


@contextlib.contextmanager
def _as_json(run: Run) -> Iterator[None]:
    """Log lines within the block are JSON, and say which run they are of."""

    def about() -> dict[str, Any]:
        spark = run.__dict__.get("spark")
        runs = spark is not None and spark.sparkContext._jsc is not None
        application = spark.sparkContext.applicationId if spark is not None and runs else None
        tables = {"read": dict(run.report.read), "written": dict(run.report.written)}  # other threads log, too
        return {"job": run.report.job, "run": run.run_id, "application": application, "tables": tables}

    before = [(handler, handler.formatter) for handler in logging.getLogger().handlers]
    for handler, formatter in before:
        if isinstance(formatter, LogFormatter | JsonFormatter):
            handler.setFormatter(JsonFormatter(about))
    try:
        yield
    finally:
        for handler, formatter in before:
            handler.setFormatter(formatter)


def _record(run: Run, code: int) -> None:
    """Adds the run to `runs`, where it was let into its lake; that it could not be added is told,
    and changes nothing of its result."""
    lake = run.__dict__.get("lake") or run.__dict__.get("stored")
    if lake is None and code != 4 and run.lease is not None and run.lease.unwritable is None:
        lake = run.stored  # it failed before it came to its tables
    if lake is None:
        return
    try:
        # a run that failed, or that reads, makes no lake of its own
        makes = code in (0, 3) and run.report.job in WRITES
        if makes or lake.exists(RUNS):
            run.record()
    except Exception as error:  # whatever Spark raises: what the run did is done
        run.report.warn(
            f"this run is missing from table runs, its row could not be written: {str(error).strip().splitlines()[0]}"
        )


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        reader_left()
