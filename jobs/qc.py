"""Quality control of a cohort's genotypes: statistics of variants and samples, relatives, principal components."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("qc", __doc__)
    lake_option(made)
    made.add_argument("--cohort", metavar="NAME", help="default: the only cohort with genotypes")
    return run_job("qc", made, lambda run, a: pipeline("qc:qc")(run, a.cohort), argv)


if __name__ == "__main__":
    sys.exit(main())
