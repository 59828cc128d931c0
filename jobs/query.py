"""Answers SQL over the lake: every table is a view, and predictions_latest."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("query", __doc__)
    made.add_argument("sql", metavar="SQL", help="one SELECT statement")
    lake_option(made)
    return run_job("query", made, lambda run, arguments: pipeline("query:query")(run, arguments.sql), argv)


if __name__ == "__main__":
    sys.exit(main())
