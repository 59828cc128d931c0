"""What a page of data says: sentences, tables, bars, and clouds of points. Kinds of source make these of a cohort, and
know no HTML; `data_page.py` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Histogram:
    """`counts` float64 (b,) between `edges` float64 (b + 1,), which are those of asinh(value) where `asinh`."""

    edges: np.ndarray
    counts: np.ndarray
    asinh: bool = False


@dataclass(frozen=True)
class Bars:
    """A picture of values, and its words. `alt` says what is to be seen; `log`: heights on a log scale;
    `percent`: the values are shares."""

    title: str
    caption: str
    alt: str
    histogram: Histogram
    across: str
    up: str
    log: bool = False
    percent: bool = False


@dataclass(frozen=True)
class Listing:
    """A table: cells are text, whole numbers, floats or None. `labels`: whether the first column heads its row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclass(frozen=True)
class Cloud:
    """Entities as points of principal components, to be coloured by what is known of them.

    `points` float64 (n, k), NaN never; `shares` float64 (k,) of the variance. `about`: what was done, and to how much.
    `kind` of entity, as tables declare it; `ids` (n,). `neighbours` float64 (n, 2): a layout in which neighbours lie
    together (umap.py), None where there are few points.
    """

    title: str
    about: str
    kind: str
    ids: list[str]
    points: np.ndarray
    shares: np.ndarray
    neighbours: np.ndarray | None = None


@dataclass(frozen=True)
class Facts:
    """A section. `said`: sentences, of which one at least is there where nothing else is."""

    title: str
    said: list[str] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    clouds: list[Cloud] = field(default_factory=list)
