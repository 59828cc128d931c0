"""Searches the settings of a task on its training rows, then trains the best and measures it once on the test
rows, beside tuned baselines."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import parser, pipeline, run_job, task_options


def main(argv: list[str] | None = None) -> int:
    made = parser("tune", __doc__)
    task_options(made)
    made.add_argument(
        "--trials",
        metavar="N",
        type=int,
        help="configurations to try, of the network and of each baseline; default: tune.trials",
    )
    made.add_argument(
        "--seed",
        metavar="K",
        type=int,
        help="seed of search, splits, starts and shuffling; default: seed of the settings, 0",
    )
    made.add_argument(
        "--output",
        metavar="FILE.toml",
        help="where to write the best settings, for genodl train TASK --config FILE.toml",
    )
    return run_job(
        "tune",
        made,
        lambda run, a: pipeline("tune:tune")(
            run, a.cohort, a.label, a.output, pipeline("train:train"), pipeline("evaluate:evaluate_model")
        ),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
