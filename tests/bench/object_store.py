"""Ingest and prediction of one cohort with the lake on an object store, beside the same on a local disk.

The store is the one that AWS_ENDPOINT_URL_S3 names; what is written below --lake stays there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENODL = [str(ROOT / ".venv" / "bin" / "genodl")]
SMALL = ("train.launcher=process", "train.epochs=3", "train.ensemble=2", "split.folds=2", "split.repeats=1")


def seconds(*words: str) -> float:
    done = subprocess.run([*GENODL, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", required=True, help="s3a://BUCKET/FOLDER")
    parser.add_argument("--samples", default="1000")
    parser.add_argument("--length", default="2000000", help="bases")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        people = f"{folder}/people.vcf.gz"
        size = ("--samples", given.samples, "--length", given.length)
        seconds("simulate", "cohort", *size, "--seed", "1", "--output", people)
        for number in range(given.repeat):
            for where, lake in (("store", f"{given.lake}/{number}"), ("disk", f"{folder}/{number}")):
                labelled = ("ancestry", "--lake", lake, "--label", "population")
                read = ("ingest", "vcf", people, "--samples", f"{folder}/people.samples.tsv", "--cohort", "c")
                found.setdefault(("ingest", where), []).append(seconds(*read, "--lake", lake))
                seconds("train", *labelled, "--procs", "1", *(word for one in SMALL for word in ("--set", one)))
                found.setdefault(("predict", where), []).append(seconds("predict", *labelled))
    for verb in ("ingest", "predict"):
        store, disk = min(found[verb, "store"]), min(found[verb, "disk"])
        print(f"{verb:8} store {store:6.1f} s   disk {disk:6.1f} s   rate {disk / store:.2f} of the disk's")


if __name__ == "__main__":
    main()
