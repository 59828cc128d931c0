"""The SQL function genodl_score_variants: what a registered model of sequences says of variants that a statement hands
it, as `genodl predict variant_effect --model ID` has it in `predictions`.

    genodl_score_variants('MODEL', chrom, pos, ref, alt)              an ALT of a VCF record, or a row of
                                                                      `variant_effects`
    genodl_score_variants('MODEL', chrom, pos, ref, alt, reference)   by the reference of the cohort `reference`

'MODEL' is a text as it stands, as for genodl_predict: a task, TASK:LABEL or the ID of a model. Without the last
argument the reference is that of the setting `reference`, or the only one in the lake. The answer is a struct of value,
probabilities, distance, out_of_distribution and note, as in `predictions`; and of neighbour, neighbour_label and
similarity: the training sequence most like the reference's window, its label, and which share of the 12-mers of either
both have (an estimate by sketches, genodl_spark/genome/similarity.py), NULL where they share none that it knows of.
All of them are NULL where an argument is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.features.variant_windows import in_order
from genodl_spark.genetics.sql_functions import frame
from genodl_spark.genetics.stored_reference import StoredReference
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.genomes import REFERENCE_BASES
from genodl_spark.lake.tables.learning import MODELS, PREDICTIONS
from genodl_spark.learning import predictor as kernel
from genodl_spark.learning.model_files import ModelFiles
from genodl_spark.registry.effects import EffectScoring
from genodl_spark.registry.models import model_of
from genodl_spark.registry.neighbours import Training, neighbours, training_of
from genodl_spark.registry.predict_sql import head_of, named
from genodl_spark.registry.predictions import plain

if TYPE_CHECKING:
    from genodl_spark.job.run import Run

NAME = "genodl_score_variants"
_ANSWER = ("value", "probabilities", "distance", "out_of_distribution", "note")
_TYPE = (
    "struct<"
    + ", ".join(f"{c.name}: {c.type}" for name in _ANSWER for c in PREDICTIONS.columns if c.name == name)
    + ", neighbour: string, neighbour_label: string, similarity: double>"
)
_NEAREST = {"neighbour": pa.string(), "neighbour_label": pa.string(), "similarity": pa.float64()}


@dataclass(frozen=True)
class _Model:
    """A model as tasks find it, which of its heads is meant, and what it learnt from."""

    files: ModelFiles
    head: int
    task: str
    training: Training


@dataclass(frozen=True)
class _Given:
    """What the calls of a statement may name: models, and references by their cohort; `reference`: that of a call
    that names none, empty where there are several."""

    models: dict[str, _Model]
    references: dict[str, StoredReference]
    reference: str
    options: dict[str, Any]
    strands: str


def register(run: Run, names: Collection[str | None]) -> None:
    """Makes the function known to the session, for the models that a statement's calls name: None for one that names
    no text. InputError for one that there is not, or that reads no sequences, and where the lake has no reference."""
    if not names:
        return
    from pyspark.sql.pandas import functions

    pandas_udf: Any = functions.pandas_udf
    if None in names:
        text = f"found {NAME} without the name of a model; expected {NAME}('MODEL', chrom, pos, ref, alt)"
        raise InputError(f"{text}, its name as a text", "SQL")
    lake = Snapshot(run.lake)
    references = {cohort: StoredReference.of(lake, cohort) for cohort in lake.cohorts(REFERENCE_BASES)}
    if not references or run.settings.reference:
        StoredReference.chosen(lake, run.settings.reference, "")
    only = next(iter(references)) if len(references) == 1 else ""
    s = run.settings.predict
    options = {"precision": s.precision, "passes": s.passes}
    models = {name: _model(run, name) for name in names if name is not None}
    given = _Given(models, references, run.settings.reference or only, options, s.strands)

    def answer(model: pd.Series, *variant: pd.Series) -> pd.DataFrame:
        return _answers(given, model, *variant)

    run.spark.udf.register(NAME, pandas_udf(answer, _TYPE))


def _model(run: Run, name: str) -> _Model:
    model = model_of(run, MODELS.row(named(run.lake.rows(MODELS, {}), name)))
    if not model.encoding.letters:
        text = f"found {name!r}, a model of task {model.row.task}, which reads no sequences; expected one that does"
        raise InputError(f"{text}, see genodl list models", "SQL")
    return _Model(model.files, head_of(model.card, name), str(model.row.task), training_of(run, model))


def _answers(given: _Given, model: pd.Series, *arguments: pd.Series) -> pd.DataFrame:
    """One struct for each row of a batch."""
    if len(arguments) not in (4, 5):
        found = f"found {1 + len(arguments)} arguments of {NAME}"
        raise InputError(f"{found}; expected a model, chrom, pos, ref, alt, and perhaps a reference", "SQL")
    whole = pd.DataFrame(dict(enumerate((model, *arguments))))
    whole = whole.set_axis(["model", "contig", "pos", "ref", "alt", "reference"][: whole.shape[1]], axis=1)
    if "reference" not in whole:
        whole["reference"] = given.reference
    known = np.flatnonzero(whole.notna().all(axis=1).to_numpy())
    rows = whole.iloc[known].assign(entity_id=known.astype(str))
    types = {name: PREDICTIONS.arrow_schema().field(name).type for name in _ANSWER} | _NEAREST
    missing = np.setdiff1d(np.arange(len(whole)), known)
    parts, places = [pa.table({name: pa.nulls(len(missing), type_) for name, type_ in types.items()})], [missing]
    for (name, reference), some in rows.groupby(["model", "reference"], sort=False):
        for answers in _of_model(given, name, reference, some):
            parts.append(answers.select(list(types)))
            places.append(answers.column("entity_id").cast(pa.int64()).to_numpy())
    found = pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places))))
    return frame({name: found.column(name).combine_chunks() for name in types})


def _of_model(given: _Given, name: str, reference: str, rows: pd.DataFrame) -> Iterator[pa.Table]:
    """entity_id and the answers for rows of one model and reference, some at a time."""
    if name not in given.models:
        raise InputError(f"found model {name!r}; expected a text as it stands in the statement", "SQL")
    if reference not in given.references:
        among = ", ".join(sorted(given.references)[:5])
        found = f"found {reference or 'no'} reference for {NAME}" if not reference else f"found reference {reference!r}"
        raise InputError(f"{found}; expected one of {among}: as the last argument, or --set reference=NAME", "SQL")
    model = given.models[name]
    predictor = kernel.cached(model.files, given.options["precision"], given.options["passes"])
    scoring = EffectScoring(
        **vars(plain(model.files, given.options)), strands=given.strands, reference=reference, of_task=model.task
    )
    try:
        table = pa.table({c: pa.array(rows[c], pa.int64() if c == "pos" else pa.string()) for c in rows.columns})
    except pa.ArrowException as error:
        text = str(error).splitlines()[0]
        raise InputError(f"{text}; expected chrom, ref and alt as texts and pos as a whole number", "SQL") from error
    cut = list(in_order(table, given.references[reference], predictor.width))
    for batch in kernel.whole(cut, sum(one.num_rows for one in cut)):
        scored, noted = scoring.of_variants(predictor, batch)[2 * model.head : 2 * model.head + 2]
        yield _beside(scored, _nearest(model, batch, predictor.width))
        yield _beside(noted, {name: pa.nulls(noted.num_rows, type_) for name, type_ in _NEAREST.items()})


def _nearest(model: _Model, batch: pa.RecordBatch, length: int) -> dict[str, pa.Array]:
    """Of the variants of a batch that have windows, the columns of _NEAREST."""
    x = batch.column("x").drop_null()
    codes = packing.rows(x, "int8", 2 * length)[:, :length] if len(x) else np.zeros((0, length), np.int8)
    return neighbours(model.training).of(codes, model.head)


def _beside(rows: pa.RecordBatch, columns: dict[str, pa.Array]) -> pa.Table:
    found = pa.Table.from_batches([rows]).select(["entity_id", *_ANSWER])
    for name, column in columns.items():
        found = found.append_column(name, column)
    return found
