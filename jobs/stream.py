"""Takes new files of a folder, or named in a Delta table, into the lake and scores what they bring, as they come."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import jobs
from genodl_spark.core import session
from genodl_spark.job.cli import Arguments, model_option, parser, pipeline, run_job, task_options

if TYPE_CHECKING:
    from genodl_spark.job.run import Run


def stream(run: Run, given: Arguments) -> None:
    shared = ["--lake", given.lake, *(word for text in given.set for word in ("--set", text))]
    for name in ("config", "master"):
        shared += [f"--{name}", value] if (value := getattr(given, name)) else []
    with session.shared():
        arguments = (given.source, given.once, given.cohort, given.label, given.model, partial(_verb, shared))
        pipeline("stream:stream")(run, *arguments)


def _verb(shared: list[str], verb: str, arguments: list[str]) -> dict[str, Any]:
    return jobs.report_of(verb, [*arguments, *shared])


def main(argv: list[str] | None = None) -> int:
    made = parser("stream", __doc__)
    task_options(made)
    model_option(made)
    made.add_argument("--source", metavar="DIR", required=True, help="folder that files come into, or a Delta table")
    made.add_argument("--once", action="store_true", help="take what is there, then end")
    return run_job("stream", made, stream, argv)


if __name__ == "__main__":
    sys.exit(main())
