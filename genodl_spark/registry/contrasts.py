"""How much a model's metrics owe to the negatives that they are measured against: the same positives beside others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import InputError
from genodl_spark.features.protocol import ROW_NAMES, entity_of
from genodl_spark.job.run import Run
from genodl_spark.lake.schema import SEQUENCE
from genodl_spark.learning import predictor
from genodl_spark.learning.heads import answers
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.registry import negatives
from genodl_spark.registry.models import Chosen

_SCHEMES = (negatives.SHUFFLED, negatives.GENOME)


def check(run: Run, model: Chosen, external: bool) -> None:
    """InputError where a model's metrics cannot be had against other negatives."""
    asked = model.settings.evaluate.negatives
    if unknown := [name for name in asked if name not in _SCHEMES]:
        raise InputError(f"found {unknown[0]!r}; expected some of {', '.join(_SCHEMES)}", "evaluate.negatives")
    if not asked:
        return
    text = f"found {asked[0]} for"
    if entity_of(model.features) != SEQUENCE or not model.encoding.letters:
        raise InputError(f"{text} a model of no sequences; expected none", "evaluate.negatives")
    if any(len(head.classes) != 2 for head in model.card.predicted):
        raise InputError(f"{text} other heads than of two classes; expected none", "evaluate.negatives")
    if model.settings.split.folds is not None and not external:
        told = f"{text} rows that are held out by folds, whose networks are not kept"
        raise InputError(f"{told}; expected none, or a split with test rows", "evaluate.negatives")
    for scheme in asked:
        negatives.reference_of(run, scheme)


def against(run: Run, model: Chosen, cohort: str, scheme: str, held: list[HeldOut]) -> list[HeldOut]:
    """Scores of the positives of each head as they are held out, and calibrated ones of a negative for each."""
    positive = [one.of(one.target == 1) for one in held]
    entities = sorted({name for one in positive for name in one.entities.tolist()})
    names = pa.array(entities, pa.string())
    brings = np.zeros((len(entities), len(held)), bool)
    for number, one in enumerate(positive):
        brings[pc.index_in(pa.array(one.entities, pa.string()), names).to_numpy(), number] = True
    under = run.under(model.as_trained.model_copy(update={"reference": run.settings.reference}))
    seen = negatives.windows_of_split(run, model.row)
    made = negatives.of_rows(under, scheme, model.features, cohort, entities, brings, 1, seen)
    for warning in made.warnings:
        run.report.warn(warning)
    features = list(model.card.features)
    base = model.features.rows(run.sources, cohort, features).select(*ROW_NAMES)
    rows = negatives.rows(run, base, model.encoding.width(len(features)), entities, made)
    found = predictor.score(rows, model.files).select("entity_id", "scores").toArrow()
    called = made.entities(entities)
    place = pc.index_in(pa.array(called, pa.string()), found.column("entity_id").combine_chunks()).to_numpy()
    scores = found.column("scores").combine_chunks().flatten().to_numpy().reshape(found.num_rows, -1)[place]
    whole = []
    for number, (one, answer) in enumerate(zip(positive, answers(model.card.predicted), strict=True)):
        mine = np.flatnonzero(brings[made.of, number])
        group = dict(zip(one.entities.tolist(), one.groups.tolist(), strict=True))
        groups = [group[entities[i]] for i in made.of[mine].tolist()]
        whole.append(
            replace(
                one,
                entities=np.concatenate([one.entities, np.array(called, str)[mine]]),
                groups=np.concatenate([one.groups, np.array(groups, str)]),
                target=np.concatenate([one.target, np.zeros(len(mine))]),
                scores=np.concatenate([one.scores, scores[None, mine, answer]], 1),
                ranked=None,  # one temperature for all
            )
        )
    return whole
