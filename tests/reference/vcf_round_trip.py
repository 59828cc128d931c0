"""Every VCF at hand into a lake and out again: records and genotypes compared by bcftools, a line per file.
`[PATTERN...]` takes some.

.venv/bin/python tests/reference/vcf_round_trip.py
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import jobs
from genodl_spark.core import session

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("GENODL_SHARED_DATA", ROOT.parent / "shared" / "data"))


def records(path: Path) -> Counter[str]:
    """The record lines as bcftools prints them, counted; by digest, as a line may be long."""
    done = subprocess.Popen(["bcftools", "view", "-H", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert done.stdout is not None
    found = Counter(hashlib.sha256(line).hexdigest() for line in done.stdout)
    if done.wait():
        raise ValueError("bcftools cannot read it")
    return found


def main() -> int:
    patterns = sys.argv[1:]
    files = sorted(
        p
        for p in SHARED.rglob("*")
        if p.name.endswith((".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")) and "failed" not in p.parts
    )
    files = [p for p in files if not patterns or any(pattern in str(p) for pattern in patterns)]
    if not files:
        print(f"no VCF under {SHARED}", file=sys.stderr)
        return 2
    different = 0
    with tempfile.TemporaryDirectory() as folder, session.shared():
        for number, path in enumerate(files):
            name = str(path.relative_to(SHARED))
            lake, output = str(Path(folder) / f"lake{number // 20}"), Path(folder) / "out.vcf.gz"
            ingested = jobs.report_of("ingest", ["vcf", str(path), "--lake", lake, "--cohort", name])
            if ingested["code"]:
                print(name, "REFUSED", ingested.get("error"), sep="\t", flush=True)
                different += 1
                continue
            rows = ingested["rows"]["variants"]
            exported = jobs.report_of("export", ["vcf", "--lake", lake, "--cohort", name, "--output", str(output)])
            if exported["code"]:
                print(name, "NOT EXPORTED", exported.get("error"), sep="\t", flush=True)
                different += 1
                continue
            try:
                before, after = records(path), records(output)
                same = (
                    "identical"
                    if before == after
                    else f"DIFFERENT: {(before - after).total()} records of {before.total()}"
                )
            except ValueError as error:
                same = f"not compared: {error}"
            different += same.startswith("DIFFERENT")
            print(name, rows["written"], f"{rows['quarantined']} quarantined", same, sep="\t", flush=True)
    session.stop()
    print(f"{len(files)} files, {different} not identical")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
