"""Measures a registered model on rows it never saw, beside its baselines, in one table."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import model_option, parser, pipeline, run_job, task_options


def main(argv: list[str] | None = None) -> int:
    made = parser("evaluate", __doc__)
    task_options(made)
    model_option(made)
    return run_job(
        "evaluate", made, lambda run, a: pipeline("evaluate:evaluate_model")(run, a.cohort, a.label, a.model), argv
    )


if __name__ == "__main__":
    sys.exit(main())
