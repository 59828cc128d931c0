"""How similar the rows that a model is measured on are to those that trained it, where rows are sequences: in tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing, session
from genodl_spark.features.protocol import entity_of
from genodl_spark.job.run import Run
from genodl_spark.lake.files import opened
from genodl_spark.lake.schema import SEQUENCE
from genodl_spark.lake.tables.learning import EXAMPLES
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.learning.nearest import bins, nearest
from genodl_spark.learning.splits import TEST, TRAIN
from genodl_spark.registry.models import Chosen

if TYPE_CHECKING:
    from pyspark.sql import Row

_COLUMNS = ["row_id", "x", "folds"]
_ROWS = 1000  # a task, which reads all training rows, is worth so many


@dataclass(frozen=True)
class _Training:
    """The files of a data set, of which those rows are compared that train; negatives that positives brought do not
    count, the last ones from `rows` on. `folds`: 0 for a fixed split."""

    files: list[str]
    width: int
    rows: int
    folds: int

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for uri in self.files:
            with opened(uri, None, lambda footer: range(footer.num_row_groups), columns=_COLUMNS) as file:
                for batch in file.iter_batches(columns=_COLUMNS, use_threads=False):
                    codes = packing.rows(batch.column("x"), "int8", self.width)
                    fold = _first_fold(batch.column("folds"))
                    trains = (batch.column("row_id").to_numpy() < self.rows) & (
                        (fold == TRAIN) if not self.folds else (fold >= 0)
                    )
                    yield codes[trains], fold[trains]


def by_similarity(
    run: Run, model: Chosen, dataset: Row, cohort: str, held: list[HeldOut]
) -> list[tuple[str, list[HeldOut]]]:
    """What a model scored held-out rows of a cohort, of each head, by bins of their similarity to the nearest training
    row (`nearest`), the least similar first; of folds to that in the first repeat. A negative that a positive brought
    is in the bin of that one. Nothing where rows are no sequences, or none of them is there."""
    if entity_of(model.features) != SEQUENCE or not model.encoding.letters or dataset.dtype != "int8":
        return []
    names = {name for one in held for name in one.entities.tolist()}
    found = _similarity(run, model, dataset, cohort, names | {name.rpartition("~")[0] for name in names})
    similar = [
        np.array([found.get(name, found.get(name.rpartition("~")[0], np.nan)) for name in one.entities.tolist()])
        for one in held
    ]
    parts = [dict(bins(one)) for one in similar]
    nothing = [np.zeros(len(one.entities), bool) for one in held]
    return [
        (name, [one.of(part.get(name, no)) for one, part, no in zip(held, parts, nothing, strict=True)])
        for name, _ in bins(np.concatenate(similar))
    ]


def _similarity(run: Run, model: Chosen, dataset: Row, cohort: str, entities: set[str]) -> dict[str, float]:
    from pyspark.sql import functions as F

    names, width = list(model.card.features), model.encoding.width(len(model.card.features))
    version = run.lake.version(EXAMPLES)
    assert version is not None
    files = run.lake.live_files(EXAMPLES, version, {"dataset": dataset.dataset})
    training = _Training(files, width, dataset.rows - (dataset.negatives or 0), dataset.folds)
    if cohort == model.row.cohort:
        examples = run.lake.read(EXAMPLES).where(F.col("dataset") == dataset.dataset)
        asked = examples.where(F.col("row_id") < training.rows).select("entity_id", "x", "folds")
    else:
        fold = F.lit(bytes([TEST]))
        asked = model.features.rows(run.sources, cohort, names).select("entity_id", "x", fold.alias("folds"))
    wanted = run.spark.createDataFrame(pa.table({"entity_id": pa.array(sorted(entities), pa.string())}))
    tasks = max(1, min(session.task_slots(run.spark), -(-len(entities) // _ROWS)))
    rows = asked.join(wanted, "entity_id").repartition(tasks)
    found = rows.mapInArrow(partial(_nearest, training=training), "entity_id string, similarity double").toArrow()
    return dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True))


def _nearest(batches: Iterable[pa.RecordBatch], training: _Training) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over entity_id, x and folds."""
    rows = list(batches)
    if not sum(batch.num_rows for batch in rows):
        return
    whole = pa.Table.from_batches(rows).combine_chunks()
    codes = packing.rows(whole.column("x"), "int8", training.width)
    fold = _first_fold(whole.column("folds").combine_chunks())
    # of a fixed split, whatever part of it a row is of
    found = nearest(codes, fold if training.folds else np.full(len(codes), TEST), training.parts())
    yield pa.RecordBatch.from_arrays(
        [whole.column("entity_id").combine_chunks(), pa.array(found)], ["entity_id", "similarity"]
    )


def _first_fold(column: pa.Array) -> np.ndarray:
    data, ends = packing.binary(column)
    return data.view(np.int8)[ends[:-1]]
