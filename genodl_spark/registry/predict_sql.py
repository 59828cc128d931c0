"""The SQL function genodl_predict: a registered model's answer to the features that a statement hands it.

    genodl_predict('TASK', codes)            sequences: the column `codes` of `sequences`
    genodl_predict('TASK', 'ACGT...')        or their text
    genodl_predict('TASK', x, feature_set)   a row of `expression` or `methylation`, whose order `feature_set` names;
                                             to a model of several blocks, the features of the others are missing
    genodl_predict('TASK', map(...))         feature -> value; those that are not there are missing, of counts 0
    genodl_predict('TASK', x)                a row of another shape, packed as the column x of `examples` has it

'TASK' is a text as it stands: a task, for its newest model where all of its models are of one label;
'TASK:LABEL', for the newest one of that label, or of several of which it is one; or the ID of a model.
A model of several labels answers for the one that is named. The answer is a struct of predicted, probabilities, value,
uncertainty, out_of_distribution and abstained, as in `predictions`; all of them NULL where the features are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.features.matrices import Places, arranged, places_of
from genodl_spark.formats import sequence_table
from genodl_spark.genetics.sql_functions import frame
from genodl_spark.genome import bases
from genodl_spark.lake.tables.ingested import FEATURES
from genodl_spark.lake.tables.learning import MODELS, PREDICTIONS
from genodl_spark.learning import predictor as kernel
from genodl_spark.learning.model_files import Card, ModelFiles
from genodl_spark.registry.models import model_of, newest, of_label
from genodl_spark.registry.predictions import Local, Scoring

if TYPE_CHECKING:
    from genodl_spark.job.run import Run
    from genodl_spark.learning.predictor import Predictor

NAME = "genodl_predict"
_ANSWER = ("predicted", "probabilities", "value", "uncertainty", "out_of_distribution", "abstained")
_TYPE = (
    "struct<"
    + ", ".join(f"{c.name}: {c.type}" for name in _ANSWER for c in PREDICTIONS.columns if c.name == name)
    + ">"
)


@dataclass(frozen=True)
class _Model:
    """A model as tasks find it; `places`: for each stored order of features, which values are
    wanted and where they go."""

    files: ModelFiles
    places: dict[str, Places | None]
    head: int = 0


def register(run: Run, names: Collection[str | None]) -> None:
    """Makes the function known to the session, for the models that a statement's calls name:
    None for one that names no text.

    InputError for one that there is not.
    """
    if not names:
        return
    from pyspark.sql.pandas import functions

    pandas_udf: Any = functions.pandas_udf
    if None in names:
        raise InputError(
            f"found {NAME} without the name of a task; expected {NAME}('TASK', ...), its name as a text", "SQL"
        )
    models = {name: _model(run, name) for name in names if name is not None}
    s = run.settings.predict
    scoring = Scoring(
        ModelFiles(""), s.precision, s.passes, s.least_probability, {}, Local(pa.array([], pa.string())), None, "", ""
    )

    def answer(task: pd.Series, features: pd.Series, *order: pd.Series) -> pd.DataFrame:
        return _answers(models, scoring, task, features, *order)

    run.spark.udf.register(NAME, pandas_udf(answer, _TYPE))


def _model(run: Run, name: str) -> _Model:
    model = model_of(run, MODELS.row(named(run.lake.rows(MODELS, {}), name)))
    card = model.card
    places = _places(run, card.features) if model.encoding.by_name and card.dtype == "float32" else {}
    return _Model(model.files, places, head_of(card, name))


def head_of(card: Card, name: str) -> int:
    """Which head of a model a statement means. InputError where it has several and none is named."""
    labels = [head.label for head in card.predicted]
    asked = name.removeprefix(f"{card.task}:")
    if len(labels) > 1 and asked not in labels:
        choices = ", ".join(repr(f"{card.task}:{label}") for label in labels)
        raise InputError(f"found {name!r}, a model of {len(labels)} labels; expected one of {choices}", "SQL")
    return labels.index(asked) if len(labels) > 1 else 0


def named(models: pa.Table, name: str) -> dict[str, Any]:
    """The row of `models` that a name means. InputError where there is none, or where it means models
    of several tasks or labels."""
    task, label = models.column("task"), models.column("label_column")
    both = pc.binary_join_element_wise(task, label, ":")
    rows = models.filter(
        pc.or_(pc.or_(pc.equal(models.column("model_id"), name), pc.equal(task, name)), pc.equal(both, name))
    )
    if not rows.num_rows and ":" in name:
        of, _, one = name.partition(":")
        rows = of_label(models.filter(pc.equal(task, of)), one)
    meant = sorted(set(zip(rows.column("task").to_pylist(), rows.column("label_column").to_pylist(), strict=True)))
    if len(meant) > 1:
        choices = ", ".join(repr(":".join(pair)) for pair in meant)
        raise InputError(
            f"found models {name!r} of {len(meant)} labels; expected one of {choices}, or a model's ID", "SQL"
        )
    if not meant:
        raise InputError(
            f"found no model {name!r}; expected a task that has one, TASK:LABEL, or a model's ID, "
            "see genodl list models",
            "SQL",
        )
    return newest(rows)


def _places(run: Run, features: list[str]) -> dict[str, Places | None]:
    """Of each stored order, where it has the features; None where several blocks have it,
    each with other features of the model."""
    from pyspark.sql import functions as F

    order = F.sort_array(F.collect_set(F.struct("position", "feature_id")))
    rows = run.lake.read(FEATURES).groupBy("block", "feature_set").agg(order.alias("f")).collect()
    names = [[str(f.feature_id) for f in row.f] for row in rows]
    plain = places_of(names, features)
    of_block = places_of(
        ([f"{row.block}:{name}" for name in own] for row, own in zip(rows, names, strict=True)), features
    )
    places: dict[str, Places | None] = {}
    for row, one, other in zip(rows, plain, of_block, strict=True):
        found = max(one, other, key=lambda p: len(p[0]))
        before = places.setdefault(row.feature_set, found)
        if before is None or (len(before[0]) and len(found[0]) and not np.array_equal(before[1], found[1])):
            places[row.feature_set] = None
        elif len(found[0]):
            places[row.feature_set] = found
    return places


def _answers(
    models: dict[str, _Model], scoring: Scoring, task: pd.Series, features: pd.Series, *order: pd.Series
) -> pd.DataFrame:
    """One struct for each row of a batch."""
    types = {name: PREDICTIONS.arrow_schema().field(name).type for name in _ANSWER}
    parts: list[pa.Table] = []
    places: list[np.ndarray] = []
    given = features.notna().to_numpy()
    for name in task[given].unique():
        rows = np.flatnonzero(given & (task == name).to_numpy())
        model = models.get(name)
        if model is None:
            raise InputError(f"found model {name!r}; expected a text as it stands in the statement", "SQL")
        predictor = kernel.cached(model.files, scoring.precision, scoring.passes)
        x, lengths = _packed(predictor, model, features.iloc[rows], *(o.iloc[rows] for o in order))
        batch = kernel.Batch(pa.array([""] * len(rows)), predictor.scores(x, lengths), np.zeros(len(rows), np.int32))
        parts.append(pa.Table.from_batches([scoring.rows(predictor, batch, {})[model.head]]).select(list(_ANSWER)))
        places.append(rows)
    missing = np.flatnonzero(~given)
    parts.append(pa.table({name: pa.nulls(len(missing), type_) for name, type_ in types.items()}))
    whole = pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate([*places, missing]))))
    return frame({name: whole.column(name).combine_chunks() for name in _ANSWER})


def _packed(
    predictor: Predictor, model: _Model, features: pd.Series, *order: pd.Series
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of packed features (rows, features) of the model's type, of what a statement gave;
    and the lengths of sequences, int (rows,)."""
    card, encoding, first = predictor.card, predictor.encoding, features.iloc[0]
    width = len(card.features)
    if isinstance(first, str):
        if not encoding.letters:
            raise InputError(
                f"found a text for model {card.model_id}, which takes {card.dtype} features; "
                "expected a map or a packed row",
                "SQL",
            )
        packed, bad = sequence_table.encoded(pa.array(features, pa.string()))
        if bad:
            raise InputError(f"{next(iter(bad.values()))}", "SQL")
        codes, ends = packing.binary(packed)
        return bases.centred(codes.view(np.int8), ends, width), np.diff(ends)
    if isinstance(first, bytes):
        data, ends = packing.binary(pa.array(features, pa.binary()))
        if encoding.letters:
            return bases.centred(data.view(np.int8), ends, width), np.diff(ends)
        if not encoding.by_name or packing.is_sparse(card.dtype):
            try:
                return packing.rows(pa.array(features, pa.binary()), card.dtype, predictor.width), None
            except ValueError as error:
                raise InputError(
                    f"{error}, as model {card.model_id} takes them; expected rows that are packed so", "SQL"
                ) from error
        x = np.full((len(features), width), packing.absent(card.dtype), card.dtype)
        sets = order[0].astype(object).where(order[0].notna(), "").to_numpy() if order else np.full(len(features), "")
        for name in set(sets):
            rows = np.flatnonzero(sets == name)
            x[rows] = _arranged(card, model, pa.array(features.iloc[rows], pa.binary()), name)
        return x, None
    if not encoding.by_name:
        raise InputError(
            f"found a map for model {card.model_id}, whose rows are no values by name; expected a packed row", "SQL"
        )
    position = {name: i for i, name in enumerate(card.features)}
    x = np.full((len(features), width), packing.absent(card.dtype), packing.values_of(card.dtype))
    for row, pairs in enumerate(features):
        for name, value in pairs.items() if isinstance(pairs, dict) else pairs:
            if name in position and value is not None:
                x[row, position[name]] = value
    return x, None


