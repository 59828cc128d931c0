"""Removes a person who has withdrawn consent from every table, file and log of the lake."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job
from genodl_spark.lake.schema import ENTITIES, PERSON

KINDS = [kind for kind in ENTITIES if kind != PERSON]


def main(argv: list[str] | None = None) -> int:
    made = parser("forget", __doc__)
    lake_option(made)
    made.add_argument("--cohort", metavar="NAME", required=True, help="cohort of the sample")
    made.add_argument("--sample", metavar="ID", required=True, help="its identifier")
    made.add_argument(
        "--entity",
        metavar="KIND",
        choices=KINDS,
        help=f"what the identifier is that of, where it is no person's: {', '.join(KINDS)}",
    )
    return run_job("forget", made, lambda run, a: pipeline("forget:forget")(run, a.cohort, a.sample, a.entity), argv)


if __name__ == "__main__":
    sys.exit(main())
