"""Effects of a cohort's variants through a model of sequences, as rows of `predictions`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError
from genodl_spark.features.variant_windows import VariantWindows
from genodl_spark.job.run import Run, code_of
from genodl_spark.lake.parts import Part
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.learning import predictor as kernel
from genodl_spark.learning.effects import Effects, effects
from genodl_spark.learning.heads import UNLABELLED, Head, answers
from genodl_spark.learning.predictor import Predictor
from genodl_spark.registry.models import Chosen
from genodl_spark.registry.predictions import Scoring, plain

if TYPE_CHECKING:
    from pyspark.sql import Row

_AT_ONCE = 2048  # variants that are scored together: most have two windows of their own, each with two strands


@dataclass(frozen=True)
class EffectScoring(Scoring):
    """The same for effects. `strands`: how windows are read; `reference`: the cohort whose reference they are of;
    `of_task`: the model's own task, which stands before the label."""

    strands: str = "both"
    reference: str = ""
    of_task: str = ""

    def same(self, predictor: Predictor, count: int) -> dict[str, pa.Array]:
        computed_on = json.loads(predictor.computed_on) | {"strands": self.strands, "reference": self.reference}
        every = {**self.constants, "computed_on": json.dumps(computed_on, sort_keys=True), "in_training": False}
        return {name: pa.repeat(value, count) for name, value in every.items()}

    def scored(
        self, predictor: Predictor, batches: Iterable[pa.RecordBatch]
    ) -> Iterator[tuple[int, list[pa.RecordBatch]]]:
        for batch in kernel.whole(batches, _AT_ONCE):
            yield 0, self.of_variants(predictor, batch)

    def of_variants(self, predictor: Predictor, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Rows of `predictions` of a batch of entity_id, x and note, for each head."""
        same = self.same(predictor, batch.num_rows)
        sound = batch.filter(batch.column("x").is_valid())
        length = predictor.width
        x = (
            packing.rows(sound.column("x"), "int8", 2 * length)
            if sound.num_rows
            else np.zeros((0, 2 * length), np.int8)
        )
        found = effects(predictor, x[:, :length], x[:, length:], self.strands)
        noted = batch.filter(batch.column("x").is_null())
        heads = predictor.card.predicted
        rows = []
        for head, own in zip(heads, answers(heads), strict=True):
            label = {"label_column": pa.repeat(f"{self.of_task}:{head.label}", batch.num_rows)}
            columns = {"entity_id": sound.column("entity_id"), **_columns(head, own, found)}
            rows.append(_batch({**same, **label}, columns, sound.num_rows))
            columns = {"entity_id": noted.column("entity_id"), "note": noted.column("note")}
            columns["abstained"] = pa.repeat(True, noted.num_rows)
            rows.append(_batch({**same, **label}, columns, noted.num_rows))
        return rows


def _batch(same: dict[str, pa.Array], columns: dict[str, pa.Array], count: int) -> pa.RecordBatch:
    schema = PREDICTIONS.arrow_schema()
    every = {**{name: column.slice(0, count) for name, column in same.items()}, **columns}
    return pa.RecordBatch.from_arrays([every.get(f.name, pa.nulls(count, f.type)) for f in schema], schema=schema)


def _columns(head: Head, own: slice, found: Effects) -> dict[str, pa.Array]:
    """What effects on a head are, as columns of `predictions`."""
    effect, raw = found.effect[:, own], found.raw[:, own]
    rows = np.arange(len(effect))
    most = np.abs(effect).argmax(1) if len(head.classes) > 2 else np.full(len(effect), effect.shape[1] - 1)
    parts = {"ref": found.ref[:, own], "alt": found.alt[:, own]}
    parts |= {"effect": effect} if head.classes else {}
    names = [" ".join((part, name)).rstrip() for part in parts for name in head.classes or [""]]
    ends = np.arange(len(effect) + 1, dtype=np.int32) * len(names)
    keys = pa.array(names, pa.string()).take(pa.array(np.tile(np.arange(len(names)), len(effect))))
    values = pa.array(np.concatenate(list(parts.values()), 1).ravel())
    return {
        "value": pa.array(effect[rows, most]),
        "raw_value": pa.array(raw[rows, most]),
        "probabilities": pa.MapArray.from_arrays(ends, keys, values),
        "distance": pa.array(found.distance, mask=np.isnan(found.distance)),
        "out_of_distribution": pa.array(found.unusual),
        "abstained": pa.array(found.unusual),
    }


def shaped_by(run: Run, model: Chosen, cohort: str) -> tuple[str, str]:
    """What shapes effects besides what shapes any prediction: strands, and the cohort of the reference."""
    return model.settings.predict.strands, _windows(model).reference_of(run.sources, cohort)


def _windows(model: Chosen) -> VariantWindows:
    features = model.features
    assert isinstance(features, VariantWindows)
    return features


def scoring_of(run: Run, model: Chosen, cohort: str, scoring: Scoring) -> EffectScoring:
    strands, reference = shaped_by(run, model, cohort)
    for head in model.card.predicted:
        if head.kind in UNLABELLED:
            text = f"found model {model.row.model_id}, which predicts nothing of a sequence"
            raise InputError(f"{text}; expected one of classes or values", "--model")
    code = code_of(__name__, model.settings, own=model.files.code_hashes())
    same = {**vars(scoring), "constants": {**scoring.constants, "code": code}}
    return EffectScoring(**same, strands=strands, reference=reference, of_task=str(model.row.task))


def as_it_was(model: Chosen, row: Row) -> tuple[Chosen, EffectScoring]:
    """The model as it answered for a row that is an effect, and what makes that row again."""
    was = json.loads(row.computed_on)
    again = EffectScoring(
        **vars(plain(model.files, was)), strands=was["strands"], reference=was["reference"], of_task=str(model.row.task)
    )
    return replace(model, through=(row.task, VariantWindows(was["reference"]))), again


def tell_unscored(run: Run, parts: list[Part], some: bool) -> None:
    """Warns of variants that have no effect. InputError where none has, unless `some` alone were to be scored."""
    rows = sum(part.rows for part in parts)
    without = sum(json.loads(part.statistics)["nullCount"]["value"] for part in parts)
    run.report.metrics["without_effect"] = without
    if not without:
        return
    if without == rows and not some:
        fs, path = storage.filesystem(storage.join(run.lake.path(PREDICTIONS), unquote(parts[0].path)))
        first = pq.read_table(path, columns=["entity_id", "note"], filesystem=fs).slice(0, 1).to_pylist()[0]
        found = f"found no variant of {rows:,} that can be scored: {first['entity_id']}: {first['note']}"
        raise InputError(f"{found}; is it the same build?", "reference")
    run.report.warn(f"{without:,} of {rows:,} effects could not be scored: column note of predictions says why")


def is_effect(row: Row) -> bool:
    """Whether a row of `predictions` is an effect through a model of sequences."""
    return row.computed_on is not None and "strands" in json.loads(row.computed_on)
