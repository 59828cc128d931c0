"""Batches moved and stretched onto each other by empirical Bayes (Johnson, Li and Rabinovic 2007), as sva's ComBat.

What is learnt of each batch in training is frozen: a row of such a batch is corrected by that, whatever rows come with
it. Notation of the paper: gamma is by how much a batch is moved, delta by how much its variance is stretched.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from genodl_spark.core.errors import InputError
from genodl_spark.learning import preprocessing
from genodl_spark.learning.preprocessing import UNKNOWN, About, Rows, Tensors

_CONVERGED = 1e-4
_SAME = 1e-9  # standard deviations below this, relative to a feature's size, are rounding
_AT_ONCE = 1 << 22  # likelihoods of features under each other's parameters that are held at once


class Step(preprocessing.Step):
    """Corrects for the batches that the column quality.batch tells."""

    parametric: bool = Field(True, description="Whether priors are normal and inverse gamma, or the features' own.")
    mean_only: bool = Field(False, description="Whether batches are moved alone, and not stretched.")
    reference: str = Field("", description="Batch that stays as it is and that the others are brought to; empty: none.")
    protect_label: bool = Field(
        False,
        description="Whether differences between the classes of training rows are kept apart from those between "
        "batches, for classes that batches hold in unequal shares.",
    )
    unseen: str = Field(
        "refuse",
        pattern="^(refuse|reference)$",
        description="What is done with a row of a batch that training has not seen, or of none: refuse it, "
        "or leave it as it is, as one of the reference.",
    )

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        self._check(rows, about)
        design = np.zeros((len(rows.x), 0))
        if self.protect_label:
            if about.classes is None:
                text = "found protect_label where no single column of classes is predicted; expected one"
                raise InputError(f"{text}, leave it out", "quality.options.combat.protect_label")
            present = np.unique(about.classes[about.classes >= 0])
            design = (about.classes[:, None] == present[1:]).astype(np.float64)
            # rows of no known class are stretched about the mean of all, whichever class is the first
            design -= design.mean(0)
        reference = about.batches.index(self.reference) if self.reference else None
        return fitted(rows.x, rows.batch, len(about.batches), design, reference, self.parametric, self.mean_only)

    def _check(self, rows: Rows, about: About) -> None:
        if not about.batches:
            raise InputError(
                "found no column that tells batches; expected one of the sample table, set quality.batch",
                "quality.batch",
            )
        if self.reference and self.reference not in about.batches:
            text = f"found {self.reference!r}; expected one of {', '.join(about.batches)}"
            raise InputError(text, "quality.options.combat.reference")
        if (rows.batch < 0).any():
            text = f"found {int((rows.batch < 0).sum())} training rows without a batch; expected one of each"
            raise InputError(f"{text}, mend the sample table", "quality.batch")
        if self.reference and not (rows.batch == about.batches.index(self.reference)).any():
            text = f"found no training row of the reference {self.reference!r}; expected some"
            raise InputError(text, "quality.options.combat.reference")

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        seen = rows.batch >= 0
        seen[seen] = tensors["seen"][rows.batch[seen]] > 0
        if self.unseen == "refuse" and not seen.all():
            which = "without a batch" if (rows.batch[~seen] == UNKNOWN).all() else "of a batch that no training row has"
            raise InputError(
                f"found rows {which}; expected batches of training, set unseen to reference for the step combat",
                "quality.batch",
            )
        batch = np.where(seen, rows.batch, 0)
        mean, spread = tensors["mean"], tensors["spread"]
        z = (rows.x - mean) / spread
        corrected = (z - tensors["gamma"][batch]) / np.sqrt(tensors["delta"][batch]) * spread + mean
        return rows.of(np.where(seen[:, None], corrected, rows.x))

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        each = (batches, features)
        return {"mean": (features,), "spread": (features,), "gamma": each, "delta": each, "seen": (batches,)}


def fitted(
    x: np.ndarray,
    batch: np.ndarray,
    batches: int,
    design: np.ndarray,
    reference: int | None = None,
    parametric: bool = True,
    mean_only: bool = False,
) -> dict[str, np.ndarray]:
    """What rows x (n, F), NaN missing, of batches int (n,), each below `batches`, teach.

    `design` (n, c): what is kept apart from batches. Returns mean and spread (F,) of features that batches share,
    gamma and delta (batches, F) on their scale, and `seen` (batches,). A feature that is constant within a batch
    stays as it is. With one row in some batch, variances are left alone. InputError where batches and design cannot
    be told apart.
    """
    present, counts = np.unique(batch, return_counts=True)
    mean_only = mean_only or bool((counts == 1).any())
    made = {
        "mean": np.zeros(x.shape[1]),
        "spread": np.ones(x.shape[1]),
        "gamma": np.zeros((batches, x.shape[1])),
        "delta": np.ones((batches, x.shape[1])),
        "seen": np.bincount(present, minlength=batches).astype(np.float64),
    }
    members = [np.flatnonzero(batch == b) for b in present]
    varies = np.ones(x.shape[1], bool)
    for rows, count in zip(members, counts, strict=True):
        if count > 1:
            # equal up to rounding is constant: the rest of a logarithm of 0 must not become a prior's variance
            varies &= np.sqrt(_variance(x[rows])) > _SAME * np.maximum(np.nan_to_num(np.abs(x[rows])).max(0), 1e-300)
    kept = np.flatnonzero(varies)
    if not len(kept) or len(present) < 2:
        return made
    y = x[:, kept]
    of_batches = (batch[:, None] == present).astype(np.float64)
    at = None if reference is None else int(np.searchsorted(present, reference))
    if at is not None:
        of_batches[:, at] = 1
    whole = np.concatenate([of_batches, design], 1)
    if np.linalg.matrix_rank(whole) < whole.shape[1]:
        raise InputError(
            "found batches that the classes of training rows cannot be told from; expected some of several classes "
            "in a batch, set protect_label of the step combat to false",
            "quality.options",
        )
    effects = _least_squares(y, whole)
    rows_of = slice(None) if at is None else members[at]
    mean = effects[at] if at is not None else counts / len(x) @ effects[: len(present)]
    residual = (y - whole @ effects)[rows_of]
    # as in sva: the mean square, but where values are missing the variance about the mean
    variance = _variance(residual) if np.isnan(y).any() else np.square(residual).mean(0)
    spread = np.sqrt(variance)
    z = (y - mean - design @ effects[len(present) :]) / spread
    moved = _least_squares(z, of_batches)
    stretched = np.ones_like(moved) if mean_only else np.stack([_variance(z[rows]) for rows in members])
    made["mean"][kept], made["spread"][kept] = mean, spread
    for number, (b, rows) in enumerate(zip(present, members, strict=True)):
        if number == at:
            continue
        if not parametric:
            gamma, delta = _nonparametric(z[rows], moved[number], stretched[number])
        elif mean_only:
            prior, variance = moved[number].mean(), moved[number].var(ddof=1)
            gamma, delta = _posterior_mean(moved[number], prior, 1.0, 1.0, variance), stretched[number]
        else:
            gamma, delta = _parametric(z[rows], moved[number], stretched[number])
        made["gamma"][b, kept], made["delta"][b, kept] = gamma, delta
    return made


def _variance(x: np.ndarray) -> np.ndarray:
    """Sample variance of the values that each column has, float64 (F,); 0 of fewer than two."""
    known = ~np.isnan(x)
    count = known.sum(0)
    mean = np.where(known, x, 0).sum(0) / np.maximum(count, 1)
    squares: np.ndarray = np.square(np.where(known, x - mean, 0)).sum(0) / np.maximum(count - 1, 1)
    return squares


def _least_squares(y: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Effects (c, F) of a design (n, c) on the values that each column of y (n, F) has."""
    known = ~np.isnan(y)
    if known.all():
        return np.linalg.solve(design.T @ design, design.T @ y)
    filled = np.where(known, y, 0)
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    inner = (known.T @ products).reshape(y.shape[1], design.shape[1], design.shape[1])
    if (np.linalg.matrix_rank(inner) < design.shape[1]).any():
        raise InputError(
            "found a feature without any value in some batch; expected one at least, "
            "put a step that imputes before combat",
            "quality.steps",
        )
    found: np.ndarray = np.linalg.solve(inner, (design.T @ filled).T[:, :, None])[:, :, 0].T
    return found


