"""Every public data set by one command each into one lake: shapes and labels read back, held against its README, as a
table; then every bad input, which is refused in one line and leaves nothing. `[PATTERN...]` takes some of the former.

.venv/bin/python -m tests.reference.data_sets
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jobs
from genodl_spark import sources
from genodl_spark.core import session, storage
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import identifier
from genodl_spark.lake.tables.ingested import LABELS, SAMPLES
from genodl_spark.lake.tables.operations import RUNS
from genodl_spark.lake.tables.portals import PORTAL_FILES
from genodl_spark.report import content
from tests.public_data import DATA_SETS, DataSet, agree
from tests.sources.bad_inputs import CASES


def cohort(data: DataSet) -> str:
    return data.given.replace("/", " ")


def brought(data: DataSet, lake: str) -> dict[str, int]:
    """Rows by table that the data set's command writes."""
    print(f"$ genodl {' '.join(data.command)}", file=sys.stderr, flush=True)
    verb, *argv = data.command
    document = jobs.report_of(verb, [*argv, "--cohort", cohort(data), "--lake", lake])
    if document["code"]:
        raise RuntimeError(document["error"])
    return {name: rows["written"] for name, rows in document["rows"].items()}


def labels(lake: Lake, sets: list[DataSet]) -> dict[str, dict[str, Counter[str]]]:
    """How many have which label, by cohort and column; a job for each of the two tables."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for table in (SAMPLES, LABELS):
        if not lake.exists(table):
            continue
        rows = lake.read(table)
        names = [name for name in {name for data in sets for name in data.labels} if name in rows.columns]
        for row in rows.groupBy("cohort", *map(identifier, names)).count().collect():
            for name in names:
                if row[name] is not None:
                    found.setdefault(row.cohort, {}).setdefault(name, Counter())[row[name]] += row["count"]
    return found


def held(sets: list[DataSet], lake: str) -> Iterable[list[str]]:
    """A line for each data set. ValueError where one differs from its README."""
    rows, seconds = {}, {}
    for data in sets:
        started = time.perf_counter()
        rows[data.given] = brought(data, lake)
        seconds[data.given] = time.perf_counter() - started
    run = Run(Report("data sets"), config.load(), lake)
    people = {row.cohort: row["count"] for row in run.lake.read(SAMPLES).groupBy("cohort").count().collect()}
    known = labels(run.lake, sets)
    wrong = []
    for data in sets:
        own = rows[data.given]
        table = PORTAL_FILES if data.source == "phenotypes" else sources.load(data.source).table
        seen = (own[table.name], own.get("features"), people.get(cohort(data), 0), own.get("quarantine", 0))
        features = data.features if "features" in own else None
        if seen != (data.rows, features, data.samples or 0, data.aside):
            wrong.append(f"{data.given}: {seen}")
        told = []
        for name, expected in data.labels.items():
            counts = known.get(cohort(data), {}).get(name, Counter())
            if not agree(counts.elements(), expected):
                wrong.append(f"{data.given}: {name} {dict(counts)}")
            shown = counts.most_common(5)
            rest = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
            told.append(f"{name}: {', '.join(f'{label} {count}' for label, count in shown)}{rest}")
        shape = f"{seen[0]:,}" + (f" x {seen[1]:,}" if seen[1] else "")
        yield [
            data.given, data.source, shape, f"{seen[2]:,}" if seen[2] else "", "; ".join(told),
            f"{seconds[data.given]:.1f}",
        ]  # fmt: skip
    if wrong:
        raise ValueError("\n".join(wrong))


def refused(lake: str) -> int:
    """How many bad inputs were refused with exit code 2, one line that names the place, and nothing written.
    ValueError where one was not."""
    for number, (name, (source, make, place, words)) in enumerate(CASES.items()):
        with tempfile.TemporaryDirectory() as scratch:
            given = make(Path(scratch))
            before = contents(lake)
            document = jobs.report_of("ingest", [source, str(given), "--cohort", f"bad {number}", "--lake", lake])
            line: Any = document["error"]
            fits = document["code"] == 2 and re.search(rf"/{re.escape(place)}: ", line or "") and words in line
            if not fits or "\n" in line or contents(lake) != before:
                raise ValueError(f"{name}: {document['code']} {line} {sorted(contents(lake) ^ before)[:5]}")
    return len(CASES)


def contents(lake: str) -> set[str]:
    """Files of the lake but for what tells of runs."""
    return {uri for uri in storage.files_under(lake) if f"/{RUNS.name}/" not in uri and "/_locks/" not in uri}


def main() -> None:
    patterns = sys.argv[1:]
    sets = [data for data in DATA_SETS if not patterns or any(re.search(one, data.given) for one in patterns)]
    with tempfile.TemporaryDirectory() as scratch, session.shared():
        lake = str(Path(scratch) / "lake")
        started = time.perf_counter()
        lines = list(held(sets, lake))
        print(content.table(lines, ["data", "source", "rows x features", "samples", "labels", "seconds"]))
        print(f"\n{len(sets)} data sets in {time.perf_counter() - started:.0f} s")
        print(f"{refused(lake)} bad inputs refused, and nothing written")


if __name__ == "__main__":
    main()
