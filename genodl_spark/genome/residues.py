"""What amino acids are like, and how unlike one another. Pure NumPy; an amino acid is its letter, uint8 of ASCII."""

from __future__ import annotations

import numpy as np

LETTERS = "ARNDCQEGHILKMFPSTWYV"
# Henikoff and Henikoff 1992 (doi:10.1073/pnas.89.22.10915), rows and columns as LETTERS, below the diagonal
_BLOSUM62 = """
     4
    -1  5
    -2  0  6
    -2 -2  1  6
     0 -3 -3 -3  9
    -1  1  0  0 -3  5
    -1  0  0  2 -4  2  5
     0 -2  0 -1 -3 -2 -2  6
    -2  0  1 -1 -3  0  0 -2  8
    -1 -3 -3 -3 -1 -3 -3 -4 -3  4
    -1 -2 -3 -4 -1 -2 -3 -4 -3  2  4
    -1  2  0 -1 -3  1  1 -2 -1 -3 -2  5
    -1 -1 -2 -3 -1  0 -2 -3 -2  1  2 -1  5
    -2 -3 -3 -3 -2 -3 -3 -3 -1  0  0 -3  0  6
    -1 -2 -2 -1 -3 -1 -1 -2 -2 -3 -3 -1 -2 -4  7
     1 -1  1  0 -1  0  0  0 -1 -2 -2  0 -1 -2 -1  4
     0 -1  0 -1 -1 -1 -1 -2 -2 -1 -1 -1 -1 -2 -1  1  5
    -3 -3 -4 -4 -2 -2 -3 -2 -2 -3 -2 -3 -1  1 -4 -3 -2 11
    -2 -2 -2 -3 -2 -1 -2 -3  2 -1 -1 -2 -1  3 -3 -2 -2  2  7
     0 -3 -3 -3 -1 -2 -2 -3 -3  3  1 -2  1 -1 -2 -2  0 -3 -1  4
"""
# Composition, polarity and volume of Grantham 1974 (doi:10.1126/science.185.4154.862), hydropathy of Kyte and Doolittle
# 1982 (doi:10.1016/0022-2836(82)90515-0), propensities for helices and strands of Chou and Fasman 1978
# (doi:10.1002/9780470122921.ch2), charge at pH 7
_PROPERTIES = {  # in the order of LETTERS
    "composition": "0 0.65 1.33 1.38 2.75 0.89 0.92 0.74 0.58 0 0 0.33 0 0 0.39 1.42 0.71 0.13 0.2 0",
    "polarity": "8.1 10.5 11.6 13 5.5 10.5 12.3 9 10.4 5.2 4.9 11.3 5.7 5.2 8 9.2 8.6 5.4 6.2 5.9",
    "volume": "31 124 56 54 55 85 83 3 96 111 111 119 105 132 32.5 32 61 170 136 84",
    "hydropathy": "1.8 -4.5 -3.5 -3.5 2.5 -3.5 -3.5 -0.4 -3.2 4.5 3.8 -3.9 1.9 2.8 -1.6 -0.8 -0.7 -0.9 -1.3 4.2",
    "helix": "1.42 0.98 0.67 1.01 0.7 1.11 1.51 0.57 1 1.08 1.21 1.16 1.45 1.13 0.57 0.77 0.83 1.08 0.69 1.06",
    "strand": "0.83 0.93 0.89 0.54 1.19 1.1 0.37 0.75 0.87 1.6 1.3 0.74 1.05 1.38 0.55 0.75 1.19 1.37 1.47 1.7",
    "charge": "0 1 0 -1 0 0 -1 0 0.1 0 0 1 0 0 0 0 0 0 0 0",
}
PROPERTIES = tuple(_PROPERTIES)
# of the formula of Grantham 1974: weights of the squares, and the scale by which the mean of all pairs is 100
_WEIGHTS, _SCALE = (1.833, 0.1018, 0.000399), 50.723
_PLACE = np.full(128, len(LETTERS), np.int64)
_PLACE[np.frombuffer(LETTERS.encode(), np.uint8)] = np.arange(len(LETTERS))


def _symmetric(text: str) -> np.ndarray:
    rows = [[float(value) for value in line.split()] for line in text.strip().splitlines()]
    half = np.zeros((len(rows), len(rows)))
    for place, row in enumerate(rows):
        half[place, : len(row)] = row
    return half + half.T - np.diag(np.diag(half))


def _padded(table: np.ndarray) -> np.ndarray:
    """With NaN for any letter that is none of LETTERS."""
    return np.pad(table, (0, 1), constant_values=np.nan).astype(np.float32)


_TABLE = np.array([[float(value) for value in text.split()] for text in _PROPERTIES.values()]).T
_GRANTHAM = _SCALE * np.sqrt(((_TABLE[:, None, :3] - _TABLE[None, :, :3]) ** 2) @ np.array(_WEIGHTS))
_BY_PAIR = {"blosum62": _padded(_symmetric(_BLOSUM62)), "grantham": _padded(_GRANTHAM)}
_BY_LETTER = np.pad(_TABLE, ((0, 1), (0, 0)), constant_values=np.nan).astype(np.float32)


def blosum62(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Log odds in half bits, float32 like `old`; NaN where one of the two is no amino acid."""
    found: np.ndarray = _BY_PAIR["blosum62"][_PLACE[old], _PLACE[new]]
    return found


def grantham(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Distances by the formula of Grantham 1974, float32 like `old`, which has them as whole numbers, some of them
    rounded otherwise; NaN where one of the two is no amino acid."""
    found: np.ndarray = _BY_PAIR["grantham"][_PLACE[old], _PLACE[new]]
    return found


def properties(letters: np.ndarray) -> np.ndarray:
    """PROPERTIES of amino acids, float32 (..., 7); NaN for other letters."""
    found: np.ndarray = _BY_LETTER[_PLACE[letters]]
    return found