def _posterior_mean(
    found: np.ndarray, prior: float, n: np.ndarray | float, delta: np.ndarray | float, variance: float
) -> np.ndarray:
    return (variance * n * found + delta * prior) / (variance * n + delta)


def _parametric(z: np.ndarray, gamma: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior gamma and delta (F,) of one batch's rows, in turns until neither changes by 1e-4 of itself."""
    prior, variance = gamma.mean(), gamma.var(ddof=1)
    mean, spread = delta.mean(), delta.var(ddof=1)
    shape, scale = (2 * spread + mean**2) / spread, (mean * spread + mean**3) / spread
    n, total, squares = (~np.isnan(z)).sum(0), np.nansum(z, 0), np.nansum(z * z, 0)
    found, stretched = gamma, delta
    change = 1.0
    while change > _CONVERGED:
        moved = _posterior_mean(gamma, prior, n, stretched, variance)
        spread_now = (0.5 * (squares - 2 * moved * total + n * moved**2) + scale) / (n / 2 + shape - 1)
        # the sign of the denominator is sva's: only where gamma is above 0 does its change count
        change = max(
            float((np.abs(moved - found) / found).max()), float((np.abs(spread_now - stretched) / stretched).max())
        )
        found, stretched = moved, spread_now
    return found, stretched


def _nonparametric(z: np.ndarray, gamma: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior gamma and delta (F,) of one batch's rows, under those of all other features as prior."""
    n, total, squares = (~np.isnan(z)).sum(0), np.nansum(z, 0), np.nansum(z * z, 0)
    features = len(gamma)
    found = np.empty((2, features))
    size = max(1, _AT_ONCE // features)
    for start in range(0, features, size):
        own = slice(start, min(start + size, features))
        away = squares[own, None] - 2 * total[own, None] * gamma + n[own, None] * gamma**2
        logs = -0.5 * n[own, None] * np.log(2 * np.pi * delta) - away / (2 * delta)
        logs[np.arange(own.stop - start), np.arange(start, own.stop)] = -np.inf
        weights = np.exp(logs - logs.max(1, keepdims=True))
        found[:, own] = np.stack([weights @ gamma, weights @ delta]) / weights.sum(1)
    return found[0], found[1]
