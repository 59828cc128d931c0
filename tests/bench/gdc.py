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
KINDS = 16  # of files
LOOP = """
import sys, pathlib, pandas as pd
folder, out = sys.argv[1:]
found, genes = {}, None
for path in sorted(pathlib.Path(folder).iterdir()):
    table = pd.read_csv(path, sep="\\t", comment="#", usecols=["gene_id", "unstranded"])[4:]
    genes = table["gene_id"] if genes is None else genes
    assert genes.equals(table["gene_id"])  # identifiers of 5,000 files are 20 GB: those of the first are kept
    found[path.name] = table["unstranded"].to_numpy("float32")
pd.DataFrame(found, index=genes).to_parquet(out)
"""


def make(folder: Path, genes: int) -> list[Path]:
    """KINDS files; all that are read are links to these, as 5,000 of them would be 21 GB."""
    folder.mkdir()
    head = "# gene-model: GENCODE v36\n" + "\t".join(COLUMNS) + "\n"
    made = []
    for kind in range(KINDS):
        counts = np.random.default_rng(kind).negative_binomial(0.3, 0.001, genes)
        rows = [
            f"ENSG{i:011d}.{i % 20 + 1}\tSYM{i}\tprotein_coding\t{c}\t{c // 2}\t{c - c // 2}\t{c / 37:.4f}\t"
            f"{c / 71:.4f}\n"
            for i, c in enumerate(counts.tolist())
        ]
        totals = "".join(
            f"N_{name}\t\t\t{kind}\t{kind}\t{kind}\t\t\n"
            for name in ("unmapped", "multimapping", "noFeature", "ambiguous")
        )
        made.append(folder / f"{kind}.tsv")
        made[-1].write_text(head + totals + "".join(rows))
    return made


def linked(folder: Path, kinds: list[Path], count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        os.link(kinds[number % len(kinds)], folder / f"s{number:05d}.tsv")
    return folder


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
        kinds = make(folder / "kinds", args.genes)
        small, large = (linked(folder / name, kinds, n) for name, n in (("small", quarter), ("large", args.files)))
        found = costs(folder, small, large, core)
    each = {what: (large.cpu - small.cpu) / (args.files - quarter) for what, (small, large) in found.items()}
    day, where = datetime.now(UTC).date(), f"{platform.machine()}, 1 core"
    print(f"{args.files} files of {args.genes} genes, {day}, {where}")
    print("| reader | CPU s, a quarter | CPU s, all | CPU ms a file | peak MB, a quarter | peak MB, all |")
    print("|---|---|---|---|---|---|")
    for what, (few, many) in found.items():
        peaks = [", ".join(f"{kind} {size / 1e6:.0f}" for kind, size in sorted(c.peaks.items())) for c in (few, many)]
        row = [f"{few.cpu:.1f}", f"{many.cpu:.1f}", f"{1000 * each[what]:.1f}", *peaks]
        print(f"| {what} | {' | '.join(row)} |")
    ours, theirs = found["genodl ingest"], found["pandas loop"]
    ratio, whole = each["pandas loop"] / each["genodl ingest"], theirs[1].cpu / ours[1].cpu
    print(f"pandas takes {ratio:.2f} times the CPU time of genodl for a file, {whole:.2f} times with the start of both")
    return 0


if __name__ == "__main__":
    sys.exit(main())
