"""Which classes a row may be of, or between which values it lies, so that the truth is among them for a share of rows
that was asked for: split conformal prediction by rows that no training saw. Pure NumPy.

The class's set is that of least size on average (Sadinle, Lei and Wasserman 2019, doi:10.1080/01621459.2017.1395341):
all classes that are as probable as a cut, and the most probable one in any case. A value's interval is as wide to both
sides everywhere (Lei et al. 2018, doi:10.1080/01621459.2017.1307116). What is promised is for rows like those held
out, all classes together: of a rare class fewer may be covered, and of another cohort nothing is promised.
"""

from __future__ import annotations

import math

import numpy as np


def cut(answers: np.ndarray, target: np.ndarray, rows: int, coverage: float) -> float:
    """Of probabilities float64 (n, C) and class indices (n,) the least probability of a class of the set; of values
    (n,) and true ones (n,) how far the ends lie off. NaN in an answer leaves its row out. `rows`: how many different
    ones they are of. NaN where they are too few for such a `coverage`."""
    kept = ~np.isnan(answers).any(tuple(range(1, answers.ndim))) & ~np.isnan(target)
    answers, target = answers[kept], target[kept]
    if answers.ndim == 2:
        strange = -answers[np.arange(len(answers)), target.astype(np.int64)]
    else:
        strange = np.abs(answers - target)
    rows = min(rows, len(strange))
    # The row asked is one more: the quantile is that of one more than there are, and 90.00000000000001 is the 90th.
    place = math.ceil(round(len(strange) * coverage * (1 + 1 / rows), 9)) if rows else 1
    if place > len(strange):
        return math.nan
    return abs(float(np.sort(strange)[max(place, 1) - 1]))


def sets(probabilities: np.ndarray, least: float) -> np.ndarray:
    """Which classes may be, bool (n, C), of probabilities (n, C); NaN leaves a row without any."""
    found = probabilities >= least
    known = ~np.isnan(probabilities).any(1)
    found[np.flatnonzero(known), probabilities[known].argmax(1)] = True
    found[~known] = False
    return found
