"""Principal components of a sample of rows, its layout by neighbours, and which columns of a sample table go with
them. Pure NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genodl_spark.genetics.qc.components import principal_components
from genodl_spark.report import umap
from genodl_spark.report.facts import Cloud

DRAWN = 1500  # rows of a sample: each is an element of the page
VARIED = 2000  # columns, those that vary most
_AXES = 4
_LEVELS = 20  # values that a column may have to colour points
_SHOWN = 4  # pictures of one cloud


def principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates float64 (n, k) of rows x (n, F), NaN missing, on the components of the centred columns, a missing
    value at its column's mean; and their shares of the variance. k is 4, or as many as there are; 0 where
    nothing varies."""
    n = len(x)
    known = ~np.isnan(x)
    mean = np.where(known, x, 0).sum(0) / np.maximum(known.sum(0), 1)
    z = np.where(known, x - mean, 0).astype(np.float64)
    total = float(np.square(z).sum())
    if n < 3 or not total:
        return np.zeros((n, 0)), np.zeros(0)
    found = principal_components(lambda q: z @ (z.T @ q), n, 1, min(_AXES, n - 1, x.shape[1]))
    values = np.maximum(found.values, 0)
    there = values > 1e-9 * total
    return found.vectors[:, there] * np.sqrt(values[there]), values[there] / total


def cloud_of(about: str, kind: str, ids: list[str], x: np.ndarray, title: str = "Principal components") -> Cloud:
    """Rows x (n, F), NaN missing, as points: see `Cloud`. Where there are enough of them, also by neighbours, a missing
    value at its column's mean."""
    points, shares = principal(x)
    neighbours = None
    if len(x) >= umap.FEWEST and len(shares):
        known = ~np.isnan(x)
        mean = np.where(known, x, 0).sum(0) / np.maximum(known.sum(0), 1)
        neighbours = umap.layout(np.where(known, x, mean), points)
    return Cloud(title, about, kind, ids, points, shares, neighbours)


def explained(points: np.ndarray, values: Sequence[str | None]) -> np.ndarray:
    """Share of the variance of each component, float64 (k,), that the levels of a column explain, over the points that
    have one; adjusted for the number of levels, 0 at least."""
    known = np.array([value is not None for value in values], bool)
    names, level = np.unique([value for value in values if value is not None], return_inverse=True)
    inside = points[known]
    n, groups = len(inside), len(names)
    if groups < 2 or n <= groups:
        return np.zeros(points.shape[1])
    counts = np.bincount(level, minlength=groups)
    means = np.zeros((groups, points.shape[1]))
    np.add.at(means, level, inside)
    means /= counts[:, None]
    within = np.square(inside - means[level]).sum(0) / (n - groups)
    whole = np.square(inside - inside.mean(0)).sum(0) / (n - 1)
    found: np.ndarray = np.clip(1 - within / np.where(whole > 0, whole, 1), 0, 1) * (whole > 0)
    return found


@dataclass(frozen=True)
class Colouring:
    """A column by which a cloud is coloured: its value for each point, and what it explains of each component."""

    column: str
    values: list[str | None]
    explained: np.ndarray


def colourings(cloud: Cloud, columns: Mapping[str, list[str | None]], first: Sequence[str]) -> list[Colouring]:
    """Columns that can colour a cloud, those of `first` that can before all others, then by what they explain of the
    components, weighted by their shares. A column can where half of the points have one of 2 to 20 values, each of
    which two points have on average."""
    found = []
    for name, values in columns.items():
        counts = Counter(value for value in values if value is not None)
        known = sum(counts.values())
        if 2 <= len(counts) <= min(_LEVELS, known // 2) and 2 * known >= len(values):
            found.append(Colouring(name, values, explained(cloud.points, values)))
    ranks = {name: place for place, name in enumerate(first)}
    weights = cloud.shares / max(cloud.shares.sum(), 1e-300)
    return sorted(
        found, key=lambda c: (ranks.get(c.column, len(ranks)), -round(float(c.explained @ weights), 9), c.column)
    )


def shown(found: Sequence[Colouring]) -> list[tuple[Colouring, list[str]]]:
    """Those of which there is a picture, the first, each with the columns that make the same groups and have none."""
    made: dict[tuple[int, ...], tuple[Colouring, list[str]]] = {}
    for one in found:
        numbers: dict[str | None, int] = {None: -1}
        groups = tuple(numbers.setdefault(value, len(numbers)) for value in one.values)
        if groups in made:
            made[groups][1].append(one.column)
        else:
            made[groups] = one, []
    return list(made.values())[:_SHOWN]
