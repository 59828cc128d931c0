"""Checks every stored file of the lake against what was written, and says what brings back those that have changed."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("verify", __doc__)
    lake_option(made)
    return run_job("verify", made, lambda run, _: pipeline("verify:verify")(run), argv)


if __name__ == "__main__":
    sys.exit(main())
