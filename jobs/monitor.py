"""Drift of inputs and scores, volume and freshness, held against limits: exit code 3 when one is breached."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("monitor", __doc__)
    lake_option(made)
    return run_job("monitor", made, lambda run, _: pipeline("monitor:monitor")(run), argv)


if __name__ == "__main__":
    sys.exit(main())
