"""Makes up a cohort: a VCF of any size by coalescent simulation, and its sample table."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("simulate", __doc__)
    made.add_argument("what", choices=["cohort"])
    made.add_argument(
        "--samples", metavar="N", type=int, required=True, help="people, of three populations in equal parts"
    )
    made.add_argument("--length", metavar="BP", type=int, required=True, help="bases of the one chromosome")
    made.add_argument(
        "--output", metavar="FILE.vcf.gz", required=True, help="bgzipped VCF; FILE.samples.tsv is written beside it"
    )
    made.add_argument("--seed", metavar="K", type=int, help="default 0")
    made.add_argument(
        "--fields",
        choices=["GT", "rich"],
        default="GT",
        help="GT alone (default), or rich: GT:AD:DP:GQ:PL of reads drawn at depth 30",
    )
    return run_job(
        "simulate",
        made,
        lambda run, a: pipeline("simulate:simulate")(run, a.samples, a.length, a.output, a.seed or 0, a.fields),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
