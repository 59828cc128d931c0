"""Biomarkers of a model as a report shows them: rows of `biomarkers`, and values of the first ones in some of the rows
that the model learnt from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.core.own_code import Code
from genodl_spark.lake.summaries import Reading
from genodl_spark.lake.tables.learning import BIOMARKERS, DATASETS, EXAMPLES
from genodl_spark.learning import encodings, feed
from genodl_spark.learning.biomarkers.consensus import NEGATIVE_BINOMIAL, log_counts
from genodl_spark.learning.encodings.values import Values
from genodl_spark.learning.heads import Head, targets
from genodl_spark.learning.predictor import treatment_of
from genodl_spark.learning.preprocessing import Chain
from genodl_spark.learning.training import plan
from genodl_spark.registry.biomarkers import where
from genodl_spark.registry.datasets import layout_of
from genodl_spark.report.content import MarkersShown
from genodl_spark.report.markers import FIRST, first

if TYPE_CHECKING:
    from genodl_spark.job.run import Run
    from genodl_spark.registry.models import Chosen

_ROWS = 120  # of a heat map
_FEWEST = 3  # of a class, where it has as many
_STORED = Values()
Scale = Callable[[np.ndarray], np.ndarray]


class Sampled:
    """Of the rows that a model learnt from, `most` of each of `classes`, those with the least hashes of their names:
    values of `places` on a scale, and how many rows there are. Rows come as `feed.Layout.columns` has them, behind the
    entity's name."""

    def __init__(
        self, layout: feed.Layout, own: slice, folds: int, classes: int, most: int, places: np.ndarray, scale: Scale
    ) -> None:
        self.layout, self.own, self.folds, self.classes, self.most = layout, own, folds, classes, most
        self.places, self.scale = places, scale
        self.rows = 0
        self.hashes, self.codes = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self.x = np.zeros((0, len(places)), np.float32)

    def add(self, rows: pa.RecordBatch) -> None:
        from pandas.util import hash_array

        folds = packing.rows(rows.column("folds"), "int8", self.layout.repeats)
        column = rows.column(feed.target_column(self.layout.targets))
        one = self.layout.targets == 1
        target = column.to_numpy()[:, None] if one else packing.rows(column, "float64", self.layout.targets)
        code = target[:, self.own][:, 0]
        learnt = plan.learns(folds, [plan.TrainingSet(0, plan.REGISTERED)], self.folds)[0] & ~np.isnan(code)
        if not learnt.any():
            return
        self.rows += int(learnt.sum())
        mine = rows.filter(pa.array(learnt))
        x = packing.rows(mine.column("x"), self.layout.dtype, self.layout.values)
        hashes = hash_array(np.asarray(mine.column("entity_id").to_pylist(), object), categorize=False)
        self._keep(hashes, code[learnt].astype(np.int64), self.scale(x)[:, self.places])

    def merge(self, other: Sampled) -> None:
        self.rows += other.rows
        self._keep(other.hashes, other.codes, other.x)

    def _keep(self, hashes: np.ndarray, codes: np.ndarray, x: np.ndarray) -> None:
        hashes, codes = np.concatenate([self.hashes, hashes]), np.concatenate([self.codes, codes])
        x = np.concatenate([self.x, x])
        order = np.lexsort([hashes, codes])
        first_of = np.searchsorted(codes[order], np.arange(self.classes))
        kept = order[np.arange(len(order)) - first_of[codes[order]] < self.most]
        self.hashes, self.codes, self.x = hashes[kept], codes[kept], x[kept]


def shown(run: Run, model: Chosen) -> list[MarkersShown]:
    """One for each label of classes that has biomarkers; without values where the training data are gone."""
    table = run.lake.rows(BIOMARKERS, where(model))
    found = []
    for number, head in enumerate(model.card.predicted):
        mine = [row for row in table.to_pylist() if row["label_column"] == head.label]
        if mine and head.classes:
            found.append(_with_values(run, model, number, _of_rows(model, head, mine)))
    return found


def _scaled(
    x: np.ndarray, counts: bool, chain: Chain | None, tensors: Mapping[str, np.ndarray], transform: str, code: Code
) -> np.ndarray:
    """Packed rows on the scale of their tests, float (n, F), NaN missing; counts as logarithms of their shares."""
    if counts:
        return log_counts(_STORED.floats(x))
    treated = x if chain is None else chain.apply(_STORED.floats(x), tensors)
    return encodings.encoding(transform, code).floats(treated)


def _of_rows(model: Chosen, head: Head, rows: list[dict[str, Any]]) -> MarkersShown:
    place = {name: i for i, name in enumerate(model.card.features)}
    rows = sorted((row for row in rows if row["feature"] in place), key=lambda row: place[row["feature"]])

    def numbers(name: str) -> np.ndarray:
        return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)

    p, q = numbers("p_value"), numbers("q_value")
    default = model.settings.biomarkers
    asked = dict(rows[0]["asked"] or [])
    rate = asked.get("rate", default.rate)
    ranks = [dict(row["attribution_ranks"]) for row in rows]
    code = {name: i for i, name in enumerate(head.classes)}
    return MarkersShown(
        label=head.label,
        classes=head.classes,
        test=rows[0]["test"],
        rate=rate,
        agreement=asked.get("agreement", default.agreement),
        threshold=asked.get("threshold", default.threshold),
        sets=rows[0]["training_sets"],
        stability=dict(rows[0]["stability"]),
        features=[row["feature"] for row in rows],
        effect=numbers("effect"),
        of=np.array([code.get(row["class"], 0) for row in rows]),
        p_value=p,
        q_value=q,
        share=numbers("significant_share"),
        frequency=numbers("frequency"),
        selected=np.array([row["selected"] for row in rows]),
        rank=np.array([row["consensus_rank"] for row in rows]),
        planted=dict(rows[0]["planted"] or []),
        by={name: np.array([of[name] for of in ranks]) for name in sorted(ranks[0])},
        limit=float(p[q <= rate].max()) if (q <= rate).any() else np.nan,
    )


def _with_values(run: Run, model: Chosen, number: int, made: MarkersShown) -> MarkersShown:
    datasets = run.lake.rows(DATASETS, {"dataset": model.row.dataset}).to_pylist()
    which = first(made, FIRST)
    if not datasets or not len(which):
        return made
    dataset = DATASETS.row(datasets[0])
    layout = layout_of(dataset, run.settings.code_files)
    place = {name: i for i, name in enumerate(dataset.features)}
    places = np.array([place[made.features[i]] for i in which])
    heads = model.card.predicted
    most = max(_FEWEST, _ROWS // len(made.classes))
    chain, tensors = treatment_of(model.files)
    scale = partial(
        _scaled,
        counts=made.test == NEGATIVE_BINOMIAL,
        chain=chain,
        tensors=tensors,
        transform=dataset.transform,
        code=model.files.code(),
    )
    empty = Sampled(layout, targets(heads)[number], dataset.folds, len(made.classes), most, places, scale)
    columns = ["entity_id", *(name for name in layout.columns if name != "row_id")]
    sampled = Reading(EXAMPLES, {"dataset": dataset.dataset}, columns, at_once=256).summarise(run.sources, empty)
    return replace(made, shown=which, values=sampled.x.T, codes=sampled.codes, rows=sampled.rows)
