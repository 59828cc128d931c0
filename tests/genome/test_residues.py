"""Amino acids: spot values of the published tables."""

from __future__ import annotations

import numpy as np
import pytest

from genodl_spark.genome.residues import LETTERS, PROPERTIES, blosum62, grantham, properties

ALL = np.frombuffer(LETTERS.encode(), np.uint8)


def codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@pytest.mark.parametrize(
    ("pair", "score", "distance"),
    [  # NCBI's BLOSUM62; table 2 of Grantham 1974
        ("WW", 11, 0),
        ("LI", 2, 5),
        ("CW", -2, 215),
        ("SR", -1, 110),
        ("AV", 0, 64),
        ("GW", -2, 184),
        ("DE", 2, 45),
        ("KR", 2, 26),
        ("FY", 3, 22),
        ("PH", -2, 77),
        ("CS", -1, 112),
    ],
)
def test_pairs_are_as_published(pair: str, score: int, distance: int) -> None:
    old, new = codes(pair)[:1], codes(pair)[1:]
    assert blosum62(old, new) == blosum62(new, old) == score
    assert grantham(old, new) == pytest.approx(distance, abs=1) == grantham(new, old)


def test_tables_are_whole() -> None:
    pairs = np.meshgrid(ALL, ALL)
    scores = blosum62(*pairs)
    assert (scores == scores.T).all() and (np.diag(scores) == scores.max(1)).all()
    # of all pairs of unlike ones, by which Grantham scaled them
    assert grantham(*pairs)[np.triu_indices(20, 1)].mean() == pytest.approx(100, abs=0.2)
    told = dict(zip(PROPERTIES, properties(codes("IRDG")).T, strict=True))
    assert told["hydropathy"].tolist() == pytest.approx([4.5, -4.5, -3.5, -0.4])  # Kyte and Doolittle 1982
    assert told["charge"].tolist() == [0, 1, -1, 0]
    assert np.isnan(properties(codes("*X"))).all() and np.isnan(blosum62(codes("*A"), codes("AX"))).all()
