"""Writes a cohort's records of the lake back as a VCF."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("export", __doc__)
    made.add_argument("kind", metavar="KIND", choices=["vcf"], help="vcf")
    lake_option(made)
    made.add_argument("--cohort", metavar="NAME", help="default: the only cohort that has VCFs")
    made.add_argument(
        "--output",
        metavar="FILE.vcf.gz",
        required=True,
        help="bgzipped VCF, a path or URI; its .tbi (.csi where a contig is long) beside it",
    )
    made.add_argument(
        "--region",
        metavar="CHR:FROM-TO",
        help="only records that overlap it, 1-based, both ends included, such as chr20:1,000-2,000",
    )
    made.add_argument(
        "--samples",
        metavar="A,B",
        help="only these samples, in this order; INFO (AC, AN, AF) stays as ingested, "
        "as with bcftools view --no-update",
    )
    return run_job(
        "export", made, lambda run, a: pipeline("export:export")(run, a.output, a.cohort, a.region, a.samples), argv
    )


if __name__ == "__main__":
    sys.exit(main())
