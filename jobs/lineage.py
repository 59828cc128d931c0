"""Tells where the rows of a table came from, and whether a prediction can be made again to the last bit."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("lineage", __doc__)
    made.add_argument("table", metavar="TABLE", help="a table of genodl list tables")
    lake_option(made)
    made.add_argument(
        "--key",
        metavar="VALUE",
        help="entity, sample, model or other identifier of the rows; of variants chrom:pos:ref:alt",
    )
    return run_job("lineage", made, lambda run, a: pipeline("lineage:lineage")(run, a.table, a.key), argv)


if __name__ == "__main__":
    sys.exit(main())
