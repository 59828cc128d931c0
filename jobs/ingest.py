"""Reads files of a kind of source, such as VCF, expression or phenotypes, or of a kind of your own, into the lake."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from genodl_spark.job.cli import Arguments, lake_option, parser, pipeline, run_job
from genodl_spark.sources import kinds

if TYPE_CHECKING:
    from genodl_spark.job.run import Run


def ingest(run: Run, given: Arguments) -> None:
    options = (given.cohort, given.samples, given.block, given.reference, given.may_be_empty, given.tracks)
    pipeline("ingest:ingest")(run, given.source, given.paths, *options, given.truth, given.confident)


def main(argv: list[str] | None = None) -> int:
    made = parser("ingest", __doc__)
    made.add_argument("source", metavar="SOURCE", choices=kinds(), help=f"{', '.join(kinds())}, or the path of a .py")
    made.add_argument("paths", metavar="PATH", nargs="+", help="files or directories, plain, gzipped or bgzipped")
    lake_option(made)
    made.add_argument(
        "--cohort", metavar="NAME", help="cohort that the files belong to; default: the only one in the lake"
    )
    made.add_argument("--samples", metavar="TSV", help="sample table: sample_id and any other columns")
    made.add_argument("--block", metavar="NAME", help="name of this matrix among several of the cohort")
    made.add_argument("--reference", metavar="FASTA", help="what genotypes, variants and alignments are held against")
    made.add_argument(
        "--tracks",
        metavar="NAME=FILE",
        action="append",
        help="a bigWig, whose values at variants become a column NAME; may be given several times",
    )
    made.add_argument("--truth", metavar="VCF", help="variants of the sample that are known, as labels of candidates")
    made.add_argument("--confident", metavar="BED", help="where all of them are known: outside nothing is labelled")
    made.add_argument(
        "--may-be-empty",
        action="store_true",
        help="no PATH, or no file in it, is nothing to do",
    )
    return run_job("ingest", made, ingest, argv)


if __name__ == "__main__":
    sys.exit(main())
