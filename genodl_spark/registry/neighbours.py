"""The training sequence of a registered model that is most like a given one, and its label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.genome.similarity import Sketched, sketches
from genodl_spark.lake.files import StoredFile, read_file
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES
from genodl_spark.learning.heads import Head, targets
from genodl_spark.registry.negatives import SHUFFLED

if TYPE_CHECKING:
    from genodl_spark.job.run import Run
    from genodl_spark.registry.models import Chosen

MOST = 500_000  # training sequences that a task holds the sketches of, 400 bytes each
_COLUMNS = ["entity_id", "x", "target", "targets", "folds"]


@dataclass(frozen=True)
class Training:
    """Where the sequences lie that a model learnt from; it goes to tasks as it is. `files`: of `examples`, none where
    they are gone or too many. `fixed`: whether their split is one of training, validation and test rows."""

    files: tuple[StoredFile, ...]
    fixed: bool
    length: int
    heads: tuple[Head, ...]


@dataclass(frozen=True)
class Neighbours:
    """`names` string (rows,) of the sequences, and `labels` of each head, string (rows,), NULL for none."""

    sketched: Sketched
    names: pa.Array
    labels: list[pa.Array]

    def of(self, codes: np.ndarray, head: int) -> dict[str, pa.Array]:
        """Of windows of base codes int8 (n, length), the name of the most similar sequence, its label, and how similar
        it is, 0 to 1, as columns; NULL where none is."""
        row, similarity = self.sketched.nearest(_sketched(codes))
        place = pa.array(row, pa.int64(), mask=row < 0)
        return {
            "neighbour": self.names.take(place),
            "neighbour_label": self.labels[head].take(place),
            "similarity": pa.array(similarity, mask=row < 0),
        }


def training_of(run: Run, model: Chosen) -> Training:
    """The training sequences of a model; a warning where they are too many."""
    dataset, version = model.row.dataset, run.lake.version(EXAMPLES)
    found = run.lake.rows(DATASETS, {"dataset": dataset}).to_pylist()
    files = run.lake.files(EXAMPLES, version) if version is not None and found else []
    mine = [file for file in files if file.partition["dataset"] == dataset]
    if sum(file.statistics.get("numRecords", MOST + 1) for file in mine) > MOST:
        learnt = f"model {model.row.model_id} learnt from more than {MOST:,} sequences"
        run.report.warn(f"{learnt}: which of them is nearest is not looked for")
        mine = []
    fixed = bool(found) and not found[0]["folds"]
    return Training(tuple(mine), fixed, len(model.card.features), tuple(model.card.predicted))


@lru_cache(maxsize=2)
def neighbours(training: Training) -> Neighbours:
    """One index per worker process and model, made once, of the rows that trained or chose it: not of shuffles, which
    are others in every epoch and stand nowhere in a genome."""
    rows = pa.concat_tables([_nothing(), *(read_file(EXAMPLES, file, _COLUMNS) for file in training.files)])
    rows = rows.sort_by("entity_id").combine_chunks()
    if len(rows):
        role = packing.rows(pc.binary_slice(rows.column("folds"), 0, 1), "int8", 1)[:, 0]
        of = pc.replace_substring_regex(rows.column("entity_id"), f"~{SHUFFLED}:[0-9]+$", "")
        shuffled = pc.and_(pc.not_equal(of, rows.column("entity_id")), pc.is_in(of, rows.column("entity_id")))
        seen = (role >= 0) & ~(training.fixed & (role == 2)) & ~shuffled.to_numpy(zero_copy_only=False)
        rows = rows.filter(pa.array(seen)).combine_chunks()
    x = np.zeros((0, training.length), np.int8)
    if len(rows):
        x = packing.rows(rows.column("x"), "int8", training.length)
    names = rows.column("entity_id").combine_chunks() if len(rows) else pa.array([], pa.string())
    return Neighbours(Sketched(_sketched(x)), names, _labels(rows, training.heads))


def _nothing() -> pa.Table:
    return pa.schema([EXAMPLES.arrow_schema().field(name) for name in _COLUMNS]).empty_table()


def _sketched(codes: np.ndarray) -> np.ndarray:
    return sketches(np.ascontiguousarray(codes).reshape(-1), np.arange(len(codes) + 1) * codes.shape[1])


def _labels(rows: pa.Table, heads: tuple[Head, ...]) -> list[pa.Array]:
    numbers = sum(head.numbers for head in heads)
    if numbers == 1:
        target = rows.column("target").to_numpy()[:, None]
    else:
        target = np.frombuffer(b"".join(rows.column("targets").to_pylist()), np.float64).reshape(len(rows), numbers)
    found = []
    for head, own in zip(heads, targets(heads), strict=True):
        first = target[:, own][:, 0] if head.numbers else np.full(len(rows), np.nan)
        none = np.isnan(first)
        if head.classes:
            place = pa.array(np.where(none, 0, first).astype(np.int64), mask=none)
            found.append(pa.array(head.classes, pa.string()).take(place))
        else:
            found.append(pa.array(first, mask=none).cast(pa.string()))
    return found
