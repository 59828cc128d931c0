"""Ingest and prediction with the lake on an object store, beside the same on a local disk.

The store is the one that AWS_ENDPOINT_URL_S3 names; what is written below --lake stays there. `ingest` is the verb as
it is called, its start included. `predict` is a job of a warm session over rows enough that scoring them is most of it,
as bench-predict measures it; `predict, 1% new` the job that scores a hundredth of that, which is all start and commit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from tests.bench import predict
from tests.bench.bare_loop import answer, child

ROOT = Path(__file__).resolve().parents[2]
GENODL = [str(ROOT / ".venv" / "bin" / "genodl")]


def seconds(*words: str) -> float:
    done = subprocess.run([*GENODL, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True, help="s3a://BUCKET/FOLDER, which is not there yet")
    parser.add_argument("--samples", default="3000")
    parser.add_argument("--length", default="5000000", help="bases")
    parser.add_argument("--rows", type=int, default=predict.ROWS["mlp"], help="to predict")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="genodl-bench-store-") as folder:
        people = f"{folder}/people.vcf.gz"
        size = ("--samples", given.samples, "--length", given.length)
        seconds("simulate", "cohort", *size, "--seed", "1", "--output", people)
        lakes = {"store": given.lake, "disk": f"{folder}/lakes"}
        for lake in lakes.values():
            answer(child(predict.__file__, cpus, "make", "mlp", lake, given.rows))
        for number in range(given.repeat):
            for where, lake in lakes.items():
                read = ("ingest", "vcf", people, "--samples", f"{folder}/people.samples.tsv", "--cohort", "c")
                found.setdefault(("ingest", where), []).append(seconds(*read, "--lake", f"{lake}/{number}"))
                took = answer(child(predict.__file__, cpus, "ours", "mlp", lake, given.rows, len(cpus)))
                found.setdefault(("predict", where), []).append(took["seconds"])
                found.setdefault(("predict, 1% new", where), []).append(took["incremental"])
    print(f"{len(cpus)} cores, {platform.machine()}; {date.today()}; {given.repeat} alternating rounds, medians\n")
    print("| what | disk, s | store, s | rate of the disk's |\n| --- | --- | --- | --- |")
    for what in dict.fromkeys(what for what, _ in found):
        disk, store = found[what, "disk"], found[what, "store"]
        rate = statistics.median(one / other for one, other in zip(disk, store, strict=True))
        print(f"| {what} | {statistics.median(disk):.1f} | {statistics.median(store):.1f} | {rate:.2f} |")


if __name__ == "__main__":
    main()
