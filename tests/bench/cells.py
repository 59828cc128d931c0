"""`genodl ingest cells` of a Cell Ranger HDF5: CPU seconds and bytes of a cell, to its commit: `make bench-cells`.

A quarter of the cells and all of them are read, each into a lake of its own: what the rest took gives the cost of a
cell without what it takes to start.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.meter import measure  # noqa: E402

AT_ONCE = 1000


def make(path: Path, cells: int, genes: int, counted: int) -> None:
    """A filtered_feature_bc_matrix.h5 of so many cells, each with `counted` of the genes; counts are mostly small."""
    generator = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        data = matrix.create_dataset("data", (cells * counted,), "int32", chunks=True, compression="gzip")
        indices = matrix.create_dataset("indices", (cells * counted,), "int64", chunks=True, compression="gzip")
        for start in range(0, cells, AT_ONCE):
            count = min(AT_ONCE, cells - start)
            chosen = generator.random((count, genes)).argpartition(counted, axis=1)[:, :counted]
            place = slice(start * counted, (start + count) * counted)
            indices[place] = np.sort(chosen, axis=1).ravel()
            data[place] = generator.geometric(0.4, count * counted)
        matrix["indptr"] = np.arange(cells + 1, dtype=np.int64) * counted
        matrix["shape"] = np.array([genes, cells], np.int32)
        matrix["barcodes"] = [f"{number:016b}".replace("0", "A").replace("1", "C") + "-1" for number in range(cells)]
        features = matrix.create_group("features")
        names = [f"ENSG{number:011d}" for number in range(genes)]
        features["id"], features["name"] = names, [f"SYM{number}" for number in range(genes)]
        features["feature_type"] = ["Gene Expression"] * genes
        features["genome"] = ["GRCh38"] * genes


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--cells", type=int, default=40_000)
    made.add_argument("--genes", type=int, default=25_000)
    made.add_argument("--counted", type=int, default=1500, help="genes counted in each cell")
    args = made.parse_args()
    core = {min(os.sched_getaffinity(0))}
    cost, stored = [], []
    with tempfile.TemporaryDirectory(prefix="genodl-bench-cells-") as name:
        for cells in (args.cells // 4, args.cells):
            file, lake = Path(name, f"{cells}.h5"), Path(name, f"{cells}.lake")
            make(file, cells, args.genes, args.counted)
            command = [str(ROOT / ".venv/bin/genodl"), "ingest", "cells", str(file), "--cohort", "c"]
            cost.append(measure([*command, "--master", "local[1]", "--lake", str(lake)], core, ROOT))
            stored.append(sum(part.stat().st_size for part in (lake / "cells").rglob("*.parquet")))
    rest = args.cells - args.cells // 4
    print(f"{args.cells} cells with {args.counted} of {args.genes} genes, {datetime.now(UTC).date()}, ", end="")
    print(f"{platform.machine()}, 1 core")
    print("| CPU s, a quarter | CPU s, all | CPU ms a cell | bytes a cell | peak MB |\n|---|---|---|---|---|")
    peaks = ", ".join(f"{kind} {size / 1e6:.0f}" for kind, size in sorted(cost[1].peaks.items()))
    each, size = (cost[1].cpu - cost[0].cpu) / rest, (stored[1] - stored[0]) / rest
    print(f"| {cost[0].cpu:.1f} | {cost[1].cpu:.1f} | {1000 * each:.3f} | {size:.0f} | {peaks} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
