"""Consequences of a cohort's variants: genes, transcripts, Sequence Ontology terms, codons, amino acids and HGVS."""

from __future__ import annotations

import sys

from genodl_spark.job.cli import lake_option, parser, pipeline, run_job


def main(argv: list[str] | None = None) -> int:
    made = parser("annotate", __doc__)
    lake_option(made)
    made.add_argument("--cohort", metavar="NAME", help="default: the only cohort with variants")
    return run_job("annotate", made, lambda run, a: pipeline("annotate:annotate")(run, a.cohort), argv)


if __name__ == "__main__":
    sys.exit(main())
