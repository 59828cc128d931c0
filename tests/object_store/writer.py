"""One of several drivers that commit to one table: writer.py LAKE NAME COMMITS. Begins when a line comes on stdin."""

from __future__ import annotations

import sys

import pyarrow as pa

from genodl_spark.core import session
from genodl_spark.job import config
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.genetics import LD_PRUNED


def row(cohort: str, pos: int) -> pa.Table:
    return pa.Table.from_pylist(
        [{"cohort": cohort, "contig": "1", "pos": pos, "ref": "A", "alt": "C"}], LD_PRUNED.arrow_schema()
    )


def main(uri: str, name: str, commits: str) -> None:
    spark = session.build("writer", {**config.load().spark, "spark.sql.codegen.wholeStage": "false"}, "local[1]")
    lake = Lake(spark, uri)
    lake.create(LD_PRUNED)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(commits)):
        if number % 4 == 3:  # what was there as it is then, and files that go
            lake.replace(LD_PRUNED, row(f"{name}-last", number), {"cohort": f"{name}-last"})
        else:
            lake.append(LD_PRUNED, row(name, number))
    session.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
