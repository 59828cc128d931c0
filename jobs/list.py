"""Lists models, cohorts, tables or runs of a lake."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job
from genodl_spark.registry.listings import LISTINGS


def main(argv: list[str] | None = None) -> int:
    made = parser("list", __doc__)
    made.add_argument("what", choices=sorted(LISTINGS))
    lake_option(made)
    return run_job("list", made, lambda run, arguments: pipeline("query:listing")(run, arguments.what), argv)


if __name__ == "__main__":
    sys.exit(main())
