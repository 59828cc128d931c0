"""Scores of a registered model for the entities of a cohort, kept up to date in `predictions`."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow as pa

from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.job.run import Run, fingerprint
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.registry import effects
from genodl_spark.registry.models import Chosen, scoring_model
from genodl_spark.registry.predictions import score, scoring_of, tell_missing

log = logging.getLogger("genodl")

_ATTEMPTS = 3
_SETTINGS = "settings"


def predict(run: Run, cohort: str | None, label: str | None, model_id: str | None, force: bool = False) -> None:
    """Scores the entities of the cohort, labelled or not, that the model has not scored as they are now;
    all of them with `force`."""
    model = scoring_model(run, label, model_id)
    name = run.cohort(cohort, model.features.cohorts(run.sources), f"data for {run.settings.task}")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _bring_up_to_date(run, model, name, force)
            break
        except Conflict:
            if attempt == _ATTEMPTS:
                text = (
                    f"found another run that keeps changing the predictions of model {model.row.model_id}; "
                    "expected one at a time, run it again"
                )
                raise Conflict(text) from None
            log.info("another run has committed predictions of this model first: looking again")
    run.report.metrics.update({"model_id": model.row.model_id, "model_version": model.row.model_version})


def _bring_up_to_date(run: Run, model: Chosen, cohort: str, force: bool) -> None:
    s = model.settings.predict
    versions = {table.name: v for table in model.features.tables if (v := run.sources.version(table)) is not None}
    where = {"task": model.task, "cohort": cohort, "model_id": model.row.model_id}
    # How far the model has scored the cohort, table by table, stands with the commit that did it.
    # With it stands what else shaped the rows, as a number: rows of other settings are scored again,
    # in whatever order settings change.
    shapes: tuple[Any, ...] = (s.precision, s.passes, s.least_probability)
    if model.through is not None:
        shapes += effects.shaped_by(run, model, cohort)
    shaped_by = int(fingerprint(*shapes)[:15], 16)
    expected = {**versions, _SETTINGS: shaped_by}
    names = {f"scored {fingerprint(where)} {name}": name for name in expected}
    marks = {names[mark]: number for mark, number in run.lake.marked(PREDICTIONS, names).items()}
    within = bool(s.first or s.last)
    if marks == expected and not force and not within:
        _unchanged(run)
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
    elif marks.keys() == expected.keys() and marks[_SETTINGS] == shaped_by and not force:
        changed = model.features.changed(run.sources, cohort, marks)
        if changed is not None:
            wanted, files = changed.identifiers(), changed.files
            if not len(wanted):
                _unchanged(run)
                return
            log.info("%d entities have come, changed or gone since the last run", len(wanted))
    model.files.weights()  # a worker that holds them in its memory would not see that the file has changed
    scoring = scoring_of(run, model, cohort, versions, wanted)
    if model.through is not None:
        scoring = effects.scoring_of(run, model, cohort, scoring)
    try:
        parts, rows, missing = score(run, model, cohort, scoring, files)
        if model.through is not None:
            effects.tell_unscored(run, parts, wanted is not None)
    except BaseException:
        discard(run.lake, run.run_id, [PREDICTIONS], scoring.name)
        raise
    try:
        scoped = {**where, "entity_id": wanted.to_pylist()} if wanted is not None else where
        reached = {mark: expected[name] for mark, name in names.items()} if not within else {}
        run.lake.commit(PREDICTIONS, parts, scoped, reached, where)
    except Conflict:  # after any other error a version may know of the files
        discard(run.lake, run.run_id, [PREDICTIONS], scoring.name, over=True)
        raise
    tell_missing(run, model, cohort, missing)
    run.wrote(PREDICTIONS, rows)
    run.report.metrics["missing_features"] = missing


def _unchanged(run: Run) -> None:
    run.report.status = "unchanged"
    run.wrote(PREDICTIONS, 0)
