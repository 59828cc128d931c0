"""Writes self-contained HTML of the lake's tables, runs, evaluated models and cohorts' data, with pictures."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("report", __doc__)
    lake_option(made)
    made.add_argument("--output", metavar="DIR", required=True, help="folder for index.html and a page of each cohort")
    return run_job("report", made, lambda run, a: pipeline("report:report")(run, a.output), argv)


if __name__ == "__main__":
    sys.exit(main())
