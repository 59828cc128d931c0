"""Answers SQL over the lake: every table is a view, and predictions_latest."""

from __future__ import annotations

import sys

from genodl_spark.cli import lake_option, parser, run_job
from genodl_spark.pipelines.query import query


def main(argv: list[str] | None = None) -> int:
    made = parser("query", __doc__)
    made.add_argument("sql", metavar="SQL", help="one SELECT statement")
    lake_option(made)
    return run_job("query", made, lambda run, arguments: query(run, arguments.sql), argv)


if __name__ == "__main__":
    sys.exit(main())
