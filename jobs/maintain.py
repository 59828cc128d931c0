"""Upgrades tables, compacts small files and removes those that no version in use needs."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("maintain", __doc__)
    lake_option(made)
    made.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return run_job("maintain", made, lambda run, a: pipeline("maintain:maintain")(run, a.dry_run), argv)


if __name__ == "__main__":
    sys.exit(main())
