"""The scale of measured values on which the training rows' classes are told best.

Intensities, counts and logarithms ask for different scales, and one sample is brighter than the next. Which of the
usual scales suits a cohort is chosen here as a penalty is: by the rows that a training set learns from, in folds of
these, repeated. Judged are linear discriminants, which is where networks of small cohorts start.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field
from scipy.special import ndtri
from scipy.stats import rankdata

from genodl_spark.core.errors import InputError
from genodl_spark.core.toml import Names
from genodl_spark.learning import discriminant, preprocessing
from genodl_spark.learning.preprocessing import About, Rows, Tensors, quantile
from genodl_spark.learning.scaling import CONSTANT

SCALES = ("values", "asinh", "log", "ranks", "quantiles")
FLOORS = (0.05, 0.25, 0.5)  # quantiles of all training values below which logarithms are cut
MOST = 1000  # rows of a training set that judge: a discriminant costs their third power
_EVEN = 1e-6  # losses as near as this, in nats, are equal: of such the scale that is named first


class Step(preprocessing.Step):
    """Values get the scale, of several, on which discriminants of the training rows tell those that are left out best,
    by log loss in repeated folds, classes alike."""

    among: Names = Field(
        list(SCALES),
        description="Scales to choose from: values, as they are; asinh; log, of what is above the lowest 5, 25 or 50% "
        "of the training values; ranks, the normal scores of ranks within a row; quantiles, those of training by such "
        "ranks, as asinh.",
    )
    rows: bool = Field(
        True,
        description="Values, asinh and log are also tried with every row's values brought to mean 0 and standard "
        "deviation 1.",
    )
    folds: int = Field(5, ge=2, le=20, description="Folds, or as many as the rarest class has rows.")
    repeats: int = Field(5, ge=1, le=100, description="How often rows are dealt to folds anew.")

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        if not self.among or set(self.among) - set(SCALES):
            text = f"found {', '.join(self.among) or 'no scale'}; expected some of {', '.join(SCALES)}"
            raise InputError(text, "quality.options.best_scale.among")
        if about.classes is None:
            text = "found best_scale for a label that is not one column of classes; expected another step"
            raise InputError(f"{text}, such as log2", "quality.steps")
        judged = np.flatnonzero(about.classes >= 0)
        judged = np.sort(np.random.default_rng(len(judged)).permutation(judged)[:MOST])
        candidates = list(self._candidates(rows))
        losses = [
            left_out_loss(
                standardised(self.apply(rows, one).x[judged]), about.classes[judged], self.folds, self.repeats
            )
            for one in candidates
        ]
        best = next(number for number, loss in enumerate(losses) if loss <= min(losses) + _EVEN)
        return candidates[best] | {"losses": np.array(losses)}

    def _candidates(self, rows: Rows) -> Iterator[dict[str, np.ndarray]]:
        """Tensors of each scale that is tried: its number in SCALES, whether rows are standardised, the floor of
        logarithms, and the quantiles that ranks get; NaN and none where it has none."""
        known = rows.x[~np.isnan(rows.x)]
        for name in self.among:
            floors = np.unique([v for v in np.quantile(known, FLOORS) if v > 0]) if name == "log" and known.size else ()
            target = np.empty(0)
            if name == "quantiles":
                some = rows.x[~np.isnan(rows.x).all(1)]
                target = quantile.Step().fit(rows.of(np.arcsinh(some)), About())["target"]
            for floor in [np.nan] if name != "log" else floors:
                for alike in (0.0, 1.0) if self.rows and name in ("values", "asinh", "log") else (0.0,):
                    numbers = {"scale": float(SCALES.index(name)), "alike": alike, "floor": float(floor)}
                    yield {key: np.array([value]) for key, value in numbers.items()} | {"target": target}
        if set(self.among) == {"log"} and not len(floors):
            text = "found no value above 0 to take logarithms above; expected another scale"
            raise InputError(text, "quality.options.best_scale.among")

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        name, x = SCALES[int(tensors["scale"][0])], rows.x
        if name == "asinh":
            x = np.arcsinh(x)
        elif name == "log":
            x = np.log2(np.maximum(x, tensors["floor"][0]))
        elif name == "ranks":
            known = ~np.isnan(x)
            place = rankdata(np.where(known, x, np.inf), axis=1) - 0.5
            share = place / np.maximum(known.sum(1, keepdims=True), 1)
            x = np.where(known, ndtri(np.where(known, share, 0.5)), np.nan)
        elif name == "quantiles":
            x = quantile.Step().apply(rows.of(np.arcsinh(x)), {"target": tensors["target"]}).x
        if tensors["alike"][0]:
            known = ~np.isnan(x)
            count = np.maximum(known.sum(1, keepdims=True), 1)
            mean = np.where(known, x, 0).sum(1, keepdims=True) / count
            spread = np.sqrt(np.where(known, (x - mean) ** 2, 0).sum(1, keepdims=True) / count)
            x = (x - mean) / np.where(spread > 0, spread, 1)
        return rows.of(x)

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {"scale": (1,), "alike": (1,), "floor": (1,), "target": (None,), "losses": (None,)}


def standardised(x: np.ndarray) -> np.ndarray:
    """Rows x (n, F), NaN missing, by the features' means and standard deviations; 0 where a value is missing or the
    feature constant."""
    known = ~np.isnan(x)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, x, 0).sum(0) / count
    z = np.where(known, x - mean, 0)
    spread = np.sqrt((z**2).sum(0) / count)
    varies = spread > CONSTANT * np.maximum(np.abs(mean), 1)
    return z * np.where(varies, 1 / np.where(varies, spread, 1), 0)


def left_out_loss(z: np.ndarray, y: np.ndarray, folds: int, repeats: int) -> float:
    """Mean log loss, classes alike, that discriminants of other rows have of each row of z float64 (n, p), of classes y
    (n,). Rows are dealt class by class, `repeats` times, to `folds` folds or as many as the rarest class of two rows
    or more has; those of classes of one row are never left out. 0 where fewer than two classes have two rows.

    Everything is done in the coordinates of the rows in the space that they span, (n, n) whatever p is.
    """
    counts = np.bincount(y)
    several = counts[counts > 1]
    if len(several) < 2:
        return 0.0
    folds, features = int(min(folds, several.min())), int((z != 0).any(0).sum())
    size, vectors = np.linalg.eigh(z @ z.T)
    kept = size > 1e-10 * max(size[-1], 1e-300)
    x = vectors[:, kept] * np.sqrt(size[kept])
    if not kept.any() or not features:
        return float(np.log(len(several)))
    weight, total = 1 / counts[y], 0.0
    for repeat in range(repeats):
        generator, fold = np.random.default_rng(repeat), np.full(len(y), -1)
        for k in np.flatnonzero(counts > 1):
            own = generator.permutation(np.flatnonzero(y == k))
            fold[own] = (np.arange(len(own)) + generator.integers(folds)) % folds
        for number in range(folds):
            held = fold == number
            found = discriminant.fit(x[~held], y[~held], len(counts), features)
            logits = x[held] @ found.axes @ found.weight + found.bias
            logits -= logits.max(1, keepdims=True)
            losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), y[held]]
            total += float(weight[held] @ losses)
    return total / repeats / len(several)
