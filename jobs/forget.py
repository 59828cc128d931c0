"""Removes a person who has withdrawn consent from every table, file and log of the lake."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("forget", __doc__)
    lake_option(made)
    made.add_argument("--cohort", metavar="NAME", required=True, help="cohort of the sample")
    made.add_argument("--sample", metavar="ID", required=True, help="its identifier")
    return run_job("forget", made, lambda run, a: pipeline("forget:forget")(run, a.cohort, a.sample), argv)


if __name__ == "__main__":
    sys.exit(main())
