"""Scores of a registered model for the entities of a cohort, kept up to date in `predictions`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from genodl_spark.core.errors import InputError
from genodl_spark.job.run import Run
from genodl_spark.lake.parts import Part
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.registry import clocks, effects
from genodl_spark.registry.incremental import Incremental, Marks, attempted, digest
from genodl_spark.registry.models import Chosen, scoring_model
from genodl_spark.registry.predictions import score, scoring_of


def predict(run: Run, cohort: str | None, label: str | None, model_id: str | None, force: bool = False) -> None:
    """Scores the entities of the cohort, labelled or not, that the model has not scored as they are now;
    all of them with `force`."""
    model = scoring_model(run, label, model_id)
    name = run.cohort(cohort, model.features.cohorts(run.sources), f"data for {run.settings.task}")
    clocks.check_scale(run, model.settings, name)
    attempted(PREDICTIONS, model, lambda: _bring_up_to_date(run, model, name, force))
    run.report.metrics.update({"model_id": model.row.model_id, "model_version": model.row.model_version})


def _bring_up_to_date(run: Run, model: Chosen, cohort: str, force: bool) -> None:
    s = model.settings.predict
    where = {"task": model.task, "cohort": cohort, "model_id": model.row.model_id}
    shapes: tuple[Any, ...] = (s.precision, s.passes, s.least_probability)
    if model.through is not None:
        shapes += effects.shaped_by(run, model, cohort)
    marks = Marks.of(PREDICTIONS, "scored", where, model)
    rows = Incremental(run, model, cohort, marks, where, digest(*shapes))
    within = bool(s.first or s.last)
    if rows.current and not force and not within:
        rows.unchanged()
        return
    wanted, files = None, None
    if within:
        entities = [
            e for e in model.features.entities(run.sources, cohort) if s.first <= e and (not s.last or e <= s.last)
        ]
        if not entities:
            raise InputError(
                f"found no entity of cohort {cohort} from {s.first!r} to {s.last!r}; expected some", "predict.first"
            )
        wanted = pa.array(entities, pa.string())
    elif not force and (changed := rows.changed()) is not None:
        wanted, files = changed[0], changed[1].files
        if not len(wanted):
            rows.unchanged()
            return
    model.files.weights()  # a worker that holds them in its memory would not see that the file has changed
    scoring = scoring_of(run, model, cohort, rows.versions, wanted)
    if model.through is not None:
        scoring = effects.scoring_of(run, model, cohort, scoring)

    def make() -> tuple[list[Part], int, int]:
        made = score(run, model, cohort, scoring, files)
        if model.through is not None:
            effects.tell_unscored(run, made[0], wanted is not None)
        return made

    rows.commit(scoring.name, make, wanted, reached=not within)
