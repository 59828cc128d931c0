"""Calls variants of a sample from its reads: a VCF, and rows of the table calls."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("call", __doc__)
    lake_option(made)
    made.add_argument("--cohort", metavar="NAME", help="default: the only cohort that has alignments")
    made.add_argument("--sample", metavar="NAME", help="default: the only one of the cohort")
    made.add_argument(
        "--output", metavar="FILE.vcf.gz", required=True, help="bgzipped VCF, a path or URI; its index beside it"
    )
    made.add_argument(
        "--region", metavar="CHR:FROM-TO", help="only this part, 1-based, both ends included, such as chr20:1,000-2,000"
    )
    made.add_argument(
        "--model",
        metavar="ID",
        help="network that judges, too; default: the newest of variant_calling, if there is one",
    )
    return run_job(
        "call", made, lambda run, a: pipeline("call:call")(run, a.output, a.cohort, a.sample, a.region, a.model), argv
    )


if __name__ == "__main__":
    sys.exit(main())
