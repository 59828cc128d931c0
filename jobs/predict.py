"""Scores a cohort with a registered model, into the table predictions: what the model has not scored as it is now."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import model_option, parser, pipeline, run_job, task_options


def main(argv: list[str] | None = None) -> int:
    made = parser("predict", __doc__)
    task_options(made)
    model_option(made)
    made.add_argument("--force", action="store_true", help="score all entities again")
    return run_job(
        "predict", made, lambda run, a: pipeline("predict:predict")(run, a.cohort, a.label, a.model, a.force), argv
    )


if __name__ == "__main__":
    sys.exit(main())
