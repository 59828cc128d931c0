"""A PLINK .bed in beside the VCF of the same cohort, on the same machine in the same run: CPU seconds of both ingests.

The cohort is that of bench-vcf: 2,504 people, 4 Mb, GT alone. plink2 makes the .bed once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import meter
from vcf import CPUS, GENODL, LENGTH, SAMPLES, simulated, tell

ALLOWED = 1.5  # times the CPU seconds of the VCF


def ingest(source: Path, lake: Path, cores: int) -> meter.Cost:
    shutil.rmtree(lake, ignore_errors=True)
    command = [GENODL, "ingest", "vcf", str(source), "--lake", str(lake), "--cohort", "bench"]
    return meter.measure([*command, "--master", f"local[{cores}]"], CPUS[:cores], lake.parent)


def main() -> int:
    made = argparse.ArgumentParser(prog="bench-plink", description=__doc__)
    made.add_argument("--work", type=Path, help="where the inputs are kept; default: a temporary folder")
    made.add_argument("--samples", type=int, default=SAMPLES)
    made.add_argument("--length", type=int, default=LENGTH)
    made.add_argument("--repeat", type=int, default=3)
    chosen = made.parse_args()
    if shutil.which("plink2") is None:
        print("bench-plink: found no plink2; apt-get install plink2", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-plink-") as scratch:
        work = (chosen.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        source = simulated("A", 1, chosen.samples, chosen.length, work)
        stem = source.vcf.with_suffix("").with_suffix("")
        biallelic = ["--max-alleles", "2", "--make-bed"]  # a .bim has no others, some in a thousand here
        subprocess.run(["plink2", "--vcf", str(source.vcf), *biallelic, "--silent", "--out", str(stem)], check=True)
        inputs = {"VCF": source.vcf, "PLINK": Path(f"{stem}.bed")}
        costs: dict[str, list[meter.Cost]] = {name: [] for name in inputs}
        for _ in range(chosen.repeat):
            for name, path in inputs.items():
                tell(f"reads {path.name}")
                costs[name].append(ingest(path, work / f"{name}.lake", len(CPUS)))
    cpu = {name: statistics.median(cost.cpu for cost in found) for name, found in costs.items()}
    print(
        f"{date.today()}, {len(CPUS)} CPUs, load {os.getloadavg()[0]:.1f}; {source.variants:,} x {source.samples:,}\n"
    )
    print("| ingest of | CPU s, median | all runs | wall s, median |\n|---|---|---|---|")
    for name, found in costs.items():
        runs = " ".join(f"{cost.cpu:.1f}" for cost in found)
        print(f"| {name} | {cpu[name]:.1f} | {runs} | {statistics.median(cost.seconds for cost in found):.1f} |")
    ratio = cpu["PLINK"] / cpu["VCF"]
    print(f"\nPLINK: {ratio:.2f} of the VCF's CPU seconds, {ALLOWED} allowed")
    return int(ratio > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
