"""Measures a registered model on rows it never saw, beside its baselines, in one table.

`evaluate calls` compares a VCF of calls with a truth instead: see `genodl evaluate calls --help`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from genodl_spark.core.errors import InputError
from genodl_spark.job.cli import lake_option, model_option, parser, pipeline, run_job, task_options

_CALLS = "Compares the calls of one person with a truth, by hap.py's definitions."


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return _calls(argv) if _asks_for_calls(argv) else _model(argv)


def _model(argv: list[str]) -> int:
    made = parser("evaluate", __doc__ or "")
    task_options(made)
    model_option(made)
    return run_job(
        "evaluate", made, lambda run, a: pipeline("evaluate:evaluate_model")(run, a.cohort, a.label, a.model), argv
    )


def _calls(argv: list[str]) -> int:
    made = parser("evaluate calls", _CALLS)
    made.add_argument("what", metavar="calls", choices=["calls"], help="the word calls")
    lake_option(made)
    made.add_argument("--query", metavar="FILE.vcf.gz", required=True, help="the calls: VCF or BCF of one sample")
    made.add_argument("--truth", metavar="FILE.vcf.gz", required=True, help="what they are compared with")
    made.add_argument("--reference", metavar="FASTA", required=True, help="what both were called against")
    made.add_argument(
        "--confident", metavar="BED", help="where the truth is whole: calls outside are not judged; default: everywhere"
    )
    return run_job(
        "evaluate",
        made,
        lambda run, a: pipeline("evaluate_calls:evaluate_calls")(run, a.query, a.truth, a.reference, a.confident),
        argv,
    )


def _asks_for_calls(argv: list[str]) -> bool:
    """Whether the word in place of TASK is `calls`, wherever it stands among options."""
    made = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    options = "config set master lake cohort label model query truth reference confident"
    for option in options.split():
        made.add_argument(f"--{option}")
    made.add_argument("task", nargs="?")
    with contextlib.suppress(InputError, argparse.ArgumentError, SystemExit):
        return made.parse_known_args(argv)[0].task == "calls"
    return False


if __name__ == "__main__":
    sys.exit(main())
