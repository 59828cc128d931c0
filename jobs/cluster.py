"""Clusters of a cohort's cells at the resolution that comes back on subsamples, and the genes that mark them."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("cluster", __doc__)
    lake_option(made)
    made.add_argument("--cohort", metavar="NAME", help="default: the only cohort with cells")
    made.add_argument("--label", metavar="COLUMN", help="labels that the clusters are compared with, for metrics alone")
    return run_job("cluster", made, lambda run, a: pipeline("cluster:cluster")(run, a.cohort, a.label), argv)


if __name__ == "__main__":
    sys.exit(main())
