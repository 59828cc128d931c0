"""Explains settings: type, bounds, default, value and meaning of one, of a section, or of all."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("settings", __doc__)
    made.add_argument(
        "key", metavar="KEY", nargs="?", help="a setting or section, such as train.batch or train; default: all"
    )
    made.add_argument(
        "--task", metavar="TASK", help="values under the settings of a task: its name, or the path of a TOML"
    )
    return run_job("settings", made, lambda run, a: pipeline("settings:explain")(run, a.key), argv)


if __name__ == "__main__":
    sys.exit(main())
