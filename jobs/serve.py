"""Serves the lake's views to JDBC and ODBC clients of this machine, read-only, until it is stopped."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("serve", __doc__)
    lake_option(made)
    made.add_argument(
        "--port", type=int, default=10000, metavar="N", help="on 127.0.0.1; 0 for any that is free; default: 10000"
    )
    return run_job("serve", made, lambda run, arguments: pipeline("serve:serve")(run, arguments.port), argv)


if __name__ == "__main__":
    sys.exit(main())
