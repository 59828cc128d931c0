"""Every row gets the distribution of the training rows (Bolstad et al. 2003), as preprocessCore's normalize.quantiles:
ties by their mean rank, rows with missing values by the quantiles of those that they have."""

from __future__ import annotations

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors


class Step(preprocessing.Step):
    """Values of every row become, by their ranks, the mean quantiles of the training rows."""

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        ordered = np.sort(rows.x, 1)  # missing values last
        count = (~np.isnan(rows.x)).sum(1)
        if (count < 1).any():
            raise InputError(
                f"found {int((count < 1).sum())} training rows without any value; expected none, "
                "put outliers before quantile",
                "quality.steps",
            )
        # of a row with missing values the quantiles lie between its values
        place = np.linspace(0, 1, rows.x.shape[1]) * (count[:, None] - 1)
        return {"target": _between(ordered, place).mean(0)}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        from scipy.stats import rankdata

        target = tensors["target"]
        known = ~np.isnan(rows.x)
        count = known.sum(1, keepdims=True)
        ranks = rankdata(np.where(known, rows.x, np.inf), axis=1) - 1
        # A whole row takes the value of its rank, or between two ranks their mean; others interpolate.
        half = np.floor(ranks) + np.where(ranks - np.floor(ranks) > 0.4, 0.5, 0.0)
        scale = (len(target) - 1) / np.maximum(count - 1, 1)
        place = np.where(count == len(target), half, ranks * scale)
        found = _between(np.broadcast_to(target, rows.x.shape), np.where(known, place, 0))
        return rows.of(np.where(known, found, np.nan))

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"target": (features,)}


def _between(ordered: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Values of ordered rows (n, F) at places (n, m) from 0, on the line between the two beside it."""
    low = np.floor(place + 1e-9).astype(np.int64)
    high = np.minimum(low + 1, ordered.shape[1] - 1)
    share = np.maximum(place - low, 0)
    below = np.take_along_axis(ordered, low, 1)
    above = np.where(share > 0, np.take_along_axis(ordered, high, 1), below)
    return (1 - share) * below + share * above