def _arranged(card: Card, model: _Model, rows: pa.Array, feature_set: str) -> np.ndarray:
    """Packed rows of one order (rows, features) in the model's."""
    width = len(card.features)
    data, ends = packing.binary(rows)
    found = np.unique(np.diff(ends)) / np.dtype(card.dtype).itemsize
    if not feature_set:
        if found.tolist() != [width]:
            raise InputError(
                f"found {found.max():g} packed features; expected {width}, or the column "
                "feature_set as a third argument",
                "SQL",
            )
        return data[ends[0] : ends[-1]].view(card.dtype).reshape(-1, width)
    places = model.places.get(feature_set, (np.empty(0, np.int64),) * 2)
    if places is None:
        raise InputError(
            f"found an order of features that several blocks of model {card.model_id} share; "
            "expected a map of block:feature",
            "SQL",
        )
    if not len(places[0]):
        raise InputError(
            f"found none of the features of model {card.model_id} in {feature_set[:40]!r}; "
            "expected a feature_set that has some",
            "SQL",
        )
    if len(found) != 1 or places[0].max() >= found[0]:
        raise InputError(
            f"found {found.max():g} packed features in {feature_set[:40]!r}; expected those of the column x beside it",
            "SQL",
        )
    return arranged(rows, places, width)
