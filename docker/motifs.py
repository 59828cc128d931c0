"""Motifs of transcription factors, out of the JASPAR database that the wheel of pyjaspar bundles:
genodl_spark/genome/motifs.npz. Needed once for a release of JASPAR; the same database gives the same bytes.

    pip download pyjaspar==4.0.0 --no-deps
    .venv/bin/python docker/motifs.py pyjaspar-4.0.0-py3-none-any.whl

Matrices are the newest versions of CORE, vertebrates, by identifier. Of each, the share of a base at a position, one
part in a hundred of which is spread over all four, is stored as the whole number of 1/64 bits by which it is above a
quarter: sums of them are exact in single precision. For the licence see genodl_spark/genome/motifs.NOTICE.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATABASE = "pyjaspar/data/JASPAR2024.sqlite"
SPREAD, STEPS = 0.01, 64
NEWEST = """
    SELECT m.ID, m.BASE_ID, m.VERSION, m.NAME FROM MATRIX m JOIN MATRIX_ANNOTATION a ON a.ID = m.ID
    WHERE a.TAG = 'tax_group' AND a.VAL = 'vertebrates' AND m.COLLECTION = 'CORE' ORDER BY m.BASE_ID, m.VERSION
"""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("wheel", type=Path)
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(made.parse_args().wheel) as wheel:
        found = sqlite3.connect(wheel.extract(DATABASE, scratch))
        newest = {base: (key, f"{base}.{version}", name) for key, base, version, name in found.execute(NEWEST)}
        weights, families = [], []
        for key, _, _ in newest.values():
            counts: dict[int, np.ndarray] = {}
            for base, column, count in found.execute("SELECT row, col, val FROM MATRIX_DATA WHERE ID = ?", (key,)):
                counts.setdefault(int(column), np.zeros(4))["ACGT".index(base)] = float(count)
            matrix = np.stack([counts[column] for column in sorted(counts)])
            share = (1 - SPREAD) * matrix / matrix.sum(1, keepdims=True) + SPREAD / 4
            weights.append(np.rint(STEPS * np.log2(4 * share)).astype(np.int16))
            of = found.execute("SELECT VAL FROM MATRIX_ANNOTATION WHERE ID = ? AND TAG = 'family'", (key,))
            families.append(sorted({value.strip() for (value,) in of if value.strip()}))
        found.close()
    named = sorted({name for some in families for name in some})
    pairs = [(motif, named.index(name)) for motif, some in enumerate(families) for name in some]
    np.savez_compressed(
        ROOT / "genodl_spark" / "genome" / "motifs.npz",
        weights=np.concatenate(weights),
        ends=np.cumsum([0, *map(len, weights)]).astype(np.int32),
        ids=np.array([id_ for _, id_, _ in newest.values()]),
        names=np.array([name for _, _, name in newest.values()]),
        families=np.array(named),
        members=np.array(pairs, np.int32),
    )
    print(f"{len(weights)} motifs, {len(named)} families")


if __name__ == "__main__":
    main()
