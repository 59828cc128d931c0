"""Runs a chain of verbs, such as every night's, one after another for the files of a day: what cron calls."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import jobs
from genodl_spark.core import session
from genodl_spark.job.cli import Arguments, parser, pipeline, run_job

if TYPE_CHECKING:
    from genodl_spark.job.run import Run


def nightly(run: Run, given: Arguments) -> None:
    shared = [word for text in given.set for word in ("--set", text)]
    for name in ("config", "master"):
        shared += [f"--{name}", value] if (value := getattr(given, name)) else []
    with session.shared():
        pipeline("nightly:nightly")(run, given.chain, given.date, jobs.verbs(), partial(_verb, shared))


def _verb(shared: list[str], verb: str, arguments: list[str]) -> dict[str, Any]:
    return jobs.report_of(verb, [*arguments, *shared])


def main(argv: list[str] | None = None) -> int:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    made = parser("nightly", __doc__)
    made.add_argument(
        "chain", metavar="CHAIN", help="TOML of the verbs and their arguments, as conf/airflow/nightly.toml"
    )
    made.add_argument("--date", metavar="DAY", default=yesterday, help="YYYY-MM-DD; default: yesterday, in UTC")
    return run_job("nightly", made, nightly, argv)


if __name__ == "__main__":
    sys.exit(main())
