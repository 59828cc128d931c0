"""Measured values before and after what a model does to them: as they were ingested, after its steps, and on the scale
on which its network takes them. Of a sample of the rows of its data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.lake.schema import PERSON
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.summaries import Reading
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES
from genodl_spark.learning.predictor import treatment_of
from genodl_spark.learning.preprocessing import COVARIATE
from genodl_spark.report.clouds import DRAWN, VARIED, cloud_of
from genodl_spark.report.facts import Cloud, Facts
from genodl_spark.report.measures import Drawn, Moments, Picked, Spread, bars_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from genodl_spark.registry.models import Chosen

_VALUES = 1 << 24  # of the rows drawn


def before_and_after(lake: Snapshot, model: Chosen) -> Facts | None:
    """None for a model whose data set is gone, or that takes no measured values."""
    row = model.row
    found = lake.rows(DATASETS, {"dataset": row.dataset}).to_pylist()
    if not found or found[0]["dtype"] != "float32":
        return None
    names = list(found[0]["features"])
    count = int(np.clip(_VALUES // max(len(names), 1), 50, DRAWN))
    drawn = Reading(EXAMPLES, {"dataset": row.dataset}, ["entity_id"]).summarise(lake, Drawn(count))
    columns = np.arange(len(names))
    reading = Reading(EXAMPLES, {"dataset": row.dataset}, ["entity_id", "x"], at_once=256)
    x = reading.summarise(lake, Picked(drawn.sorted, columns, len(names))).x
    if not len(x):
        return None
    chain, tensors = treatment_of(model.files)
    treat = None if chain is None else partial(chain.apply, tensors=tensors)
    scale = (found[0]["transform"], model.encoding.floats)
    steps = [] if chain is None else chain.entries
    title = f"Before and after: {row.task}, {row.label_column}, model version {row.model_version}"
    return facts(title, drawn.sorted, x, names, steps, treat, scale, found[0]["rows"])


def facts(
    title: str,
    ids: list[str],
    x: np.ndarray,
    names: Sequence[str],
    steps: Sequence[str],
    treat: Callable[[np.ndarray], np.ndarray] | None,
    scale: tuple[str, Callable[[np.ndarray], np.ndarray]],
    rows: int,
) -> Facts:
    """`x` float32 (n, F), NaN missing, of entities `ids` drawn from `rows`, F features `names`. `treat`: what `steps`
    do, 0 in columns that one leaves out; `scale`: name of what comes after, and what it does."""
    measured = np.array([not name.startswith(COVARIATE) for name in names], bool)
    some = f"{len(x):,} of {rows:,} rows, drawn by chance" if len(x) < rows else f"All {rows:,} rows"
    stages = [("Before", x[:, measured])]
    said = [f"{some}; covariates are not counted. Every feature is then standardised on training rows."]
    clouds = []
    if treat is not None:
        x = treat(x)
        kept = measured & ~(x == 0).all(0)
        stages.append((f"After {', '.join(steps)}", x[:, kept]))
        left = int(measured.sum() - kept.sum())
        said.append(f"Steps: {', '.join(steps)}. {left:,} features are left out, or 0 in every row.")
        if kept.any():
            clouds.append(_cloud("Components after the steps", ids, x[:, kept], some))
    name, floats = scale
    if name != "none":
        stages.append((f"After {name}", floats(x[:, measured])))
    if len(stages) == 1:
        return Facts(title, [*said, "Nothing else is done to the values."])
    bars = []
    for label, values in stages:
        spread = Spread()
        spread.add(values)
        if spread.n:
            bars.append(bars_of(label, spread, "Value", "Values"))
    return Facts(title, said, bars, [], clouds)


def _cloud(title: str, ids: list[str], x: np.ndarray, some: str) -> Cloud:
    moments = Moments(x.shape[1])
    moments.add(x)
    columns = moments.most_varied(VARIED, len(x))
    about = f"{some}; the {len(columns):,} features of {x.shape[1]:,} that vary most then, centred."
    return cloud_of(about, PERSON, ids, x[:, columns], title)
