"""Trains a model of a task over Horovod and registers it; prepares the data first where that is not done."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import parser, pipeline, run_job, task_options


def main(argv: list[str] | None = None) -> int:
    made = parser("train", __doc__)
    task_options(made)
    made.add_argument(
        "--procs", metavar="N", type=int, help="Horovod ranks, each a Spark task; default: train.procs of the settings"
    )
    made.add_argument(
        "--seed", metavar="K", type=int, help="seed of splits, starts and shuffling; default: seed of the settings, 0"
    )
    made.add_argument("--force", action="store_true", help="train again where the same model is registered")
    return run_job("train", made, lambda run, a: pipeline("train:train")(run, a.cohort, a.label, a.force), argv)


if __name__ == "__main__":
    sys.exit(main())
