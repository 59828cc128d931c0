"""Selects features, labels and a split for a task, and writes them as examples that training reads."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import parser, pipeline, run_job, task_options


def main(argv: list[str] | None = None) -> int:
    made = parser("prepare", __doc__)
    task_options(made)
    return run_job("prepare", made, lambda run, a: pipeline("prepare:prepare")(run, a.cohort, a.label), argv)


if __name__ == "__main__":
    sys.exit(main())
