"""How long a user waits for an answer: help, listings, a statement by DuckDB, by Spark and in a shell, a first ingest.

    .venv/bin/python tests/bench/answers.py --lake demo/lake --vcf sample.vcf.gz --repeat 3

Wall and CPU seconds of all processes, the median of rounds that take one command after the other; of the shell's
statements wall seconds alone. The targets hold for two quiet cores.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import meter

from jobs.demo import SQL

GENODL = str(Path(sys.prefix) / "bin" / "genodl")
STATEMENT = " ".join(SQL.split())
WINDOW = "SELECT cohort, row_number() OVER (PARTITION BY cohort ORDER BY sample_id) AS k FROM samples"
_END = '{"job": "settings"'


def timed(*arguments: str) -> tuple[float, float]:
    cost = meter.measure([GENODL, *arguments])
    return cost.seconds, cost.cpu


def in_shell(lake: str, wait: float) -> dict[str, float]:
    """Wall seconds of statements in one shell, which has waited for `wait` seconds before the first."""
    waits = {}
    with subprocess.Popen(
        [GENODL, "shell", "--lake", lake], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as shell:
        assert shell.stdin is not None and shell.stdout is not None
        time.sleep(wait)
        for name, sql in (("first", WINDOW), ("second", STATEMENT), ("third", STATEMENT)):
            started = time.perf_counter()
            shell.stdin.write(f"{sql};\nsettings lock.wait_seconds\n")
            for line in shell.stdout:
                if line.startswith(_END):
                    break
            waits[name] = time.perf_counter() - started
        shell.stdin.close()
    return waits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True, help="a lake with predictions, such as that of the demo")
    parser.add_argument("--vcf", help="a VCF that is ingested into a new lake")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--wait", type=float, default=20, help="seconds that a shell waits for its first statement")
    given = parser.parse_args()
    at = ("--lake", given.lake)
    asked: dict[str, tuple[float, Callable[[], tuple[float, float]]]] = {
        "query --help": (0.6, lambda: timed("query", "--help")),
        "list tables": (2, lambda: timed("list", "tables", *at)),
        "query --engine duckdb": (2, lambda: timed("query", "--engine", "duckdb", STATEMENT, *at)),
        "query": (12, lambda: timed("query", STATEMENT, *at)),
    }
    if given.vcf:

        def ingested() -> tuple[float, float]:
            with tempfile.TemporaryDirectory() as folder:
                return timed("ingest", "vcf", given.vcf, "--cohort", "first", "--lake", f"{folder}/lake")

        asked["a first ingest"] = (14, ingested)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    shells = []
    for _ in range(given.repeat):
        for name, (_, work) in asked.items():
            found[name].append(work())
        shells.append(in_shell(given.lake, given.wait))
    print("| what | target, s | s | CPU s |\n|---|---|---|---|")
    for name, rounds in found.items():
        seconds, cpu = (statistics.median(one) for one in zip(*rounds, strict=True))
        print(f"| `{name}` | {asked[name][0]:g} | {seconds:.2f} | {cpu:.2f} |")
    for name in shells[0]:
        print(f"| {name} statement in a shell | 1 | {statistics.median(one[name] for one in shells):.2f} | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
