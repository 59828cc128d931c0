"""Answers SQL over the lake: every table is a view, and predictions_latest."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("query", __doc__)
    made.add_argument("sql", metavar="SQL", help="one SELECT statement")
    lake_option(made)
    made.add_argument(
        "--engine",
        choices=["spark", "duckdb"],
        default="spark",
        help="duckdb answers in a second what needs no function of Spark or of this lake, "
        "and refuses what it would answer otherwise",
    )
    engines = {"spark": "query:query", "duckdb": "query:query_duckdb"}
    return run_job("query", made, lambda run, arguments: pipeline(engines[arguments.engine])(run, arguments.sql), argv)


if __name__ == "__main__":
    sys.exit(main())
