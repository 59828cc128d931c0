"""What variants exchange and what stands around them, of variants made by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from genodl_spark.genome.substitutions import CONTEXT_NAMES, SUBSTITUTION_NAMES, context, substitutions
from genodl_spark.genome.surroundings import Surroundings


def told(rows: list[tuple[str, str, str, str]], names: list[str], x: np.ndarray) -> list[dict[str, float]]:
    return [{name: round(float(v), 4) for name, v in zip(names, row, strict=True) if v} for row in x]


def test_alleles() -> None:
    rows = [("A", "A", "G", ""), ("", "C", "A", "C"), ("", "-", "ACG", ""), ("", "AC", "A", ""), ("", "AC", "GT", ""),
            ("", "N", "A", ""), ("", "A", "-", "")]  # fmt: skip
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    x = substitutions(Surroundings.of(*columns, 4))
    found = told(rows, SUBSTITUTION_NAMES, x)
    assert found == [
        {"substitution:A>G": 1, "substitution:transition": 1},
        {"substitution:C>A": 1, "substitution:transversion": 1},
        {"substitution:insertion": 1, "substitution:longer": 1.3863},
        {"substitution:deletion": 1, "substitution:longer": -0.6931},
        {"substitution:several": 1},
        {},
        {"substitution:deletion": 1, "substitution:longer": -0.6931},
    ]


def test_surroundings() -> None:
    rows = [("TTTACG", "C", "A", "GGT"), ("", "C", "A", "G"), ("CG", "-", "A", "CGCG"), ("NN", "A", "C", "N")]
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    found = told(rows, CONTEXT_NAMES, context(Surroundings.of(*columns, 64)))
    near = {name: value for name, value in found[0].items() if name.endswith(":5")}
    assert near == {"share:A:5": 0.125, "share:C:5": 0.125, "share:G:5": 0.375, "share:T:5": 0.375, "share:CG:5": 0.125}
    assert [[name for name in row if name.startswith("tri")] for row in found] == [
        ["trinucleotide:GCG"], [], ["trinucleotide:GCG"], []
    ]  # fmt: skip
    assert found[2]["share:CG:40"] == 0.5 and found[3] == {}
    # Bases beyond the flank are not seen, and rows do not depend on one another.
    far = [pa.array(["A" * 100 + "C", "G"]), pa.array(["T", "T"]), pa.array(["C", "C"]), pa.array(["", "A" * 100])]
    x = context(Surroundings.of(*far, 40))
    alone = context(Surroundings.of(*(column.slice(1) for column in far), 40))
    assert x[1].tobytes() == alone[0].tobytes()
