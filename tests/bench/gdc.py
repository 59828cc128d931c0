"""`genodl ingest expression` of GDC gene counts, a file for each aliquot, beside a pandas loop: `make bench-gdc`.

Both read the same files on the same core. Each is measured on a quarter of them and on all: what the rest took gives
seconds of CPU for a file, without what it takes to start, and the peaks of the two say whether memory grows with files.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.meter import Cost, measure  # noqa: E402

COLUMNS = [
    "gene_id",
    "gene_name",
    "gene_type",
    "unstranded",
    "stranded_first",
    "stranded_second",
    "tpm_unstranded",
    "fpkm_unstranded",
]
KINDS = 8  # of bodies: the files differ in their totals
LOOP = """
import sys, pathlib, pandas as pd
folder, out = sys.argv[1:]
found = {}
for path in sorted(pathlib.Path(folder).iterdir()):
    table = pd.read_csv(path, sep="\\t", comment="#", usecols=["gene_id", "unstranded"], index_col="gene_id")
    found[path.name] = table["unstranded"][4:].astype("float32")
pd.DataFrame(found).to_parquet(out)
"""


def make(folder: Path, first: int, count: int, genes: int) -> None:
    folder.mkdir()
    bodies = []
    for kind in range(KINDS):
        counts = np.random.default_rng(kind).negative_binomial(0.3, 0.001, genes)
        rows = [
            f"ENSG{i:011d}.{i % 20 + 1}\tSYM{i}\tprotein_coding\t{c}\t{c // 2}\t{c - c // 2}\t{c / 37:.4f}\t"
            f"{c / 71:.4f}\n"
            for i, c in enumerate(counts.tolist())
        ]
        bodies.append("".join(rows))
    head = "# gene-model: GENCODE v36\n" + "\t".join(COLUMNS) + "\n"
    for number in range(first, first + count):
        totals = "".join(
            f"N_{name}\t\t\t{number}\t{number}\t{number}\t\t\n"
            for name in ("unmapped", "multimapping", "noFeature", "ambiguous")
        )
        (folder / f"s{number:05d}.tsv").write_text(head + totals + bodies[number % KINDS])


def costs(folder: Path, small: Path, large: Path, core: set[int]) -> dict[str, tuple[Cost, Cost]]:
    genodl = [str(ROOT / ".venv/bin/genodl"), "ingest", "expression"]
    more = ["--cohort", "c", "--master", "local[1]"]
    both = (small, large)
    ours = [measure([*genodl, str(f), *more, "--lake", str(folder / f"{f.name}.lake")], core, ROOT) for f in both]
    loop = folder / "loop.py"
    loop.write_text(LOOP)
    theirs = [measure([sys.executable, str(loop), str(f), str(folder / "out.parquet")], core, ROOT) for f in both]
    return {"genodl ingest": (ours[0], ours[1]), "pandas loop": (theirs[0], theirs[1])}


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--files", type=int, default=5000)
    made.add_argument("--genes", type=int, default=60_000)
    args = made.parse_args()
    core = {min(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quarter = args.files // 4
        make(folder / "small", 0, quarter, args.genes)
        make(folder / "large", 0, args.files, args.genes)
        found = costs(folder, folder / "small", folder / "large", core)
    each = {what: (large.cpu - small.cpu) / (args.files - quarter) for what, (small, large) in found.items()}
    day, where = datetime.now(UTC).date(), f"{platform.machine()}, 1 core"
    print(f"{args.files} files of {args.genes} genes, {day}, {where}")
    print("| reader | CPU s, a quarter | CPU s, all | CPU ms a file | peak MB, a quarter | peak MB, all |")
    print("|---|---|---|---|---|---|")
    for what, (small, large) in found.items():
        of = "worker" if what.startswith("genodl") else "main"
        peaks = [cost.peaks.get(of, 0) / 1e6 for cost in (small, large)]
        row = [f"{small.cpu:.1f}", f"{large.cpu:.1f}", f"{1000 * each[what]:.1f}", *(f"{peak:.0f}" for peak in peaks)]
        print(f"| {what} | {' | '.join(row)} |")
    print(f"genodl takes {each['genodl ingest'] / each['pandas loop']:.2f} of the CPU time of pandas for a file")
    return 0


if __name__ == "__main__":
    sys.exit(main())
