"""Drift of inputs and scores, volume and freshness, held against limits: exit code 3 when one is breached."""

from __future__ import annotations

import sys

from genodl_spark.cli import lake_option, parser, run_job
from genodl_spark.pipelines.monitor import monitor


def main(argv: list[str] | None = None) -> int:
    made = parser("monitor", __doc__)
    lake_option(made)
    return run_job("monitor", made, lambda run, _: monitor(run), argv)


if __name__ == "__main__":
    sys.exit(main())
