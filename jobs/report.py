"""Writes a self-contained HTML page of the lake's tables, runs and evaluated models, with pictures."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("report", __doc__)
    lake_option(made)
    made.add_argument("--output", metavar="DIR", required=True, help="folder that gets index.html")
    return run_job("report", made, lambda run, a: pipeline("report:report")(run, a.output), argv)


if __name__ == "__main__":
    sys.exit(main())
