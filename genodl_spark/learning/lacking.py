"""How far answers move where a row lacks a block of features: by held-out rows that are scored with it and without.

Split conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018, J. Am. Stat. Assoc. 113): of rows that no
training saw, the share COVERED moved no farther than the reach of a block; so will others of the kind. Pure NumPy.
"""

from __future__ import annotations

import numpy as np

COVERED = 0.95
_LEAST = 1e-12  # nearest that a probability comes to 0 or 1


def log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, _LEAST, 1 - _LEAST)
    return np.log(p) - np.log1p(-p)


def reach(whole: np.ndarray, without: np.ndarray, rows: int) -> float:
    """Of answers float64 (n, scores) with a block and without it how far COVERED of them lie apart: of probabilities
    the log odds of the class that is predicted without, else the value. `rows`: how many different ones they are of.
    Answers that are the same to the last bit are of rows that lack the block anyway. NaN where too few are left.
    """
    used = (whole != without).any(1) & ~np.isnan(whole).any(1) & ~np.isnan(without).any(1)
    whole, without = whole[used], without[used]
    rows = min(rows, len(whole))
    share = COVERED * (1 + 1 / rows) if rows else np.inf
    if share > 1:
        return np.nan
    if whole.shape[1] > 1:
        place = np.arange(len(without)), without.argmax(1)
        apart = log_odds(whole[place]) - log_odds(without[place])
    else:
        apart = whole[:, 0] - without[:, 0]
    return float(np.quantile(np.abs(apart), share, method="higher"))


def interval(value: np.ndarray, reaches: np.ndarray, probabilities: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where answers `value` (n,) would lie with what their rows lack, float64 (n,) each: as far as `reaches` (n,), the
    sum over the blocks that a row lacks; NaN where that is 0 or not known."""
    reaches = np.where(reaches > 0, reaches, np.nan)
    if not probabilities:
        return value - reaches, value + reaches
    middle = log_odds(value)
    low, high = 1 / (1 + np.exp(reaches - middle)), 1 / (1 + np.exp(-reaches - middle))
    # nearer to 0 or 1 than _LEAST all probabilities are one
    return np.where(low > 1 - 2 * _LEAST, np.minimum(low, value), low), np.where(high > 1 - 2 * _LEAST, 1.0, high)
