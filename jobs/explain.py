"""Explains what a registered model says of a cohort, into the table attributions: which bases or features did it;
of sequences the motifs, too."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import model_option, parser, pipeline, run_job, task_options


def main(argv: list[str] | None = None) -> int:
    made = parser("explain", __doc__)
    task_options(made)
    model_option(made)
    made.add_argument(
        "--output", metavar="DIR", help="where to write the motifs of sequences: motifs.meme and a logo of each"
    )
    made.add_argument("--force", action="store_true", help="explain all entities again")
    return run_job(
        "explain",
        made,
        lambda run, a: pipeline("explain:explain")(run, a.cohort, a.label, a.model, a.output, a.force),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
